"""What a transition probability promises."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from maskrl.asking import asking
from maskrl.grpo import answers
from maskrl.interfaces import TransitionProb
from maskrl.testing.classes import check_class
from maskrl.testing.promises import NOISE, apart, quiet, require, require_close, require_floats
from maskrl.testing.recorded import logits_of, recorded
from maskrl.types import Stream, Trajectory, Transition

NUM_IMAGES, MANY = 3, 33
EXTREME = 300.0  # times logits of size 1: e^-88 is the smallest p of fp32


def check_transition(component: TransitionProb, num_tokens: int = 6, num_codes: int = 5) -> None:
    """Check log-probabilities and their gradients on recorded steps, at the policy that took them and off it.

    That they sum to 1 over what could have happened is not checked: not every estimator's do.

    Raises:
        PluginError: it does not keep to :class:`maskrl.interfaces.TransitionProb`.
    """
    check_class(type(component))
    with asking(component):
        trajectory = _scored(component, recorded(NUM_IMAGES, num_tokens, num_codes, component.needs_sets))
        rows = torch.arange(trajectory.num_images)
        for step in range(trajectory.num_steps):
            steps = (rows + step) % trajectory.num_steps  # each row is at another
            transition = trajectory.transitions(rows, steps)
            logits = logits_of(rows, transition, num_codes)
            for given in (logits, logits.double(), logits * 0.5):
                _check_log_prob(component, transition, given)
            _check_extremes(component, transition, logits * EXTREME)
            _check_precision(component, transition, logits)
            _check_meaning(component, transition, logits)
            _check_many_rows(component, transition, logits)
            if not component.needs_remasked:
                _check_revealed(component, transition, logits)


def _scored(component: TransitionProb, given: Trajectory) -> Trajectory:
    """Ask for the transitions to score, which depend on nothing but the trajectory and the stream."""
    with quiet(component, "scored"):
        trajectory = answers.scored(component, given, Stream(1))
    again = answers.scored(component, given, Stream(1))
    equal = torch.equal(trajectory.state, again.state) and torch.equal(trajectory.proposals, again.proposals)
    require(component, equal, "scored draws noise that is not the stream's")
    return trajectory


def _check_log_prob(component: TransitionProb, transition: Transition, given: Tensor) -> None:
    logits, size = given.clone().requires_grad_(), len(transition.state)
    with quiet(component, "log_prob"):
        logp = answers.log_prob(component, logits, transition)
    dtype = torch.float64 if given.dtype == torch.float64 else logp.dtype
    require_floats(component, "log_prob", logp, (size,), dtype)
    (gradient,) = torch.autograd.grad(logp.sum(), logits)
    require(component, bool(gradient.isfinite().all()), "the gradient of log_prob is not finite")
    require(component, bool(gradient.any()), "the gradient of log_prob is 0")
    require_close(component, logp, component.log_prob(logits, transition), "log_prob has noise", NOISE)
    parts = logits.split(transition.masked.sum(dim=1).tolist())
    alone = [component.log_prob(parts[row], transition.select(torch.tensor([row]))) for row in range(size)]
    require_close(component, logp, torch.cat(alone), "the log_prob of a row depends on the other rows")


def _check_extremes(component: TransitionProb, transition: Transition, given: Tensor) -> None:
    """Logits so large that p of most codes is 0 in fp32 are scored too."""
    logits = given.clone().requires_grad_()
    logp = answers.log_prob(component, logits, transition)
    require_floats(component, "log_prob of large logits", logp, (len(transition.state),), None)
    (gradient,) = torch.autograd.grad(logp.sum(), logits)
    fine = bool(gradient.isfinite().all())
    require(component, fine, "the gradient of log_prob of large logits is not finite")


def _check_many_rows(component: TransitionProb, transition: Transition, logits: Tensor) -> None:
    """A row of a large batch has the log-probability that it has in a small one."""
    logp = component.log_prob(logits, transition)
    rows = torch.arange(MANY) % len(transition.state)
    parts = logits.split(transition.masked.sum(dim=1).tolist())
    many = component.log_prob(torch.cat([parts[row] for row in rows.tolist()]), transition.select(rows))
    require_close(component, logp[rows], many, f"the log_prob of a row is another in a batch of {MANY} rows")


def _check_revealed(component: TransitionProb, transition: Transition, logits: Tensor) -> None:
    """It needs the logits of the revealed positions alone, if that is what it says."""
    alone, whole = logits[transition.pack(transition.revealed)], component.log_prob(logits, transition)
    complaint = (
        "needs_remasked is False, but log_prob is another with the logits of the revealed positions alone"
    )
    require_close(
        component,
        whole,
        answers.log_prob(component, alone, replace(transition, asked=transition.revealed)),
        complaint,
    )


def _check_precision(component: TransitionProb, transition: Transition, logits: Tensor) -> None:
    """Logits in bf16 are scored in fp32."""
    coarse = answers.log_prob(component, logits.bfloat16(), transition)
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
    rest = float(gradient.sum(dim=1).abs().max())
    complaint = "the gradient of log_prob says that it rises where a position's logits all rise alike: part is cut off"
    require(component, rest <= NOISE * max(1.0, float(gradient.abs().max())), f"{complaint} (by {rest:.2g})")
    _check_rise(component, transition, gradient)
    other = torch.where(
        transition.revealed, (transition.proposals + 1) % logits.shape[1], transition.proposals
    )
    changed = component.log_prob(logits, replace(transition, proposals=other))
    require(component, apart(logp, changed) > 0, "log_prob does not depend on what was proposed")


def _check_rise(component: TransitionProb, transition: Transition, gradient: Tensor) -> None:
    """It heeds the logit of every code that was revealed, and rises where all of them rise.

    One of them alone may lower it: that of an estimator that knows the order may.
    """
    revealed = transition.pack(transition.revealed)
    codes = transition.pack(transition.proposals)[revealed]
    rise = gradient[revealed].gather(1, codes[:, None])
    complaint = "log_prob does not depend on the logits of some code that was revealed"
    require(component, bool(rise.all()), complaint)
    rows = transition.sum_rows(torch.zeros_like(gradient[:, 0]).masked_scatter(revealed, rise))
    complaint = "log_prob does not rise with the logits of what was revealed"
    require(component, bool((rows > 0).all()), complaint)
