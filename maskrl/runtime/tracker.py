"""What a run shows of itself beside its own files: the interface, and how numbers are called there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

Pixels: TypeAlias = NDArray[np.uint8]  # [H, W, 3]

# The group of a metric: that of the first of these that its name begins with. docs/metrics.md has the same order.
GROUPS = {
    "reward_": "reward",
    "held_out_": "reward",
    "kept_": "groups",
    "resample_": "groups",
    "filter_": "groups",
    "skipped": "groups",
    "diversity_": "images",
    "entropy": "images",
    "floored_": "images",
    "seconds_": "seconds",
}
OTHERS = "update"  # loss, ratio, clip fraction, KL, gradient, learning rate


def tag(metric: str, evaluation: str | None = None) -> str:
    """Return what a tracker calls a metric: ``reward/reward_mean``; one of an evaluation stands in its group."""
    if evaluation is not None:
        return f"{evaluation}/{metric}"
    group = next((group for prefix, group in GROUPS.items() if metric.startswith(prefix)), OTHERS)
    return f"{group}/{metric}"


class Tracker(Protocol):
    """Shows a run. Anything may be raised: whoever calls goes on without it (:mod:`maskrl.runtime.trackers`)."""

    def log(self, numbers: Mapping[str, float], update: int) -> None:
        """Plot numbers, by their tags, at an update."""

    def picture(self, name: str, pixels: Pixels, update: int) -> None:
        """Show a picture of the run."""

    def table(self, name: str, headings: Sequence[str], rows: Sequence[Sequence[str]], update: int) -> None:
        """Show a table; every row has a text for each heading."""

    def recipe(self, toml: str) -> None:
        """Show the run's recipe, with every default."""

    def close(self) -> None:
        """Write what is left."""
