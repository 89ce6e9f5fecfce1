"""The networks of a run, built and put where, and in the precision, that its recipe asks for."""

from __future__ import annotations

import copy
from dataclasses import dataclass

from maskrl.interfaces import MaskedGenerator, RewardModel
from maskrl.recipe import Recipe
from maskrl.runtime.autocast import Autocast
from maskrl.runtime.lora import Unadapted, adapt
from maskrl.runtime.offload import OffloadedDecoder, OffloadedReward
from maskrl.runtime.placed_reward import build_reward, check_ranks
from maskrl.runtime.placement import Placement
from maskrl.runtime.sharding import Sharded


@dataclass(frozen=True)
class Networks:
    """Policy, reward, and the policy that training begins from where there is a KL to it.

    ``is_sharded``: whether the policy and its reference lie divided among the processes.
    """

    generator: MaskedGenerator
    reference: MaskedGenerator | None
    reward: RewardModel
    is_sharded: bool


def build_networks(recipe: Recipe, placement: Placement) -> Networks:
    """Build everything that a recipe names; with one process there is nothing to divide.

    Raises:
        RecipeError: a component cannot do what is asked of it.
    """
    training, adapters, has_reference = recipe.training, recipe.lora, recipe.grpo.kl_coef > 0
    is_sharded = recipe.parallel.strategy == "shard" and placement.world_size > 1
    ranks = recipe.parallel.reward_ranks
    check_ranks(ranks or (), placement.world_size)
    generator, reward = recipe.generator.build(), build_reward(recipe.reward, ranks, placement)
    if adapters is not None:
        adapt(generator, adapters, recipe.seed)
    placement.place(generator, reward, offload=training.offload, is_sharded=is_sharded)
    if training.activation_checkpointing:
        generator.checkpoint_activations()
    if training.compile:
        generator.compile_layers()
    if training.dtype == "bf16":
        generator = Autocast(generator)
    if training.offload:
        generator = OffloadedDecoder(generator, placement.device)
        reward = OffloadedReward(reward, placement.device)
    reference = frozen_copy(generator) if has_reference and adapters is None else None
    if is_sharded:
        generator = Sharded(generator, placement)
        reference = None if reference is None else Sharded(reference, placement)
    if has_reference and adapters is not None:
        reference = Unadapted(generator)  # the same network, at no cost in memory
    return Networks(generator, reference, reward, is_sharded)


def painting_copy(generator: MaskedGenerator) -> MaskedGenerator:
    """Copy a generator, to paint while it learns; the frozen weights of ``module`` are shared."""
    frozen = {id(p): p for p in generator.module.parameters() if not p.requires_grad}
    return copy.deepcopy(generator, frozen)


def frozen_copy(generator: MaskedGenerator) -> MaskedGenerator:
    """Copy a generator as it is now: the reference policy of the KL term."""
    reference = copy.deepcopy(generator)
    reference.module.eval().requires_grad_(False)
    return reference
