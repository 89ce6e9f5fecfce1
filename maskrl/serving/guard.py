"""What stands before the service: a token, and a limit to what is read. Both are looked at before the body is."""

from __future__ import annotations

import secrets

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_CLOSE = {"Connection": "close"}  # what is left of the body is not read


class Guard:
    """Answers 401 to who has not the token, and 413 to what is too large: by its header, or once so much has come."""

    def __init__(self, app: ASGIApp, token: str | None, most: int) -> None:
        self._app, self._most = app, most
        self._authorization = None if token is None else f"Bearer {token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request, as ASGI applications do."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get("authorization", "").encode("latin-1")
        if self._authorization is not None and not secrets.compare_digest(given, self._authorization):
            refusal = JSONResponse(
                {"detail": "this server wants its token"}, 401, {"WWW-Authenticate": "Bearer", **_CLOSE}
            )
            await refusal(scope, receive, send)
            return
        if int(headers.get("content-length", "0")) > self._most:
            await JSONResponse({"detail": self._too_large}, 413, _CLOSE)(scope, receive, send)
            return
        await self._app(scope, self._counted(receive), send)

    def _counted(self, receive: Receive) -> Receive:
        read = 0

        async def counted() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > self._most:
                raise HTTPException(413, self._too_large, _CLOSE)
            return message

        return counted

    @property
    def _too_large(self) -> str:
        return f"a request has at most {self._most:,} bytes here (--max-request)"
