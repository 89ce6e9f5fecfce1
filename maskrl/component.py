"""What every pluggable part is: a final class that owns its pydantic ``Config`` and is built from it alone.

And how one is chosen: by its name and its settings, in a section of a recipe, in a setting of another component, or in
code.
"""

from __future__ import annotations

from abc import ABC
from collections.abc import Collection, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Generic, Self, TypeVar

from pydantic import (
    Field,
    PlainSerializer,
    PlainValidator,
    ValidationError,
    ValidationInfo,
)

from maskrl import mistakes, registry
from maskrl.asking import asking, refused
from maskrl.attributes import check_attributes
from maskrl.errors import RecipeError
from maskrl.paths import PACKAGED
from maskrl.paths import open_path as open_path  # plugins take it from here
from maskrl.paths import resolve_path as resolve_path
from maskrl.settings import ComponentConfig as ComponentConfig
from maskrl.settings import Needs as Needs
from maskrl.settings import at_most as at_most
from maskrl.settings import base_of as base_of
from maskrl.settings import needs_of as needs_of
from maskrl.settings import validate as validate

TYPED = (
    "\0typed"  # in a component's section: the folder from which paths start that were typed, by their keys
)


class Component(ABC):  # noqa: B024  # its subclasses, the interfaces, have abstract methods
    """The root of the interfaces. A subclass declares its settings in a nested ``Config``.

    ``paths`` names the settings that hold a file or folder: a recipe's relative paths are resolved against the recipe's
    own folder before the component sees them. ``attributes`` is the interface's: what the core reads of an instance.
    """

    Config: ClassVar[type[ComponentConfig]] = ComponentConfig
    paths: ClassVar[tuple[str, ...]] = ()
    attributes: ClassVar[Mapping[str, Any]] = {}

    def __init__(self, config: Any) -> None:
        self.config = config

    @classmethod
    def stands_for(cls, config: Any) -> Mapping[str, Any] | None:
        """Return the identity of what these settings name elsewhere, on a server say; None: they name nothing there.

        It takes the place of class and settings in :func:`maskrl.identity.identity`.
        """
        return None

    def unwrapped(self) -> Component:
        """Return the component that a wrapper is around; by default itself."""
        return self


def check_config(component: type[Component]) -> None:
    """Refuse a class whose ``Config`` is another class, or none.

    Raises:
        PluginError: it is.
    """
    config: object = component.Config
    if not (isinstance(config, type) and issubclass(config, ComponentConfig)):
        raise refused(component, "its Config is no ComponentConfig")


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
        self._typed: Mapping[str, str] = written.pop(TYPED, {})
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
            check_config(component)
            settings = {**self._written, **self._paths(component)}
            config = validate(component.Config, settings, {**(context or {}), "base": self.base})
            self._found: tuple[type[C], ComponentConfig] = component, config
        return self

    def _paths(self, component: type[C]) -> dict[str, str]:
        """Return the settings that hold paths, so that they work from anywhere."""
        paths = {}
        for key in component.paths:
            if isinstance(value := self._written.get(key), str):
                try:
                    paths[key] = _settle(resolve_path(value, Path(self._typed.get(key, self.base))))
                except RecipeError as error:
                    raise _mistake(key, value, error) from error
        return paths

    def _read(self) -> tuple[type[C], ComponentConfig]:
        try:
            return self.read()._found
        except ValidationError as error:
            who = f"{registry.KINDS[self.kind].label} {self.name!r}"
            said = mistakes.lines(error.errors(), self._written)
            raise RecipeError("\n".join(f"{who}: {line}" for line in said)) from error

    @property
    def component(self) -> type[C]:
        """The class; imported if it was not yet, as by :meth:`build`."""
        return self._read()[0]

    @property
    def config(self) -> ComponentConfig:
        """Its settings with every default; read if they were not yet, as by :meth:`build`."""
        return self._read()[1]

    def build(self, instead: Mapping[str, Any] = MappingProxyType({})) -> C:
        """Build the component, with settings ``instead`` of those that were written.

        Raises:
            RecipeError: no such component, or wrong settings.
            PluginError: it does not import, its own code raised something, or it lacks what is read of it.
        """
        component, config = self._read()
        _as_json(component, config)  # what cannot be saved is refused before a run begins, not after it
        with asking(component):
            built = component(config.model_copy(update=instead) if instead else config)
        check_attributes(built)
        return built

    @property
    def given(self) -> Collection[str]:
        """The settings that the section has; the others are defaults."""
        return self._written.keys()

    @property
    def is_read(self) -> bool:
        """Whether the class has been imported and the settings validated."""
        return "_found" in vars(self)

    def settings(self) -> dict[str, Any]:
        """Return the section: with every default if it was read, else as it is written.

        Raises:
            PluginError: a setting is of a type that cannot be saved as JSON.
        """
        return {"name": self.name, **(_as_json(*self._found) if self.is_read else self._written)}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Chosen) and (self.kind, self.settings()) == (other.kind, other.settings())

    def __hash__(self) -> int:
        return hash((self.kind, self.name))


def _as_json(component: type[Component], config: ComponentConfig) -> dict[str, Any]:
    try:
        return config.model_dump(mode="json")
    except ValueError as error:  # pydantic's
        raise refused(component, f"its settings cannot be saved as JSON: {error}") from error


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
        raise _mistake("name", section, error) from error


def _mistake(key: str, value: Any, error: RecipeError) -> ValidationError:
    """Place an error at a section's key, as pydantic does."""
    detail: Any = {"type": "value_error", "loc": (key,), "input": value, "ctx": {"error": error}}
    return ValidationError.from_exception_data("section", [detail])


def _read_if_needed(chosen: Chosen[Any], info: ValidationInfo) -> Chosen[Any]:
    """Import and validate what was chosen, unless whoever reads the recipe does without it (``Needs``)."""
    needs = needs_of(info)
    kinds = needs.files if registry.is_local(chosen.name) else needs.kinds
    return chosen.read(info.context) if chosen.kind in kinds else chosen


def _settle(value: str) -> str:
    """Make a path absolute that a component would find in the working directory: it is saved as what it was."""
    is_word = "/" not in value and "." not in value  # a tag, whatever lies about
    return value if is_word or value.startswith(PACKAGED) else resolve_path(value, Path())
