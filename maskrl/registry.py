"""What is installed, read from the entry points of every package; nothing is imported until it is named.

A package offers a component by an entry point in the group ``maskrl.<kind>.v1``; maskrl's own components are
offered in the same way. The version is the interface's. There is no ``register()`` and no state.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib.metadata
import importlib.util
import inspect
import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from maskrl.errors import AmbiguousComponent, PluginError, RecipeError, Terminated, UnknownComponent
from maskrl.packages import packages
from maskrl.shared import Shared, put_back, shared

INTERFACE_VERSION = 1
SESSION = "session:"  # how a function is called that no file holds
LOCAL_MODULE = "maskrl_local_"  # how modules are called that were imported from a file


@dataclass(frozen=True)
class Kind:
    """What one kind of component is called in a sentence, and the interface its classes implement."""

    label: str
    interface: str
    of_function: str | None = None  # what makes such a class of a plain function


KINDS = {
    "generators": Kind("generator", "MaskedGenerator"),
    "transitions": Kind("transition", "TransitionProb"),
    "rewards": Kind("reward", "RewardModel", "maskrl.rewards.function:reward_class"),
    "filters": Kind("filter", "GroupFilter"),
    "reducers": Kind("reducer", "StepReducer"),
    "evaluations": Kind("evaluation", "Evaluation"),
    "detectors": Kind("detector", "Detector"),
    "prompts": Kind("prompt set", "PromptSet"),
}

_INTERFACES = "maskrl.interfaces"
GROUP = re.compile(rf"maskrl\.({'|'.join(KINDS)})\.v(\d+)")


@dataclass(frozen=True)
class Offer:
    """One entry point: what ``package`` offers, for version ``interface`` of the kind's interface."""

    kind: str
    name: str
    package: str
    version: str
    target: str
    interface: int

    @property
    def spelling(self) -> str:
        """The spelling that is never ambiguous."""
        return f"{self.package}/{self.name}"

    def load(self) -> type[Any]:
        """Import the class.

        Raises:
            PluginError: it does not import, or is no concrete class of its interface.
        """
        where = f"{self.package} {self.version}: {KINDS[self.kind].label} {self.name!r} ({self.target})"
        before = shared()
        try:
            found = importlib.metadata.EntryPoint(self.name, self.target, self.kind).load()
        except Terminated:
            raise
        except (Exception, SystemExit) as error:  # third-party code
            raise PluginError(f"{where} does not load: {_one_line(error)}") from error
        _keep(before, where)
        return _concrete(found, self.kind, where)


def installed() -> list[Offer]:
    """List every offer of every installed package, for any interface version, sorted; imports nothing."""
    offers: dict[tuple[str, int, str, str], Offer] = {}
    for package in packages():
        for point in package.points:
            if match := GROUP.fullmatch(point.group):
                whose = package.name, package.version
                offer = Offer(match[1], point.name, *whose, point.value, int(match[2]))
                offers.setdefault((offer.kind, offer.interface, offer.name, offer.package), offer)
    return [offers[key] for key in sorted(offers)]


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'clip'?"``, or nothing if no known name resembles ``name``."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def find(kind: str, name: str) -> Offer:
    """Find the offer a recipe means by ``name`` (``clip``, or ``maskrl-clip/clip``); imports nothing.

    Raises:
        UnknownComponent: nobody offers it; the message has the nearest name and the list.
        AmbiguousComponent: two packages do; the message has both spellings.
    """
    offers = [offer for offer in installed() if offer.kind == kind]
    matches = [offer for offer in offers if name in (offer.name, offer.spelling)]
    current = [offer for offer in matches if offer.interface == INTERFACE_VERSION]
    if len(current) > 1:
        spellings = " or ".join(repr(offer.spelling) for offer in current)
        raise AmbiguousComponent(
            f"{len(current)} packages offer the {KINDS[kind].label} {name!r}; write {spellings}"
        )
    if current:
        return current[0]
    raise UnknownComponent(_unknown(kind, name, offers, matches))


def load(kind: str, name: str, base: Path | None = None) -> type[Any]:
    """Import the class that ``name`` means: installed, or ``my_file.py:MyReward`` relative to ``base``.

    Args:
        kind: a key of ``KINDS``.
        name: as written in the recipe.
        base: the recipe's folder; the current one if not given.

    Raises:
        RecipeError: there is no such component, or two.
        PluginError: it does not import, or does not implement its interface.
    """
    if name.startswith(SESSION):
        function = name.removeprefix(SESSION)
        raise RecipeError(
            f"the {KINDS[kind].label} {function!r} was a function of a session, which no file holds: put it into one"
            f" (my_file.py:{function}), or go on with maskrl.Trainer(..., reward={function})"
        )
    if is_local(name):
        where = f"{KINDS[kind].label} {name!r}"
        return _concrete(_attribute(where, name, base or Path()), kind, where)
    return find(kind, name).load()


def load_any(name: str) -> tuple[str, type[Any]]:
    """Import ``my_file.py:MyReward``, relative to the current folder, whatever kind of component it is.

    Returns:
        A key of ``KINDS``, and the class.

    Raises:
        RecipeError: there is no such file, or nothing of that name in it.
        PluginError: it does not import, or implements no interface.
    """
    found = _attribute(repr(name), name, Path())
    is_function = inspect.isfunction(found)
    kinds = [
        kind
        for kind, known in KINDS.items()
        if (known.of_function if is_function else known.interface in _implemented(found))
    ]
    if not kinds:
        raise PluginError(f"{name!r} is no subclass of an interface in {_INTERFACES}")
    return kinds[0], _concrete(found, kinds[0], f"{KINDS[kinds[0]].label} {name!r}")


def name_of(kind: str, component: type[Any]) -> str:
    """Return the name under which an installed package offers a class; of any other class its own.

    Where two packages offer a name, maskrl's own keeps it, and the other's is ``PACKAGE/NAME``.
    """
    target = f"{component.__module__}:{component.__qualname__}"
    offers = [offer for offer in installed() if offer.kind == kind]
    for offer in offers:
        if offer.target == target:
            is_shared = any(other.name == offer.name and other.package != offer.package for other in offers)
            return offer.spelling if is_shared and offer.package != "maskrl" else offer.name
    return component.__qualname__


def is_local(name: str) -> bool:
    """Tell whether ``name`` means a class in a file (``my_file.py:MyReward``)."""
    return ".py:" in name


def short_name(name: str) -> str:
    """Return a name without its package or file: what a section is called that is named after it."""
    return name.rpartition(":" if is_local(name) else "/")[2]


def resolve_local(name: str, base: Path) -> str:
    """Make the path in ``my_file.py:MyReward`` absolute; return any other name unchanged."""
    if not is_local(name):
        return name
    path, _, attribute = name.rpartition(":")
    try:
        return f"{(base / Path(path).expanduser()).resolve()}:{attribute}"
    except (OSError, RuntimeError, ValueError) as error:  # too long, nobody's home, a null byte
        raise RecipeError(f"{name!r} names no file: {error}") from error


def _unknown(kind: str, name: str, offers: list[Offer], matches: list[Offer]) -> str:
    label = KINDS[kind].label
    if matches:
        other = matches[0]
        return (
            f"{label} {name!r} of {other.package} {other.version} is written for version {other.interface} "
            f"of the interface, this maskrl has {INTERFACE_VERSION}; install a release of it that matches"
        )
    known = sorted({offer.name for offer in offers if offer.interface == INTERFACE_VERSION})
    shown = name if len(name) <= 200 else name[:200] + "…"  # longer than any
    return f"no {label} is called {shown!r}{nearest(name, known)} (installed: {', '.join(known) or 'none'})"


def _attribute(where: str, name: str, base: Path) -> object:
    """Import a file, and return what ``my_file.py:NAME`` means in it."""
    path, _, attribute = resolve_local(name, base).rpartition(":")
    if not Path(path).is_file():
        raise RecipeError(f"{where}: there is no file {path!r}")
    before = shared()
    try:
        module = _import_file(path)
    except Terminated:
        raise
    except (Exception, SystemExit) as error:  # the user's own code
        missing = getattr(error, "name", None) or ""
        hint = "; a class in a file imports what is installed, not its neighbours: make them a package"
        is_neighbour = bool(missing) and Path(path).with_name(f"{missing.partition('.')[0]}.py").is_file()
        raise PluginError(
            f"{where} does not load: {_one_line(error)}{hint if is_neighbour else ''}"
        ) from error
    _keep(before, where)
    if not hasattr(module, attribute):
        raise UnknownComponent(f"{path!r} holds no {attribute!r}{nearest(attribute, vars(module))}")
    return getattr(module, attribute)


def _keep(before: Shared, where: str) -> None:
    """Refuse what changes, as it is imported, what all code of the process shares."""
    if (changed := put_back(before)) is not None:
        raise PluginError(f"{where} does not load: {changed}")


def _implemented(found: object) -> set[str]:
    """Return which interfaces of ours a class has among its bases.

    They are recognised by their names: importing them would import torch, which this layer does without.
    """
    bases = getattr(found, "__mro__", ())
    return {base.__qualname__ for base in bases if f"{base.__module__}.".startswith(f"{_INTERFACES}.")}


def _import_file(path: str) -> ModuleType:
    """Import a file once; it is entered in ``sys.modules`` so that pydantic can resolve its annotations."""
    module_name = f"{LOCAL_MODULE}{hashlib.blake2b(path.encode(), digest_size=6).hexdigest()}"
    if module_name in sys.modules:
        return sys.modules[module_name]
    spec = importlib.util.spec_from_file_location(module_name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[module_name]
        raise
    return module


def _takes_two(function: Callable[..., Any]) -> bool:
    try:
        inspect.signature(function).bind(None, None)
    except TypeError:
        return False
    return True


def _concrete(found: object, kind: str, where: str) -> type[Any]:
    """Check that ``found`` is a concrete class of the kind's interface."""
    interface, of_function = KINDS[kind].interface, KINDS[kind].of_function
    if inspect.isfunction(found) and of_function is not None and _takes_two(found):
        found = importlib.metadata.EntryPoint("", of_function, kind).load()(found)
    if not inspect.isclass(found):
        raise PluginError(f"{where} is not a class")
    if interface not in _implemented(found):
        raise PluginError(f"{where} is no subclass of {_INTERFACES}.{interface}")
    if missing := sorted(getattr(found, "__abstractmethods__", ())):
        raise PluginError(f"{where} lacks {', '.join(missing)}")
    return found


def _one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
