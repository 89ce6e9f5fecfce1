"""What the evaluations share: their options, the images they judge, painted first or there already, and a bar."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from maskrl.cli.source import build_painter, override
from maskrl.errors import RecipeError

if TYPE_CHECKING:
    from maskrl.evals.images import ImageFolder
    from maskrl.evals.results import Result
    from maskrl.interfaces import RewardModel
    from maskrl.recipe import Recipe
    from maskrl.runtime.placement import Placement
    from maskrl.types import Prompt

PromptsOption = Annotated[str | None, typer.Option(help="A prompt set's name, or a file.")]
ImagesPerPromptOption = Annotated[int | None, typer.Option(min=1, help="Officially 4.")]
StepsOption = Annotated[int | None, typer.Option(min=1, help="Unmasking steps.")]


def _finite(value: float | None) -> float | None:
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"{value} is no finite number")
    return value


GuidanceOption = Annotated[
    float | None, typer.Option(help="w in (1 + w) * cond - w * uncond.", callback=_finite)
]
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
RewardOption = Annotated[
    list[str] | None, typer.Option("--reward", metavar="K=V", help="The reward's settings.")
]
AnotherRewardOption = Annotated[
    list[str] | None,
    typer.Option(
        "--reward", metavar="K=V", help="Another reward than the recipe's: name=clip, its settings."
    ),
]
Show = Callable[[int, int], None]
Wanted = Callable[["Prompt"], bool]
Ready = Callable[["Placement", Sequence["Prompt"]], None]


@dataclass(frozen=True)
class Subject:
    """What is evaluated: images in a folder, and where the results go."""

    recipe: Recipe
    placement: Placement
    images: ImageFolder
    out: Path
    provenance: dict[str, Any]


def painting(
    prompts: str | None,
    images_per_prompt: int | None,
    steps: int | None,
    guidance: float | None,
    overrides: list[str] | None,
) -> list[str]:
    """Write the options that say what is painted as overrides of the recipe, the user's own after them."""
    if prompts is not None and Path(prompts).exists():
        prompts = str(Path(prompts).resolve())
    return [
        *override("eval.prompts", prompts),
        *override("eval.images_per_prompt", images_per_prompt),
        *override("eval.num_steps", steps),
        *override("sampling.guidance_eval", guidance),
        *(overrides or ()),
    ]


def refuse_ignored(images: Path | None, **options: object) -> None:
    """Refuse what says how to paint where images are there already: it would be ignored.

    Args:
        images: the folder to judge; None if images are painted.
        options: those that say what is painted, by their name; None where the user did not give one.

    Raises:
        RecipeError: one is given beside a folder.
    """
    given = [f"--{name.replace('_', '-')}" for name, value in options.items() if value is not None]
    if images is not None and given:
        raise RecipeError(
            f"--images {str(images)!r}: nothing is painted, so {given[0]} would be ignored; leave it out"
        )


def build_reward(settings: Sequence[str]) -> RewardModel:
    """Build a reward from settings as they are written on the command line: ``name=clip``, ``model=ViT-L-14``.

    Raises:
        RecipeError: one is no setting, or none does.
    """
    from maskrl.component import build
    from maskrl.interfaces import RewardModel

    pairs = [setting.partition("=") for setting in settings]
    for setting, (_, equals, _) in zip(settings, pairs, strict=True):
        if not equals:
            raise RecipeError(f"--reward {setting!r}: write it as key=value")
    reward = build("rewards", {key: value for key, _, value in pairs}, Path())
    assert isinstance(reward, RewardModel)
    return reward


@contextmanager
def open_subject(
    recipe: Recipe,
    out: Place,
    images: Path | None,
    name: str,
    wanted: Wanted | None = None,
    ready: Ready | None = None,
) -> Iterator[Subject]:
    """Paint what a recipe asks for, or open the images that are there; leave the other processes at the end.

    Args:
        recipe: what paints, and what.
        out: where images and results go.
        images: a folder in GenEval's layout; None to paint.
        name: of the evaluation.
        wanted: which prompts it is about; all, if not given.
        ready: called before anything is painted, to place the judges and to see that they can judge the prompts.

    Raises:
        RecipeError: the recipe names no prompts, none is wanted, or a folder does not do.
    """
    from maskrl.evals.images import open_folder
    from maskrl.runtime.placement import Placement

    with ExitStack() as stack:
        if images is None:
            subject = _paint(recipe, out, name, wanted, ready, stack)
        else:
            found, placement = open_folder(images), Placement(recipe.training.device)
            found = found if wanted is None else found.only(wanted)
            if ready is not None:
                ready(placement, found.prompts)
            folder = own(out, placement, stack)
            provenance = {"images": str(images.resolve()), "judged": found.identity()}
            subject = Subject(recipe, placement, found, folder / name, provenance)
        yield subject
        subject.placement.leave()


def own(out: Place, placement: Placement, stack: ExitStack) -> Path:
    """Be the only command that writes in a folder, on all processes, until the stack is closed; return the folder.

    Raises:
        TrainingError: another process writes there.
    """
    from maskrl import files
    from maskrl.evals.together import on_main

    owned: list[Path] = []

    def take() -> None:
        folder = files.make_new(out.folder) if out.is_new else out.folder
        stack.enter_context(files.owned(folder))
        owned.append(folder)

    on_main(placement, take)
    return cast(Path, placement.share(owned[0] if owned else None))


def _paint(
    recipe: Recipe, out: Place, name: str, wanted: Wanted | None, ready: Ready | None, stack: ExitStack
) -> Subject:
    from maskrl.evals.images import open_folder, paint_folder
    from maskrl.runtime.prompts import load_prompts
    from maskrl.types import Stream

    if recipe.eval.prompts is None:
        raise RecipeError("this recipe names no prompts to evaluate: --prompts SET")
    prompts = [p for p in load_prompts(recipe.eval.prompts) if wanted is None or wanted(p)]
    if not prompts:
        raise RecipeError(f"no prompt of {recipe.eval.prompts!r} is one that this evaluation can use")
    painter = build_painter(recipe)
    if ready is not None:
        ready(painter.placement, prompts)
    folder = own(out, painter.placement, stack)
    with show_progress(painter.placement, "painting") as show:
        paint_folder(
            folder / "images",
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
    weights = str(recipe.adapters) if recipe.adapters else recipe.generator.settings().get("checkpoint")
    images = open_folder(folder / "images")
    provenance = {"recipe": recipe.digest(), "checkpoint": weights, "judged": images.identity()}
    return Subject(recipe, painter.placement, images, folder / name, provenance)


@dataclass(frozen=True)
class Place:
    """Where results go; ``is_new``: a folder of its own, called so or, if that is taken, with a number behind."""

    folder: Path
    is_new: bool = False


def results_folder(out: Path | None, run: Path | None, images: Path | None) -> Place:
    """Say where results go: where the user says, else beside what is evaluated, named after the time."""
    from datetime import datetime

    if out is not None:
        return Place(out)
    if images is not None:
        return Place(images / "results")
    return Place((run or Path("runs")) / f"eval-{datetime.now():%Y%m%d-%H%M%S}", is_new=True)


@contextmanager
def show_progress(placement: Placement, what: str) -> Iterator[Show]:
    """Show a bar on the main process; what it yields is called with the images done and their total."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True, quiet=not placement.is_main)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def print_result(result: Result, out: Path) -> None:
    """Print every number of a result."""
    from rich.table import Table

    from maskrl.training.tables import print_table

    typer.echo(f"{result.label}, {result.images} images")  # a table cuts a title that is wider than it
    table = Table()
    for heading in ("", "score", "standard error"):
        table.add_column(heading, justify="right" if heading else "left")
    for name, number in result.numbers.items():
        table.add_row(name, f"{number.mean:.3f}", "" if math.isnan(number.se) else f"{number.se:.3f}")
    print_table(table)
    typer.echo(f"results: {out}")
