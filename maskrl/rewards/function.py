"""A plain function as a reward."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from types import CodeType
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


def reward_class(function: Function, **about: Any) -> type[FunctionReward]:
    """Make the class of a reward that is called as the function is; ``about``: more attributes of it."""
    attributes = {
        "function": staticmethod(function),
        "__module__": function.__module__,
        "__qualname__": function.__qualname__,
        "__doc__": function.__doc__,
    }
    return type(function.__name__, (FunctionReward,), {**attributes, **about})


def told_by(function: Function) -> str:
    """Return a sha256 of a function's source, defaults and closure.

    What else the function reads (globals, files) is not in it.
    """
    try:
        source = inspect.getsource(inspect.unwrap(function))
    except (OSError, TypeError):  # there is none, as in a console: what it was compiled to
        source = repr(_compiled(inspect.unwrap(function).__code__))
    closed = {name: repr(value) for name, value in inspect.getclosurevars(function).nonlocals.items()}
    return sha256_text(repr((source, function.__defaults__, function.__kwdefaults__, closed)))


def _compiled(code: CodeType) -> tuple[object, ...]:
    """Return what tells compiled code, wherever it was compiled; of the same version of Python."""
    constants = [_compiled(one) if isinstance(one, CodeType) else one for one in code.co_consts]
    return code.co_code, code.co_names, code.co_varnames, constants
