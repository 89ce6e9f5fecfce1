"""Updates that teach nothing: they are said, and by choice end the run."""

from __future__ import annotations

from collections.abc import Mapping

WARN_AFTER = 5  # in a row; fewer happen while a filter gets to know the rewards


class Lessons:
    """Counts the updates in a row, since this start of the run, from which nothing was learnt."""

    def __init__(self, filter_name: str, most: int | None) -> None:
        """``most``: after how many a run ends; None: never."""
        self._filter, self._most, self._missed = filter_name, most, 0
        self._reason = ""

    def note(self, metrics: Mapping[str, float]) -> str | None:
        """Look at an update's metrics; return what to tell a person, once for many such updates in a row."""
        self._reason = why_nothing_was_learnt(metrics, self._filter) or ""
        self._missed = self._missed + 1 if self._reason else 0
        return self.verdict if self._missed == WARN_AFTER else None

    @property
    def are_over(self) -> bool:
        """Whether it is time to end the run."""
        return self._most is not None and self._missed >= self._most

    @property
    def verdict(self) -> str:
        """What was not learnt, and why."""
        updates = f"{self._missed} updates" if self._missed > 1 else "1 update"
        return f"nothing was learnt from {updates} in a row: {self._reason}"


def why_nothing_was_learnt(metrics: Mapping[str, float], filter_name: str) -> str | None:
    """Return the reason for which an update has taught nothing, or None if it has taught something."""
    if metrics["reward_std"] == 0:
        return (
            f"the images of every group got equal rewards ({metrics['reward_mean']:g} on average); a reward teaches"
            " only by what it says differently of images of one prompt"
        )
    if not metrics["skipped"]:
        return None
    if metrics.get("kept_fraction"):
        return (
            "the reducer chose greedy steps alone, which propose the likeliest codes and have no term in the loss;"
            " let it choose others"
        )
    threshold = metrics.get("filter_threshold")
    asked = "" if threshold is None else f", its threshold is {threshold:.3g}"
    spread = f"the rewards' std within groups is {metrics['reward_std']:.3g}"
    return f"filter {filter_name!r} kept no group ({spread}{asked})"
