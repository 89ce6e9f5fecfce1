"""What needs no instance."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import from_json

from maskrl.asking import asking
from maskrl.component import Component, check_config, validate
from maskrl.testing.promises import require


def check_class(component: type[Component]) -> None:
    """Check what needs no instance: the ``Config`` refuses unknown keys, and reads its own defaults again from JSON.

    And ``paths`` names settings of it.

    Raises:
        PluginError: it does not.
    """
    check_config(component)
    config = component.Config
    require(component, config.model_config.get("extra") == "forbid", "its Config accepts unknown keys")
    require(component, "name" not in config.model_fields, "its Config has 'name', which names the component")
    for key in component.paths:
        require(component, key in config.model_fields, f"'paths' names {key!r}, which its Config has not")
    if not any(field.is_required() for field in config.model_fields.values()):
        with asking(component, ValidationError):
            _check_defaults(component)


def _check_defaults(component: type[Component]) -> None:
    """A run saves its settings as JSON, and is resumed with what it reads again: the same in every process."""
    default = component.Config()
    saved = {key: _saved(component, default, key) for key in component.Config.model_fields}
    try:
        again = validate(component.Config, saved, {"base": Path()})
    except ValidationError as error:
        first = error.errors()[0]
        require(
            component,
            False,
            f"the default of {first['loc'][0]!r} is none that its Config reads: {first['msg']}",
        )
    for key in saved:
        same = getattr(again, key) == getattr(default, key)
        require(component, same, f"the default of {key!r} is another once it was saved as JSON")


def _saved(component: type[Component], config: Any, key: str) -> Any:
    """Return what is read of a setting that was saved."""
    is_set = isinstance(getattr(config, key), set | frozenset)
    require(
        component,
        not is_set,
        f"the default of {key!r} is a set, of another order in every process; take a list",
    )
    try:
        return from_json(config.model_dump_json(include={key}, warnings=False))[key]
    except ValueError as error:  # pydantic's, of what is no JSON
        complaint = f"the default of {key!r} cannot be saved as JSON: {error}"
    require(component, False, complaint)
