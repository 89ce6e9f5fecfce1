"""What a run will need, before any weight is loaded: memory by part, and FLOPs by part of an update.

Estimates: allocators, libraries and fragments take more. Sizes of networks are exact, FLOPs but for what is looked up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from maskrl.component import Chosen
from maskrl.errors import RecipeError
from maskrl.grpo import answers
from maskrl.grpo.unmask import PORTION
from maskrl.interfaces import RewardModel
from maskrl.recipe import Recipe
from maskrl.runtime.lora import adapt_network
from maskrl.sections import LoraConfig
from maskrl.training.work import LossPass, Work
from maskrl.types import Cost, Footprint, Pass

MIB = 2**20
ADAM_BYTES = {"adamw": 8.0, "adamw_8bit": 2.03}  # of moments, per trained number
# per logit being scored by p_theta1: log-softmax, the sum, its set, and the gradients, in fp32; of bf16 a copy in fp32
SCORE_BYTES = {"fp32": 13, "bf16": 17}
SHARDED = {"weights", "gradients", "optimizer", "average", "reference"}
# per logit of a micro-batch while its KL is computed, and of a score that waits for its backward pass
KL_BYTES, SCORED_BYTES = {"exact": 20, "k2": 8, "k3": 8}, 5
SAMPLE_BYTES = 24  # per logit being sampled: log p and p in fp32, the cumulative sum and its target in fp64


@dataclass(frozen=True)
class Plan:
    """One update of one process, and how often.

    Attributes:
        cost: of the generator.
        judging: of the reward, then of those that watch: parameters, and FLOPs for an image.
        trained: numbers that training moves.
        memory: bytes by part that are there throughout; "gradients" while an update learns only.
        transient: bytes by stage that are there for a while; the largest counts.
        flops: by stage.
        recomputed_flops: those that are computed a second time to save memory; no part of ``flops``.
        images: painted; pairs: (image, step) pairs that enter the loss.
        updates: of the run.
        evaluated: images that the run's evaluations paint, on all processes together, and ``evaluation_flops`` for it.
        uncounted: rewards that do not say what they cost.
        is_ahead: whether a batch is painted while another is learnt from.
    """

    cost: Cost
    judging: Sequence[tuple[int, float]]
    trained: int
    memory: Mapping[str, float]
    transient: Mapping[str, float]
    flops: Mapping[str, float]
    recomputed_flops: float
    images: int
    pairs: int
    updates: int
    evaluated: int
    evaluation_flops: float
    uncounted: tuple[str, ...]
    is_ahead: bool = False

    @property
    def peak(self) -> float:
        """Bytes at the fullest moment."""
        learning = self.transient["update"] + self.memory["gradients"]
        held = sum(self.memory.values()) - self.memory["gradients"]
        painting = max(self.transient["rollout"], self.transient["decode"])
        others = max(learning, self.transient.get("evaluation", 0.0))
        return held + (others + painting if self.is_ahead else max(others, painting))

    def stages(self) -> dict[str, float]:
        """FLOPs of an update by stage, those for the sake of memory included."""
        return {**self.flops, "update": self.flops["update"] + self.recomputed_flops}

    def run(self) -> float:
        """FLOPs of one process for all updates."""
        return self.updates * sum(self.stages().values())


def plan(recipe: Recipe, text_tokens: int, processes: int) -> Plan:
    """Say what an update of a recipe needs on each of some processes.

    Raises:
        RecipeError: the generator does not say what it costs, or sizes do not fit each other.
    """
    cost = recipe.generator.component.cost(recipe.generator.config, text_tokens=text_tokens)
    return plan_of(recipe, cost, cost_of_judging(recipe), processes)


def cost_of_judging(recipe: Recipe) -> list[tuple[int, float]]:
    """Ask a recipe's reward, then those that watch: parameters, and FLOPs for an image.

    One that does not say counts for nothing.

    Raises:
        RecipeError: what it reads to say so cannot be read.
    """
    return [
        answers.cost(judge.component, judge.config) if _is_known(judge) else (0, 0.0)
        for judge in _judges(recipe)
    ]


def plan_of(recipe: Recipe, cost: Cost, judging: Sequence[tuple[int, float]], processes: int) -> Plan:
    """Do as :func:`plan` for networks whose costs are known.

    Args:
        recipe: what is planned.
        cost: of its generator.
        judging: of its reward, then of those that watch: parameters, and FLOPs for an image.
        processes: how many there are.

    Raises:
        RecipeError: sizes do not fit each other.
    """
    training = recipe.training
    (reward_parameters, reward_flops), *watched = judging
    reward_parameters += sum(parameters for parameters, _ in watched)
    watched_flops = sum(flops for _, flops in watched) / recipe.watch.every
    images = training.prompts_per_update // processes * recipe.grpo.group_size
    trained = cost.parameters if recipe.lora is None else _adapters(cost, recipe.lora)
    work = Work(recipe, cost, images)
    evaluated, evaluation_flops = work.evaluations()
    return Plan(
        cost=cost,
        judging=judging,
        trained=trained,
        memory=_divided(recipe, _memory(recipe, cost, trained, reward_parameters), processes),
        transient=_transient(recipe, cost, work, trained),
        flops={
            "rollout": work.rollout(),
            "decode": work.judged * cost.decode_flops,
            "reward": work.judged * reward_flops + images * watched_flops,
            "update": work.update(),
        },
        recomputed_flops=work.recomputed() if training.activation_checkpointing else 0.0,
        images=images,
        pairs=work.pairs,
        updates=training.updates,
        evaluated=evaluated,
        evaluation_flops=evaluation_flops,
        uncounted=tuple(judge.component.__name__ for judge in _judges(recipe) if not _is_known(judge)),
        is_ahead=training.max_staleness > 0,
    )


def _judges(recipe: Recipe) -> list[Chosen[RewardModel]]:
    return [recipe.reward, *recipe.watch.rewards.values()]


def _is_known(judge: Chosen[RewardModel]) -> bool:
    return getattr(judge.component.cost, "__func__", None) is not vars(RewardModel)["cost"].__func__


def _adapters(cost: Cost, lora: LoraConfig) -> int:
    names = lora.targets or tuple(cost.adapter_sizes)
    return lora.rank * sum(size for name, size in cost.adapter_sizes.items() if name in names)


def _memory(recipe: Recipe, cost: Cost, trained: int, reward_parameters: int) -> dict[str, float]:
    training, lora = recipe.training, recipe.lora
    frozen_bytes = 2 if lora is not None and lora.base_dtype == "bf16" else 4
    base = cost.parameters * (4 if lora is None else frozen_bytes) + (0 if lora is None else 4 * trained)
    parts = {
        "weights": float(base),
        "gradients": 4.0 * trained,
        "optimizer": ADAM_BYTES[training.optimizer] * trained,
    }
    if recipe.ema is not None:
        parts["average"] = 4.0 * trained
    if recipe.grpo.kl_coef > 0 and lora is None:
        parts["reference"] = 4.0 * cost.parameters
    if training.max_staleness:
        parts["painter"] = 4.0 * trained + (0.0 if training.offload else 4.0 * cost.frozen_parameters)
    if not training.offload:
        parts |= {"decoder": 4.0 * cost.frozen_parameters, "reward": 4.0 * reward_parameters}
    return parts


def _divided(recipe: Recipe, memory: Mapping[str, float], processes: int) -> dict[str, float]:
    """Leave of what is sharded the part of one process; what is gathered while it runs is not counted."""
    share = processes if recipe.parallel.strategy == "shard" else 1
    return {name: size / share if name in SHARDED else size for name, size in memory.items()}


def _transient(recipe: Recipe, cost: Cost, work: Work, trained: int) -> dict[str, float]:
    training = recipe.training
    at_once = min(training.rollout_batch or work.images, work.images)
    stages = {
        "update": _learning(recipe, cost, work, trained),
        "rollout": _painting(recipe, cost, at_once, work.branches),
        "decode": at_once * cost.decode_bytes,
    }
    images, branches = work.evaluated_at_once(), work.branches_in_evaluation
    if images:
        stages["evaluation"] = max(_painting(recipe, cost, images, branches), images * cost.decode_bytes)
    return stages


def _learning(recipe: Recipe, cost: Cost, work: Work, trained: int) -> float:
    """Bytes of a forward and a backward pass of the loss: of the network, or while its logits are scored.

    Where all pairs go at once, gradients come to be as activations go: at the peak there are none yet.
    """
    most = max((_passing(recipe, cost, work, one) for one in work.fullest()), default=0.0)
    is_at_once = recipe.training.micro_batch >= work.pairs and not recipe.training.activation_checkpointing
    return max(most - 4.0 * trained, 0.0) if is_at_once else most


def _passing(recipe: Recipe, cost: Cost, work: Work, one: LossPass) -> float:
    """Bytes of one pass of the loss."""
    network = _footprint(recipe, cost, one.rows, one.asked * work.branches_in_loss, one.texts)
    logits = 2 * _logit_bytes(recipe) * one.asked  # and their gradient, or those of the reference
    scoring = logits + SCORE_BYTES[recipe.training.dtype] * one.scored
    if recipe.grpo.kl_coef > 0:
        waiting = SCORED_BYTES * one.asked if one.scored == one.asked else 0
        scoring = max(scoring, logits + waiting + KL_BYTES[recipe.grpo.kl] * one.asked)
    scratch = recipe.transition.component.scratch(work.remasked_at_most() * cost.spec.num_codes)
    return max(network.peak, network.kept + scoring * cost.spec.num_codes + scratch)


def _painting(recipe: Recipe, cost: Cost, images: int, branches: int) -> float:
    """Bytes of a step of painting: of the network, or while its logits are sampled from."""
    positions = images * cost.spec.num_tokens
    network = _footprint(recipe, cost, images * branches, positions * branches, texts=0)
    logits = positions * cost.spec.num_codes
    sampled = SAMPLE_BYTES * min(logits, PORTION)
    return max(network.peak, _logit_bytes(recipe) * branches * logits + sampled + _copies(recipe, cost))


def _copies(recipe: Recipe, cost: Cost) -> float:
    """Bytes of trained weights in bf16, that a rollout keeps from step to step; embeddings, which are not cast, too."""
    trained = cost.parameters if recipe.lora is None else _adapters(cost, recipe.lora)
    return 2.0 * trained if recipe.training.dtype == "bf16" else 0.0


def _logit_bytes(recipe: Recipe) -> int:
    return 2 if recipe.training.dtype == "bf16" else 4


def _footprint(recipe: Recipe, cost: Cost, rows: int, masked: int, texts: int) -> Footprint:
    """Follow a pass: of the loss, where texts are read in it, or of the rollout."""
    lora = recipe.lora
    run = Pass(
        rows=rows,
        masked=masked,
        texts=texts,
        gradient=texts > 0,
        bf16=recipe.training.dtype == "bf16",
        checkpointing=recipe.training.activation_checkpointing,
        prepare=Adapted(lora, () if lora is None else lora.targets or tuple(cost.spec.lora_targets)),
    )
    return cost.footprint(run)


@dataclass(frozen=True)
class Adapted:
    """Puts a recipe's adapters beside the layers of a network; two that put the same are equal."""

    lora: LoraConfig | None
    targets: tuple[str, ...]

    def __call__(self, module: nn.Module) -> None:
        """Put them there, untrained."""
        if self.lora is not None:
            adapt_network(module, list(self.targets), self.lora, seed=0)


def check_processes(recipe: Recipe, processes: int) -> None:
    """Refuse a number of processes among which the prompts of an update do not divide.

    Raises:
        RecipeError: they do not.
    """
    if recipe.training.prompts_per_update % processes:
        raise RecipeError(
            f"training.prompts_per_update = {recipe.training.prompts_per_update} does not divide among"
            f" {processes} processes"
        )
