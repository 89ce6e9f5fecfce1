"""What a constructor has left: the attributes that the core reads, looked at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from operator import attrgetter
from typing import Any

from maskrl.asking import asking, refused


def check_attributes(component: Any) -> None:
    """Look at what a component's class lists in ``attributes``: dotted names, and the type, or [the type of each].

    Raises:
        PluginError: one is not there, or something else, or the component is a wrapper around nothing.
    """
    with asking(component):
        inner = component.unwrapped()
    if not hasattr(inner, "unwrapped"):
        raise refused(component, f"unwrapped returned {type(inner).__name__}, which is no component")
    for name, wanted in type(component).attributes.items():
        with asking(component):
            value = attrgetter(name)(component)
            sound = _is_list_of(value, wanted[0]) if isinstance(wanted, list) else isinstance(value, wanted)
        if not sound:
            told = f"a sequence of {wanted[0].__name__}" if isinstance(wanted, list) else wanted.__name__
            raise refused(component, f"its {name!r} is of type {type(value).__name__}; wanted is {told}")


def _is_list_of(value: Any, wanted: type) -> bool:
    is_list = (
        isinstance(value, Iterable) and hasattr(value, "__len__") and not isinstance(value, str | Mapping)
    )
    return is_list and all(isinstance(one, wanted) for one in value)
