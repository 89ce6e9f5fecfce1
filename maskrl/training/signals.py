"""SIGINT and SIGTERM wait until the update under way is finished and saved."""

from __future__ import annotations

import signal
import threading
from typing import Any, NoReturn, Self

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stop:
    """Remembers the first SIGINT or SIGTERM for the loop to act on; a second one acts at once.

    In a thread other than the main one, where Python delivers no signals, it does nothing.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._receive) for number in SIGNALS}
        return self

    def __exit__(self, *exception: object) -> None:
        self._restore()

    def leave(self) -> NoReturn:
        """End the way the signal would have ended the program; without one, because another process got one, by 143.

        Raises:
            KeyboardInterrupt: for SIGINT.
            SystemExit: for SIGTERM, with 143.
        """
        if self.received == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + signal.SIGTERM)

    def _receive(self, number: int, frame: object) -> None:
        self.received = number
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}
