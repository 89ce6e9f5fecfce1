"""Where recipes lie: those that come with maskrl, in packages, and files."""

from __future__ import annotations

from pathlib import Path

import maskrl
from maskrl import registry
from maskrl.component import open_path
from maskrl.errors import RecipeError


def shipped_recipes() -> dict[str, Path]:
    """Find the recipes that come with maskrl, by name: in the wheel, or beside the package in a clone."""
    package = Path(maskrl.__file__).parent
    folder = package / "recipes" if (package / "recipes").is_dir() else package.parent / "recipes"
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def locate_recipe(path_or_name: str | Path) -> Path:
    """Find the file of a recipe; ``package:NAME/FILE`` is one inside an installed package.

    Raises:
        RecipeError: there is none.
    """
    path = Path(open_path(str(path_or_name)))
    if path.is_file():
        return path
    shipped = shipped_recipes()
    if str(path_or_name) in shipped:
        return shipped[str(path_or_name)]
    hint = registry.nearest(path.stem, shipped)
    raise RecipeError(
        f"there is no recipe {str(path_or_name)!r}{hint} (shipped: {', '.join(shipped) or 'none'})"
    )
