"""The options that say what to sample from or to evaluate: --recipe R, --run DIR, --checkpoint C, --set K=V."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

RecipeOption = Annotated[
    str | None,
    typer.Option("--recipe", help="A recipe: a TOML file, or the name of one that comes with maskrl."),
]
RunOption = Annotated[
    Path | None, typer.Option("--run", help="A run's folder: its newest checkpoint is used.")
]
CheckpointOption = Annotated[
    Path | None,
    typer.Option(
        "--checkpoint",
        help="A folder of weights as published, or of adapters as peft has them; with --run, a checkpoint's name too.",
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="K=V", help="Override a recipe's value: grpo.group_size=8."),
]
