"""What filters answer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from maskrl.asking import asking, refused
from maskrl.grpo.answers.common import as_number, as_tensor, kind, lending
from maskrl.interfaces import GroupFilter


def keep(group_filter: GroupFilter, rewards: Tensor) -> Tensor:
    """Judge a round, Float [P, G]: Bool [P], on the CPU.

    Raises:
        PluginError: it is no decision for each group.
    """
    with lending(group_filter, "keep", rewards=rewards):
        found = group_filter.keep(rewards)
    kept = as_tensor(group_filter, "keep", found)
    if kept.dtype != torch.bool or kept.shape != rewards.shape[:1]:
        raise refused(group_filter, f"keep returned {kind(kept)} instead of Bool [{len(rewards)}]")
    return kept.cpu()


def metrics(group_filter: GroupFilter) -> dict[str, float]:
    """Ask for a filter's metrics. Their names begin with ``filter_``: it is put before those that do not.

    Raises:
        PluginError: one is no finite number, or two get the same name.
    """
    with asking(group_filter):
        found = group_filter.metrics()
    if not isinstance(found, Mapping):
        raise refused(group_filter, f"metrics returned {kind(found)}, not a dict")
    named: dict[str, float] = {}
    for name, value in found.items():
        if not (isinstance(name, str) and name.isprintable()):
            raise refused(group_filter, f"metrics calls a number {name!r}, which is no name")
        full = name if name.startswith("filter_") else f"filter_{name}"
        if full in named:
            raise refused(group_filter, f"metrics holds {full!r} twice, with and without 'filter_'")
        named[full] = as_number(group_filter, f"the metric {name!r}", value)
    return named


def filter_state(group_filter: GroupFilter) -> dict[str, Any]:
    """Ask for what a filter wants saved.

    Raises:
        PluginError: it cannot be saved as JSON.
    """
    with asking(group_filter):
        state = group_filter.state_dict()
    if not isinstance(state, Mapping):
        raise refused(group_filter, f"state_dict returned {kind(state)}, not a dict")
    try:
        json.dumps(state, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise refused(group_filter, f"state_dict cannot be saved as JSON: {error}") from error
    return dict(state)
