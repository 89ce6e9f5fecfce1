"""Installed packages by their metadata: nothing is imported, and what one of them has damaged harms no other."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import EntryPoint


@dataclass(frozen=True)
class Installed:
    """One package: its ``name`` as pip compares names, and its entry points; none where ``damage`` says why."""

    name: str
    version: str
    points: tuple[EntryPoint, ...]
    damage: str | None = None


def packages() -> Iterator[Installed]:
    """Read the metadata of every installed package."""
    for found in importlib.metadata.distributions():
        try:
            metadata = found.metadata  # which parses a file at every call
            name = (metadata["Name"] or "unnamed").lower().replace("_", "-")
            version = metadata["Version"] or "of no version"
        except Exception:  # nothing says whose it is
            name, version = "unnamed", "of no version"
        try:
            yield Installed(name, version, tuple(found.entry_points))
        except Exception as error:  # whatever the file holds
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            yield Installed(name, version, (), f"{name}: its entry points cannot be read ({reason})")
