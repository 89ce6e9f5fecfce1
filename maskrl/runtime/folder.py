"""The folder of one run, and whose it is.

It holds ``recipe.toml`` (every default filled in), ``metrics.jsonl``, ``samples/``, ``checkpoints/``.
"""

from __future__ import annotations

import tomllib
from datetime import datetime
from pathlib import Path
from typing import Any

from maskrl import files
from maskrl.errors import RecipeError, TrainingError
from maskrl.recipe import Recipe

RECIPE = "recipe.toml"


def default_folder(recipe_name: str, now: datetime) -> Path:
    """Name a run after its recipe and the time: ``runs/shapes_clip-20261120-191500``."""
    return Path("runs") / f"{recipe_name}-{now:%Y%m%d-%H%M%S}"


def open_folder(run: Path, recipe: Recipe, resume: bool) -> None:
    """Make the folder of a new run and save its recipe there, or check that it is the one to resume.

    Raises:
        RecipeError: the folder holds a run of another recipe, or something else; it holds this run and
            ``resume`` was not asked; or there is nothing to resume.
        TrainingError: it cannot be written.
    """
    try:
        if (run / RECIPE).exists():
            _check_same(run / RECIPE, recipe)
            if not resume:
                raise RecipeError(
                    f"{str(run)!r} holds this run already; add --resume, or choose another --run"
                )
            return
        if resume:
            raise RecipeError(f"{str(run)!r} holds no run to resume; leave out --resume to begin one there")
        if run.is_dir() and any(run.iterdir()):
            raise RecipeError(f"{str(run)!r} is not empty and holds no run; choose another --run")
        _save(run, recipe)
    except OSError as error:
        raise TrainingError(f"cannot write the run folder {str(run)!r}: {error.strerror}") from error


def _check_same(saved: Path, recipe: Recipe) -> None:
    try:
        theirs = _flat(tomllib.loads(saved.read_text(encoding="utf-8")))
    except ValueError as error:  # no TOML, or no UTF-8
        raise RecipeError(f"{str(saved)!r} is damaged: {error}") from error
    ours = _flat(tomllib.loads(recipe.to_toml()))
    different = sorted(key for key in theirs | ours if theirs.get(key) != ours.get(key))
    if different:
        key = different[0]
        more = f", and {len(different) - 1} more" if len(different) > 1 else ""
        raise RecipeError(
            f"{str(saved.parent)!r} belongs to another recipe: {key} is {theirs.get(key)!r} there and "
            f"{ours.get(key)!r} here{more}; choose another --run"
        )


def _flat(table: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in table.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def _save(run: Path, recipe: Recipe) -> None:
    run.mkdir(parents=True, exist_ok=True)
    files.write_text(run / RECIPE, recipe.to_toml())
