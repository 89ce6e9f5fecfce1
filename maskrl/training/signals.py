"""Signals that ask a run to stop wait until the update under way is finished and saved."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import suppress
from typing import Any, NoReturn, Self

# of a person, a launcher, a lost terminal, a scheduler
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)


class Stop:
    """Remembers the first of ``SIGNALS`` for the loop to act on, and says so; a second one acts at once.

    In a thread other than the main one, where Python delivers no signals, it does nothing.
    """

    def __init__(self, is_silent: bool = False) -> None:
        self.received: int | None = None
        self._is_silent = is_silent
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
            SystemExit: for the others, with 128 and their number.
        """
        if self.received == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + (self.received or signal.SIGTERM))

    def _receive(self, number: int, frame: object) -> None:
        self.received = number
        self._restore()
        if not self._is_silent:
            with suppress(OSError):  # whoever sent SIGHUP may have taken the terminal with him
                os.write(2, b"maskrl: stopping after this update, which is saved; once more stops at once\n")

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}
