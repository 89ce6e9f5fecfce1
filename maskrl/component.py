"""What every pluggable part is: a final class that owns its pydantic ``Config`` and is built from it alone."""

from __future__ import annotations

import importlib.resources
from abc import ABC
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict

from maskrl.errors import RecipeError

PACKAGED = "package:"


class ComponentConfig(BaseModel):
    """The settings of a component: one section of a recipe. Unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Component(ABC):  # noqa: B024  # its subclasses, the interfaces, have abstract methods
    """The root of the interfaces. A subclass declares its settings in a nested ``Config``.

    ``paths`` names the settings that hold a file or folder: a recipe's relative paths are resolved against the recipe's
    own folder before the component sees them.
    """

    Config: ClassVar[type[ComponentConfig]] = ComponentConfig
    paths: ClassVar[tuple[str, ...]] = ()

    def __init__(self, config: Any) -> None:
        self.config = config


def resolve_path(value: str, base: Path) -> str:
    """Turn a path written in a recipe into one that works from anywhere.

    ``package:NAME/FOLDER`` stays as it is (see :func:`open_path`); a path that exists below ``base``, the recipe's
    folder, becomes absolute; anything else (a hub id, a tag) is returned unchanged.
    """
    if value.startswith(PACKAGED):
        return value
    local = base / Path(value).expanduser()
    return str(local.resolve()) if local.exists() or value.startswith((".", "/", "~")) else value


def open_path(value: str) -> str:
    """Turn ``package:NAME/FOLDER`` into the folder inside that installed package; return anything else unchanged.

    Raises:
        RecipeError: the package is not installed, or has no such folder.
    """
    if not value.startswith(PACKAGED):
        return value
    package, _, inside = value.removeprefix(PACKAGED).partition("/")
    try:
        found = Path(str(importlib.resources.files(package))) / inside
    except ModuleNotFoundError as error:
        raise RecipeError(f"{value!r} names the package {package!r}, which is not installed") from error
    if not found.exists():
        raise RecipeError(f"{value!r}: the package {package!r} holds no {inside!r}")
    return str(found)
