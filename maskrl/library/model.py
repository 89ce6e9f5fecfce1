"""A generator to sample from and to evaluate."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import torch

from maskrl.errors import RecipeError
from maskrl.eval_section import EvalConfig
from maskrl.evals.generate import generate
from maskrl.evals.results import Report
from maskrl.interfaces import MaskedGenerator
from maskrl.library.evaluating import evaluate_generator
from maskrl.library.images import Images
from maskrl.library.sources import Sampler, build_sampler, resolve_recipe, sample_steps, written
from maskrl.recipe import Recipe
from maskrl.types import Prompt, Stream

WORLDS = {"shapes": "shapes_clip", "showo": "showo_clip"}  # a recipe of each, to sample from

Settings = Mapping[str, Any]


class Model:
    """A generator on its device, and how its recipe samples from it. Made by :func:`load`.

    Attributes:
        recipe: what it was built from.
    """

    def __init__(self, recipe: Recipe, sampler: Sampler, seed: int) -> None:
        self.recipe, self._sampler, self._seed = recipe, sampler, seed
        self._numbers = count()

    @property
    def generator(self) -> MaskedGenerator:
        """The component: ``generator.module`` is the network."""
        return self._sampler.generator

    def sample(
        self,
        prompts: str | Sequence[str],
        n: int = 1,
        *,
        seed: int | None = None,
        guidance: float | None = None,
        steps: int | None = None,
    ) -> Images:
        """Paint ``n`` images of every prompt.

        Args:
            prompts: one text, or several.
            n: images of each.
            seed: the same seed paints the same images, as ``maskrl sample --seed`` does. None: every call paints
                others, in the order of the calls since :func:`load`.
            guidance: w in (1 + w) * cond - w * uncond; None: the recipe's for evaluation.
            steps: T, unmasking steps; None: the recipe's.

        Raises:
            RecipeError: there is no prompt, or ``n`` is less than 1.
        """
        texts = [prompts] if isinstance(prompts, str) else list(prompts)
        if not texts or not all(isinstance(text, str) and text.strip() for text in texts):
            raise RecipeError(f"prompts = {prompts!r}: give a text, or several, none of them empty")
        if n < 1 or (steps is not None and steps < 1):
            raise RecipeError(f"n = {n}, steps = {steps}: paint at least one image, in one step or more")
        if guidance is not None and not math.isfinite(guidance):
            raise RecipeError(f"guidance = {guidance} is no finite number")
        asked = [Prompt(text) for text in texts for _ in range(n)]
        return Images(
            self._paint(asked, self._streams(len(asked), seed), guidance, steps), [p.text for p in asked]
        )

    def evaluate(self, name: str = "geneval", **settings: Any) -> Report:
        """Make an evaluation, and return its numbers and rows; nothing is written.

        Args:
            name: of the evaluation: its section in the recipe, or an installed one.
            settings: of the evaluation (``detector="shapes"``), or of ``[eval.NAME]`` (``images_per_prompt=1``).

        Raises:
            RecipeError: no such evaluation, or it cannot be made.
        """
        sampler = self._sampler
        return evaluate_generator(
            self.recipe, sampler.generator, sampler.placement, sampler.sampling, name, settings
        )

    def _streams(self, number: int, seed: int | None) -> list[Stream]:
        """Return as many streams as images: never one twice, unless the caller names their seed."""
        if seed is None:
            return [Stream(self._seed).child("model", next(self._numbers)) for _ in range(number)]
        return [Stream(seed).child("sample", i) for i in range(number)]

    def _paint(
        self, prompts: Sequence[Prompt], streams: Sequence[Stream], guidance: float | None, steps: int | None
    ) -> torch.Tensor:
        sampling, sampler = self._sampler.sampling, self._sampler
        if guidance is not None:
            sampling = replace(sampling, guidance_eval=guidance)
        painted = generate(
            sampler.generator,
            prompts,
            streams,
            steps or sampler.num_steps,
            sampling,
            sampling.guidance_eval,
            EvalConfig().batch,
        )
        return torch.cat([images for _, images in painted])


def load(
    source: str | Path = "shapes",
    *,
    checkpoint: str | Path | None = None,
    settings: Settings | None = None,
    seed: int = 0,
) -> Model:
    """Load a generator.

    Args:
        source: ``"shapes"``, which comes with maskrl; a recipe's name or file; or a run's folder, whose newest
            checkpoint is loaded.
        checkpoint: weights in the generator's layout, or adapters in peft's; or the name of a run's checkpoint.
        settings: changes to the recipe: ``{"training.device": "cpu"}``.
        seed: of the images that :meth:`Model.sample` paints without one.

    Raises:
        RecipeError: there is no such recipe, run or checkpoint.
        TrainingError: the checkpoint is damaged.
        PluginError: the generator does not load.
    """
    is_run = (Path(source) / "recipe.toml").is_file()
    recipe = resolve_recipe(
        None if is_run else WORLDS.get(str(source), str(source)),
        Path(source) if is_run else None,
        None if checkpoint is None else Path(checkpoint),
        written(settings or {}),
        ("generators",),
    )
    return Model(recipe, build_sampler(recipe, sample_steps(recipe)), seed)
