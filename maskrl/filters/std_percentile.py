"""``std_percentile``: groups whose rewards hardly differ are drawn again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from pydantic import Field, model_validator
from torch import Tensor

from maskrl.component import ComponentConfig
from maskrl.interfaces import GroupFilter


class StdPercentile(GroupFilter):
    """Reject a group whose reward std is strictly below a percentile of the history of group stds.

    All groups of a round are tested against the history before the round, then all of them enter it. A group of equal
    rewards is always rejected, in the warm-up too: it teaches nothing, and where such groups are common the percentile
    itself is 0.

    Source: Sec. 3.3, "Vanishing Samples". Open in the paper: window, warm-up, interpolation (linear here).
    """

    class Config(ComponentConfig):
        """``window``: the latest stds that count (None = all); ``warmup``: how many precede a rejection."""

        percentile: float = Field(default=10.0, ge=0, le=100)
        window: int | None = Field(default=None, ge=1)
        warmup: int = Field(default=32, ge=1)

        @model_validator(mode="after")
        def _filters_some_day(self) -> Self:
            if self.window is not None and self.window < self.warmup:
                raise ValueError(
                    f"window = {self.window} is shorter than warmup = {self.warmup}: nothing is ever rejected"
                )
            return self

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._history: list[float] = []
        self._threshold = 0.0

    def keep(self, rewards: Tensor) -> Tensor:
        """Judge one round: Float [P, G] -> Bool [P]."""
        differ_P = (rewards != rewards[:, :1]).any(dim=1)
        stds_P = rewards.double().std(dim=1, correction=0)
        if len(self._history) >= self.config.warmup:
            self._threshold = float(np.percentile(self._history, self.config.percentile))
        self._history += stds_P.tolist()
        if self.config.window is not None:
            del self._history[: -self.config.window]
        return differ_P & (stds_P >= self._threshold)

    def state_dict(self) -> dict[str, Any]:
        """Return the history and the latest threshold."""
        return {"history": list(self._history), "threshold": self._threshold}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a saved history."""
        self._history, self._threshold = list(state["history"]), float(state["threshold"])

    def metrics(self) -> dict[str, float]:
        """The threshold of the latest round (0 during the warm-up), and how many stds the history holds."""
        return {"filter_threshold": self._threshold, "filter_history": float(len(self._history))}
