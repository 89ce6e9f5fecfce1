"""Installed packages by their metadata: nothing is imported, and what one of them has damaged harms no other."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator
from functools import cached_property
from importlib.metadata import Distribution, EntryPoint


class Installed:
    """One package: its entry points; who it is takes longer to read, and is read when it is asked for.

    Attributes:
        points: its entry points; none where ``damage`` says why.
    """

    def __init__(self, found: Distribution) -> None:
        self._found = found
        self._reason: str | None = None
        self.points: tuple[EntryPoint, ...] = ()
        try:
            self.points = tuple(found.entry_points)
        except Exception as error:  # whatever the file holds
            self._reason = " ".join(f"{type(error).__name__}: {error}".split())

    @property
    def name(self) -> str:
        """Its name as pip compares names."""
        return self._title[0]

    @property
    def version(self) -> str:
        """Its version."""
        return self._title[1]

    @property
    def damage(self) -> str | None:
        """Why its entry points cannot be read; None: they are."""
        return self._reason and f"{self.name}: its entry points cannot be read ({self._reason})"

    @cached_property
    def _title(self) -> tuple[str, str]:
        try:
            metadata = self._found.metadata  # which parses a file at every call
            name = (metadata["Name"] or "unnamed").lower().replace("_", "-")
            return name, metadata["Version"] or "of no version"
        except Exception:  # nothing says whose it is
            return "unnamed", "of no version"


def packages() -> Iterator[Installed]:
    """Look at every installed package."""
    return map(Installed, importlib.metadata.distributions())
