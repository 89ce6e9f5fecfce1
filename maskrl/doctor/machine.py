"""This machine and this environment: versions, extras, devices, room, weights at hand."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from maskrl import __version__
from maskrl.doctor.finding import Finding

GIB = 2**30
SHOWN = ("torch", "torchvision", "transformers", "accelerate", "open_clip_torch", "numpy")
DEVELOPERS = ("test", "docs")  # extras that no recipe needs
SMALL_MEMORY, SMALL_DISK = 2 * GIB, 2 * GIB  # below these the shipped world has no room
MOST_LISTED = 8  # repositories of the hub


def versions() -> Iterator[Finding]:
    """Say what is installed, and whether it is what maskrl asks for."""
    yield Finding("versions", "fine", f"maskrl {__version__}, Python {platform.python_version()}")
    yield Finding("versions", "fine", ", ".join(f"{name} {metadata.version(name)}" for name in SHOWN))
    for wanted, found in unmet(None):
        yield Finding(
            "versions", "missing", f"{wanted} is asked for; there is {found}", f"pip install '{wanted}'"
        )


def extras() -> Iterator[Finding]:
    """Say of each extra whether all that it brings is here."""
    for extra in _extras():
        lacking = [wanted for wanted, _ in unmet(extra)]
        if lacking:
            install = f"pip install 'maskrl[{extra}]'"
            yield Finding("extras", "note", f"{extra}: not here ({', '.join(lacking)})", install)
        else:
            yield Finding("extras", "fine", f"{extra}: here")


def _extras() -> list[str]:
    return [e for e in metadata.metadata("maskrl").get_all("Provides-Extra") or () if e not in DEVELOPERS]


def unmet(extra: str | None) -> Iterator[tuple[str, str]]:
    """Yield what an extra asks for and is not here, with the version that is; None: what maskrl itself does."""
    from packaging.requirements import Requirement

    for line in metadata.requires("maskrl") or ():
        wanted = Requirement(line)
        asked = wanted.marker is None or wanted.marker.evaluate({"extra": extra or ""})
        is_of_extra = wanted.marker is not None and "extra" in str(wanted.marker)
        if not asked or is_of_extra != (extra is not None):
            continue
        try:
            found = metadata.version(wanted.name)
        except metadata.PackageNotFoundError:
            found = "none"
        if found == "none" or not wanted.specifier.contains(found, prereleases=True):
            yield f"{wanted.name}{wanted.specifier}", found


def devices() -> Iterator[Finding]:
    """Say what torch computes on, and how much of its memory is free."""
    import torch

    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        name = torch.cuda.get_device_name(index)
        yield Finding("devices", "fine", f"cuda:{index}: {name}, {size(free)} of {size(total)} free")
    if not torch.cuda.is_available():
        built = torch.version.cuda
        why = "none that torch sees" if built else f"torch {torch.__version__} is built for the CPU"
        advice = "look at nvidia-smi, and at the driver's version" if built else ""
        yield Finding("devices", "note", f"GPU: {why}", advice)
    yield Finding("devices", "fine", f"CPU: {torch.get_num_threads()} threads of {platform.machine()}")


def room() -> Iterator[Finding]:
    """Say how much memory and disk is free."""
    memory, disk = free_memory(), shutil.disk_usage(Path.cwd()).free
    yield Finding(
        "room",
        "fine" if memory >= SMALL_MEMORY else "note",
        f"memory: {size(memory)} free",
        "" if memory >= SMALL_MEMORY else "close what else is running",
    )
    yield Finding(
        "room",
        "fine" if disk >= SMALL_DISK else "note",
        f"disk: {size(disk)} free here ({Path.cwd()})",
        "" if disk >= SMALL_DISK else "runs are written below the working directory: go elsewhere",
    )


def free_memory() -> int:
    """Return the bytes of memory that programs may still take."""
    import psutil

    return int(psutil.virtual_memory().available)


def weights() -> Iterator[Finding]:
    """Say which weights are at hand: those of the package, and those that the hub's cache holds."""
    from huggingface_hub import constants, get_token, scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    shipped = Path(__file__).parents[1] / "shapes" / "weights"
    names = sorted(path.name for path in shipped.iterdir() if path.is_dir())
    yield Finding("weights", "fine", f"in the package: {', '.join(names)}")
    try:
        found = sorted(scan_cache_dir().repos, key=lambda one: one.size_on_disk, reverse=True)
    except CacheNotFound:
        found = []
    listed = ", ".join(f"{one.repo_id} ({size(one.size_on_disk)})" for one in found[:MOST_LISTED])
    more = f", and {len(found) - MOST_LISTED} more" if len(found) > MOST_LISTED else ""
    yield Finding(
        "weights", "fine", f"in the hub's cache ({constants.HF_HUB_CACHE}): {listed or 'nothing'}{more}"
    )
    if get_token() is None:
        advice = "hf auth login, for repositories that ask for it; those of the shipped recipes do not"
        yield Finding("weights", "note", "no token of the hub", advice)


def size(number: float) -> str:
    """Write bytes."""
    return f"{number / GIB:.1f} GiB" if number >= GIB / 10 else f"{number / 2**20:.0f} MiB"
