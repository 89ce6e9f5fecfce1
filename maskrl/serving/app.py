"""The service: three addresses, described by ``/openapi.json``."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch
from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.security import HTTPBearer

from maskrl import __version__
from maskrl.errors import MaskRLError, RecipeError
from maskrl.rewards.remote_messages import (
    CHECK,
    JUDGE,
    SCORE,
    Checked,
    Judge,
    Problem,
    Prompts,
    Question,
    Scores,
)
from maskrl.serving.guard import Guard
from maskrl.serving.served import ServedReward

T = TypeVar("T")
_LOG = logging.getLogger(__name__)
_PROBLEMS = {
    400: "the body is no JSON",
    401: "the token is wrong or missing",
    409: "another reward is asked for than the one that is served",
    413: "the request is too large",
    422: "what is asked cannot be judged",
    503: "the reward has failed",
}


def make_app(served: ServedReward, token: str | None, max_request: int) -> FastAPI:
    """Make the application that serves a reward.

    Args:
        served: the reward.
        token: that whoever asks must have; None: nobody needs one.
        max_request: bytes of the largest body that is read.
    """
    bearer = HTTPBearer(auto_error=False)  # described here, enforced by Guard
    app = FastAPI(
        title="maskrl reward service",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        dependencies=[] if token is None else [Depends(bearer)],
        responses={code: {"model": Problem, "description": said} for code, said in _PROBLEMS.items()},
    )
    app.add_middleware(Guard, token=token, most=max_request)
    app.add_exception_handler(MaskRLError, _failed)
    app.add_exception_handler(torch.OutOfMemoryError, _failed)
    app.add_exception_handler(RequestValidationError, _misread)
    line = _Line()

    @app.get(JUDGE)
    async def judge() -> Judge:
        """Say who judges; that there is an answer says that the service is well."""
        return served.judge

    @app.post(CHECK)
    async def check(request: Request, prompts: Prompts) -> Checked:
        """Look whether all these prompts can be judged."""
        return await line.wait(request, lambda: served.check(prompts.prompts))

    @app.post(SCORE)
    async def score(request: Request, question: Question) -> Scores:
        """Score images."""
        if question.judge != served.judge.judge:
            detail = f"this server judges by {served.judge.judge[:12]}, not by {question.judge[:12]}"
            raise HTTPException(409, detail)
        return await line.wait(request, lambda: served.score(question))

    return app


class _Line:
    """Requests wait in line for the reward, which knows no threads; who has left meanwhile is not served."""

    def __init__(self) -> None:
        # as many threads for its sums as here: another number would add up in another order
        threads = (torch.get_num_threads(),)
        self._thread = ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=threads)
        self._turn = asyncio.Lock()

    async def wait(self, request: Request, work: Callable[[], T]) -> T:
        async with self._turn:
            if await request.is_disconnected():
                raise HTTPException(503, "nobody waits for the answer any more")
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)


async def _failed(request: Request, error: Exception) -> JSONResponse:
    if isinstance(error, RecipeError):
        return _problem(422, str(error))
    _LOG.warning("%s", error)
    return _problem(503, str(error))


async def _misread(request: Request, error: Exception) -> JSONResponse:
    """Say the first mistake and where it is, not what stands there: it may be long."""
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    return _problem(422, f"{'.'.join(map(str, first['loc']))}: {first['msg']}")


def _problem(status: int, detail: str) -> JSONResponse:
    """Answer with a line; what came in with half a character is said as far as it can be."""
    line = " ".join(detail.encode("utf-8", "replace").decode().split())
    return JSONResponse({"detail": line}, status)
