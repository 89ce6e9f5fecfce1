"""Whether training begins on policy: before any weight moves the ratio is 1, in every batch, and teaches.

And where a run paints ahead, how far its policy is from the painter.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from maskrl.asking import asking_all
from maskrl.grpo import answers
from maskrl.grpo.config import Sampling
from maskrl.grpo.policy import by_chance, check_score, check_temperatures, policy_logits
from maskrl.grpo.rollout import rollout
from maskrl.interfaces import Condition, MaskedGenerator, TransitionProb
from maskrl.types import Prompt, Stream, Trajectory


@dataclass(frozen=True)
class StepCheck:
    """One step, scored three times with the same weights.

    ``ratio_error`` is the largest |ratio - 1| between two passes over the same rows, 0 unless the network is
    random (dropout). ``delta`` is the largest |delta logp|, nats, between all rows at once and one at a time:
    what a change of the micro-batch would do. ``gradient`` is the norm of the gradient of the summed logp.
    """

    step: int
    ratio_error: float
    delta: float
    gradient: float

    def is_fine(self, tolerance: float) -> bool:
        """Tell whether training may begin; a NaN is not fine."""
        return self.ratio_error == 0 and self.delta <= tolerance and 0 < self.gradient < math.inf


@dataclass(frozen=True)
class StepDrift:
    """One step, painted by one policy and scored under another: its ratios, and the mean of |log ratio|, nats."""

    step: int
    ratio_min: float
    ratio_max: float
    drift: float


def check_steps(
    generator: MaskedGenerator,
    transition: TransitionProb,
    prompts: Sequence[Prompt],
    num_steps: int,
    sampling: Sampling,
    stream: Stream,
) -> list[StepCheck]:
    """Paint an image per prompt as training would, and check every step that can teach.

    Raises:
        RecipeError: more steps than tokens, none that can teach, or a transition probability that is not of such a
            sampler.
    """
    score, teach = _painted(generator, transition, prompts, num_steps, sampling, stream)
    return [_check(score, step, len(prompts)) for step in teach]


@torch.no_grad()
def drift_at_steps(
    painter: MaskedGenerator,
    policy: MaskedGenerator,
    transition: TransitionProb,
    prompts: Sequence[Prompt],
    num_steps: int,
    sampling: Sampling,
    stream: Stream,
) -> list[StepDrift]:
    """Paint an image per prompt with the painter, and score every step that can teach under both.

    Raises:
        RecipeError: as :func:`check_steps`.
    """
    old, teach = _painted(painter, transition, prompts, num_steps, sampling, stream)
    new = replace(old, generator=policy)
    rows = torch.arange(len(prompts), device=old.trajectory.state.device)
    found = []
    for step in teach:
        log_B = new(rows, step) - old(rows, step)
        ratio_B = log_B.exp()
        found.append(StepDrift(step, float(ratio_B.min()), float(ratio_B.max()), float(log_B.abs().mean())))
    return found


def _painted(
    generator: MaskedGenerator,
    transition: TransitionProb,
    prompts: Sequence[Prompt],
    num_steps: int,
    sampling: Sampling,
    stream: Stream,
) -> tuple[_Scorer, list[int]]:
    """Paint as training would; return what scores it, and the steps that can teach."""
    check_score(transition, sampling)
    check_temperatures(num_steps, sampling)
    with torch.no_grad():
        condition = answers.encode(generator, prompts)
        streams = [stream.child(i) for i in range(len(prompts))]
        settings = (num_steps, sampling.in_training, sampling.guidance_train, transition.needs_sets)
        painted = rollout(generator, condition, streams, *settings)
        scored = answers.scored(transition, painted, stream.child("scored"))
    steps = torch.arange(scored.num_steps)
    teach = steps[by_chance(steps, scored.num_steps, sampling)].tolist()
    return _Scorer(generator, transition, condition, scored, sampling), teach


@dataclass(frozen=True)
class _Scorer:
    generator: MaskedGenerator
    transition: TransitionProb
    condition: Condition
    trajectory: Trajectory
    sampling: Sampling

    def __call__(self, rows: Tensor, step: int) -> Tensor:
        """Long [K] -> Float [K], nats."""
        taken = self.trajectory.transitions(rows, torch.full_like(rows, step))
        inputs = (taken.step, self.sampling, self.sampling.guidance_loss, taken.places)
        logits_MV = policy_logits(self.generator, taken.state, self.condition.select(rows), *inputs)
        return answers.log_prob(self.transition, logits_MV, taken)


def _check(score: _Scorer, step: int, num_rows: int) -> StepCheck:
    rows = torch.arange(num_rows, device=score.trajectory.state.device)
    first = score(rows, step)
    with asking_all(score.generator, score.transition):
        gradient = _gradient_norm(first, score.generator)
    again = score(rows, step).detach()  # with a graph, as in training: kernels may differ without one
    logp = first.detach()
    with torch.no_grad():
        alone = torch.cat([score(row, step) for row in rows[:, None]])
    return StepCheck(
        step=step,
        ratio_error=float(((again - logp).exp() - 1).abs().max()),
        delta=float((alone - logp).abs().max()),
        gradient=gradient,
    )


def _gradient_norm(logp: Tensor, generator: MaskedGenerator) -> float:
    weights = [p for p in generator.module.parameters() if p.requires_grad]
    if not logp.requires_grad or not weights:
        return 0.0
    found = torch.autograd.grad(logp.sum(), weights, allow_unused=True)
    return math.sqrt(sum(float(g.square().sum()) for g in found if g is not None))
