"""``maskrl eval``."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from maskrl.cli.source import (
    CheckpointOption,
    RecipeOption,
    RunOption,
    SetOption,
    build_painter,
    open_source,
    override,
)
from maskrl.errors import RecipeError

if TYPE_CHECKING:
    from maskrl.evals.images import ImageFolder
    from maskrl.evals.results import Number, Result
    from maskrl.interfaces import RewardModel
    from maskrl.recipe import Recipe
    from maskrl.runtime.placement import Placement

app = typer.Typer(no_args_is_help=True, help="Measure a generator, or images that are there.")

PromptsOption = Annotated[str | None, typer.Option(help="A prompt set's name, or a file.")]
ImagesPerPromptOption = Annotated[int | None, typer.Option(min=1, help="Officially 4.")]
StepsOption = Annotated[int | None, typer.Option(min=1, help="Unmasking steps.")]
GuidanceOption = Annotated[float | None, typer.Option(help="w in (1 + w) * cond - w * uncond.")]
OutOption = Annotated[
    Path | None,
    typer.Option(help="A folder for images and results; the same again goes on where it was killed."),
]
ImagesOption = Annotated[
    Path | None,
    typer.Option(
        "--images", help="Judge the images of this folder, in GenEval's layout; nothing is painted."
    ),
]
Show = Callable[[int, int], None]


@dataclass(frozen=True)
class Subject:
    """What is evaluated: images in a folder, and where the results go."""

    recipe: Recipe
    placement: Placement
    images: ImageFolder
    out: Path
    provenance: dict[str, Any]


@app.command()
def geneval(
    recipe: RecipeOption = None,
    run: RunOption = None,
    checkpoint: CheckpointOption = None,
    overrides: SetOption = None,
    detector: Annotated[
        str | None, typer.Option(help="The detector's name; its settings: --set eval.detector.KEY=VALUE.")
    ] = None,
    prompts: PromptsOption = None,
    images_per_prompt: ImagesPerPromptOption = None,
    steps: StepsOption = None,
    guidance: GuidanceOption = None,
    out: OutOption = None,
    images: ImagesOption = None,
) -> None:
    """Score by GenEval's rules; prompts, noise, steps and guidance are those of a run's own evaluation."""
    from maskrl.evals.geneval import as_result, evaluate_folder, write_report
    from maskrl.evals.journal import close

    settings = [
        *override("eval.detector", detector),
        *_painting(prompts, images_per_prompt, steps, guidance, overrides),
    ]
    chosen = open_source(recipe, run, checkpoint, settings)
    judge = chosen.eval.build_detector()
    with _subject(chosen, _folder(out, run, images), images, "geneval") as subject:
        subject.placement.place_detector(judge)
        with _progress(subject.placement, "judging") as show:
            report = evaluate_folder(
                subject.images,
                judge,
                subject.out,
                batch=16,
                process=subject.placement,
                progress=show,
            )
        if subject.placement.is_main:
            write_report(report, subject.out, subject.provenance)
            close(subject.out)
            _print(as_result(report, subject.provenance), subject.out)


@app.command("clip_score")
def clip_score(
    recipe: RecipeOption = None,
    run: RunOption = None,
    checkpoint: CheckpointOption = None,
    overrides: SetOption = None,
    model: Annotated[str, typer.Option(help="An open_clip architecture, or a folder.")] = "ViT-L-14",
    pretrained: Annotated[str | None, typer.Option(help="An open_clip tag, or a weights file.")] = "openai",
    prompts: PromptsOption = None,
    images_per_prompt: ImagesPerPromptOption = None,
    steps: StepsOption = None,
    guidance: GuidanceOption = None,
    out: OutOption = None,
    images: ImagesOption = None,
) -> None:
    """Average 100 x cosine between images and their prompts; the CLIP is named beside the number."""
    from maskrl.component import build

    settings = _painting(prompts, images_per_prompt, steps, guidance, overrides)
    section = {"name": "clip", "model": model, "pretrained": pretrained}
    name = Path(model).name if Path(model).is_dir() else f"{model} {pretrained}"
    reward: Any = build("rewards", section, Path())
    chosen = open_source(recipe, run, checkpoint, settings)
    _score(
        chosen, "clip_score", f"CLIP score, 100 x cosine ({name})", reward, _folder(out, run, images), images
    )


@app.command("image_reward")
def image_reward(
    recipe: RecipeOption = None,
    run: RunOption = None,
    checkpoint: CheckpointOption = None,
    overrides: SetOption = None,
    reward: Annotated[
        list[str] | None, typer.Option("--reward", metavar="K=V", help="The reward's settings.")
    ] = None,
    prompts: PromptsOption = None,
    images_per_prompt: ImagesPerPromptOption = None,
    steps: StepsOption = None,
    guidance: GuidanceOption = None,
    out: OutOption = None,
    images: ImagesOption = None,
) -> None:
    """Average ImageReward over the images."""
    from maskrl.component import build

    section: dict[str, Any] = {"name": "image_reward"}
    for setting in reward or ():
        key, equals, value = setting.partition("=")
        if not equals:
            raise RecipeError(f"--reward {setting!r}: write it as key=value")
        section[key] = value
    judge: Any = build("rewards", section, Path())
    settings = _painting(prompts, images_per_prompt, steps, guidance, overrides)
    chosen = open_source(recipe, run, checkpoint, settings)
    _score(chosen, "image_reward", "ImageReward", judge, _folder(out, run, images), images)


@app.command()
def compare(
    first: Annotated[Path, typer.Argument(help="A folder with results, or their summary.json.")],
    second: Annotated[Path, typer.Argument(help="Another, of the same evaluation.")],
) -> None:
    """Print the difference of two results with its uncertainty, and papers' rows beside it."""
    from rich.console import Console
    from rich.table import Table

    from maskrl.evals.comparison import PUBLISHED, compare_files

    before, _, lines = compare_files(first, second)
    papers = PUBLISHED.get((before.evaluation, before.label), ())
    table = Table()
    for heading in (before.label, str(first), str(second), "difference", *(paper.name for paper in papers)):
        table.add_column(heading, justify="left" if heading == before.label else "right")
    for line in lines:
        values = (_number(line.first), _number(line.second), _number(line.difference, sign=True))
        reported = (
            f"{paper.numbers[line.name]:.2f}" if line.name in paper.numbers else "" for paper in papers
        )
        table.add_row(line.name, *values, *reported)
    Console().print(table)
    if papers:
        typer.echo("the papers' rows: other images, and where they were not measured alike, not comparable")


def _painting(
    prompts: str | None,
    images_per_prompt: int | None,
    steps: int | None,
    guidance: float | None,
    overrides: list[str] | None,
) -> list[str]:
    """Turn the options of every evaluation into overrides of the recipe."""
    if prompts is not None and Path(prompts).exists():
        prompts = str(Path(prompts).resolve())
    return [
        *override("eval.prompts", prompts),
        *override("eval.images_per_prompt", images_per_prompt),
        *override("eval.num_steps", steps),
        *override("sampling.guidance_eval", guidance),
        *(overrides or ()),
    ]


@contextmanager
def _subject(recipe: Recipe, out: Path, images: Path | None, name: str) -> Iterator[Subject]:
    """Paint what a recipe asks for, or open the images that are there; leave the other processes at the end."""
    from maskrl.evals.images import open_folder
    from maskrl.runtime.placement import Placement

    if images is None:
        subject = _paint(recipe, out, name)
    else:
        found, placement = open_folder(images), Placement(recipe.training.device)
        subject = Subject(recipe, placement, found, out / name, {"images": str(images.resolve())})
    yield subject
    subject.placement.leave()


def _paint(recipe: Recipe, out: Path, name: str) -> Subject:
    from maskrl.evals.images import open_folder, paint_folder
    from maskrl.runtime.prompts import load_prompts
    from maskrl.types import Stream

    if recipe.eval.prompts is None:
        raise RecipeError("this recipe names no prompts to evaluate: --prompts SET")
    prompts, painter = load_prompts(recipe.eval.prompts), build_painter(recipe)
    out = painter.placement.share(out)
    with _progress(painter.placement, "painting") as show:
        paint_folder(
            out / "images",
            painter.generator,
            prompts,
            sampling=painter.sampling,
            num_steps=painter.num_steps,
            images_per_prompt=recipe.eval.images_per_prompt,
            stream=Stream(recipe.seed).child("geneval"),
            batch=recipe.eval.batch,
            process=painter.placement,
            progress=show,
        )
    weights = recipe.generator.settings().get("checkpoint")
    provenance = {"recipe": recipe.digest(), "checkpoint": weights}
    return Subject(recipe, painter.placement, open_folder(out / "images"), out / name, provenance)


def _folder(out: Path | None, run: Path | None, images: Path | None) -> Path:
    """Say where results go: where the user says, else beside what is evaluated, named after the time."""
    from datetime import datetime

    if out is not None:
        return out
    if images is not None:
        return images / "results"
    return (run or Path("runs")) / f"eval-{datetime.now():%Y%m%d-%H%M%S}"


def _score(
    recipe: Recipe, name: str, label: str, reward: RewardModel, out: Path, images: Path | None
) -> None:
    from maskrl.evals.scores import score_images

    with _subject(recipe, out, images, name) as subject:
        for module in reward.modules:
            module.to(subject.placement.device).eval()
        with _progress(subject.placement, "judging") as show:
            result = score_images(
                name,
                label,
                subject.images,
                reward,
                subject.out,
                subject.provenance,
                batch=recipe.eval.batch,
                process=subject.placement,
                progress=show,
            )
        if subject.placement.is_main:
            _print(result, subject.out)


@contextmanager
def _progress(placement: Placement, what: str) -> Iterator[Show]:
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True, quiet=not placement.is_main)
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task(what)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _print(result: Result, out: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{result.label}, {result.images} images", title_justify="left")
    for heading in ("", "score", "standard error"):
        table.add_column(heading, justify="right" if heading else "left")
    for name, number in result.numbers.items():
        table.add_row(name, f"{number.mean:.3f}", "" if math.isnan(number.se) else f"{number.se:.3f}")
    Console().print(table)
    typer.echo(f"results: {out}")


def _number(number: Number, sign: bool = False) -> str:
    mean = f"{number.mean:+.3f}" if sign else f"{number.mean:.3f}"
    return mean if math.isnan(number.se) else f"{mean} ± {number.se:.3f}"
