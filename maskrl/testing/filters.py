"""What a filter promises."""

from __future__ import annotations

import json
from typing import Any

import torch
from torch import Tensor

from maskrl.asking import asking
from maskrl.grpo import answers
from maskrl.interfaces import GroupFilter
from maskrl.testing.classes import check_class
from maskrl.testing.promises import quiet, require
from maskrl.types import Stream

ROUNDS = 12  # before the state is saved, and after it; a history that warms up has become warm by then


def check_filter(component: GroupFilter, groups: int = 8, group_size: int = 4) -> None:
    """Check decisions and metrics, and that a filter restored from its saved state goes on the same.

    Raises:
        PluginError: it does not keep to :class:`maskrl.interfaces.GroupFilter`.
    """
    check_class(type(component))
    with asking(component):
        rounds = [_rewards(i, groups, group_size) for i in range(2 * ROUNDS)]
        for rewards in rounds[:ROUNDS]:
            _ask(component, rewards)
        state = _through_json(component)
        restored = type(component)(component.config)
        restored.load_state_dict(state)
        require(component, _through_json(restored) == state, "a restored filter has another state_dict")
        for rewards in rounds[ROUNDS:]:
            (kept, told), (kept_too, told_too) = _ask(component, rewards), _ask(restored, rewards)
            same = torch.equal(kept, kept_too)
            require(component, same, "a filter restored from state_dict decides otherwise")
            require(component, told == told_too, "a restored filter has other metrics")


def _rewards(index: int, groups: int, group_size: int) -> Tensor:
    """Float [P, G]: rounds differ in spread, and those that are drawn again in the number of groups."""
    stream = Stream(0, ("rewards", index))
    spread = torch.rand(groups, 1, generator=stream.child("spread").generator(), dtype=torch.float32) * (
        1 + index % 5
    )
    rewards = torch.rand(groups, group_size, generator=stream.generator(), dtype=torch.float32) * spread
    return rewards[: 1 + index % groups] if index % 3 == 2 else rewards


def _ask(component: GroupFilter, rewards: Tensor) -> tuple[Tensor, dict[str, float]]:
    """Judge a round: the decisions, and what is to be logged of it."""
    with quiet(component, "keep"):
        kept = answers.keep(component, rewards)
    with quiet(component, "metrics"):
        return kept, answers.metrics(component)


def _through_json(component: GroupFilter) -> Any:
    return json.loads(json.dumps(answers.filter_state(component), allow_nan=False))
