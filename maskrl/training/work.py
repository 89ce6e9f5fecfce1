"""How often the network runs in an update and in a run, at how many masked positions, and the FLOPs of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from maskrl.eval_section import EvalConfig, EvalSection
from maskrl.grpo import answers
from maskrl.grpo.config import Sampling, resolve
from maskrl.grpo.order import in_passes
from maskrl.grpo.policy import by_chance
from maskrl.grpo.schedule import unmask_counts
from maskrl.recipe import Recipe
from maskrl.training.evaluating import alike, first_of_each, prompts_of
from maskrl.types import Cost, Prompt, Stream

DRAWS = 64  # of a reducer, which may choose its steps by chance


@dataclass(frozen=True)
class _Painted:
    """What one evaluation looks at: of the first ``section.images_per_prompt`` images of each prompt."""

    section: EvalSection
    num_steps: int
    sampling: Sampling
    prompts: Sequence[Prompt]

    @property
    def every(self) -> int:
        return self.section.config.every

    def sees(self) -> tuple[Any, ...]:
        return self.num_steps, self.sampling, list(self.prompts)


@dataclass(frozen=True)
class LossPass:
    """One forward and backward pass of the loss.

    Attributes:
        rows: images that run, on both branches.
        texts: that are read.
        positions: of these rows at which codes are predicted.
        asked: positions at which codes are scored, of all its pairs: of those that run as one, of each.
        scored: of these, the most that are scored at once.
    """

    rows: int
    texts: int
    positions: int
    asked: int
    scored: int


class Work:
    """What one process does in an update.

    Attributes:
        images: painted in an update; ``judged``: those and unfinished ones.
        pairs: (image, step) pairs that enter the loss.
        branches: forward passes of an image at a step of the rollout; ``branches_in_loss`` and
            ``branches_in_evaluation`` there.
    """

    def __init__(self, recipe: Recipe, cost: Cost, images: int) -> None:
        self.cost, self.images, self.recipe = cost, images, recipe
        self._sampling = resolve(recipe.sampling, cost.spec, recipe.generator.component)
        reducer = recipe.reducer.build()
        num_steps = answers.rollout_steps(reducer, recipe.grpo.steps(cost.spec))
        self.judged = images * (num_steps if recipe.grpo.credit == "step" else 1)
        self._masked = self._masked_at(num_steps, self._sampling)
        after = [*self._masked[1:], 0]  # positions that stay masked
        if recipe.transition.component.needs_remasked or recipe.grpo.kl_coef:
            self._asked = self._masked
        else:  # a pair is scored at the positions that it reveals
            self._asked = [masked - left for masked, left in zip(self._masked, after, strict=True)]
        drawn = (
            answers.train_steps(reducer, num_steps, Stream(recipe.seed).child("plan", number))[0]
            for number in range(DRAWS)
        )
        draws = [steps[by_chance(steps, num_steps, self._sampling)].tolist() for steps in drawn]
        self.branches = 2 if self._sampling.guidance_train else 1
        self.branches_in_loss = 2 if self._sampling.guidance_loss else 1
        shown = [
            self._sampling,
            *(one.painted_as(self._sampling) for one in recipe.eval.values()),
        ]  # pictures
        self.branches_in_evaluation = 2 if any(one.guidance_eval for one in shown) else 1
        self.pairs = images * max(map(len, draws))
        self._left_over = max((after[t] for steps in draws for t in steps), default=0)
        passes = {tuple(steps): self._passes_of(steps) for steps in draws}
        self._draws = [passes[tuple(steps)] for steps in draws]

    def rollout(self) -> float:
        """Paint every image: a text is read once."""
        texts = self.images / self.recipe.grpo.group_size + (self.branches - 1)
        first, *others = (self._step(masked) for masked in self._masked)
        painted = self.branches * self.images * sum(others) + self._begun() * first
        return texts * self.cost.prompt_flops + painted

    def _begun(self) -> int:
        """Rows of the first step of a rollout, portion by portion."""
        size = min(self.recipe.training.rollout_batch or self.images, self.images)
        images = torch.arange(self.images)
        passes, prompts = images // size, images // self.recipe.grpo.group_size
        is_new = (images % size == 0) | (prompts != prompts.roll(1))
        blank, prompts = _sums(torch.ones_like(images), passes), _sums(is_new, passes)
        return int(self._distinct(blank, prompts, torch.zeros_like(blank), self.branches).sum())

    def update(self) -> float:
        """Forward and backward, and forward once more where there is a reference; texts are read in every pass.

        A backward pass is two forward passes, one for the inputs and one for the weights; one where those are frozen.
        """
        grpo = self.recipe.grpo
        passes = grpo.num_updates * ((3 if self.recipe.lora is None else 2) + (grpo.kl_coef > 0))
        rows, texts, positions = (self._on_average(part) for part in ("rows", "texts", "positions"))
        trained = rows * self.cost.image_flops + positions * self.cost.position_flops
        return passes * (trained + texts * self.cost.prompt_flops)

    def recomputed(self) -> float:
        """Run the layers of the images forward once more, for the backward pass; neither head nor texts."""
        return self.recipe.grpo.num_updates * self._on_average("rows") * self.cost.again_flops

    def _on_average(self, part: str) -> float:
        """Add up an attribute of the passes of an update, on average over what the reducer draws."""
        total: int = sum(getattr(one, part) * n for passes in self._draws for one, n in passes.items())
        return total / len(self._draws)

    def fullest(self) -> set[LossPass]:
        """Return the passes of the loss, of all that may be drawn, that run and that ask for most."""
        passes = {one for of_draw in self._draws for one in of_draw}
        return passes and {
            max(passes, key=lambda one: (one.rows, one.texts, one.asked)),
            max(passes, key=lambda one: (one.rows, one.asked)),
            max(passes, key=lambda one: (one.asked, one.rows)),
        }

    def _passes_of(self, steps: list[int]) -> dict[LossPass, int]:
        """Divide the pairs of an update in which these steps are trained into micro-batches: how many of each kind."""
        group, size = self.recipe.grpo.group_size, self.recipe.training.micro_batch
        if not steps:
            return {}
        image_K, column_K = in_passes(self.images, torch.tensor(steps), group)
        place_K = torch.arange(len(image_K))
        pass_K, within_K = place_K // size, place_K % size
        prompt_K, step_K = image_K // group, torch.tensor(steps)[column_K]
        is_new_K = (within_K == 0) | (prompt_K != prompt_K.roll(1))  # a prompt's pairs are side by side
        is_blank_K = step_K == 0  # and its first steps come first
        is_first_blank_K = is_blank_K & (is_new_K | ~is_blank_K.roll(1))
        asked_K, pair_K = torch.tensor(self._asked)[step_K], torch.ones_like(place_K)
        blank_P, texts_P, joined_P, asked_P, pairs_P = (
            _sums(values, pass_K) for values in (is_blank_K, is_new_K, is_first_blank_K, asked_K, pair_K)
        )
        scored = min(self.recipe.training.score_batch or size, size)
        parts = -(-size // scored)
        part_K = pass_K * parts + within_K // scored
        scored_S = torch.zeros(len(pairs_P) * parts, dtype=torch.long)
        scored_S = scored_S.index_add(0, part_K, asked_K)
        rows_P = self._distinct(blank_P, joined_P, pairs_P - blank_P, self.branches_in_loss)
        table_P5 = torch.stack(
            [
                rows_P,
                texts_P + self.branches_in_loss - 1,
                torch.minimum(self.branches_in_loss * asked_P, rows_P * self.cost.spec.num_tokens),
                asked_P,
                scored_S.view(-1, parts).amax(dim=1),
            ],
            dim=1,
        )
        kinds, counts = table_P5.unique(dim=0, return_counts=True)
        return {LossPass(*kind): count for kind, count in zip(kinds.tolist(), counts.tolist(), strict=True)}

    def _distinct(self, blank: Tensor, prompts: Tensor, others: Tensor, branches: int) -> Tensor:
        """Rows of passes through so many images, of which some are blank, of so many prompts: Long [P] each."""
        if not self.cost.joins_blank:
            return branches * (blank + others)
        without_text = blank.clamp(max=1) + others
        return prompts + others + (without_text if branches == 2 else 0)

    def evaluations(self) -> tuple[int, float]:
        """Images of all evaluations of a run, on all processes, and the FLOPs of painting them.

        Of the whole before and after, of fewer prompts in between; evaluations that see the same images share them.
        """
        full, brief = [], []
        for label, section in self.recipe.eval.items():
            steps = section.config.num_steps or self.recipe.grpo.steps(self.cost.spec)
            drawn, prompts = section.painted_as(self._sampling), prompts_of(label, section)
            some = first_of_each(section.evaluation.component, prompts, section.config.subset)
            full.append(_Painted(section, steps, drawn, prompts))
            brief.append(_Painted(section, steps, drawn, some))
        updates = self.recipe.training.updates
        due = {update for one in brief if one.every for update in range(one.every, updates, one.every)}
        between = [[one for one in brief if one.every and update % one.every == 0] for update in sorted(due)]
        images, flops = 0, 0.0
        for group in (group for each in (full, full, *between) for group in alike(each, _Painted.sees)):
            number = len(group[0].prompts) * max(one.section.images_per_prompt for one in group)
            images, flops = images + number, flops + number * self._painting(group[0])
        return images, flops

    def _painting(self, painted: _Painted) -> float:
        """FLOPs of an image of an evaluation."""
        masked = self._masked_at(painted.num_steps, painted.sampling)
        branches = 2 if painted.sampling.guidance_eval else 1
        return branches * sum(map(self._step, masked)) + self.cost.decode_flops

    def evaluated_at_once(self) -> int:
        """Images that an evaluation, or the sample pictures, paint at a time."""
        batches = [section.config.batch for section in self.recipe.eval.values()] or [EvalConfig().batch]
        shown = len(self.recipe.tracking.sample_prompts or ())
        return min(max(batches), self.evaluations()[0] or shown)

    def remasked_at_most(self) -> int:
        """Positions of a trained pair that stay masked, where these are most."""
        return self._left_over

    def _masked_at(self, num_steps: int, sampling: Sampling) -> list[int]:
        counts = unmask_counts(self.cost.spec.num_tokens, num_steps, sampling.schedule)
        return [sum(counts[t:]) for t in range(num_steps)]

    def _step(self, masked: float) -> float:
        return self.cost.image_flops + masked * self.cost.position_flops


def _sums(values: Tensor, passes: Tensor) -> Tensor:
    """Add up what belongs to each pass: Long or Bool [K], Long [K] -> Long [P]."""
    return torch.zeros(int(passes[-1]) + 1, dtype=torch.long).index_add(0, passes, values.long())
