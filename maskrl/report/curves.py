"""Which numbers of a run become curves, under which heading, and what a reader should know of each."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from maskrl.report.reading import RunFolder, as_number
from maskrl.runtime.metrics import is_wall_clock

Points = Sequence[tuple[int, float]]

HEADINGS = {
    "learns": "What it learns",
    "evaluations": "Evaluations on the way",
    "healthy": "Is it healthy",
    "groups": "Groups",
    "pace": "Pace",
    "others": "Others",
}

# A metric, or how its name begins; where it is shown; what it is called; what to know of it.
_KNOWN = (
    ("reward_mean", "learns", "Reward", "mean over the images of an update"),
    ("reward_std", "learns", "Spread of rewards", "within a group; at 0 nothing is left to learn from"),
    ("held_out_", "learns", "Held out: {}", "a reward that watches and never teaches"),
    ("reward_", "learns", "Reward term: {}", "a part of the reward, over all images"),
    ("diversity_tokens", "healthy", "Diversity, tokens", "share of positions at which two images of a group differ"),
    ("diversity_pixels", "healthy", "Diversity, pixels", "difference between two images of a group"),
    ("entropy", "healthy", "Entropy", "of the proposals, in nats; falls slowly where all is well"),
    ("ratio_", "healthy", "Ratio, {}", "probability of what happened, new over old"),
    ("clip_fraction", "healthy", "Clip fraction", "image-step pairs whose ratio is clipped"),
    ("kl", "healthy", "KL", "to the policy that training began from, in nats"),
    ("grad_norm", "healthy", "Gradient norm", "before it is clipped"),
    ("drift_kl", "healthy", "Drift, KL", "from the policy that painted, nats a step"),
    ("drift", "healthy", "Drift", "mean |log ratio| to the policy that painted, nats a step"),
    ("staleness", "healthy", "Staleness", "updates between the weights that painted and those that learn"),
    ("policy_gap", "healthy", "Policy gap", "log p as painted against as learnt from: rounding"),
    ("floored_fraction", "healthy", "Floored", "remasked positions that only noise could remask"),
    ("loss", "healthy", "Loss", "about 0 by construction: only its gradient informs"),
    ("kept_fraction", "groups", "Kept", "groups that enter the loss"),
    ("resample_rate", "groups", "Drawn again", "groups drawn again, of all drawn"),
    ("skipped", "groups", "Skipped", "1 where no group was kept and no weight moved"),
    ("filter_", "groups", "Filter: {}", "of the group filter"),
    ("seconds_", "pace", "Seconds: {}", "of an update"),
    ("learning_rate", "pace", "Learning rate", "of each update"),
    ("ema_", "pace", "Average: {}", "of the running average of the weights"),
)  # fmt: skip


@dataclass(frozen=True)
class Curve:
    """One metric of one or more runs: ``lines`` has the points of each run that has it, by the run's place."""

    metric: str
    heading: str
    title: str
    about: str
    lines: Mapping[int, Points]


def curves(runs: Sequence[RunFolder]) -> list[Curve]:
    """Return a curve for every metric that changes in at least one run."""
    metrics = dict.fromkeys(key for run in runs for row in run.updates for key in row)
    found = []
    for metric in metrics:
        lines = {i: run.numbers(metric) for i, run in enumerate(runs)}
        lines = {i: points for i, points in lines.items() if _changes(points)}
        if lines and metric not in ("kind", "update"):
            found.append(Curve(metric, *describe(metric), lines))
    return sorted([*found, *_evaluations(runs)], key=_place)


def constants(run: RunFolder) -> dict[str, float]:
    """Return what never changed, by its title: a curve would say no more."""
    metrics = dict.fromkeys(key for row in run.updates for key in row if key not in ("kind", "update"))
    found = {}
    for metric in metrics:
        values = {value for _, value in run.numbers(metric)}
        if len(values) == 1 and len(run.updates) > 1 and not is_wall_clock(metric):
            found[describe(metric)[1]] = values.pop()
    return {title: value for title, value in found.items() if math.isfinite(value)}


def describe(metric: str) -> tuple[str, str, str]:
    """Return under which heading a metric stands, what it is called, and what to know of it."""
    for start, heading, title, about in _KNOWN:
        is_start = start.endswith("_")
        if metric == start or (is_start and metric.startswith(start)):
            return heading, title.format(metric.removeprefix(start).replace("_", " ")), about
    return "others", metric.replace("_", " "), ""


def _changes(points: Points) -> bool:
    return len({value for _, value in points if math.isfinite(value)}) > 1


def _evaluations(runs: Sequence[RunFolder]) -> Iterator[Curve]:
    """Yield curves of evaluations that a run made between its updates too; of two points a table says more."""
    keys = dict.fromkeys(
        key for run in runs for row in run.evals if row.get("when") == "during" for key in row
    )
    for key in keys:
        if key in ("kind", "update", "when") or key.endswith("_se"):
            continue
        lines = {
            i: [(row["update"], as_number(row[key])) for row in run.evals if key in row]
            for i, run in enumerate(runs)
        }
        lines = {i: points for i, points in lines.items() if _changes(points)}
        if lines:
            yield Curve(key, "evaluations", key.replace("_", " "), "before, during and after training", lines)


def _place(curve: Curve) -> tuple[int, int]:
    known = [start for start, *_ in _KNOWN]
    order = next((i for i, start in enumerate(known) if curve.metric.startswith(start)), len(known))
    return list(HEADINGS).index(curve.heading), order
