"""Base and trained model, each at its own best guidance: of evaluations that differ in nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from maskrl.evals.comparison import compare
from maskrl.evals.results import Report, Result
from maskrl.interfaces import Evaluation, Number

GUIDANCE = "guidance"


@dataclass(frozen=True)
class Best:
    """An evaluation at several guidances: the guidance that is best before training, that after, and both numbers.

    ``section`` is what the first of its sections is called. ``difference`` is after - before, prompt by prompt: they
    are painted from the same noise.
    """

    section: str
    label: str
    guidance_before: float
    guidance_after: float
    before: Number
    after: Number
    difference: Number


def best_of(
    kinds: Mapping[str, type[Evaluation]], before: Mapping[str, Report], after: Mapping[str, Report]
) -> list[Best]:
    """Return what is best of every evaluation that was made at several guidances.

    Args:
        kinds: the evaluations by the labels of their sections.
        before: their reports of the base.
        after: of the trained model.
    """
    return [
        _best(labels[0], kinds[labels[0]], [before[one] for one in labels], [after[one] for one in labels])
        for labels in _alike({label: report.result for label, report in before.items()})
    ]


def _best(section: str, kind: type[Evaluation], before: Sequence[Report], after: Sequence[Report]) -> Best:
    sign = 1 if kind.larger_is_better else -1
    first, second = (
        max(reports, key=lambda report: sign * report.headline.mean) for reports in (before, after)
    )
    headline = compare(kind, first, second, apart_from=(GUIDANCE,))[0]
    return Best(
        section=section,
        label=first.result.label,
        guidance_before=first.result.settings[GUIDANCE],
        guidance_after=second.result.settings[GUIDANCE],
        before=headline.first,
        after=headline.second,
        difference=headline.difference,
    )


def _alike(results: Mapping[str, Result]) -> Iterator[list[str]]:
    """Yield the labels of results that differ in guidance alone; of one guidance there is nothing to choose."""
    groups: list[tuple[Any, list[str]]] = []
    for label, result in results.items():
        rest = {key: value for key, value in result.settings.items() if key != GUIDANCE}
        about = (result.evaluation, result.label, rest)
        group = next((labels for known, labels in groups if known == about), None)
        if group is None:
            groups.append((about, [label]))
        else:
            group.append(label)
    return (
        labels for _, labels in groups if len({results[one].settings.get(GUIDANCE) for one in labels}) > 1
    )
