"""Run code of a component: what it raises, or answers wrongly, becomes one line with the component's name."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from maskrl import registry
from maskrl.errors import MaskRLError, PluginError, Terminated
from maskrl.shared import put_back, shared

LONGEST = 1000  # letters of what a component says


@contextmanager
def asking(component: Any, *passing: type[Exception]) -> Iterator[None]:
    """Name the component, an instance or a class, whose code raises something, wants to exit or changes what is shared.

    Errors of maskrl's tree, a full device, signals and what is ``passing`` pass as they are. So does what our own
    components raise: it is a bug of ours and keeps its traceback.

    Raises:
        PluginError: the component raised something else; the message has the line of its file. Or it changed what all
            code of the process shares (:mod:`maskrl.shared`), which is then put back.
    """
    before = shared()
    try:
        yield
    except BaseException as error:  # third-party code
        put_back(before)
        if _passes(error, passing) or _is_ours(component):
            raise
        raise PluginError(f"{_title(component)} raised {_reason(error)}{_where(component, error)}") from error
    if (changed := put_back(before)) is not None:
        raise refused(component, f"{changed}; put it back before you return")


@contextmanager
def asking_all(*components: Any) -> Iterator[None]:
    """Do as :func:`asking` where code of several components is at work: name those whose files were, or all.

    Raises:
        PluginError: one of them raised something, or changed what is shared.
    """
    before = shared()
    try:
        yield
    except BaseException as error:
        put_back(before)
        others = [component for component in components if not _is_ours(component)]
        if _passes(error, ()) or not others:
            raise
        guilty = [component for component in others if _where(component, error)] or others
        names = " or ".join(map(_title, guilty))
        raise PluginError(f"{names} raised {_reason(error)}{_where(guilty[0], error)}") from error
    if (changed := put_back(before)) is not None:
        raise PluginError(f"{' or '.join(map(_title, components))} breaks its contract: {changed}")


def _passes(error: BaseException, passing: tuple[type[Exception], ...]) -> bool:
    """Tell whether an error is nobody's fault, or is handled by its name elsewhere."""
    return isinstance(error, (MaskRLError, KeyboardInterrupt, Terminated, *passing)) or _is_full(error)


def _is_full(error: BaseException) -> bool:
    """Tell PyTorch's error of a full device from others of its name."""
    torch: Any = sys.modules.get("torch")
    return torch is not None and isinstance(error, torch.OutOfMemoryError)


def _is_ours(component: Any) -> bool:
    return _class_of(component).__module__.partition(".")[0] == "maskrl"


def _reason(error: BaseException) -> str:
    """Say in one line of a bearable length what was raised."""
    try:
        text = str(error)
    except Exception:  # its own __str__ raises
        text = "(no message)"
    line = " ".join(f"{type(error).__name__}: {text}".split())
    return line if len(line) <= LONGEST else f"{line[:LONGEST]}…"


def refused(component: Any, complaint: str) -> PluginError:
    """Make the error that says which component breaks its contract, and how."""
    return PluginError(f"{_title(component)} breaks its contract: {complaint}")


def _title(component: Any) -> str:
    found = _class_of(component)
    interfaces = {base.__name__ for base in found.__mro__}
    label = next((k.label for k in registry.KINDS.values() if k.interface in interfaces), "component")
    return f"the {label} {found.__qualname__!r}"


def _class_of(component: Any) -> type[Any]:
    if isinstance(component, type):
        return component
    try:
        inner = component.unwrapped()
    except Exception:  # it is the component's own
        inner = None
    return type(component if inner is None else inner)


def _where(component: Any, error: BaseException) -> str:
    """Say which line of the component's own file was at work."""
    file = getattr(sys.modules.get(_class_of(component).__module__), "__file__", None)
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return f" ({file}, line {lines[-1]})" if lines else ""
