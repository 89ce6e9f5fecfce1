"""What every evaluation writes: one JSON file with the numbers, and all that is needed to get them again."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from maskrl import __version__
from maskrl.component import Component
from maskrl.errors import TrainingError
from maskrl.types import Prompt

_DEPENDENCIES = ("torch", "transformers", "open_clip_torch", "numpy")


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all, making its folder.

    Raises:
        TrainingError: the place cannot be written.
    """
    unfinished = path.with_name(path.name + ".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished.write_text(text, encoding="utf-8")
        os.replace(unfinished, path)
    except OSError as error:
        raise TrainingError(f"cannot write {str(path)!r}: {error.strerror}") from error


def read_text(path: Path) -> str:
    """Read a file that :func:`write_text` wrote.

    Raises:
        TrainingError: it is missing, or no text.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TrainingError(f"cannot read the results in {str(path)!r}: {error}") from error


def to_json(values: Mapping[str, Any]) -> str:
    """Return indented JSON; NaN, a standard error that does not exist, becomes null."""
    return json.dumps(_without_nan(values), indent=2, allow_nan=False) + "\n"


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nan(inner) for key, inner in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value


def versions() -> dict[str, str]:
    """Return the versions of the packages that can change a number."""
    return {"maskrl": __version__} | {package: version(package) for package in _DEPENDENCIES}


def describe(component: Component) -> dict[str, Any]:
    """Return which class a component is, and its settings."""
    kind = type(component)
    return {"class": f"{kind.__module__}:{kind.__qualname__}", **component.config.model_dump(mode="json")}


def prompts_digest(prompts: Sequence[Prompt]) -> str:
    """Return the sha256 of texts and metadata, in order."""
    lines = [json.dumps([prompt.text, dict(prompt.metadata)]) for prompt in prompts]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
