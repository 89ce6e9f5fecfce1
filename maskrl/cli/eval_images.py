"""The images that are evaluated: painted first, or there already; who owns the results, and how they are shown."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import typer

from maskrl.errors import RecipeError
from maskrl.library.sources import build_sampler

if TYPE_CHECKING:
    from maskrl.eval_section import EvalSection
    from maskrl.evals.images import ImageFolder
    from maskrl.evals.results import Report
    from maskrl.interfaces import Evaluation
    from maskrl.recipe import Recipe
    from maskrl.runtime.placement import Placement
    from maskrl.types import Prompt

Show = Callable[[int, int], None]


@dataclass(frozen=True)
class Evaluated:
    """The images of an evaluation, where its results go, and what is known of how the images came about."""

    placement: Placement
    images: ImageFolder
    out: Path
    provenance: dict[str, Any]


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


def own(out: Place, placement: Placement, stack: ExitStack) -> Path:
    """Be the only command that writes in a folder, on all processes, until the stack is closed; return the folder.

    Raises:
        TrainingError: another process writes there.
    """
    from maskrl import files
    from maskrl.evals.ranks import run_on_main

    owned: list[Path] = []

    def take() -> None:
        folder = files.make_new(out.folder) if out.is_new else out.folder
        stack.enter_context(files.owned(folder))
        owned.append(folder)

    run_on_main(placement, take)
    return cast(Path, placement.share(owned[0] if owned else None))


@contextmanager
def there(
    evaluation: Evaluation, folder: Path, prompts: str | None, device: str, out: Place, name: str
) -> Iterator[Evaluated]:
    """Open images that are there; leave the other processes at the end.

    Args:
        evaluation: what is measured; its networks are placed.
        folder: in GenEval's layout; or any, for an evaluation that need not know prompts.
        prompts: what they were made of, if the user says.
        device: auto, cpu or cuda.
        out: where results go.
        name: of the evaluation.

    Raises:
        RecipeError: the folder does not do.
    """
    from maskrl.evals.flat import open_any
    from maskrl.evals.images import open_folder
    from maskrl.evaluations import answers
    from maskrl.runtime.placement import Placement
    from maskrl.runtime.prompts import load_prompts

    if evaluation.needs_prompts:
        images = open_folder(folder).only(evaluation.wants)
    else:
        images = open_any(folder, None if prompts is None else load_prompts(prompts))
    answers.require_images(evaluation, len(images.pairs()), f"{str(folder)!r} holds")
    placement = Placement(device)
    placement.place_frozen(evaluation.modules)
    answers.check(evaluation, images.prompts)
    with ExitStack() as stack:
        results = own(out, placement, stack) / name
        yield Evaluated(placement, images, results, {"images": str(folder.resolve())})
        placement.leave()


@contextmanager
def painted(
    evaluation: Evaluation, section: EvalSection, recipe: Recipe, out: Place, name: str
) -> Iterator[Evaluated]:
    """Paint what a recipe asks for; leave the other processes at the end.

    Raises:
        RecipeError: nobody names prompts, or none is one that the evaluation is about.
    """
    from maskrl.evals.images import open_folder
    from maskrl.evals.sampled import sample_folder
    from maskrl.evaluations import answers
    from maskrl.training.evaluating import noise_of, prompts_of

    prompts: Sequence[Prompt] = prompts_of(name, section)
    number = section.images_per_prompt
    answers.require_images(evaluation, len(prompts) * number, "--images-per-prompt: there would be")
    sampler = build_sampler(recipe, section.config.num_steps)
    placement = sampler.placement
    placement.place_frozen(evaluation.modules)
    answers.check(evaluation, prompts)
    with ExitStack() as stack:
        folder = own(out, placement, stack)
        with show_progress(placement, "painting") as show:
            sample_folder(
                folder / "images",
                sampler.generator,
                prompts,
                sampling=section.painted_as(sampler.sampling),
                num_steps=sampler.num_steps,
                images_per_prompt=number,
                stream=noise_of(recipe),
                batch=section.config.batch,
                process=placement,
                progress=show,
            )
        weights = str(recipe.adapters) if recipe.adapters else recipe.generator.settings().get("checkpoint")
        provenance = {"recipe": recipe.digest(), "checkpoint": weights}
        yield Evaluated(placement, open_folder(folder / "images"), folder / name, provenance)
        placement.leave()


@contextmanager
def show_progress(placement: Placement, what: str) -> Iterator[Show]:
    """Show a bar on the main process; what it yields is called with the images done and their total."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True, quiet=not placement.is_main)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def print_report(evaluation: Evaluation, report: Report, out: Path) -> None:
    """Print what an evaluation found: its own table, or every number; and what a reader should know."""
    from rich.table import Table

    from maskrl.evaluations import answers
    from maskrl.interfaces import ImageEvaluation
    from maskrl.training.tables import print_table

    result = report.result
    typer.echo(f"{result.label}, {result.images} images")  # a table cuts a title that is wider than it
    rows = answers.table(evaluation, report.rows) if isinstance(evaluation, ImageEvaluation) else ()
    numbers = [
        [name, f"{number.mean:.3f}", "" if math.isnan(number.se) else f"{number.se:.3f}"]
        for name, number in report.numbers.items()
    ]
    headings, *cells = rows or [["", "score", "standard error"], *numbers]
    table = Table()
    for heading in headings:
        table.add_column(heading, justify="right" if heading else "left")
    for row in cells:
        table.add_row(*row)
    print_table(table)
    for note in result.provenance["notes"]:
        typer.echo(note)
    typer.echo(f"results: {out}")


def refuse_ignored(images: Path, **options: object) -> None:
    """Refuse what says how to paint where images are there already: it would be ignored.

    Args:
        images: the folder to judge.
        options: those that say what is painted, by their name; None where the user did not give one.

    Raises:
        RecipeError: one is given beside a folder.
    """
    given = [f"--{name.replace('_', '-')}" for name, value in options.items() if value is not None]
    if given:
        raise RecipeError(
            f"--images {str(images)!r}: nothing is painted, so {given[0]} would be ignored; leave it out"
        )
