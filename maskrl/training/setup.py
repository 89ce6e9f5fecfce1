"""From a recipe to everything a run needs, built and placed; whatever is wrong with it comes out here."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from maskrl.asking import asking
from maskrl.errors import RecipeError
from maskrl.eval_section import EvalConfig
from maskrl.grpo import answers
from maskrl.grpo.actor import Actor, Portions
from maskrl.grpo.algorithm import Algorithm
from maskrl.grpo.config import Sampling, resolve
from maskrl.grpo.credit import check_credit
from maskrl.grpo.learner import Learner
from maskrl.grpo.policy import check_score, check_temperatures
from maskrl.grpo.schedule import unmask_counts
from maskrl.interfaces import Evaluation, MaskedGenerator, TransitionProb
from maskrl.recipe import Recipe
from maskrl.runtime.checkpoint import EMA, PARAMETER
from maskrl.runtime.offload import OffloadedReward
from maskrl.runtime.placed_reward import build_reward
from maskrl.runtime.placement import Placement
from maskrl.runtime.prompts import training_prompts
from maskrl.sections import TrainingConfig
from maskrl.training.averaging import Average, Averaged
from maskrl.training.early_stop import EarlyStop
from maskrl.training.evaluating import RunEvaluation, build_evaluations
from maskrl.training.groups import GroupRecord
from maskrl.training.held_out import HeldOutRewards
from maskrl.training.networks import build_networks
from maskrl.training.pictures import SampleSheets, choose_prompts
from maskrl.training.rollouts import Rollouts, build_rollouts
from maskrl.training.schedule import LearningRate
from maskrl.training.state import HasState, Moments, Weights, trained_parameters
from maskrl.types import Prompt, Stream


@dataclass(frozen=True)
class Setup:
    """Everything a run needs.

    ``rollouts`` makes its batches, of which ``share`` prompts are this process's; ``state`` has what a checkpoint
    saves, by its names there.
    """

    placement: Placement
    actor: Actor
    rollouts: Rollouts
    learner: Learner
    state: Mapping[str, HasState]
    share: int
    prompts: Sequence[Prompt]
    learning_rate: LearningRate
    sheets: SampleSheets
    evaluations: Sequence[RunEvaluation]
    held_out: HeldOutRewards
    groups: GroupRecord
    average: Average | None
    early_stop: EarlyStop | None
    is_sharded: bool

    @property
    def takes_part(self) -> bool:
        """Whether this process runs along where the main one shows or saves: all do if the network is divided."""
        return self.is_sharded or self.placement.is_main

    @property
    def kinds(self) -> dict[str, type[Evaluation]]:
        """The classes of its evaluations, by the labels of their sections."""
        return {one.label: type(one.evaluation) for one in self.evaluations}

    @property
    def trained(self) -> MaskedGenerator:
        """What has been trained, to be saved: with the average of its weights where that is what counts."""
        generator = self.learner.generator
        return generator if self.average is None else Averaged(generator, self.average)

    def shown(self) -> AbstractContextManager[None]:
        """Put in place what has been trained, to be evaluated: the average of the weights, or they themselves."""
        return nullcontext() if self.average is None else self.average.shown()

    def hidden(self) -> AbstractContextManager[None]:
        """Put the weights themselves in place, from which a run goes on."""
        return nullcontext() if self.average is None else self.average.hidden()


def set_up(recipe: Recipe) -> Setup:
    """Build and place everything.

    Raises:
        RecipeError: a component, a prompt file or a number of steps is wrong.
        PluginError: a component does not load.
    """
    prompts = training_prompts(recipe.prompts)
    placement = Placement(recipe.training.device)
    share = _share(recipe.training.prompts_per_update, placement.world_size)
    networks = build_networks(recipe, placement)
    generator, reward = networks.generator, networks.reward
    sampling = resolve(recipe.sampling, generator.spec, generator)
    num_steps = recipe.grpo.steps(generator.spec)
    eval_steps = [section.config.num_steps or num_steps for section in recipe.eval.values()]
    reducer = recipe.reducer.build()
    for steps in (answers.rollout_steps(reducer, num_steps), *eval_steps):
        unmask_counts(generator.spec.num_tokens, steps, sampling.schedule)
    check_temperatures(answers.rollout_steps(reducer, num_steps), sampling)
    transition = recipe.transition.build()
    _check_estimator(recipe, transition)
    check_score(transition, sampling)
    check_credit(recipe.grpo, transition, sampling)
    training, images = recipe.training, share * recipe.grpo.group_size
    optimizer = build_optimizer(trained_parameters(generator).values(), training)
    learning_rate, stream = LearningRate(optimizer, training), Stream(recipe.seed)
    config = recipe.grpo.model_copy(update={"num_steps": num_steps})
    algorithm = Algorithm(transition, config, sampling)
    actor = Actor(
        generator=generator,
        reward=reward,
        filter=recipe.filter.build(),
        reducer=reducer,
        algorithm=algorithm,
        process=placement,
        stream=stream,
        portions=_portions(training, images),
    )
    learner = Learner(
        generator=generator,
        reference=networks.reference,
        algorithm=algorithm,
        optimizer=optimizer,
        lr_scheduler=learning_rate,
        process=placement,
        micro_batch=training.micro_batch,
        score_batch=training.score_batch or training.micro_batch,
        max_grad_norm=training.max_grad_norm,
    )
    rollouts = build_rollouts(actor, placement, prompts, share, training)
    state: dict[str, HasState] = {
        PARAMETER: Weights(generator),
        "optimizer": Moments(generator, optimizer),
        **rollouts.state,
    }
    average = None if recipe.ema is None else Average(generator, recipe.ema)
    if average is not None:
        state[EMA] = average
    early_stop = None if recipe.early_stop is None else EarlyStop(recipe.early_stop)
    if early_stop is not None:
        state["early_stop"] = early_stop
    evaluations = build_evaluations(recipe, num_steps, sampling, placement)
    sheets = _sheets(recipe, evaluations, prompts, num_steps, sampling)
    held_out = _held_out(recipe, placement, actor.portions.reward_batch)
    for judge in (reward, *held_out.rewards.values()):
        with asking(judge):
            judge.check(tuple(prompts))  # theirs to look at, not to sort
    return Setup(
        *(placement, actor, rollouts, learner, state, share, prompts),
        *(learning_rate, sheets, evaluations, held_out),
        GroupRecord(recipe.tracking.samples_every, placement.is_main, generator.spec.grid),
        *(average, early_stop, networks.is_sharded),
    )


def _portions(training: TrainingConfig, images: int) -> Portions:
    """Fill in how much is painted and judged at a time; by default all images of an update."""
    overlapped = training.rollout_batch if training.overlap_reward else None
    return Portions(
        rollout_batch=training.rollout_batch or images,
        reward_batch=training.reward_batch or overlapped or images,
        overlap_reward=training.overlap_reward,
    )


def _sheets(
    recipe: Recipe,
    evaluations: Sequence[RunEvaluation],
    prompts: Sequence[Prompt],
    num_steps: int,
    sampling: Sampling,
) -> SampleSheets:
    """Choose what pictures show: prompts of the first evaluation, as it paints them, each of its images with a mark."""
    stream = Stream(recipe.seed).child("samples")
    if not evaluations:
        shown = choose_prompts(recipe.tracking.sample_prompts, (), prompts)
        return SampleSheets(shown, stream, num_steps, sampling, EvalConfig().batch, _unknown)
    first = evaluations[0]
    shown = choose_prompts(recipe.tracking.sample_prompts, first.prompts, prompts)
    return SampleSheets(shown, stream, first.num_steps, sampling, first.section.config.batch, first.is_right)


def _unknown(image: Tensor, prompt: Prompt) -> None:
    """Judge nothing: the recipe names nobody who could."""


def _check_estimator(recipe: Recipe, transition: TransitionProb) -> None:
    """Warn of several passes over a batch with a probability that jumps as the weights move."""
    noise = recipe.training.dtype == "bf16"
    if transition.continuous or recipe.grpo.num_updates == 1 or (recipe.grpo.dual_clip and not noise):
        return
    bf16, clip = (", and in bf16 they are noise", "") if noise else ("", ", or at least grpo.dual_clip = 3")
    instead = "transition.threshold = 'kept_set', or transition.name = 'p_theta2', or grpo.num_updates = 1"
    warnings.warn(
        f"transition {recipe.transition.name!r} jumps where codes cross its threshold: with grpo.num_updates ="
        f" {recipe.grpo.num_updates} ratios leave the clip range though the weights hardly moved{bf16}; set"
        f" {instead}{clip}",
        stacklevel=2,
    )


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


def build_optimizer(parameters: Iterable[nn.Parameter], config: TrainingConfig) -> torch.optim.Optimizer:
    """Build AdamW over the trained parameters.

    Raises:
        RecipeError: bitsandbytes is asked for and missing.
    """
    settings: Any = {
        "lr": config.learning_rate,
        "betas": config.betas,
        "weight_decay": config.weight_decay,
    }
    groups = _groups(list(parameters), config)
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, fused=True, **settings)
    try:
        import bitsandbytes  # an extra, and slow to import
    except ModuleNotFoundError as error:
        raise RecipeError(
            "training.optimizer = 'adamw_8bit' needs the package 'bitsandbytes': pip install 'maskrl[8bit]'"
        ) from error
    optimizer: torch.optim.Optimizer = bitsandbytes.optim.AdamW8bit(groups, **settings)
    return optimizer


def _groups(parameters: list[nn.Parameter], config: TrainingConfig) -> list[dict[str, Any]]:
    """Sort parameters by what decays: all of them, or those of two dimensions and more."""
    if config.decay == "all":
        return [{"params": parameters}]
    matrices = [parameter for parameter in parameters if parameter.ndim >= 2]
    others = [parameter for parameter in parameters if parameter.ndim < 2]
    groups: list[dict[str, Any]] = [{"params": matrices}, {"params": others, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def _held_out(recipe: Recipe, placement: Placement, batch: int) -> HeldOutRewards:
    ranks = recipe.parallel.reward_ranks
    rewards = {
        label: build_reward(chosen, ranks, placement) for label, chosen in recipe.watch.rewards.items()
    }
    for label, reward in rewards.items():
        placement.place_frozen(reward.modules, offload=recipe.training.offload)
        if recipe.training.offload:
            rewards[label] = OffloadedReward(reward, placement.device)
    return HeldOutRewards(rewards, recipe.watch.every, batch, placement)
