"""What a transition probability promises."""

from __future__ import annotations

from dataclasses import fields, replace

import torch
from torch import Tensor

from maskrl.asking import asking
from maskrl.grpo.unmask import Rule, Unmasked, unmask
from maskrl.interfaces import TransitionProb
from maskrl.testing.classes import check_class
from maskrl.testing.promises import NOISE, apart, quiet, require, require_close, require_floats
from maskrl.types import Stream, Trajectory, Transition


def check_transition(component: TransitionProb, num_tokens: int = 6, num_codes: int = 5) -> None:
    """Check log-probabilities and their gradients on recorded steps, at the policy that took them and off it.

    That they sum to 1 over what could have happened is not checked: not every estimator's do.

    Raises:
        PluginError: it does not keep to :class:`maskrl.interfaces.TransitionProb`.
    """
    check_class(type(component))
    with asking(component):
        recorded = _recorded(3, num_tokens, num_codes, component.needs_sets)
        with quiet(component, "scored"):
            trajectory = component.scored(recorded, Stream(1))
        again = component.scored(recorded, Stream(1))
        same = trajectory.num_images == recorded.num_images
        require(component, same, "scored returned another number of images")
        equal = torch.equal(trajectory.state, again.state) and torch.equal(trajectory.tokens, again.tokens)
        require(component, equal, "scored draws noise that is not the stream's")
        rows = torch.arange(trajectory.num_images)
        for step in range(trajectory.num_steps):
            steps = (rows + step) % trajectory.num_steps  # each row is at another
            transition = trajectory.transitions(rows, steps)
            logits = _logits(steps, transition.masked, num_codes)
            for given in (logits, logits.double(), logits * 0.5):
                _check_log_prob(component, transition, given)
            _check_precision(component, transition, logits)
            _check_meaning(component, transition, logits)


def _recorded(num_images: int, num_tokens: int, num_codes: int, record_sets: bool) -> Trajectory:
    """Sample a trajectory that reveals one position a step, from logits that :func:`_logits` gives again."""
    mask_id, taus = num_codes, torch.linspace(1.0, 0.0, num_tokens)
    state = torch.full((num_images, num_tokens), mask_id)
    steps: list[Unmasked] = []
    for t, tau in enumerate(taus.tolist()):
        uniform = torch.rand(num_images, 2, num_tokens, generator=Stream(0, ("noise", t)).generator())
        logits = _logits(torch.full((num_images,), t), state == mask_id, num_codes)
        steps.append(unmask(logits, state, uniform, Rule(1, tau), mask_id, record_sets))
        state = torch.where(steps[-1].reveal_rank >= 0, steps[-1].proposals, state)
    record = {f.name: torch.stack([getattr(step, f.name) for step in steps], dim=1) for f in fields(Unmasked)}
    return Trajectory(tau=taus, tokens=state, mask_id=mask_id, **record)


def _logits(steps: Tensor, masked: Tensor, num_codes: int) -> Tensor:
    """Long [B], Bool [B, N] -> Float [M, V]: logits that depend on step, row and position."""
    shape = (*masked.shape, num_codes)
    drawn = [torch.randn(shape, generator=Stream(0, ("logits", t)).generator()) for t in steps.tolist()]
    return torch.stack([drawn[row][row] for row in range(len(drawn))])[masked]


def _check_log_prob(component: TransitionProb, transition: Transition, given: Tensor) -> None:
    logits, size = given.clone().requires_grad_(), len(transition.state)
    with quiet(component, "log_prob"):
        logp = component.log_prob(logits, transition)
    require_floats(component, "log_prob", logp, (size,), given.dtype)
    require(component, torch.equal(logits, given), "log_prob changed the logits")
    require(component, logp.requires_grad, "log_prob is cut off from the logits: nothing could be learnt")
    (gradient,) = torch.autograd.grad(logp.sum(), logits)
    require(component, bool(gradient.isfinite().all()), "the gradient of log_prob is not finite")
    require(component, bool(gradient.any()), "the gradient of log_prob is 0")
    require_close(component, logp, component.log_prob(logits, transition), "log_prob has noise", NOISE)
    parts = logits.split(transition.masked.sum(dim=1).tolist())
    alone = [component.log_prob(parts[row], transition.select(torch.tensor([row]))) for row in range(size)]
    require_close(component, logp, torch.cat(alone), "the log_prob of a row depends on the other rows")


def _check_precision(component: TransitionProb, transition: Transition, logits: Tensor) -> None:
    """Logits in bf16 are scored in fp32."""
    coarse = component.log_prob(logits.bfloat16(), transition)
    require_floats(component, "log_prob of logits in bf16", coarse, (len(transition.state),), torch.float32)
    exact = component.log_prob(logits.bfloat16().float(), transition)
    require_close(component, exact, coarse, "log_prob of logits in bf16 is not computed in fp32", 1e-5)


def _check_meaning(component: TransitionProb, transition: Transition, logits: Tensor) -> None:
    """It is the logarithm of a probability, of what was recorded."""
    logits = logits.clone().requires_grad_()
    logp = component.log_prob(logits, transition)
    highest = float(logp.detach().max())
    require(component, highest <= NOISE, f"log_prob returned {highest:g}: a probability above 1")
    shift = torch.linspace(-3.0, 3.0, len(logits))[:, None]
    shifted = component.log_prob(logits + shift, transition)
    complaint = "log_prob changes where a position's logits all rise alike, which changes no probability"
    require_close(component, logp, shifted, complaint)
    (gradient,) = torch.autograd.grad(logp.sum(), logits)
    revealed = transition.pack(transition.revealed)
    made = transition.pack(transition.proposals)
    rise = gradient[revealed].gather(1, made[revealed][:, None])
    rises = bool((rise > 0).all())
    require(component, rises, "log_prob does not rise with the logits of what was revealed")
    other = torch.where(
        transition.revealed, (transition.proposals + 1) % logits.shape[1], transition.proposals
    )
    changed = component.log_prob(logits, replace(transition, proposals=other))
    require(component, apart(logp, changed) > 0, "log_prob does not depend on what was proposed")
