"""What a run is made of beside its recipe: the contents it reads, the code of its file plugins, where it runs."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

import maskrl
from maskrl import __version__
from maskrl.component import Chosen
from maskrl.identity import all_in, identity
from maskrl.recipe import SECTIONS, Recipe
from maskrl.runtime.prompts import prompts_digest
from maskrl.types import Prompt

_DEPENDENCIES = ("torch", "transformers", "open_clip_torch", "numpy")
OLD_PROTOCOL = "GenEval scoring rules of djghosh13/geneval af4902f"  # of runs that do not name it
WATCHED = "watch."  # how contents are called that may change


def contents(recipe: Recipe, prompts: Sequence[Prompt]) -> dict[str, Any]:
    """Return what a run reads to train, told by contents: its components, what watches, and its prompts.

    Raises:
        RecipeError: a file cannot be read.
    """
    read = {section: identity(getattr(recipe, section)) for section in SECTIONS}
    watch = {f"{WATCHED}{label}": identity(chosen) for label, chosen in recipe.watch.rewards.items()}
    return {**read, **watch, "prompts": {"sha256": prompts_digest(prompts), "number": len(prompts)}}


def components(recipe: Recipe) -> list[Chosen[Any]]:
    """Return all components that a recipe names: in sections, among what watches, in settings of others."""
    named = [getattr(recipe, section) for section in SECTIONS]
    named += [*recipe.watch.rewards.values(), *(section.evaluation for section in recipe.eval.values())]
    return [one for chosen in named for one in all_in(chosen)]


def changed_contents(
    known: Mapping[str, Any], now: Mapping[str, Any]
) -> Iterator[tuple[str, tuple[str, Any, Any]]]:
    """Yield the names of contents that are others now, each with where it differs first, what is known, and is now.

    What watches may come and go: that is told by the settings.
    """
    known = _as_of_today(known)
    for name in sorted({*known, *now}):
        comes_or_goes = name.startswith(WATCHED) and not (name in known and name in now)
        if known.get(name) != now.get(name) and not comes_or_goes:
            yield name, difference(known.get(name), now.get(name))


def _as_of_today(contents: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what a run of before evaluations had sections of their own read, as it is told today."""
    if "eval.prompts" not in contents:
        return contents
    others = {key: value for key, value in contents.items() if not key.startswith("eval.")}
    settings = {"protocol": OLD_PROTOCOL, "detector": contents["eval.detector"]}
    return {**others, "eval.geneval": {"prompts": contents["eval.prompts"], "settings": settings}}


def difference(one: Any, other: Any, where: str = "") -> tuple[str, Any, Any]:
    """Return where two records differ first, and what stands there in each."""
    if isinstance(one, dict) and isinstance(other, dict):
        key = next(key for key in sorted({*one, *other}) if one.get(key) != other.get(key))
        return difference(one.get(key), other.get(key), f"{where}.{key}" if where else key)
    return where, one, other


def short(value: Any) -> str:
    """Return a value as a message shows it: a hash by its first digits."""
    text = repr(value)
    return text if len(text) <= 24 else f"{text[:13]}..."


def changed_versions(starts: Sequence[Mapping[str, Any]], about: Mapping[str, Any]) -> list[str]:
    """Say which packages are others now than at the start before this one, a line each."""
    known, now = (dict(one.get("versions") or {}) for one in (starts[-1] if starts else {}, about))
    changed = [name for name in sorted(now) if name in known and known[name] != now[name]]
    return [f"continuing with {name} {now[name]}, was {known[name]}: numbers may differ" for name in changed]


def versions(components: Sequence[type] = ()) -> dict[str, str]:
    """Return the versions of the packages that can change a number, and of those that these classes come from."""
    packages = {package for kind in components if (package := _package(kind)) not in ("", "maskrl")}
    packages |= {package for kind in components for package in getattr(kind, "packages", ())}
    names = [*_DEPENDENCIES, *sorted(packages)]
    return {"maskrl": __version__, **{name: _version(name) for name in names}}


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:  # named by a component of another package
        return "not installed"


def surroundings(processes: int) -> dict[str, Any]:
    """Return where a run runs: Python, machine, processor, devices, processes, and the commit where it is a clone."""
    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": os.cpu_count(),
        "devices": devices,
        "processes": processes,
        "threads": torch.get_num_threads(),
        "commit": _commit(),
    }


@functools.cache
def _distributions() -> Mapping[str, list[str]]:
    return importlib.metadata.packages_distributions()


def _package(kind: type) -> str:
    """Return the installed package that a class comes from; for a class from a file, nothing."""
    return next(iter(_distributions().get(kind.__module__.partition(".")[0], ())), "")


def _processor() -> str:
    cpus = Path("/proc/cpuinfo")
    lines = cpus.read_text(encoding="utf-8").splitlines() if cpus.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _commit() -> str | None:
    """Return the commit of maskrl where it runs from a clone, with a plus where files differ from it."""
    folder = Path(maskrl.__file__).parents[1]
    if not (folder / ".git").exists():
        return None
    command = ["git", "-C", str(folder), "describe", "--always", "--abbrev=12", "--dirty=+"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
