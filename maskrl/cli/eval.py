"""``maskrl eval``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from maskrl.cli.fid import fid, fid_statistics
from maskrl.cli.relative_correctness import relative_correctness
from maskrl.cli.source import CheckpointOption, RecipeOption, RunOption, SetOption, open_source, override
from maskrl.cli.subject import (
    AnotherRewardOption,
    GuidanceOption,
    ImagesOption,
    ImagesPerPromptOption,
    OutOption,
    Place,
    PromptsOption,
    RewardOption,
    StepsOption,
    build_reward,
    open_subject,
    painting,
    print_result,
    refuse_ignored,
    results_folder,
    show_progress,
)
from maskrl.errors import RecipeError

if TYPE_CHECKING:
    from maskrl.evals.results import Number
    from maskrl.interfaces import RewardModel
    from maskrl.recipe import Recipe
    from maskrl.runtime.placement import Placement
    from maskrl.types import Prompt

app = typer.Typer(no_args_is_help=True, help="Measure a generator, or images that are there.")


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
    from maskrl.evals.geneval import as_result, check, evaluate_folder, write_report
    from maskrl.evals.journal import close

    refuse_ignored(
        images,
        run=run,
        checkpoint=checkpoint,
        prompts=prompts,
        images_per_prompt=images_per_prompt,
        steps=steps,
        guidance=guidance,
    )
    settings = [
        *override("eval.detector", detector),
        *painting(prompts, images_per_prompt, steps, guidance, overrides),
    ]
    chosen = open_source(recipe, run, checkpoint, settings, ("generators", "detectors"))
    judge = chosen.eval.build_detector()

    def ready(placement: Placement, asked: Sequence[Prompt]) -> None:
        placement.place_judge(judge)
        check(asked, judge)

    folder = results_folder(out, run, images)
    with open_subject(chosen, folder, images, "geneval", ready=ready) as subject:
        with show_progress(subject.placement, "judging") as show:
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
            print_result(as_result(report, subject.provenance), subject.out)


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

    refuse_ignored(
        images,
        run=run,
        checkpoint=checkpoint,
        prompts=prompts,
        images_per_prompt=images_per_prompt,
        steps=steps,
        guidance=guidance,
        recipe=recipe,
    )
    settings = painting(prompts, images_per_prompt, steps, guidance, overrides)
    section = {"name": "clip", "model": model, "pretrained": pretrained}
    name = _folder_name(model) or f"{model} {pretrained}"
    reward: Any = build("rewards", section, Path())
    chosen = open_source(recipe, run, checkpoint, settings, ("generators",))
    _score(
        chosen,
        "clip_score",
        f"CLIP score, 100 x cosine ({name})",
        reward,
        results_folder(out, run, images),
        images,
    )


@app.command("image_reward")
def image_reward(
    recipe: RecipeOption = None,
    run: RunOption = None,
    checkpoint: CheckpointOption = None,
    overrides: SetOption = None,
    reward: RewardOption = None,
    prompts: PromptsOption = None,
    images_per_prompt: ImagesPerPromptOption = None,
    steps: StepsOption = None,
    guidance: GuidanceOption = None,
    out: OutOption = None,
    images: ImagesOption = None,
) -> None:
    """Average ImageReward over the images; weights that are not the published ones are named beside the number."""
    from maskrl.rewards.image_reward_checkpoint import PUBLISHED

    refuse_ignored(
        images,
        run=run,
        checkpoint=checkpoint,
        prompts=prompts,
        images_per_prompt=images_per_prompt,
        steps=steps,
        guidance=guidance,
        recipe=recipe,
    )
    if any(setting.partition("=")[0].strip() == "name" for setting in reward or ()):
        raise RecipeError("--reward name=...: this command scores with ImageReward; leave the name out")
    judge: Any = build_reward(["name=image_reward", *(reward or ())])
    weights = judge.config.weights
    other = f"ImageReward-other ({_folder_name(weights) or weights})"
    label = "ImageReward" if weights == PUBLISHED else other
    settings = painting(prompts, images_per_prompt, steps, guidance, overrides)
    chosen = open_source(recipe, run, checkpoint, settings, ("generators",))
    _score(chosen, "image_reward", label, judge, results_folder(out, run, images), images)


@app.command("reward")
def mean_reward(
    recipe: RecipeOption = None,
    run: RunOption = None,
    checkpoint: CheckpointOption = None,
    overrides: SetOption = None,
    reward: AnotherRewardOption = None,
    prompts: PromptsOption = None,
    images_per_prompt: ImagesPerPromptOption = None,
    steps: StepsOption = None,
    guidance: GuidanceOption = None,
    out: OutOption = None,
    images: ImagesOption = None,
) -> None:
    """Average any reward over the images: the recipe's own, or another."""
    refuse_ignored(
        images,
        run=run,
        checkpoint=checkpoint,
        prompts=prompts,
        images_per_prompt=images_per_prompt,
        steps=steps,
        guidance=guidance,
        recipe=recipe if reward else None,  # else it says which reward
    )
    settings = painting(prompts, images_per_prompt, steps, guidance, overrides)
    judge = build_reward(reward) if reward else None
    kinds = ("generators",) if judge else ("generators", "rewards")
    chosen = open_source(recipe, run, checkpoint, settings, kinds)
    judge = judge or chosen.reward.build()
    _score(
        chosen, "reward", f"Reward {type(judge).__name__}", judge, results_folder(out, run, images), images
    )


app.command("relative_correctness")(relative_correctness)
app.command()(fid)
app.command("fid_statistics")(fid_statistics)


@app.command()
def compare(
    first: Annotated[Path, typer.Argument(help="A folder with results, or their summary.json.")],
    second: Annotated[Path, typer.Argument(help="Another, of the same evaluation.")],
) -> None:
    """Print the difference of two results with its uncertainty, and papers' rows beside it."""
    from rich.table import Table

    from maskrl.evals.comparison import compare_files, published
    from maskrl.training.tables import print_table

    before, _, lines = compare_files(first, second)
    papers = published(before)
    table = Table()
    for heading in (before.label, *_apart(first, second), "difference", *(paper.name for paper in papers)):
        table.add_column(heading, justify="left" if heading == before.label else "right")
    for line in lines:
        values = (_number(line.first), _number(line.second), _number(line.difference, sign=True))
        reported = (
            f"{paper.numbers[line.name]:.2f}" if line.name in paper.numbers else "" for paper in papers
        )
        table.add_row(line.name, *values, *reported)
    print_table(table)
    if papers:
        typer.echo("the papers' rows: other images, and where they were not measured alike, not comparable")


def _apart(first: Path, second: Path) -> tuple[str, str]:
    """Return what two paths are told apart by: without the folders that both begin with."""
    ours, theirs = first.parts, second.parts
    same = next((i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), None)
    if same is None:
        return str(first), str(second)
    return str(Path(*ours[same:])), str(Path(*theirs[same:]))


def _score(
    recipe: Recipe, name: str, label: str, reward: RewardModel, out: Place, images: Path | None
) -> None:
    from maskrl.evals.scores import score_images

    def ready(placement: Placement, asked: Sequence[Prompt]) -> None:
        placement.place_judge(reward)

    with open_subject(recipe, out, images, name, ready=ready) as subject:
        with show_progress(subject.placement, "judging") as show:
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
            print_result(result, subject.out)


def _folder_name(source: str) -> str | None:
    """Return the name of a folder, ``package:...`` too; None for what is no folder: a tag, a hub id."""
    from maskrl.component import open_path

    folder = Path(open_path(source))
    return folder.resolve().name if folder.is_dir() else None


def _number(number: Number, sign: bool = False) -> str:
    mean = f"{number.mean:+.3f}" if sign else f"{number.mean:.3f}"
    return mean if math.isnan(number.se) else f"{mean} ± {number.se:.3f}"
