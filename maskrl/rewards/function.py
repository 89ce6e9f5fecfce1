"""A plain function as a reward."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from torch import Tensor

from maskrl.files import sha256_text
from maskrl.interfaces import RewardModel
from maskrl.types import Prompt

Function = Callable[[Tensor, list[str]], Any]


class FunctionReward(RewardModel):
    """Scores by ``function``: images Float [B, 3, H, W] in [0, 1] and B texts -> B numbers, larger is better."""

    function: ClassVar[Function]

    def score(self, images: Tensor, prompts: Sequence[Prompt]) -> Any:
        """Return what the function says: a tensor, an array or a list of numbers."""
        return type(self).function(images, [prompt.text for prompt in prompts])


def reward_class(function: Function) -> type[FunctionReward]:
    """Make the class of a reward that is called as the function is, and is told by its source."""
    about = {
        "function": staticmethod(function),
        "source_sha256": _source(function),
        "__module__": function.__module__,
        "__qualname__": function.__qualname__,
        "__doc__": function.__doc__,
    }
    return type(function.__name__, (FunctionReward,), about)


def _source(function: Function) -> str | None:
    """Return the sha256 of a function's source; None where there is none, as in an interpreter."""
    try:
        return sha256_text(inspect.getsource(function))
    except (OSError, TypeError):
        return None
