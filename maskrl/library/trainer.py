"""Training, step by step or as a whole."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from maskrl.errors import RecipeError
from maskrl.evals.ranks import silent
from maskrl.evals.results import Report
from maskrl.grpo import answers
from maskrl.library.evaluating import evaluate_generator
from maskrl.library.given import GivenReward
from maskrl.library.images import Images
from maskrl.library.model import Model
from maskrl.library.sources import Sampler, sample_steps, written
from maskrl.recipe import Recipe, read_recipe
from maskrl.rewards.function import Function
from maskrl.training.evaluating import run_together
from maskrl.training.loop import train
from maskrl.training.result import TrainResult
from maskrl.training.setup import Setup, set_up
from maskrl.training.updating import make_update
from maskrl.types import Prompt


class Trainer:
    """Trains a recipe's generator, an update at a time in memory, or whole runs into a folder.

    ::

        trainer = maskrl.Trainer("shapes_clip", reward=lambda images, prompts: images.mean(dim=(1, 2, 3)))
        print(trainer.step()["reward_mean"])

    Attributes:
        recipe: what is trained, every default filled in.
        updates: made so far by :meth:`step`. Every update has noise of its own.
    """

    def __init__(
        self,
        recipe: str | Path = "shapes_clip",
        *,
        reward: Function | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        """Read a recipe; networks are built when they are needed.

        Args:
            recipe: a file, or the name of one that comes with maskrl.
            reward: a function of images, Float [B, 3, H, W] in [0, 1], and their B prompts -> B numbers, in the place
                of the recipe's own reward.
            settings: changes to the recipe: ``{"training.updates": 10}``.

        Raises:
            RecipeError: the recipe has mistakes.
            PluginError: a component does not import.
        """
        chosen = read_recipe(recipe, written(settings or {}))
        if reward is not None:
            chosen = chosen.model_copy(update={"reward": GivenReward(reward)})
        self.recipe: Recipe = chosen
        self.updates = 0
        self._name = Path(recipe).stem
        self._setup: Setup | None = None
        self._model: Model | None = None

    def step(self) -> dict[str, float]:
        """Make one update, in this process, and return its metrics (docs/metrics.md).

        ``training.max_skipped`` and ``[early_stop]`` are heeded by :meth:`train` alone.

        Raises:
            RecipeError: something in the recipe is wrong, or all its updates are made.
            TrainingError: a number is not finite.
            PluginError: a component breaks its contract.
        """
        if self.updates >= self.recipe.training.updates:
            raise RecipeError(
                f"training.updates = {self.recipe.training.updates} are made; for more,"
                ' Trainer(..., settings={"training.updates": N})'
            )
        metrics = make_update(self._built(), self.updates)
        self.updates += 1
        return metrics

    def train(
        self, run: str | Path | None = None, *, resume: bool = False, display: bool = True
    ) -> TrainResult:
        """Train as ``maskrl train`` does, from the recipe's weights, and leave everything in a folder.

        Args:
            run: the folder; None: a new one below ``runs``.
            resume: go on from the newest checkpoint there.
            display: whether to show anything.

        Raises:
            RecipeError: something in the recipe is wrong, or the folder belongs to another run.
            TrainingError: the run cannot go on.
        """
        return train(self.recipe, None if run is None else Path(run), resume, display, name=self._name)

    @torch.no_grad()
    def score(self, images: Images) -> Tensor:
        """Score images by the reward that teaches: Float [B], on the CPU."""
        setup = self._built()
        pixels = images.pixels.to(setup.placement.device)
        return answers.score(setup.actor.reward, pixels, [Prompt(text) for text in images.prompts]).cpu()

    def sample(self, prompts: str, n: int = 1, **how: Any) -> Images:
        """Paint with what has been trained so far: see :meth:`maskrl.library.model.Model.sample`."""
        with self._built().shown():
            return self._painting().sample(prompts, n, **how)

    def evaluate(self, name: str = "geneval", **settings: Any) -> Report:
        """Evaluate what has been trained so far: see :meth:`maskrl.library.model.Model.evaluate`."""
        setup = self._built()
        generator, sampling = setup.learner.generator, setup.learner.algorithm.sampling
        known = next((one for one in setup.evaluations if one.label == name), None)
        with setup.shown():
            if known is not None and not settings:
                (report,) = run_together([known], generator, silent)
                return report
            return evaluate_generator(self.recipe, generator, setup.placement, sampling, name, settings)

    def _built(self) -> Setup:
        if self._setup is None:
            self._setup = set_up(self.recipe)
        return self._setup

    def _painting(self) -> Model:
        if self._model is None:
            setup = self._built()
            generator, sampling = setup.learner.generator, setup.learner.algorithm.sampling
            steps = sample_steps(self.recipe) or self.recipe.grpo.steps(generator.spec)
            self._model = Model(
                self.recipe, Sampler(setup.placement, generator, sampling, steps), self.recipe.seed
            )
        return self._model
