"""From a recipe to everything a run needs, built and placed; whatever is wrong with it comes out here."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from maskrl.errors import RecipeError
from maskrl.evals.geneval import GenEvalReport, evaluate
from maskrl.grpo.config import Sampling, resolve
from maskrl.grpo.parts import Parts, Process
from maskrl.grpo.schedule import unmask_counts
from maskrl.interfaces import Detector, MaskedGenerator
from maskrl.recipe import EvalConfig, Recipe, build
from maskrl.runtime.placement import Autocast, Placement
from maskrl.runtime.prompts import load_prompts, training_prompts
from maskrl.training.pictures import Sampler
from maskrl.training.schedule import LearningRate
from maskrl.training.state import trained_parameters
from maskrl.types import Prompt, Stream


@dataclass(frozen=True)
class GenEval:
    """The evaluation of a run: the same prompts, noise, steps and guidance whenever it is called."""

    prompts: Sequence[Prompt]
    detector: Detector
    config: EvalConfig
    num_steps: int
    sampling: Sampling
    stream: Stream
    process: Process

    def full(self, generator: MaskedGenerator, progress: Callable[[int, int], None]) -> GenEvalReport:
        """Evaluate on every prompt."""
        return self._run(generator, self.prompts, progress)

    def brief(self, generator: MaskedGenerator, progress: Callable[[int, int], None]) -> GenEvalReport:
        """Evaluate on the first ``prompts_per_task_during`` prompts of each task."""
        by_task: dict[str, list[Prompt]] = defaultdict(list)
        for prompt in self.prompts:
            by_task[prompt.metadata["tag"]].append(prompt)
        count = self.config.prompts_per_task_during
        return self._run(
            generator, [prompt for task in by_task.values() for prompt in task[:count]], progress
        )

    def _run(
        self, generator: MaskedGenerator, prompts: Sequence[Prompt], progress: Callable[[int, int], None]
    ) -> GenEvalReport:
        return evaluate(
            generator,
            prompts,
            self.detector,
            sampling=self.sampling,
            num_steps=self.num_steps,
            guidance=self.sampling.guidance_eval,
            images_per_prompt=self.config.images_per_prompt,
            stream=self.stream,
            batch=self.config.batch,
            process=self.process,
            progress=progress,
        )


@dataclass(frozen=True)
class Setup:
    """Everything a run needs; ``geneval`` is None where the recipe names no prompts for it.

    ``share`` is how many prompts of an update are this process's.
    """

    placement: Placement
    parts: Parts
    share: int
    prompts: Sequence[Prompt]
    learning_rate: LearningRate
    sampler: Sampler
    geneval: GenEval | None


def set_up(recipe: Recipe) -> Setup:
    """Build and place everything.

    Raises:
        RecipeError: a component, a prompt file or a number of steps is wrong.
        PluginError: a component does not load.
    """
    prompts = training_prompts(recipe.prompts)
    placement = Placement(recipe.training.device)
    share = _share(recipe.training.prompts_per_update, placement.world_size)
    generator, reward = recipe.generator.build(), recipe.reward.build()
    placement.place(generator, reward)
    if recipe.training.dtype == "bf16":
        generator = Autocast(generator)
    sampling = resolve(recipe.sampling, generator.spec)
    num_steps = recipe.grpo.steps(generator.spec)
    eval_steps = recipe.eval.num_steps or num_steps
    reducer = recipe.reducer.build()
    for steps in (reducer.rollout_steps(num_steps), eval_steps):
        unmask_counts(generator.spec.num_tokens, steps, sampling.schedule)
    training, images = recipe.training, share * recipe.grpo.group_size
    optimizer = torch.optim.AdamW(
        trained_parameters(generator).values(),
        lr=training.learning_rate,
        betas=training.betas,
        weight_decay=training.weight_decay,
    )
    learning_rate, stream = LearningRate(optimizer, training), Stream(recipe.seed)
    parts = Parts(
        generator=generator,
        reference=frozen_copy(generator) if recipe.grpo.kl_coef > 0 else None,
        transition=recipe.transition.build(),
        reward=reward,
        filter=recipe.filter.build(),
        reducer=reducer,
        config=recipe.grpo.model_copy(update={"num_steps": num_steps}),
        sampling=sampling,
        optimizer=optimizer,
        lr_scheduler=learning_rate,
        process=placement,
        stream=stream,
        micro_batch=training.micro_batch,
        rollout_batch=training.rollout_batch or images,
        reward_batch=training.reward_batch or images,
        max_grad_norm=training.max_grad_norm,
    )
    sampler = Sampler(
        recipe.tracking.sample_prompts, stream.child("samples"), eval_steps, sampling, recipe.eval.batch
    )
    geneval = _geneval(recipe.eval, eval_steps, sampling, stream, placement)
    return Setup(placement, parts, share, prompts, learning_rate, sampler, geneval)


def _share(prompts_per_update: int, processes: int) -> int:
    """Divide the prompts of an update among the processes."""
    share = prompts_per_update // processes
    if share * processes != prompts_per_update:
        near = " or ".join(str(n * processes) for n in (share, share + 1) if n)
        raise RecipeError(
            f"training.prompts_per_update = {prompts_per_update} does not divide among {processes} processes;"
            f" choose {near}"
        )
    return share


def frozen_copy(generator: MaskedGenerator) -> MaskedGenerator:
    """Copy a generator as it is now: the reference policy of the KL term."""
    reference = copy.deepcopy(generator)
    reference.module.eval().requires_grad_(False)
    return reference


def _geneval(
    config: EvalConfig, num_steps: int, sampling: Sampling, stream: Stream, process: Process
) -> GenEval | None:
    if config.prompts is None:
        return None
    detector = build("detectors", {"name": config.detector}, Path())
    assert isinstance(detector, Detector)
    return GenEval(
        load_prompts(config.prompts), detector, config, num_steps, sampling, stream.child("geneval"), process
    )
