"""What a run is made of beside its recipe: the contents it reads, the code of its file plugins, where it runs."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

import maskrl
from maskrl import __version__
from maskrl.identity import identity
from maskrl.recipe import SECTIONS, Recipe
from maskrl.runtime.prompts import prompts_digest
from maskrl.types import Prompt

_DEPENDENCIES = ("torch", "transformers", "open_clip_torch", "numpy")


def contents(recipe: Recipe, prompts: Sequence[Prompt]) -> dict[str, Any]:
    """Return what a run reads to train, told by contents: its components and its prompts.

    Raises:
        RecipeError: a file cannot be read.
    """
    read = {section: identity(getattr(recipe, section)) for section in SECTIONS}
    return {**read, "prompts": {"sha256": prompts_digest(prompts), "number": len(prompts)}}


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
