"""Packages to begin a plugin with: for each kind of component a folder of templates, which jinja2 fills in.

``common`` holds what all packages have. ``PATH.jinja`` becomes ``PATH``, any other file is copied; ``NAME`` in a path
is the component's name.
"""

from __future__ import annotations

import keyword
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maskrl import __version__, files, registry
from maskrl.errors import RecipeError, quote
from maskrl.packages import packages
from maskrl.registry import INTERFACE_VERSION, KINDS

FOLDER = Path(__file__).parent
COMMON, SUFFIX, NAME = "common", ".jinja", "NAME"
TEMPLATES = ("reward", "generator", "transition", "filter", "reducer", "evaluation", "detector", "prompts")
MOST_LETTERS = 40  # of a name: it stands twice in some lines
_SOUND = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")


@dataclass(frozen=True)
class Package:
    """A package that is to be written: from which template, and the name that recipes will use (``my_reward``)."""

    template: str
    name: str

    @property
    def kind(self) -> str:
        """The key of ``registry.KINDS``."""
        return f"{self.template.removesuffix('s')}s"

    @property
    def label(self) -> str:
        """What a sentence calls the component."""
        return KINDS[self.kind].label

    @property
    def package(self) -> str:
        """What pip calls it: ``maskrl-my-reward``."""
        return f"maskrl-{self.name.replace('_', '-')}"

    @property
    def module(self) -> str:
        """What Python imports: ``maskrl_my_reward``."""
        return f"maskrl_{self.name}"

    @property
    def class_name(self) -> str:
        """The class: ``MyReward``; with the kind behind it where the template or Python means something else by it."""
        wanted = "".join(part.capitalize() for part in self.name.split("_"))
        is_taken = wanted in keyword.kwlist or wanted in self._words()
        return f"{wanted}{self.template.capitalize()}" if is_taken else wanted

    def _words(self) -> set[str]:
        sources = (FOLDER / self.template).rglob(f"*.py{SUFFIX}")
        return {word for path in sources for word in re.findall(r"\w+", path.read_text(encoding="utf-8"))}

    def values(self) -> dict[str, Any]:
        """Return what templates may ask for."""
        major, minor = map(int, __version__.split(".")[:2])
        names = ("name", "label", "package", "module", "class_name")
        return {
            **{name: getattr(self, name) for name in names},
            "group": f"maskrl.{self.kind}.v{INTERFACE_VERSION}",
            "interface": INTERFACE_VERSION,
            "versions": f">={major}.{minor},<{major}.{minor + 1}",
        }


def write_package(template: str, written: str, to: Path | None = None) -> tuple[Package, Path]:
    """Write a package with a component that works and is to be changed: class, tests, README and recipe.

    Args:
        template: one of ``TEMPLATES``.
        written: the component's name as a user writes it: ``my-reward``, "My Reward".
        to: a folder that is not there yet; None: ``maskrl-my-reward`` in the working directory. It is whole or absent,
            whatever happens on the way.

    Returns:
        The package, and its folder.

    Raises:
        RecipeError: there is no such template, no such name can be given, or something of this name is there already.
        TrainingError: the folder cannot be written.
    """
    if template not in TEMPLATES:
        hint = registry.nearest(template, TEMPLATES)
        raise RecipeError(
            f"there is no template for {quote(template)}{hint} (there are {', '.join(TEMPLATES)})"
        )
    package = Package(template, read_name(written))
    _check_free(package)
    folder = Path(package.package) if to is None else to
    if os.path.lexists(folder):
        raise RecipeError(f"{str(folder)!r} is there already; choose another folder: --to FOLDER")
    with files.whole_folder(folder) as unfinished:
        for path, source in _sources(package).items():
            (unfinished / path).parent.mkdir(parents=True, exist_ok=True)
            if source.suffix == SUFFIX:
                (unfinished / path).write_text(_render(source, package), encoding="utf-8")
            else:
                shutil.copyfile(source, unfinished / path)
    return package, folder


def read_name(written: str) -> str:
    """Return the name for recipes: ``my_reward`` of "my-reward", "My Reward", "MyReward" and "maskrl-my-reward".

    Raises:
        RecipeError: it cannot be one.
    """
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", written.strip())
    name = re.sub(r"[\s_-]+", "_", words).lower().removeprefix("maskrl_")
    if _SOUND.fullmatch(name) and len(name) <= MOST_LETTERS:
        return name
    other = re.sub(r"[^a-z0-9]+", "-", name).lstrip("-0123456789").rstrip("-")
    hint = f"; {other!r} would do" if other and len(other) <= MOST_LETTERS else ""
    raise RecipeError(
        f"{quote(written)} cannot be a component's name: take letters from a to z, digits and '-', a letter first,"
        f" {MOST_LETTERS} at most{hint}"
    )


def _check_free(package: Package) -> None:
    """Refuse the name of what is installed: recipes could not tell the two apart, and pip would replace a package."""
    offers = [
        offer for offer in registry.installed() if (offer.kind, offer.name) == (package.kind, package.name)
    ]
    if offers:
        raise RecipeError(
            f"{offers[0].package} {offers[0].version} offers the {package.label} {package.name!r} already; choose"
            " another name"
        )
    if package.package in {found.name for found in packages()}:
        raise RecipeError(f"the package {package.package!r} is installed already; choose another name")


def _sources(package: Package) -> dict[Path, Path]:
    """Return the template of each file, by the path of the file in the package."""
    sources = {}
    for folder in (FOLDER / COMMON, FOLDER / package.template):
        for source in sorted(folder.rglob("*")):
            path = str(source.relative_to(folder)).removesuffix(SUFFIX).replace(NAME, package.name)
            if source.is_file():
                sources[Path(path)] = source
    return sources


def _render(source: Path, package: Package) -> str:
    import jinja2  # late: only this command needs it

    loader = jinja2.FileSystemLoader(FOLDER)
    environment = jinja2.Environment(
        loader=loader,
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(source.relative_to(FOLDER).as_posix()).render(package.values())
