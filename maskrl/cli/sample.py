"""``maskrl sample``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from maskrl.cli.eval_options import GuidanceOption
from maskrl.cli.output import JsonOption, print_json
from maskrl.cli.source import CheckpointOption, RecipeOption, RunOption
from maskrl.errors import RecipeError
from maskrl.library.sources import build_sampler, override, resolve_recipe, sample_steps

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
    as_json: JsonOption = False,
) -> None:
    """Paint a text several times, and write the images as one grid."""
    import torch

    from maskrl.eval_section import EvalConfig
    from maskrl.evals.generate import generate
    from maskrl.training.sheet import save_sheet
    from maskrl.types import Prompt, Stream

    if not text.strip():
        raise typer.BadParameter("the text is empty", param_hint="TEXT")
    if not out.name or out.is_dir():
        raise RecipeError(f"--out {str(out)!r} is a folder: name the picture, {str(out / 'grid.png')!r}")
    settings = override("sampling.guidance_eval", guidance)
    chosen = resolve_recipe(recipe, run, checkpoint, settings, ("generators",))
    sampler = build_sampler(chosen, steps or sample_steps(chosen))
    painted = generate(
        sampler.generator,
        [Prompt(text)] * num,
        [Stream(seed).child("sample", i) for i in range(num)],
        sampler.num_steps,
        sampler.sampling,
        sampler.sampling.guidance_eval,
        EvalConfig().batch,
    )
    images = torch.cat([batch for _, batch in painted])
    columns = min(num, COLUMNS)
    save_sheet(out, [""] * columns, images.split(columns))
    if as_json:
        print_json({"text": text, "images": num, "seed": seed, "steps": sampler.num_steps, "out": str(out)})
    else:
        typer.echo(f"{num} images of {text!r}: {out}")
