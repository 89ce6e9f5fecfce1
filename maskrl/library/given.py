"""A function where a recipe names a reward."""

from __future__ import annotations

import inspect
from pathlib import Path

from maskrl import registry
from maskrl.component import Chosen
from maskrl.errors import RecipeError
from maskrl.interfaces import RewardModel
from maskrl.rewards.function import Function, reward_class


class GivenReward(Chosen[RewardModel]):
    """A function in the place of a section ``[reward]``; its name says where another process would find it."""

    def __init__(self, function: Function) -> None:
        """Take a function.

        Raises:
            RecipeError: it is none, or has no name.
        """
        if not inspect.isfunction(function):
            raise RecipeError(
                f"reward = {function!r} is no function (images, prompts) -> scores; a component is named in a recipe"
            )
        super().__init__("rewards", {"name": name_of(function)}, Path())
        component: type[RewardModel] = reward_class(function)
        self._found = component, component.Config()


def name_of(function: Function) -> str:
    """Return ``file.py:NAME`` of a function that a file holds and another process can import; else ``session:NAME``."""
    file = inspect.getsourcefile(function)
    is_plain = function.__qualname__.isidentifier() and function.__module__.isidentifier()
    if is_plain and function.__module__ != "__main__" and file is not None and file.endswith(".py"):
        return f"{Path(file).resolve()}:{function.__qualname__}"
    return f"{registry.SESSION}{function.__qualname__}"
