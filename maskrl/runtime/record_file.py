"""``run.json``: what a run read and where it ran, at every start, and what it wrote of itself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from maskrl import files
from maskrl.errors import RecipeError

RECORD = "run.json"


def read_record(run: Path) -> dict[str, Any]:
    """Read ``run.json``; of a run that has none, one in which nothing is known.

    Raises:
        RecipeError: it is damaged.
    """
    path = run / RECORD
    nothing: dict[str, Any] = {"contents": None, "starts": [], "saved": None, "recipe_sha256": None}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return nothing
    except (OSError, ValueError, RecursionError) as error:
        raise RecipeError(_damaged(path, error)) from error
    if not isinstance(found, dict) or not _is_record({**nothing, **found, "starts": found.get("starts")}):
        raise RecipeError(_damaged(path, "it is no record of a run"))
    return {**nothing, **found}


def _is_record(found: Mapping[str, Any]) -> bool:
    contents, saved, recipe = found["contents"], found["saved"], found["recipe_sha256"]
    return (
        isinstance(found["starts"], list)
        and all(isinstance(start, dict) for start in found["starts"])
        and (contents is None or isinstance(contents, dict))
        and (saved is None or isinstance(saved, int))
        and (recipe is None or isinstance(recipe, list))
    )


def write_record(run: Path, record: Mapping[str, Any]) -> None:
    """Write ``run.json``, whole or not at all."""
    files.write_text(run / RECORD, json.dumps(record, indent=1) + "\n")


def _damaged(path: Path, why: object) -> str:
    return f"{str(path)!r} is damaged ({why}); restore it, or delete it: then nothing is known of what the run read"
