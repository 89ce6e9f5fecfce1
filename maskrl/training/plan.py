"""What a run will need, before any weight is loaded: memory by part, and FLOPs by part of an update.

Estimates: allocators, libraries and fragments take more. Sizes and FLOPs of the networks are exact.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import torch

from maskrl.errors import RecipeError
from maskrl.grpo.config import resolve
from maskrl.grpo.schedule import unmask_counts
from maskrl.recipe import LoraConfig, Recipe
from maskrl.types import Cost, Stream

MIB = 2**20
ADAM_BYTES = {"adamw": 8.0, "adamw_8bit": 2.03}  # of moments, per trained number
SCORE_BYTES = (
    16  # per logit being scored: log-softmax, the sum of p_theta1, and the gradients of both, in fp32
)
SAMPLE_BYTES = 24  # per logit being sampled: log p and p in fp32, the cumulative sum and its target in fp64


@dataclass(frozen=True)
class Plan:
    """One update of one process.

    Attributes:
        cost: of the generator.
        trained: numbers that training moves.
        memory: bytes by part that are there throughout.
        transient: bytes by stage that are there for a while; the largest counts.
        flops: by stage; a backward pass counts twice its forward pass.
        recomputed_flops: those that are computed a second time to save memory; no part of ``flops``.
        images: painted; pairs: (image, step) pairs that enter the loss.
    """

    cost: Cost
    trained: int
    memory: Mapping[str, float]
    transient: Mapping[str, float]
    flops: Mapping[str, float]
    recomputed_flops: float
    images: int
    pairs: int

    @property
    def peak(self) -> float:
        """Bytes at the fullest moment."""
        return sum(self.memory.values()) + max(self.transient.values())


def plan(recipe: Recipe, text_tokens: int, processes: int) -> Plan:
    """Say what an update of a recipe needs on each of some processes.

    Raises:
        RecipeError: the generator or the reward does not say what it costs, or sizes do not fit each other.
    """
    training = recipe.training
    bf16 = training.dtype == "bf16"
    generator = recipe.generator
    cost = generator.component.cost(
        generator.config, bf16=bf16, checkpointing=training.activation_checkpointing, text_tokens=text_tokens
    )
    reward_parameters, reward_flops = recipe.reward.component.cost(recipe.reward.config)
    watched = [chosen.component.cost(chosen.config) for chosen in recipe.watch.rewards.values()]
    reward_parameters += sum(parameters for parameters, _ in watched)
    reward_flops += sum(flops for _, flops in watched) / recipe.watch.every
    images = training.prompts_per_update // processes * recipe.grpo.group_size
    trained = cost.parameters if recipe.lora is None else _adapters(cost, recipe.lora)
    work = _Work(recipe, cost, images)
    return Plan(
        cost=cost,
        trained=trained,
        memory=_memory(recipe, cost, trained, reward_parameters),
        transient=_transient(recipe, cost, work),
        flops={
            "rollout": work.rollout(),
            "decode": images * cost.decode_flops,
            "reward": images * reward_flops,
            "update": work.update(),
        },
        recomputed_flops=work.update() / 3 if training.activation_checkpointing else 0.0,
        images=images,
        pairs=work.pairs,
    )


class _Work:
    """How often the network runs in an update, and at how many masked positions."""

    def __init__(self, recipe: Recipe, cost: Cost, images: int) -> None:
        self.cost, self.images, self.recipe = cost, images, recipe
        sampling, reducer = resolve(recipe.sampling, cost.spec), recipe.reducer.build()
        num_steps = reducer.rollout_steps(recipe.grpo.steps(cost.spec))
        counts = unmask_counts(cost.spec.num_tokens, num_steps, sampling.schedule)
        self.masked = [sum(counts[t:]) for t in range(num_steps)]
        steps, _ = reducer.train_steps(num_steps, Stream(recipe.seed))
        self.steps: list[int] = steps.tolist()
        self.branches = 2 if sampling.guidance_train else 1
        self.branches_in_loss = 2 if sampling.guidance_loss else 1
        self.pairs = images * len(self.steps)

    def rollout(self) -> float:
        prompts = self.images / self.recipe.grpo.group_size * self.cost.prompt_flops
        painted = self.images * sum(self._step(masked) for masked in self.masked)
        return float(self.branches * (prompts + painted))

    def update(self) -> float:
        """Forward and backward, and forward once more where there is a reference."""
        grpo = self.recipe.grpo
        passes = grpo.num_updates * (4 if grpo.kl_coef > 0 else 3)
        trained = sum(self._step(self.masked[t]) for t in self.steps)
        return float(passes * self.branches_in_loss * self.images * trained)

    def masked_on_average(self) -> float:
        return float(sum(self.masked[t] for t in self.steps) / len(self.steps))

    def _step(self, masked: int) -> float:
        return self.cost.image_flops + masked * self.cost.position_flops


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
    if recipe.grpo.kl_coef > 0 and lora is None:
        parts["reference"] = 4.0 * cost.parameters
    if not training.offload:
        parts |= {"decoder": 4.0 * cost.frozen_parameters, "reward": 4.0 * reward_parameters}
    return parts


def _transient(recipe: Recipe, cost: Cost, work: _Work) -> dict[str, float]:
    training, codes = recipe.training, cost.spec.num_codes
    logit_bytes = 2 if training.dtype == "bf16" else 4
    rows = min(training.micro_batch, work.pairs)
    scored = min(training.score_batch or rows, rows)
    logits = work.masked_on_average() * codes * work.branches_in_loss
    copies = 0.0 if recipe.lora is not None and recipe.lora.base_dtype == "bf16" else cost.copy_bytes
    at_once = min(training.rollout_batch or work.images, work.images)
    sampled = at_once * cost.spec.num_tokens * codes
    return {
        "update": copies
        + rows * (work.branches_in_loss * cost.pair_bytes + 2 * logit_bytes * logits)
        + scored * SCORE_BYTES * logits,
        "rollout": sampled * (logit_bytes * work.branches + SAMPLE_BYTES),
        "decode": at_once * cost.decode_bytes,
    }


def cheaper(recipe: Recipe) -> Iterator[tuple[list[str], Recipe]]:
    """Yield the same recipe with less and less memory: the changes, as ``--set`` takes them, and the result."""
    changes: dict[str, Any] = {}
    steps: list[dict[str, Any]] = [{"activation_checkpointing": True}]
    size = recipe.training.micro_batch
    while size > 1:
        size //= 2
        steps.append({"micro_batch": size})
    steps += [
        {"rollout_batch": recipe.grpo.group_size},
        {"score_batch": 1},
        {"rollout_batch": 1},
        {"offload": True},
    ]
    for step in steps:
        recipe = recipe.model_copy(update={"training": recipe.training.model_copy(update=step)})
        changes |= step
        yield _as_overrides(changes), recipe
    adapters = recipe.model_copy(update={"lora": LoraConfig(base_dtype="bf16")})
    yield [*_as_overrides(changes), "lora.base_dtype=bf16"], adapters


def _as_overrides(training: Mapping[str, Any]) -> list[str]:
    return [f"training.{key}={str(value).lower()}" for key, value in training.items()]


def matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Measure a device: the best FLOP/s of a large square matrix product, of a second's worth."""
    size = 8192 if device.type == "cuda" else 1536
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    fastest, until = float("inf"), perf_counter() + 1.0
    while perf_counter() < until:
        _wait(device)
        began = perf_counter()
        a @ b
        _wait(device)
        fastest = min(fastest, perf_counter() - began)
    return 2 * size**3 / fastest


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def device_memory(device: torch.device) -> float | None:
    """Return the bytes of a GPU; None for a CPU."""
    return float(torch.cuda.get_device_properties(device).total_memory) if device.type == "cuda" else None


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
