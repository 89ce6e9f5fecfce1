"""``keep_all``: no filter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from maskrl.interfaces import GroupFilter


class KeepAll(GroupFilter):
    """Keep every group."""

    def keep(self, rewards: Tensor) -> Tensor:
        """Float [P, G] -> Bool [P], all true."""
        return torch.ones(len(rewards), dtype=torch.bool, device=rewards.device)

    def state_dict(self) -> dict[str, Any]:
        """Return nothing: there is no history."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Accept any state: there is none to restore."""

    def metrics(self) -> dict[str, float]:
        """Return nothing: there is no threshold."""
        return {}
