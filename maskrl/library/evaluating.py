"""An evaluation of a generator that is there, as its recipe has it or as the caller says."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from maskrl.errors import RecipeError
from maskrl.evals.ranks import silent
from maskrl.evals.results import Report
from maskrl.grpo.config import Sampling
from maskrl.interfaces import MaskedGenerator
from maskrl.recipe import Recipe, read_section
from maskrl.registry import short_name
from maskrl.runtime.placement import Placement
from maskrl.training.evaluating import as_others, build_evaluation, run_together
from maskrl.types import Prompt


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
    texts = _texts(settings.get("prompts"))
    changed = {
        key: str(value) if isinstance(value, Path) else value
        for key, value in settings.items()
        if key != "prompts" or texts is None
    }
    if name in recipe.eval:
        label, section = name, read_section(name, {**recipe.eval[name].given(), **changed})
    else:
        label = short_name(name)
        section = as_others(read_section(label, {"name": name, **changed}), recipe)
    prompts = None if texts is None else [Prompt(text) for text in texts]
    steps = recipe.grpo.steps(generator.spec)
    one = build_evaluation(label, section, recipe, steps, sampling, placement, prompts)
    (report,) = run_together([one], generator, silent)
    return report


def _texts(prompts: Any) -> list[str] | None:
    """Return prompts that were given as texts; None where a source of prompts is named, or nothing.

    Raises:
        RecipeError: there is none, or one is no text.
    """
    if prompts is None or isinstance(prompts, str | Path):
        return None
    texts = list(prompts)
    if not texts or not all(isinstance(text, str) and text.strip() for text in texts):
        raise RecipeError(f"prompts = {prompts!r}: give the name of a prompt set, a file, or a list of texts")
    return texts
