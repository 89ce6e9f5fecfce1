"""What the numbers of a run come to, in words. A verdict is a function of a run that says a line, or nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from maskrl.report.charts import fifth, short, smoothed
from maskrl.report.reading import RunFolder, as_number
from maskrl.uncertainty import standard_error

FINE, NOTE, LOOK, TROUBLE = "fine", "note", "look", "trouble"
FEWEST = 10  # updates from which a trend can be told
CLEAR = 2.0  # standard errors
SUFFIX = "_agreement"


@dataclass(frozen=True)
class Verdict:
    """``weight`` is one of FINE, NOTE, LOOK, TROUBLE."""

    weight: str
    text: str


@dataclass(frozen=True)
class Trend:
    """The means of the first and of the last fifth of the updates, and the standard error of their difference."""

    first: float
    last: float
    error: float

    @property
    def is_clear(self) -> bool:
        """Whether it is more than chance."""
        return abs(self.last - self.first) > CLEAR * self.error


def trend(run: RunFolder, metric: str) -> Trend | None:
    """Return how a metric went; None where there are too few numbers to tell."""
    values = [value for _, value in run.finite(metric)]
    if len(values) < FEWEST:
        return None
    span = fifth(len(values))
    first, last = values[:span], values[-span:]
    error = math.hypot(standard_error(first), standard_error(last))
    return Trend(sum(first) / span, sum(last) / span, error)


def unreadable(run: RunFolder) -> Iterator[Verdict]:
    """Say what could not be read."""
    for line in run.troubles:
        yield Verdict(TROUBLE, line)


def too_few(run: RunFolder) -> Iterator[Verdict]:
    """Say that there is nothing, or too little, to tell a trend from."""
    made = len(run.updates)
    if made == 0:
        yield Verdict(TROUBLE, "No update was made.")
    elif made < FEWEST:
        updates = "One update was" if made == 1 else f"{made} updates were"
        yield Verdict(NOTE, f"{updates} made: too few to tell a trend.")


def failed(run: RunFolder) -> Iterator[Verdict]:
    """Say the error that ended it."""
    if reason := _error(run):
        yield Verdict(TROUBLE, f"It ended with an error: {reason}")


def unfinished(run: RunFolder) -> Iterator[Verdict]:
    """Say that fewer updates were made than planned."""
    made, planned = last_update(run), run.setting("training.updates")
    if planned is not None and 0 < made < planned and not run.after and not _error(run):
        yield Verdict(LOOK, f"{made} of {planned} updates are made: it goes on, or was stopped.")


def resumed(run: RunFolder) -> Iterator[Verdict]:
    """Say how often the run was begun again."""
    times = len(run.starts) - 1
    if times > 0:
        yield Verdict(NOTE, f"It was interrupted and resumed {_times(times)}.")


def no_numbers(run: RunFolder) -> Iterator[Verdict]:
    """Name the updates that have something that is no number."""
    found = [
        (row["update"], key)
        for row in run.updates
        for key, value in row.items()
        if key not in ("kind", "update") and not math.isfinite(as_number(value))
    ]
    if found:
        updates = dict.fromkeys(update for update, _ in found)
        yield Verdict(
            TROUBLE,
            f"{len(updates)} {'update has' if len(updates) == 1 else 'updates have'} numbers that are none (NaN or"
            f" infinite), the first at update {found[0][0]} ({found[0][1]}).",
        )


def not_evaluated(run: RunFolder) -> Iterator[Verdict]:
    """Say that nothing but the trained reward tells how good the images are."""
    if not run.before and not run.after and not run.evals:
        yield Verdict(
            LOOK, "No evaluation was made: the reward alone does not tell whether the images are better."
        )
    elif run.before and not run.after and last_update(run) >= (run.setting("training.updates") or math.inf):
        yield Verdict(LOOK, "All updates are made, and no evaluation after them.")


def reward(run: RunFolder) -> Iterator[Verdict]:
    """Say where the reward went."""
    went = trend(run, "reward_mean")
    if went is None:
        return
    numbers = f"from {short(went.first)} to {short(went.last)}"
    if not went.is_clear:
        yield Verdict(LOOK, f"The reward did not move beyond its own noise ({numbers}).")
    elif went.last > went.first:
        yield Verdict(FINE, f"The reward rose {numbers}.")
    else:
        yield Verdict(TROUBLE, f"The reward fell {numbers}.")


def hacked(run: RunFolder) -> Iterator[Verdict]:
    """Name the held-out rewards that fell while the trained one rose, and since when."""
    taught = dict(smoothed(run.finite("reward_mean")))
    for metric in _held_out(run):
        points = smoothed(run.finite(metric))
        noise = _noise(run.finite(metric))
        if len(points) < 4 or len(taught) < FEWEST:
            continue
        top, highest = max(points, key=lambda point: point[1])
        fall = highest - points[-1][1]
        after = [value for update, value in taught.items() if update >= top]
        is_up = bool(after) and after[-1] > taught.get(top, after[0])
        if fall > CLEAR * noise and is_up and top < points[-1][0]:
            name = metric.removeprefix("held_out_")
            yield Verdict(
                TROUBLE,
                f"The held-out reward {name} fell by {short(fall)} while the reward rose since update {top}: the"
                " reward is being exploited.",
            )


def disagreement(run: RunFolder) -> Iterator[Verdict]:
    """Name the held-out rewards that no longer agree with the trained one."""
    for metric in _held_out(run, SUFFIX):
        values = [value for _, value in run.finite(metric)]
        if len(values) >= 4 and sum(values[-2:]) / 2 < 0.05 < sum(values[:2]) / 2:
            name = metric.removeprefix("held_out_").removesuffix(SUFFIX)
            yield Verdict(
                LOOK, f"The reward no longer agrees with the held-out reward {name} on which image is better."
            )


def ratio(run: RunFolder) -> Iterator[Verdict]:
    """Say whether the ratio was 1 where it must be, or left the clip range where it may move."""
    low, high = (dict(run.finite(f"ratio_{end}")) for end in ("min", "max"))
    if run.setting("grpo.num_updates", 1) == 1:
        off = [u for u in low if u in high and max(abs(low[u] - 1), abs(high[u] - 1)) > 1e-3]
        if off:
            yield Verdict(
                TROUBLE,
                f"The ratio is not 1 in {_updates(off)}, though every batch is learnt from once: what learns is not"
                " what painted.",
            )
        return
    bottom, top = 1 - run.setting("grpo.eps_low", 0.1), 1 + run.setting("grpo.eps_high", 0.2)
    off = [u for u in low if u in high and (low[u] < bottom or high[u] > top)]
    if off:
        yield Verdict(NOTE, f"The ratio left the clip range {bottom:g} to {top:g} in {_updates(off)}.")
    clipped = [value for _, value in run.finite("clip_fraction")]
    if clipped and sum(clipped) / len(clipped) > 0.3:
        mean = sum(clipped) / len(clipped)
        yield Verdict(
            LOOK, f"{mean:.0%} of the image-step pairs are clipped: more passes over a batch than it bears."
        )


def diversity(run: RunFolder) -> Iterator[Verdict]:
    """Say that the images of a prompt become alike."""
    for metric, what in (("diversity_tokens", "tokens"), ("diversity_pixels", "pixels")):
        went = trend(run, metric)
        if went is not None and went.first > 0 and went.last < went.first / 2:
            half = "to less than a tenth" if went.last < went.first / 10 else "by half"
            weight = TROUBLE if went.last < went.first / 10 else LOOK
            yield Verdict(
                weight, f"Diversity of {what} fell {half} ({short(went.first)} → {short(went.last)})."
            )


def spread(run: RunFolder) -> Iterator[Verdict]:
    """Say that the rewards within a group become equal: the end of learning."""
    went = trend(run, "reward_std")
    if went is not None and went.first > 0 and went.last < went.first / 10:
        yield Verdict(TROUBLE, "The rewards within a group have become equal: nothing is left to learn from.")


def skipped(run: RunFolder) -> Iterator[Verdict]:
    """Say how many updates taught nothing."""
    found = [update for update, value in run.finite("skipped") if value]
    if found:
        weight = TROUBLE if len(found) > len(run.updates) / 2 else LOOK
        yield Verdict(weight, f"No group was kept, and no weight moved, in {_updates(found)}.")


def gradient(run: RunFolder) -> Iterator[Verdict]:
    """Name a gradient that jumped by orders of magnitude."""
    points = run.finite("grad_norm")
    usual = median([value for _, value in points]) if len(points) >= FEWEST else 0.0
    jumps = [(update, value) for update, value in points if usual and value > 30 * usual]
    if jumps:
        update, value = max(jumps, key=lambda point: point[1])
        yield Verdict(
            LOOK, f"The gradient jumped to {short(value)} at update {update}; usual is {short(usual)}."
        )


VERDICTS: Sequence[Callable[[RunFolder], Iterator[Verdict]]] = (
    *(unreadable, failed, too_few, no_numbers, unfinished, resumed, not_evaluated),
    *(reward, hacked, disagreement, diversity, spread, ratio, skipped, gradient),
)


def verdicts(run: RunFolder) -> list[Verdict]:
    """Return everything that is to be said of a run's files and of its updates."""
    return [one for judge in VERDICTS for one in judge(run)]


def by_weight(said: Sequence[Verdict]) -> list[Verdict]:
    """Put the gravest first."""
    order = [TROUBLE, LOOK, FINE, NOTE]
    return sorted(said, key=lambda one: order.index(one.weight))


def last_update(run: RunFolder) -> int:
    """Return how many updates the run has made."""
    return max((row["update"] for row in (*run.updates, *run.evals)), default=0)


def _error(run: RunFolder) -> str | None:
    return run.starts[-1].get("ended") if run.starts else None


def _held_out(run: RunFolder, suffix: str = "") -> list[str]:
    keys = dict.fromkeys(key for row in run.updates for key in row if key.startswith("held_out_"))
    return [key for key in keys if key.endswith(SUFFIX) == bool(suffix)]


def _noise(points: Sequence[tuple[int, float]]) -> float:
    """Return how far single values lie from their rolling mean."""
    apart = [(value - mean) ** 2 for (_, value), (_, mean) in zip(points, smoothed(points), strict=True)]
    return math.sqrt(sum(apart) / len(apart)) if apart else 0.0


def _updates(found: Sequence[int]) -> str:
    if len(found) == 1:
        return f"update {found[0]}"
    return f"{len(found)} updates, the first of them {found[0]}"


def _times(number: int) -> str:
    return {1: "once", 2: "twice"}.get(number, f"{number} times")
