"""What a generator promises of whole pictures: none is left unfinished, and the loss asks for what the rollout saw."""

from __future__ import annotations

import torch
from torch import Tensor

from maskrl.grpo.confidence import border, log_softmax, pick
from maskrl.grpo.config import Sampling, SamplingConfig, resolve
from maskrl.grpo.policy import by_chance, policy_logits
from maskrl.grpo.rollout import rollout
from maskrl.testing.promises import require, require_close
from maskrl.testing.scene import Scene
from maskrl.types import Stream, Trajectory


def check_rollout(scene: Scene, guidance: float) -> None:
    """Paint a picture of each prompt by the sampler of the spec, and ask again for each step, rows at different ones.

    That is what training does: one batch is painted step by step, and scored in another order.
    """
    component, spec = scene.component, scene.component.spec
    sampling = resolve(SamplingConfig(), spec, component)
    painted = _paint(scene, sampling, guidance)
    is_code = (painted.tokens >= 0) & (painted.tokens < spec.num_codes)
    require(component, bool(is_code.all()), "a picture is finished, and a token of it is no code")
    same = torch.equal(painted.tokens, _paint(scene, sampling, guidance).tokens)
    require(component, same, "the same noise gives another picture when it is painted again")
    every = torch.arange(scene.size, device=painted.tokens.device)
    for offset in range(painted.num_steps):
        steps = (every + offset) % painted.num_steps
        asked = by_chance(steps.cpu(), painted.num_steps, sampling).to(
            steps.device
        )  # no greedy step is in the loss
        rows, steps = every[asked], steps[asked]
        if not len(rows):
            continue
        found = _least_probable(scene, painted, rows, steps, sampling, guidance)
        complaint = (
            f"what a rollout revealed has another probability when the loss asks, at guidance {guidance}"
        )
        require_close(component, painted.threshold[rows, steps], found, complaint)


def _paint(scene: Scene, sampling: Sampling, guidance: float) -> Trajectory:
    streams = [Stream(0, ("painted", row)) for row in range(scene.size)]
    num_steps = scene.component.spec.sampler.num_steps
    return rollout(scene.component, scene.condition, streams, num_steps, sampling, guidance)


@torch.no_grad()
def _least_probable(
    scene: Scene, painted: Trajectory, rows: Tensor, steps: Tensor, sampling: Sampling, guidance: float
) -> Tensor:
    """Float [B]: the smallest p of what was revealed, as the trajectory has it too (``threshold``)."""
    taken = painted.transitions(rows, steps)
    condition = scene.condition.select(rows)
    logits_MV = policy_logits(
        scene.component, taken.state, condition, taken.step, sampling, guidance, taken.places
    )
    logp_M = pick(log_softmax(logits_MV), taken.pack(taken.proposals))
    return border(taken.unpack(logp_M), taken.revealed)[0].exp()
