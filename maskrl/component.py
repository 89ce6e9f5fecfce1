"""What every pluggable part is: a final class that owns its pydantic ``Config`` and is built from it alone.

And how one is chosen: by its name and its settings, in a section of a recipe, in a setting of another component, or in
code.
"""

from __future__ import annotations

import importlib.resources
from abc import ABC
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Generic, Self, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    ValidationError,
    ValidationInfo,
)
from pydantic_core import ErrorDetails

from maskrl import registry
from maskrl.asking import asking
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

    def unwrapped(self) -> Component:
        """Return the component that a wrapper is around; by default itself."""
        return self


@dataclass(frozen=True)
class Needs:
    """What a command needs of a recipe: components of these ``kinds``; ``files``: also those that are code in a file.

    The others stay unread: not imported, their settings not looked at, until somebody asks for them.
    """

    kinds: Collection[str] = tuple(registry.KINDS)
    files: bool = True


C = TypeVar("C", bound=Component)
Label = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")]  # what a user calls a component, in metrics


class Chosen(Generic[C]):
    """A section that names a component: its class, and its settings as its own ``Config`` reads them.

    The class is imported when the first of them is asked for, and not before: a class in a file is code that runs.
    """

    def __init__(self, kind: str, section: Mapping[str, Any], base: Path) -> None:
        """Take a section as it is written.

        Args:
            kind: a key of ``registry.KINDS``.
            section: ``name``, and the keys of that component's ``Config``.
            base: the folder that relative paths start from.

        Raises:
            RecipeError: it has no name.
        """
        written = dict(section)
        name = written.pop("name", None)
        if not isinstance(name, str):
            raise RecipeError(f'say which {registry.KINDS[kind].label}: name = "..."')
        self.kind, self.base, self._written = kind, base, written
        self.name = registry.resolve_local(name, base)

    def read(self, context: Mapping[str, Any] | None = None) -> Self:
        """Import the class and validate the settings, now.

        Raises:
            RecipeError: no such component.
            PluginError: it does not import.
            ValidationError: the settings are wrong (pydantic's, so that a recipe can place it at the user's key).
        """
        if "_found" not in vars(self):
            component = registry.load(self.kind, self.name, self.base)
            settings = dict(self._written)
            for key in component.paths:
                if isinstance(settings.get(key), str):
                    settings[key] = resolve_path(settings[key], self.base)
            config = component.Config.model_validate(settings, context={**(context or {}), "base": self.base})
            self._found: tuple[type[C], ComponentConfig] = component, config
        return self

    def _read(self) -> tuple[type[C], ComponentConfig]:
        try:
            return self.read()._found
        except ValidationError as error:
            who = f"{registry.KINDS[self.kind].label} {self.name!r}"
            raise RecipeError("\n".join(f"{who}: {say(detail)}" for detail in error.errors())) from error

    @property
    def component(self) -> type[C]:
        """The class; imported if it was not yet, as by :meth:`build`."""
        return self._read()[0]

    @property
    def config(self) -> ComponentConfig:
        """Its settings with every default; read if they were not yet, as by :meth:`build`."""
        return self._read()[1]

    def build(self) -> C:
        """Build the component.

        Raises:
            RecipeError: no such component, or wrong settings.
            PluginError: it does not import, or its own code raised something.
        """
        component, config = self._read()
        with asking(component):
            return component(config)

    @property
    def is_read(self) -> bool:
        """Whether the class has been imported and the settings validated."""
        return "_found" in vars(self)

    def settings(self) -> dict[str, Any]:
        """Return the section: with every default if it was read, else as it is written."""
        settings = self._found[1].model_dump(mode="json") if self.is_read else self._written
        return {"name": self.name, **settings}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Chosen) and (self.kind, self.settings()) == (other.kind, other.settings())

    def __hash__(self) -> int:
        return hash((self.kind, self.name))


def build(kind: str, section: Mapping[str, Any], base: Path) -> Component:
    """Build the component a section names, outside of a recipe (a detector, say).

    Raises:
        RecipeError: no such component, or wrong settings.
        PluginError: it does not import.
    """
    chosen: Chosen[Component] = Chosen(kind, section, base)
    return chosen.build()


def named(kind: str) -> tuple[PlainValidator, PlainSerializer]:
    """Annotate a setting that names another component, as a string or as a section with that one's settings.

    ::

        detector: Annotated[Chosen[Detector], *named("detectors")]
    """

    def read(value: Any, info: ValidationInfo) -> Chosen[Any]:
        if isinstance(value, str):
            return _read_if_needed(Chosen(kind, {"name": value}, base_of(info)), info)
        if not isinstance(value, Mapping):
            raise ValueError(f"names a {registry.KINDS[kind].label}, or is a section that does")
        return choose_section(kind, value, info)

    return PlainValidator(read), PlainSerializer(Chosen.settings)


def choose_section(kind: str, section: Mapping[str, Any], info: ValidationInfo) -> Chosen[Any]:
    """Choose what a section names, within a validator: what cannot be had is a mistake at the key ``name``.

    Raises:
        PluginError: it does not import.
        ValidationError: no such component, or wrong settings.
    """
    try:
        return _read_if_needed(Chosen(kind, section, base_of(info)), info)
    except RecipeError as error:
        name: Any = {"type": "value_error", "loc": ("name",), "input": section, "ctx": {"error": error}}
        raise ValidationError.from_exception_data("section", [name]) from error


def _read_if_needed(chosen: Chosen[Any], info: ValidationInfo) -> Chosen[Any]:
    """Import and validate what was chosen, unless whoever reads the recipe does without it (``Needs``)."""
    needs = needs_of(info)
    is_file = registry.is_local(chosen.name)
    wanted = chosen.kind in needs.kinds and (needs.files or not is_file)
    if not wanted and not is_file:
        registry.find(chosen.kind, chosen.name)  # a name that nobody offers is a mistake all the same
    return chosen.read(info.context) if wanted else chosen


def base_of(info: ValidationInfo) -> Path:
    """Return the folder that relative paths start from, while settings are validated."""
    return info.context["base"] if info.context else Path()


def needs_of(info: ValidationInfo) -> Needs:
    """Return what is needed of a recipe, while settings are validated: all of it, if nobody says."""
    needs: Needs = (info.context or {}).get("needs", Needs())
    return needs


def say(detail: ErrorDetails, known: Sequence[str] = ()) -> str:
    """Say in one line what is wrong with which key; ``known`` is what an unknown key could have been."""
    key = ".".join(str(part) for part in detail["loc"])
    cause = detail.get("ctx", {}).get("error")
    if detail["type"] == "extra_forbidden":
        return f"{key}: unknown key{registry.nearest(str(detail['loc'][-1]), known)}"
    if detail["type"] == "missing":
        return f"{key}: is missing"
    if detail["type"] == "model_type":
        return f"{key}: is a section: write [{key}]"
    if cause is not None:
        return f"{key}: {cause}"
    return f"{key}: {detail['msg'][0].lower()}{detail['msg'][1:]}, not {detail['input']!r}"


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
