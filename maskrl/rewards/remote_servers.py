"""Reward servers that judge alike: ask one, ask again, and hand over to the next. An error never becomes an answer."""

from __future__ import annotations

import json
import os
import ssl
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

import httpx2
from pydantic import BaseModel, ValidationError

from maskrl.errors import RecipeError, TrainingError
from maskrl.mistakes import shown
from maskrl.rewards.remote_messages import JUDGE, Judge, Problem

A = TypeVar("A", bound=BaseModel)
_CONNECT = 10.0  # seconds
_HEALTH = 30.0
_LONGEST_WAIT = 60.0
_MOST_BYTES = 2**26  # of an answer
_FINAL = (400, 401, 403, 404, 405, 409, 413)  # the same server would say the same again


class Failure(Exception):
    """A server has not answered as it should; ``is_final``: it will not, if asked the same again."""

    def __init__(self, reason: str, is_final: bool = False) -> None:
        super().__init__(reason)
        self.is_final = is_final


class Servers:
    """Asks one server after the other until one answers; the one that has answered is asked first the next time."""

    def __init__(
        self, urls: Sequence[str], token: str | None, timeout: float, retries: int, wait: float
    ) -> None:
        """Say whom to ask.

        Args:
            urls: of servers; processes of one run begin at different ones.
            token: that they want to see.
            timeout: seconds until an answer must be there.
            retries: how often all of them are asked again.
            wait: seconds before the first time; then twice as long each time, a minute at most.
        """
        self._urls, self._timeout, self._retries, self._wait = tuple(urls), timeout, retries, wait
        self._first = int(os.environ.get("RANK", "0")) % len(urls)
        self._client = httpx2.Client(
            headers={
                "Accept-Encoding": "identity",
                **({"Authorization": f"Bearer {token}"} if token else {}),
            },
            limits=httpx2.Limits(max_keepalive_connections=0),  # none that the server has closed meanwhile
            verify=ssl.create_default_context(),
            trust_env=False,  # no proxy stands between
        )

    def judge(self) -> Judge:
        """Ask all of them who they are; one that cannot be reached may be so later.

        Raises:
            RecipeError: two judge differently.
            TrainingError: none answers.
        """
        failures: dict[str, Failure] = {}
        for _ in self._rounds(failures):
            known: dict[str, Judge] = {}
            for url in self._urls:
                try:
                    known[url] = self._once(url, JUDGE, None, Judge, min(self._timeout, _HEALTH))
                except Failure as failure:
                    failures[url] = failure
            if known:
                _check_same(known)
                for url in failures.keys() - known.keys():
                    warnings.warn(
                        f"the reward server {url} {failures[url]}; it is done without", stacklevel=2
                    )
                return next(iter(known.values()))
        raise self._silence(failures)

    def ask(
        self, path: str, question: BaseModel, answer: type[A], check: Callable[[A], str | None], most: int
    ) -> A:
        """Put a question.

        Args:
            path: of the URL.
            question: of the body.
            answer: how the answer is read.
            check: says what is wrong with an answer; None: nothing.
            most: bytes of a question that servers read.

        Raises:
            RecipeError: what is asked cannot be judged, then the message is the server's; or it is too large.
            TrainingError: none answers; the message says why, of each.
        """
        body = question.model_dump_json().encode()
        if len(body) > most:
            raise RecipeError(
                f"a request of {len(body):,} bytes is more than the {most:,} that the reward servers read: send fewer"
                " images at a time (training.reward_batch), or start them with a larger --max-request"
            )
        failures: dict[str, Failure] = {}
        for _ in self._rounds(failures):
            for url in self._urls[self._first :] + self._urls[: self._first]:
                if url in failures and failures[url].is_final:
                    continue
                try:
                    found = self._once(url, path, body, answer, self._timeout)
                    if (complaint := check(found)) is not None:
                        raise Failure(complaint)
                except Failure as failure:
                    if str(failures.get(url)) != str(failure):
                        warnings.warn(f"the reward server {url} {failure}", stacklevel=2)
                    failures[url] = failure
                else:
                    self._first = self._urls.index(url)
                    return found
        raise self._silence(failures)

    def _rounds(self, failures: Mapping[str, Failure]) -> Iterator[None]:
        """Yield as often as all servers may be asked, with waits between, while there is one that may answer yet."""
        for number in range(self._retries + 1):
            if number:
                time.sleep(min(self._wait * 2 ** (number - 1), _LONGEST_WAIT))
            yield
            if all(failure.is_final for failure in failures.values()):
                return

    def _silence(self, failures: Mapping[str, Failure]) -> TrainingError:
        reasons = "; ".join(f"{url} {failures[url]}" for url in self._urls)
        return TrainingError(f"no reward server answers: {reasons}")

    def _once(self, url: str, path: str, body: bytes | None, answer: type[A], seconds: float) -> A:
        """Ask one server, once.

        Raises:
            RecipeError: it says that what is asked cannot be judged.
            Failure: there is no answer, or none that can be read.
        """
        try:
            status, text = self._exchange(url + path, body, seconds)
        except httpx2.TimeoutException as error:
            raise Failure(f"has not answered within {seconds:g} s ({type(error).__name__})") from error
        except httpx2.HTTPError as error:
            raise Failure(f"cannot be reached ({error or type(error).__name__})") from error
        if status == 422:
            raise RecipeError(f"the reward server {url} says: {_detail(text)}")
        if status != 200:
            raise Failure(f"answers {status}: {_detail(text)}", is_final=status in _FINAL)
        try:
            return answer.model_validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise Failure(
                f"answers what is no answer: {f'{where}: ' if where else ''}{first['msg']}"
            ) from error

    def _exchange(self, url: str, body: bytes | None, seconds: float) -> tuple[int, bytes]:
        """Send a request; return the answer's status and body."""
        deadline = time.monotonic() + seconds
        method, headers = ("GET", {}) if body is None else ("POST", {"Content-Type": "application/json"})
        timeout = httpx2.Timeout(seconds, connect=min(seconds, _CONNECT))
        with self._client.stream(method, url, content=body, headers=headers, timeout=timeout) as response:
            text = bytearray()
            for part in response.iter_raw():
                text += part
                if len(text) > _MOST_BYTES:
                    raise Failure(f"answers with more than {_MOST_BYTES:,} bytes")
                if time.monotonic() > deadline:  # each read has its own time-out: drops would never end
                    raise Failure(f"has not answered within {seconds:g} s")
        return response.status_code, bytes(text)


def _detail(text: bytes) -> str:
    """Return the line that a server says of an error."""
    try:
        return Problem.model_validate_json(text).detail
    except ValidationError:
        return shown(text.decode("utf-8", "replace"))


def _check_same(known: dict[str, Judge]) -> None:
    (first, ours), *others = known.items()
    for url, theirs in others:
        if theirs.judge != ours.judge:
            keys = sorted({*ours.identity, *theirs.identity})
            key = next(key for key in keys if ours.identity.get(key) != theirs.identity.get(key))
            here, there = (json.dumps(judge.identity.get(key)) for judge in (ours, theirs))
            raise RecipeError(
                f"the reward servers {first} and {url} judge differently: {key} is {here} and {there}; serve the"
                " same reward on all of them"
            )
