"""The page of a run that goes on, served on this machine alone, from the files alone.

It takes no lock, writes nothing, and reads again only when a file has changed and somebody looks.
"""

from __future__ import annotations

from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

from maskrl import files
from maskrl.errors import MaskRLError, TrainingError
from maskrl.report.page import render

HOST = "127.0.0.1"
_WATCHED = (
    "recipe.toml",
    "run.json",
    "metrics.jsonl",
    "samples/*.png",
    "groups/*.json",
    "eval/*/*/summary.json",
)


class Page:
    """A run's page, made again when what it shows has changed."""

    def __init__(self, run: Path, against: str | None) -> None:
        self._run, self._against = run, against
        self._state, self._html = "", ""

    def now(self) -> tuple[str, str]:
        """Return the page, and what tells it from earlier ones.

        Raises:
            RecipeError: the folder holds no run.
        """
        state = signature(self._run)
        if state != self._state:
            self._html = render([self._run], self._against, live=True)
            self._state = state
        return self._html, self._state


def signature(run: Path) -> str:
    """Tell whether what the page shows has changed: names, sizes and times of the files."""
    found = []
    for path in sorted(path for pattern in _WATCHED for path in run.glob(pattern)):
        try:
            stat = path.stat()
        except OSError:  # it was replaced just now
            continue
        found.append(f"{path.relative_to(run)} {stat.st_size} {stat.st_mtime_ns}")
    return files.sha256_text("\n".join(found))


def server(run: Path, port: int, against: str | None = None) -> HTTPServer:
    """Open a server of a run's page on the loopback.

    Raises:
        RecipeError: the folder holds no run.
        TrainingError: the port is taken.
    """
    page = Page(run, against)
    page.now()
    try:
        return HTTPServer((HOST, port), _handler(page))
    except OSError as error:
        raise TrainingError(
            f"cannot serve on port {port}: {error.strerror or error}; choose another --port, or 0 for any"
        ) from error


def serve(run: Path, port: int, against: str | None, say: Callable[[str], Any]) -> None:
    """Serve a run's page until it is interrupted.

    Raises:
        RecipeError: the folder holds no run.
        TrainingError: the port is taken.
    """
    with server(run, port, against) as opened:
        say(f"watching {run} at http://{HOST}:{opened.server_port}/ (Ctrl-C ends it; the run goes on)")
        try:
            opened.serve_forever()
        except KeyboardInterrupt:
            say("no longer watched")


def _handler(page: Page) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = 10  # seconds that a silent client may hold the server

        def do_GET(self) -> None:
            """Answer with the page; with nothing where the client has it already."""
            if self.headers.get("Host", "").partition(":")[0] not in (HOST, "localhost"):
                return self._answer(403, "this page is for this machine alone")
            if self.path != "/":
                return self._answer(404, "there is one page: /")
            try:
                html, state = page.now()
            except MaskRLError as error:
                return self._answer(503, str(error))
            if self.headers.get("If-None-Match") == f'"{state}"':
                return self._answer(304, "", state)
            return self._answer(200, html, state, "text/html")

        def _answer(self, status: int, text: str, state: str = "", kind: str = "text/plain") -> None:
            body = text.encode()
            self.send_response(status)
            self.send_header("Content-Type", f"{kind}; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Cache-Control", "no-cache")
            if state:
                self.send_header("ETag", f'"{state}"')
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing: a line every few seconds helps nobody."""

    return Handler
