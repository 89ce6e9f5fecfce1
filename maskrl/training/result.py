"""What a run came to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from maskrl.evals.results import Report


@dataclass(frozen=True)
class TrainResult:
    """What a run came to: its evaluations by label, none where the recipe asks for none.

    ``is_main``: whether this is the process that wrote the folder.
    """

    before: Mapping[str, Report]
    after: Mapping[str, Report]
    picture: Path | None
    run: Path
    updates: int
    is_main: bool
