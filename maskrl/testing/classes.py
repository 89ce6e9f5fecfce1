"""What needs no instance."""

from __future__ import annotations

from maskrl.component import Component, ComponentConfig
from maskrl.testing.promises import require


def check_class(component: type[Component]) -> None:
    """Check what needs no instance: the ``Config`` refuses unknown keys, and ``paths`` names settings of it.

    Raises:
        PluginError: it does not.
    """
    config = component.Config
    require(component, issubclass(config, ComponentConfig), "its Config is no ComponentConfig")
    require(component, config.model_config.get("extra") == "forbid", "its Config accepts unknown keys")
    require(component, "name" not in config.model_fields, "its Config has 'name', which names the component")
    for key in component.paths:
        require(component, key in config.model_fields, f"'paths' names {key!r}, which its Config has not")
