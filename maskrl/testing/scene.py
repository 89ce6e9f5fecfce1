"""Half-finished canvases that a generator is asked about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor

from maskrl.grpo import answers
from maskrl.interfaces import Condition, MaskedGenerator
from maskrl.types import Prompt, StepIndex, Stream

WEIGHT = 1.5  # of guidance


@dataclass(frozen=True)
class Scene:
    """A canvas for each of B prompts: every row at another step, with another number of known codes.

    ``rows`` are the rows' numbers, Long [B]; ``shift`` is added to the codes that are known; ``weight`` is that of the
    guidance, 0 where the generator has none; ``num_steps`` is T, by default the sampler's.
    """

    component: MaskedGenerator
    prompts: Sequence[Prompt]
    rows: Tensor | None = None
    asked: Condition | None = field(default=None, repr=False)
    one_canvas: bool = False
    shift: int = 0
    weight: float = WEIGHT
    num_steps: int | None = None

    @property
    def size(self) -> int:
        """B."""
        return len(self._numbers)

    @property
    def _numbers(self) -> Tensor:
        return torch.arange(len(self.prompts)) if self.rows is None else self.rows

    @cached_property
    def condition(self) -> Condition:
        """What the generator knows of the prompts, row by row."""
        if self.asked is not None:
            return self.asked
        condition = answers.encode(self.component, self.prompts)
        return condition if self.rows is None else condition.select(self.rows)

    @cached_property
    def device(self) -> torch.device:
        """Where the generator is."""
        return next(self.component.module.parameters()).device

    @property
    def is_bf16(self) -> bool:
        """Whether the network computes in bf16."""
        weights = self.component.module.parameters()
        return torch.is_autocast_enabled(self.device.type) or any(p.dtype == torch.bfloat16 for p in weights)

    @cached_property
    def tokens(self) -> Tensor:
        """Long [B, N]: codes, then masks."""
        spec, places = self.component.spec, self._places()
        known = (places + 1) * spec.num_tokens // (len(self.prompts) + 1)
        codes = (self._draw()[places] + self.shift) % spec.num_codes
        is_known = torch.arange(spec.num_tokens) < known[:, None]
        return torch.where(is_known, codes, spec.mask_id).to(self.device)

    @cached_property
    def masked(self) -> Tensor:
        """Bool [B, N]."""
        return self.tokens == self.component.spec.mask_id

    @cached_property
    def some(self) -> Tensor:
        """Bool [B, N]: positions of which some are known, another number in each row."""
        column = torch.arange(self.component.spec.num_tokens)
        return (column % (2 + self._places()[:, None]) == 0).to(self.device)

    @property
    def step(self) -> StepIndex:
        """The first row is at the first step, the last at the last."""
        steps = self.num_steps or self.component.spec.sampler.num_steps
        t = self._places() * (steps - 1) // max(len(self.prompts) - 1, 1)
        return StepIndex(t.to(self.device), steps)

    def logits(self, guidance: float | Tensor, positions: Tensor | None = None) -> Tensor:
        """Ask for all rows at once, with one weight or a weight of each row: Float [B, N, V], or [M, V]."""
        weights = self.weights(guidance)
        return self.component.logits(self.tokens, self.condition, self.step, weights, positions=positions)

    def weights(self, guidance: float | Tensor) -> Tensor:
        """Float [B]: the guidance of each row."""
        return torch.as_tensor(guidance, dtype=torch.float64, device=self.device).expand(self.size)

    def alone(self, row: int, guidance: float) -> Tensor:
        """Ask for one row, whose prompt is read by itself: Float [1, N, V]."""
        step = StepIndex(self.step.t[row : row + 1], self.step.num_steps)
        condition = self.component.encode([self.prompts[row]])
        weights = torch.full((1,), guidance, dtype=torch.float64, device=self.device)
        return self.component.logits(self.tokens[row : row + 1], condition, step, weights)

    def codes(self) -> Tensor:
        """Long [B, N]: finished canvases, with the first and the last code."""
        codes = self._draw()
        codes[:, 0], codes[:, -1] = 0, self.component.spec.num_codes - 1
        return codes.to(self.device)

    def of(self, component: MaskedGenerator) -> Scene:
        """Show canvases for the same prompts to a generator, which reads them anew."""
        return Scene(component, self.prompts, weight=self.weight)

    def in_steps(self, num_steps: int) -> Scene:
        """Show the same canvases in another number of steps."""
        return replace(self, asked=self.condition, num_steps=num_steps)

    def pick(self, rows: Tensor) -> Scene:
        """Pick or repeat rows of the canvases, and of the condition as it is."""
        return replace(self, rows=rows, asked=self.condition.select(rows))

    def given(self, condition: Condition) -> Scene:
        """Show the same canvases under a condition that is already there."""
        return replace(self, asked=condition)

    def on_one_canvas(self) -> Scene:
        """Show the same canvas at the same step for every prompt."""
        return replace(self, one_canvas=True)

    def with_other_codes(self) -> Scene:
        """Show the same canvases with other codes where they are known."""
        return replace(self, shift=1)

    def _places(self) -> Tensor:
        """Which canvas each row has."""
        return torch.zeros_like(self._numbers) if self.one_canvas else self._numbers

    def _draw(self) -> Tensor:
        spec = self.component.spec
        shape = (len(self.prompts), spec.num_tokens)
        return torch.randint(spec.num_codes, shape, generator=Stream(0, ("codes",)).generator())
