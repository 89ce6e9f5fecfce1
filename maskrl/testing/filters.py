"""What a filter promises."""

from __future__ import annotations

import json
import math
from typing import Any

import torch
from torch import Tensor

from maskrl.asking import asking, refused
from maskrl.grpo.answers import kind
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
            _keep(component, rewards)
        state = _through_json(component)
        restored = type(component)(component.config)
        restored.load_state_dict(state)
        require(component, _through_json(restored) == state, "a restored filter has another state_dict")
        for rewards in rounds[ROUNDS:]:
            same = torch.equal(_keep(component, rewards), _keep(restored, rewards))
            require(component, same, "a filter restored from state_dict decides otherwise")
            require(
                component, component.metrics() == restored.metrics(), "a restored filter has other metrics"
            )


def _rewards(index: int, groups: int, group_size: int) -> Tensor:
    """Float [P, G]: rounds differ in spread, and those that are drawn again in the number of groups."""
    stream = Stream(0, ("rewards", index))
    spread = torch.rand(groups, 1, generator=stream.child("spread").generator()) * (1 + index % 5)
    rewards = torch.rand(groups, group_size, generator=stream.generator()) * spread
    return rewards[: 1 + index % groups] if index % 3 == 2 else rewards


def _keep(component: GroupFilter, rewards: Tensor) -> Tensor:
    given = rewards.clone()
    with quiet(component, "keep"):
        kept = component.keep(given)
    fine = isinstance(kept, Tensor) and kept.dtype == torch.bool and kept.shape == (len(rewards),)
    require(component, fine, f"keep returned {kind(kept)} instead of Bool [{len(rewards)}]")
    require(component, torch.equal(rewards, given), "keep changed the rewards")
    for name, value in component.metrics().items():
        fine = isinstance(name, str) and isinstance(value, float) and math.isfinite(value)
        require(component, fine, f"metrics holds {name!r}: {value!r}, which is no finite float")
    return kept


def _through_json(component: GroupFilter) -> Any:
    try:
        return json.loads(json.dumps(component.state_dict(), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise refused(component, f"state_dict cannot be saved as JSON: {error}") from error
