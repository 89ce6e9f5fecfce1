"""Where the service listens: on this machine alone, unless there is a token."""

from __future__ import annotations

import ipaddress
import socket

import uvicorn
from fastapi import FastAPI

from maskrl.errors import RecipeError, TrainingError

_LEAVE = 30  # seconds for what is under way, once it shall end


def check_host(host: str, token: str | None) -> None:
    """Refuse to be seen by other machines without a token.

    Raises:
        RecipeError: that is asked for.
    """
    if token is None and not _is_loopback(host):
        raise RecipeError(
            f"--host {host}: other machines would reach the service, and whoever reaches it could use it; give it a"
            " token with --token-file, or leave out --host"
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name
        return host == "localhost"


def listen(host: str, port: int) -> socket.socket:
    """Open the port, 0 for one that the system chooses.

    Raises:
        TrainingError: that cannot be.
    """
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family, backlog=128)
    except OSError as error:
        reason = str(error.strerror).partition(" (")[0]
        raise TrainingError(f"cannot listen on {host}, port {port}: {reason}") from error


def address_of(opened: socket.socket) -> str:
    """Return the URL of an open port."""
    host, port = opened.getsockname()[:2]
    return f"http://[{host}]:{port}" if opened.family == socket.AF_INET6 else f"http://{host}:{port}"


def server_of(app: FastAPI) -> uvicorn.Server:
    """Make the server; ``run(sockets=[...])`` serves until a signal ends it."""
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        lifespan="off",
        ws="none",
        timeout_graceful_shutdown=_LEAVE,
    )
    return uvicorn.Server(config)
