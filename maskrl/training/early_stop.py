"""The end of a run whose held-out reward no longer rises."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from maskrl.runtime.checkpoint import name
from maskrl.sections import EarlyStopConfig


class EarlyStop:
    """Remembers the best of a held-out reward, and how many measurements ago it was."""

    def __init__(self, config: EarlyStopConfig) -> None:
        self._config, self._name = config, f"held_out_{config.reward}"
        self._best: float | None = None
        self._update, self._since = 0, 0

    def note(self, update: int, metrics: Mapping[str, float]) -> bool:
        """Heed what was measured in an update, if anything was; return whether it is the best so far.

        A rise of at most ``min_delta`` is none.
        """
        if self._name not in metrics:
            return False
        value = metrics[self._name]
        if self._best is not None and value <= self._best + self._config.min_delta:
            self._since += 1
            return False
        self._best, self._update, self._since = value, update, 0
        return True

    @property
    def is_over(self) -> bool:
        """Whether the run ends."""
        return self._since >= self._config.patience

    def verdict(self, checkpoints: Path) -> str:
        """Say at the end what the best was, and where below ``checkpoints`` it lies."""
        if self._best is None:
            return f"{self._name} was never measured: set watch.every to fewer updates than the run has"
        best = (
            f"the best {self._name}, {self._best:.4f}, was that of update {self._update}, which is kept in"
            f" {checkpoints / name(self._update)}"
        )
        return f"stopped early: {self._since} measurements without a rise; {best}" if self.is_over else best

    def state_dict(self) -> dict[str, Any]:
        """Return what it remembers; nothing, as long as nothing was measured."""
        if self._best is None:
            return {}
        return {"best": self._best, "update": self._update, "since": self._since}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from it."""
        self._best = state.get("best")
        self._update, self._since = state.get("update", 0), state.get("since", 0)
