"""``maskrl eval``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from maskrl.cli.source import (
    CheckpointOption,
    Painter,
    RecipeOption,
    RunOption,
    SetOption,
    build_painter,
    open_source,
    override,
)
from maskrl.errors import RecipeError

if TYPE_CHECKING:
    from rich.table import Table

    from maskrl.evals.geneval import GenEvalReport
    from maskrl.recipe import Recipe

app = typer.Typer(no_args_is_help=True, help="Measure a generator.")


@app.callback()
def _group() -> None:
    pass


@app.command()
def geneval(
    recipe: RecipeOption = None,
    run: RunOption = None,
    checkpoint: CheckpointOption = None,
    overrides: SetOption = None,
    detector: Annotated[
        str | None, typer.Option(help="The detector's name; its settings: --set eval.detector.KEY=VALUE.")
    ] = None,
    prompts: Annotated[str | None, typer.Option(help="A prompt set's name, or a file.")] = None,
    images_per_prompt: Annotated[int | None, typer.Option(min=1, help="Officially 4.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Unmasking steps.")] = None,
    guidance: Annotated[float | None, typer.Option(help="w in (1 + w) * cond - w * uncond.")] = None,
    out: Annotated[Path | None, typer.Option(help="A folder for the images and the results.")] = None,
) -> None:
    """Score by GenEval's rules; prompts, noise, steps and guidance are those of a run's own evaluation."""
    from rich.console import Console

    from maskrl.evals.geneval import write_report

    if prompts is not None and Path(prompts).exists():
        prompts = str(Path(prompts).resolve())
    settings = [
        *override("eval.detector", detector),
        *override("eval.prompts", prompts),
        *override("eval.images_per_prompt", images_per_prompt),
        *override("eval.num_steps", steps),
        *override("sampling.guidance_eval", guidance),
        *(overrides or ()),
    ]
    chosen = open_source(recipe, run, checkpoint, settings)
    painter = build_painter(chosen)
    report = _evaluate(chosen, painter, out)
    painter.placement.leave()
    if not painter.placement.is_main:
        return
    Console().print(_table(report))
    if out is not None:
        weights = chosen.generator.settings().get("checkpoint")
        write_report(report, out, {"recipe": chosen.digest(), "checkpoint": weights})
        typer.echo(f"results: {out}")


def _evaluate(recipe: Recipe, painter: Painter, out: Path | None) -> GenEvalReport:
    from rich.console import Console
    from rich.progress import Progress

    from maskrl.evals.geneval import evaluate, image_folder
    from maskrl.runtime.prompts import load_prompts
    from maskrl.types import Stream

    if recipe.eval.prompts is None:
        raise RecipeError("this recipe names no prompts to evaluate: --prompts SET")
    prompts = load_prompts(recipe.eval.prompts)
    detector = recipe.eval.build_detector()
    painter.placement.place_detector(detector)
    console = Console(stderr=True, quiet=not painter.placement.is_main)
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task("painting and judging")
        return evaluate(
            painter.generator,
            prompts,
            detector,
            sampling=painter.sampling,
            num_steps=painter.num_steps,
            guidance=painter.sampling.guidance_eval,
            images_per_prompt=recipe.eval.images_per_prompt,
            stream=Stream(recipe.seed).child("geneval"),
            batch=recipe.eval.batch,
            process=painter.placement,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
            sink=None if out is None else image_folder(out, prompts),
        )


def _table(report: GenEvalReport) -> Table:
    from rich.table import Table

    table = Table(title=f"{report.settings['label']}, {report.images} images", title_justify="left")
    for heading in ("task", "score", "standard error", "prompts"):
        table.add_column(heading, justify="left" if heading == "task" else "right")
    for name, score in report.tasks.items():
        table.add_row(name, f"{score.mean:.3f}", f"{score.se:.3f}", str(score.prompts))
    table.add_section()
    table.add_row("overall", f"{report.overall:.3f}", f"{report.overall_se:.3f}", "", style="bold")
    return table
