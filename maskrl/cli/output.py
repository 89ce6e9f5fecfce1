"""Standard output: JSON for scripts; and nothing that happens to it ends a command (a closed pipe, a full disk)."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping
from typing import Annotated, Any, TextIO

import typer

JsonOption = Annotated[
    bool, typer.Option("--json", help="Print JSON, and nothing else, to stdout (docs/scripting.md).")
]


def print_json(data: Any) -> None:
    """Print what a script reads: one JSON value; a number that does not exist (NaN, infinity) is null."""
    typer.echo(json.dumps(_finite(data), indent=1, allow_nan=False, default=str))


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(one) for key, one in value.items()}
    return [_finite(one) for one in value] if isinstance(value, list | tuple) else value


class Sturdy(io.TextIOBase):
    """Writes as the stream does; what it cannot write is lost, and from then on nothing more is tried.

    A training run is worth more than its lines.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._is_open = stream, True
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # "±" where there is ASCII alone

    def write(self, text: str) -> int:
        """Write, if that is still possible."""
        self._try(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        """Flush, if that is still possible."""
        self._try(self._stream.flush)

    def isatty(self) -> bool:
        """As the stream."""
        return self._stream.isatty()

    def fileno(self) -> int:
        """As the stream."""
        return self._stream.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]  # a plain attribute in typeshed
        """As the stream."""
        return self._stream.encoding

    @property
    def errors(self) -> str | None:  # type: ignore[override]
        """As the stream."""
        return self._stream.errors

    def _try(self, action: Any) -> None:
        if not self._is_open:
            return
        try:
            action()
        except (OSError, ValueError):  # closed by whom it was piped to, a full disk; closed by us
            self._is_open = False
