"""Paths as recipes write them: relative to a recipe, or inside an installed package."""

from __future__ import annotations

import sys
from importlib.machinery import PathFinder
from pathlib import Path

from maskrl.errors import RecipeError, quote

PACKAGED = "package:"


def resolve_path(value: str, base: Path) -> str:
    """Turn a path written in a recipe into one that works from anywhere.

    Nothing and ``package:NAME/FOLDER`` (see :func:`open_path`) stay as they are; a path that exists below ``base``, the
    recipe's folder, becomes absolute; anything else (a hub id, a tag) is returned unchanged.

    Raises:
        RecipeError: it cannot be a path.
    """
    if not value or value.startswith(PACKAGED):
        return value
    try:
        local = base / Path(value).expanduser()
        return str(local.resolve()) if local.exists() or value.startswith((".", "/", "~")) else value
    except (OSError, RuntimeError, ValueError) as error:  # too long, nobody's home, a null byte
        raise RecipeError(f"{quote(value)} is no path: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error).rstrip(".")


def open_path(value: str) -> str:
    """Turn ``package:NAME/FOLDER`` into the folder inside that installed package; return anything else unchanged.

    The package is found and not imported, and not looked for in the working directory.

    Raises:
        RecipeError: the package is not installed, or has no such folder.
    """
    if not value.startswith(PACKAGED):
        return value
    package, _, inside = value.removeprefix(PACKAGED).partition("/")
    first, *below = package.split(".")
    spec = PathFinder.find_spec(first, [entry for entry in sys.path if entry]) if first else None
    folders = list(spec.submodule_search_locations or ()) if spec else []
    if not folders:
        raise RecipeError(f"{value!r} names the package {package!r}, which is not installed")
    found = Path(folders[0], *below, inside)
    try:
        if found.exists():
            return str(found)
    except (OSError, ValueError) as error:
        raise RecipeError(f"{quote(value)} is no path: {_reason(error)}") from error
    raise RecipeError(f"{value!r}: the package {package!r} holds no {inside!r}")
