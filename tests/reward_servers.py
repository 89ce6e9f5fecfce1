"""Reward servers for tests: real ones in a thread of this process, and impostors that answer as they are told."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from maskrl.component import Chosen
from maskrl.rewards.remote_messages import JUDGE, Judge
from maskrl.serving.app import make_app
from maskrl.serving.listening import address_of, listen, server_of
from maskrl.serving.served import ServedReward

MOST = 2**24


@contextmanager
def serving(section, folder=Path(), token=None, most=MOST) -> Iterator[str]:
    """Serve a reward, and yield its address."""
    served = ServedReward(Chosen("rewards", section, folder), "cpu", most)
    with listen("127.0.0.1", 0) as opened:
        server = server_of(make_app(served, token, most))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [opened]})
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            yield address_of(opened)
        finally:
            server.should_exit = True
            thread.join(timeout=20)


@contextmanager
def impostor(judge: Judge, answer: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[str]:
    """Serve what says that it is this judge, and gives ``answer`` to all other requests."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            assert self.path == JUDGE
            send(self, judge.model_dump_json().encode())

        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            answer(self)

        def log_message(self, *_):
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False

        def handle_error(self, request, client_address):
            pass  # who asked has left

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join(timeout=20)


def send(handler, body: bytes, status: int = 200) -> None:
    handler.send_response(status)
    handler.send_header("Content-Length", str(len(body)))
    handler.send_header("Connection", "close")
    handler.end_headers()
    handler.wfile.write(body)
    handler.close_connection = True
