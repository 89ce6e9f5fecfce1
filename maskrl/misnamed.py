"""Entry points that look like ours and are none."""

from __future__ import annotations

from dataclasses import dataclass

from maskrl.packages import packages
from maskrl.registry import GROUP, INTERFACE_VERSION, KINDS, nearest


@dataclass(frozen=True)
class Misnamed:
    """An entry point in a group that looks like one of ours and is none: nobody will ever find it."""

    group: str
    name: str
    package: str

    def __str__(self) -> str:
        groups = [f"maskrl.{kind}.v{INTERFACE_VERSION}" for kind in KINDS]
        hint = nearest(self.group, groups)
        return (
            f"{self.package}: {self.name!r} is offered in {self.group!r}, which is no group of maskrl's{hint}"
        )


def misnamed() -> list[Misnamed]:
    """List what packages offer in groups that are spelt wrongly, sorted; imports nothing."""
    return sorted(
        {
            Misnamed(point.group, point.name, package.name)
            for package in packages()
            for point in package.points
            if point.group.lower().startswith("maskrl") and not GROUP.fullmatch(point.group)
        },
        key=str,
    )
