"""``maskrl check``."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from maskrl.cli.output import JsonOption, print_json
from maskrl.cli.source import CheckpointOption, RecipeOption, RunOption, SetOption
from maskrl.errors import TrainingError
from maskrl.library.sources import build_sampler, resolve_recipe, weights_of

if TYPE_CHECKING:
    from maskrl.evals.on_policy import StepCheck, StepDrift
    from maskrl.interfaces import MaskedGenerator

app = typer.Typer(no_args_is_help=True, help="Test before money is spent.")


@app.callback()
def _group() -> None:
    pass


@app.command("on-policy")
def on_policy(
    recipe: RecipeOption = None,
    run: RunOption = None,
    checkpoint: CheckpointOption = None,
    overrides: SetOption = None,
    images: Annotated[int, typer.Option(min=2, help="How many images to paint and score.")] = 4,
    tolerance: Annotated[
        float, typer.Option(help="Allowed |delta logp| between batch sizes, in nats.")
    ] = 0.01,
    as_json: JsonOption = False,
) -> None:
    """Check at every step that the ratio is 1 where no weight has moved, and that a gradient arrives.

    A step that proposes the likeliest codes is not in the loss, and is left out. Of a run that paints ahead it
    says too how far its policy is from the weights that paint its next batch.
    """
    from maskrl.evals.on_policy import check_steps, drift_at_steps
    from maskrl.grpo import answers
    from maskrl.runtime.lora import adapt
    from maskrl.runtime.prompts import training_prompts
    from maskrl.types import Stream

    needed = ("generators", "transitions", "reducers", "prompts")
    chosen = resolve_recipe(recipe, run, checkpoint, overrides or (), needed)
    sampler = build_sampler(chosen)
    if chosen.lora is not None and chosen.adapters is None:
        adapt(sampler.generator, chosen.lora, chosen.seed)  # what a run would train; they begin as no change
    prompts = training_prompts(chosen.prompts)
    how = (
        chosen.transition.build(),
        [prompts[i % len(prompts)] for i in range(images)],
        answers.rollout_steps(chosen.reducer.build(), chosen.grpo.steps(sampler.generator.spec)),
        sampler.sampling,
        Stream(chosen.seed).child("on-policy"),
    )
    checked = check_steps(sampler.generator, *how)
    wrong = [step.step for step in checked if not step.is_fine(tolerance)]
    drift = []
    if chosen.training.max_staleness and run is not None:
        painter, policy = _painter_and_policy(sampler.generator, weights_of(run, checkpoint).parent)
        drift = drift_at_steps(painter, policy, *how)
    if as_json:
        shown = {"drift": [asdict(step) for step in drift]} if drift else {}
        print_json({"on_policy": not wrong, "steps": [asdict(step) for step in checked], **shown})
    else:
        _print(checked)
        _print_drift(drift)
    if wrong:
        raise TrainingError(
            f"the policy is not on-policy at {len(wrong)} of {len(checked)} steps, first at {wrong[0]}"
        )
    if not as_json:
        typer.echo(f"on policy: ratio 1, |delta logp| within {tolerance:g}, a gradient at every step")


def _print(checked: Sequence[StepCheck]) -> None:
    typer.echo(f"{'step':>4}  {'ratio - 1':>10}  {'|delta logp|':>12}  {'gradient':>10}")
    for step in checked:
        typer.echo(f"{step.step:>4}  {step.ratio_error:>10.2e}  {step.delta:>12.2e}  {step.gradient:>10.3g}")


def _painter_and_policy(
    generator: MaskedGenerator, checkpoint: Path
) -> tuple[MaskedGenerator, MaskedGenerator]:
    """Load what paints a run's next batch, and what will learn from it.

    Raises:
        TrainingError: the folder is no checkpoint of a run that paints ahead.
    """
    from maskrl.runtime.checkpoint import PAINTER, PARAMETER, load, put_into

    saved, painter = load(checkpoint), copy.deepcopy(generator)
    put_into(painter.module, saved, PAINTER)
    put_into(generator.module, saved, PARAMETER)
    return painter, generator


def _print_drift(drift: Sequence[StepDrift]) -> None:
    if not drift:
        return
    typer.echo("from the weights that paint the next batch to those that learn from it:")
    typer.echo(f"{'step':>4}  {'ratio':>21}  {'|log ratio|':>11}")
    for step in drift:
        typer.echo(f"{step.step:>4}  {step.ratio_min:>10.4f}-{step.ratio_max:<10.4f}  {step.drift:>11.2e}")
