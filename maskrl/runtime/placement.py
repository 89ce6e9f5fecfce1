"""Where a run computes, through accelerate: the device, the precision, this process's place among others."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import cast

import torch
from accelerate import Accelerator
from torch import Tensor

from maskrl.errors import RecipeError, TrainingError
from maskrl.interfaces import Condition, MaskedGenerator, RewardModel
from maskrl.types import Prompt, StepIndex


class Placement:
    """This process, as :class:`maskrl.grpo.parts.Process` describes it, and its device."""

    def __init__(self, device: str) -> None:
        """Join the other processes.

        Args:
            device: "auto" (CUDA if there is any), "cpu" or "cuda".

        Raises:
            RecipeError: "cuda" is asked for and there is none.
            TrainingError: started as one of several processes.
        """
        if device == "cuda" and not torch.cuda.is_available():
            raise RecipeError(
                "training.device = 'cuda', but PyTorch finds no CUDA device here; choose 'cpu' or 'auto'"
            )
        # without cpu=True every rank of a CPU launch would believe that it is the only one
        self.accelerator = Accelerator(cpu=device == "cpu" or not torch.cuda.is_available())
        launched = int(os.environ.get("WORLD_SIZE", "1"))
        assert self.world_size == launched, f"accelerate sees {self.world_size} of {launched} processes"
        if launched > 1:
            raise TrainingError(
                f"training runs in one process, and {launched} were launched; start it without a launcher"
            )

    @property
    def device(self) -> torch.device:
        """Where the networks and the tokens live."""
        return cast(torch.device, self.accelerator.device)

    @property
    def rank(self) -> int:
        """In [0, ``world_size``)."""
        return int(self.accelerator.process_index)

    @property
    def world_size(self) -> int:
        """How many processes make an update together."""
        return int(self.accelerator.num_processes)

    def gather(self, values: Tensor) -> Tensor:
        """Concatenate along dim 0 in rank order."""
        return cast(Tensor, self.accelerator.gather(values))

    def sum(self, value: Tensor) -> Tensor:
        """Add up over the processes."""
        return cast(Tensor, self.accelerator.reduce(value, reduction="sum"))

    def backward(self, loss: Tensor) -> None:
        """Accumulate the gradient."""
        self.accelerator.backward(loss)

    def place(self, generator: MaskedGenerator, reward: RewardModel) -> None:
        """Move every network to the device; only the generator's ``module`` keeps its gradients."""
        generator.module.to(self.device).eval()
        for module in (*generator.frozen, *reward.modules):
            module.to(self.device).eval().requires_grad_(False)


class Autocast(MaskedGenerator):
    """A generator whose network computes in bf16 where that is safe; its weights stay fp32, for AdamW."""

    def __init__(self, inner: MaskedGenerator) -> None:
        super().__init__(inner.config)
        self.inner, self.module, self.frozen, self.spec = inner, inner.module, inner.frozen, inner.spec

    def encode(self, prompts: Sequence[Prompt]) -> Condition:
        """As the inner generator."""
        return self.inner.encode(prompts)

    def prefill(self, condition: Condition) -> Condition:
        """As the inner generator, in bf16."""
        with torch.autocast(self._device_type, dtype=torch.bfloat16):
            return self.inner.prefill(condition)

    def logits(
        self,
        tokens: Tensor,
        condition: Condition,
        step: StepIndex,
        guidance: float,
        positions: Tensor | None = None,
    ) -> Tensor:
        """As the inner generator, in bf16; fp32 comes out: sums of bf16 log-probabilities are nats off."""
        with torch.autocast(self._device_type, dtype=torch.bfloat16):
            return self.inner.logits(tokens, condition, step, guidance, positions).float()

    @property
    def _device_type(self) -> str:
        return next(self.module.parameters()).device.type

    def decode(self, tokens: Tensor, condition: Condition) -> Tensor:
        """As the inner generator."""
        return self.inner.decode(tokens, condition)

    def save(self, folder: str) -> None:
        """As the inner generator."""
        self.inner.save(folder)
