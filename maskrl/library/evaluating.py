"""An evaluation of a generator that is there, as its recipe has it or as the caller says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from maskrl.evals.engine import evaluate
from maskrl.evals.results import Report
from maskrl.grpo.config import Sampling
from maskrl.interfaces import MaskedGenerator
from maskrl.recipe import Recipe, read_section
from maskrl.runtime.placement import Placement
from maskrl.training.evaluating import as_others, prompts_of
from maskrl.types import Prompt, Stream


def evaluate_generator(
    recipe: Recipe,
    generator: MaskedGenerator,
    placement: Placement,
    sampling: Sampling,
    name: str,
    settings: Mapping[str, Any],
) -> Report:
    """Paint what an evaluation asks for, and judge it; nothing is written.

    Args:
        recipe: whose section, prompts and seed are used.
        generator: what paints.
        placement: where, and by which processes.
        sampling: schedule, temperatures, guidance.
        name: a section of the recipe, or an installed evaluation.
        settings: changes to its section; ``prompts`` may be a list of texts.

    Raises:
        RecipeError: no such evaluation, wrong settings, or it cannot be made.
    """
    own = recipe.eval[name].settings() if name in recipe.eval else {"name": name}
    asked = settings.get("prompts")
    texts = None if asked is None or isinstance(asked, str) else list(asked)
    changed = {key: value for key, value in settings.items() if key != "prompts" or texts is None}
    section = as_others(read_section(name, {**own, **changed}), recipe)
    evaluation = section.build({"reward": recipe.reward, "seed": recipe.seed})
    placement.place_judge(evaluation)
    return evaluate(
        evaluation,
        generator,
        prompts_of(name, section) if texts is None else [Prompt(text) for text in texts],
        sampling=sampling,
        num_steps=section.config.num_steps or recipe.grpo.steps(generator.spec),
        images_per_prompt=section.images_per_prompt,
        stream=Stream(recipe.seed).child("geneval"),
        batch=section.config.batch,
        process=placement,
    )
