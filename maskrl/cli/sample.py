"""``maskrl sample``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from maskrl.cli.source import CheckpointOption, RecipeOption, RunOption, build_painter, open_source, override
from maskrl.cli.subject import GuidanceOption

COLUMNS = 4


def sample(
    text: Annotated[str, typer.Argument(help="What to paint.")],
    recipe: RecipeOption = None,
    run: RunOption = None,
    checkpoint: CheckpointOption = None,
    out: Annotated[Path, typer.Option(help="The PNG to write.")] = Path("grid.png"),
    num: Annotated[int, typer.Option(min=1, help="How many images.")] = 8,
    seed: Annotated[int, typer.Option(min=0, help="Of the noise.")] = 0,
    guidance: GuidanceOption = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Unmasking steps.")] = None,
) -> None:
    """Paint a text several times, and write the images as one grid."""
    import torch

    from maskrl.evals.generate import generate
    from maskrl.training.sheet import save_sheet
    from maskrl.types import Prompt, Stream

    if not text.strip():
        raise typer.BadParameter("the text is empty", param_hint="TEXT")
    settings = [*override("sampling.guidance_eval", guidance), *override("eval.num_steps", steps)]
    chosen = open_source(recipe, run, checkpoint, settings, ("generators",))
    painter = build_painter(chosen)
    painted = generate(
        painter.generator,
        [Prompt(text)] * num,
        [Stream(seed).child("sample", i) for i in range(num)],
        painter.num_steps,
        painter.sampling,
        painter.sampling.guidance_eval,
        chosen.eval.batch,
    )
    images = torch.cat([batch for _, batch in painted])
    columns = min(num, COLUMNS)
    save_sheet(out, [""] * columns, images.split(columns))
    typer.echo(f"{num} images of {text!r}: {out}")
