"""``maskrl eval relative_correctness``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from maskrl.cli.source import CheckpointOption, RecipeOption, RunOption, SetOption, open_source, override
from maskrl.cli.subject import (
    AnotherRewardOption,
    GuidanceOption,
    ImagesOption,
    ImagesPerPromptOption,
    OutOption,
    PromptsOption,
    StepsOption,
    build_reward,
    open_subject,
    painting,
    refuse_ignored,
    results_folder,
    show_progress,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from maskrl.evals.relative_correctness import Margin, RelativeCorrectness, Row
    from maskrl.runtime.placement import Placement
    from maskrl.types import Prompt


def relative_correctness(
    recipe: RecipeOption = None,
    run: RunOption = None,
    checkpoint: CheckpointOption = None,
    overrides: SetOption = None,
    reward: AnotherRewardOption = None,
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
    """Ask a reward whether it prefers the right number to half and double of it, on images that show the right one.

    Of the prompts, those are used that ask for 2, 4, 6, 8 or 10 objects of one class, without a colour.
    """
    from maskrl.evals.probe import check, countable, probe
    from maskrl.types import Stream

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
    chosen = open_source(recipe, run, checkpoint, settings, ("generators", "detectors", "rewards"))
    judge = build_reward(reward) if reward else chosen.reward.build()
    finder = chosen.eval.build_detector()
    folder = results_folder(out, run, images)

    def ready(placement: Placement, asked: Sequence[Prompt]) -> None:
        for part in (judge, finder):
            placement.place_judge(part)
        check(asked, finder)

    with open_subject(chosen, folder, images, "relative_correctness", countable, ready) as subject:
        with show_progress(subject.placement, "judging") as show:
            report, result = probe(
                subject.images,
                finder,
                judge,
                subject.out,
                subject.provenance,
                label=f"Relative correctness of {type(judge).__name__}",
                stream=Stream(chosen.seed).child("relative_correctness"),
                batch=chosen.eval.batch,
                process=subject.placement,
                progress=show,
            )
        if subject.placement.is_main:
            _print(report, result.label, result.images)
            typer.echo(f"results: {subject.out}")


def _print(report: RelativeCorrectness, label: str, images: int) -> None:
    from rich.table import Table

    from maskrl.training.tables import print_table

    table = Table(title=f"{label}, {report.pooled.images} right images of {images}", title_justify="left")
    for heading in (
        "",
        "images",
        "N/2",
        "N",
        "2N",
        "N above N/2",
        "wins",
        "N above 2N",
        "wins",
        "above both",
    ):
        table.add_column(heading, justify="right" if heading else "left")
    rows = {f"N = {number}": row for number, row in report.numbers.items()}
    rows |= {"all": report.pooled, "other classes": report.control, "difference": report.beyond_text}
    for name, row in rows.items():
        table.add_row(name, *_cells(row))
    print_table(table)
    ranking = report.ranking
    typer.echo(
        f"right above wrong within a group: {ranking.auc:.3f} [{ranking.low:.3f}, {ranking.high:.3f}],"
        f" {ranking.pairs} pairs in {ranking.groups} groups"
    )
    verdict = "holds" if report.holds else "is not shown"
    typer.echo(
        f"relative correctness {verdict}: both margins above 0 with their intervals, and ranking above 0.5"
    )


def _cells(row: Row) -> list[str]:
    means = [f"{mean.value:.3f}" for mean in (row.half, row.same, row.double)]
    half, double = _margin(row.over_half), _margin(row.over_double)
    return [str(row.images), *means, *half, *double, f"{row.top:.0%}"]


def _margin(margin: Margin) -> tuple[str, str]:
    return f"{margin.mean:+.3f} [{margin.low:+.3f}, {margin.high:+.3f}]", f"{margin.wins:.0%}"
