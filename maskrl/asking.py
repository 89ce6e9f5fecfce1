"""Run code of a component: what it raises, or answers wrongly, becomes one line with the component's name."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from maskrl import registry
from maskrl.errors import MaskRLError, PluginError


@contextmanager
def asking(component: Any, *passing: type[Exception]) -> Iterator[None]:
    """Name the component, an instance or a class, whose code raises something or wants to exit.

    Errors of maskrl's tree, a full device and what is ``passing`` pass as they are. So does what our own components
    raise: it is a bug of ours and keeps its traceback.

    Raises:
        PluginError: the component raised something else; the message has the line of its file.
    """
    try:
        yield
    except (Exception, SystemExit) as error:  # third-party code
        if isinstance(error, (MaskRLError, *passing)) or type(error).__name__ == "OutOfMemoryError":
            raise
        if _class_of(component).__module__.partition(".")[0] == "maskrl":
            raise
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise PluginError(f"{_title(component)} raised {reason}{_where(component, error)}") from error


def refused(component: Any, complaint: str) -> PluginError:
    """Make the error that says which component breaks its contract, and how."""
    return PluginError(f"{_title(component)} breaks its contract: {complaint}")


def _title(component: Any) -> str:
    found = _class_of(component)
    interfaces = {base.__name__ for base in found.__mro__}
    label = next((k.label for k in registry.KINDS.values() if k.interface in interfaces), "component")
    return f"the {label} {found.__qualname__!r}"


def _class_of(component: Any) -> type[Any]:
    return component if isinstance(component, type) else type(component.unwrapped())


def _where(component: Any, error: BaseException) -> str:
    """Say which line of the component's own file was at work."""
    file = getattr(sys.modules.get(_class_of(component).__module__), "__file__", None)
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return f" ({file}, line {lines[-1]})" if lines else ""
