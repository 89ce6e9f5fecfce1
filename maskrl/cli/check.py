"""``maskrl check``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from maskrl.cli.output import JsonOption, print_json
from maskrl.cli.source import CheckpointOption, RecipeOption, RunOption, SetOption
from maskrl.errors import TrainingError
from maskrl.library.sources import build_sampler, resolve_recipe

if TYPE_CHECKING:
    from maskrl.evals.on_policy import StepCheck

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

    A step that proposes the likeliest codes is not in the loss, and is left out.
    """
    from maskrl.evals.on_policy import check_steps
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
    checked = check_steps(
        sampler.generator,
        chosen.transition.build(),
        [prompts[i % len(prompts)] for i in range(images)],
        answers.rollout_steps(chosen.reducer.build(), chosen.grpo.steps(sampler.generator.spec)),
        sampler.sampling,
        Stream(chosen.seed).child("on-policy"),
    )
    wrong = [step.step for step in checked if not step.is_fine(tolerance)]
    if as_json:
        print_json({"on_policy": not wrong, "steps": [asdict(step) for step in checked]})
    else:
        _print(checked)
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
