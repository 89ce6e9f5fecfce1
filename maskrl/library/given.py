"""A function where a recipe names a reward."""

from __future__ import annotations

import inspect
import sys
from pathlib import Path

from maskrl import registry
from maskrl.component import Chosen
from maskrl.errors import RecipeError
from maskrl.interfaces import RewardModel
from maskrl.rewards.function import Function, reward_class, told_by


class GivenReward(Chosen[RewardModel]):
    """A function in the place of a section ``[reward]``; its name says where another process would find it.

    One from a file is told by the file, as a class in it would be; one of a session by its source and its closure.
    """

    def __init__(self, function: Function) -> None:
        """Take a function.

        Raises:
            RecipeError: it is none.
        """
        if not inspect.isfunction(function):
            raise RecipeError(
                f"reward = {function!r} is no function (images, prompts) -> scores; a component is named in a recipe"
            )
        file = file_of(function)
        name = (
            f"{registry.SESSION}{function.__qualname__}"
            if file is None
            else f"{file}:{function.__qualname__}"
        )
        super().__init__("rewards", {"name": name}, Path())
        told = {"source_sha256": told_by(function)} if file is None else {"source_file": file}
        component: type[RewardModel] = reward_class(function, **told)
        self._found = component, component.Config()


def file_of(function: Function) -> Path | None:
    """Return the file from which another process can import a function by its name; None if there is none."""
    module = sys.modules.get(function.__module__)
    file = getattr(module, "__file__", None)
    is_plain = function.__qualname__.isidentifier() and function.__module__.isidentifier()
    if not is_plain or function.__module__ == "__main__" or file is None or not file.endswith(".py"):
        return None
    return Path(file).resolve() if getattr(module, function.__qualname__, None) is function else None
