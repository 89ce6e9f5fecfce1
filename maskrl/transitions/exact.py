"""``exact``: the probability of the next state, under the noise that the sampler puts on its confidence."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from maskrl.component import ComponentConfig
from maskrl.grpo.confidence import log_softmax, pick
from maskrl.interfaces import TransitionProb
from maskrl.transitions.p_theta1 import PTheta1
from maskrl.types import Transition

NODES, SEARCH, ROUNDS = (
    128,
    17,
    4,
)  # of the quadrature, and of each round of the search for where it is wanted
NEGLIGIBLE = 25.0  # nats: what is left out is e^-25 of the integral
PORTION = 2**23  # numbers at a time, 8 bytes each, a few of them alive
ALIVE = 6  # of those at a time, in a backward pass
STEEPEST = 30.0  # of (h - c) / tau: e^-e^30 is 0, and e^30 is a number


class Exact(TransitionProb):
    """Sum log p of the revealed proposals, and the log-chance that no remasked position had a better score.

    The proposals of remasked positions are forgotten: the chance is over all that could have been proposed there, and
    over the noise. A score is ``log p + tau * Gumbel``; with G the distribution of one,

        chance = integral of prod_j sum_v p_j(v) G(c; log p_j(v)) over the density at c of the least revealed score,

    j over the remasked positions. It sums to 1 over all next states, so its policy gradient has no bias.

    In fp64, by the trapezoidal rule on the scale of scores, where the integrand is not negligible. It passes over the
    logits of the masked positions some 200 times, and again on the way back, one node or a few at a time: a few times
    8 * M * V bytes, at least those of one row.

    Source: derived in docs/equations.md. Where tau < ``tau_min``: ``p_theta1``, which it is in the limit.
    """

    class Config(ComponentConfig):
        """Below ``tau_min`` the noise decides nothing but what rounding would."""

        tau_min: float = Field(default=1e-3, gt=0)

    needs_log_prob = True

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._without_noise = PTheta1(PTheta1.Config())

    def log_prob(self, logits: Tensor, transition: Transition) -> Tensor:
        """Score B transitions: Float [M, V] -> Float [B], nats."""
        sizes = transition.masked.sum(dim=1).tolist()
        rows = torch.arange(len(sizes), device=logits.device).split(1)
        parts = zip(logits.split(sizes), rows, strict=True)
        return torch.cat([self._of_row(part, transition.select(row)) for part, row in parts])

    @classmethod
    def scratch(cls, logits: int) -> float:
        """Count the integrand at the nodes that are computed together."""
        return ALIVE * 8.0 * min(PORTION, NODES * logits)

    def _of_row(self, logits: Tensor, transition: Transition) -> Tensor:
        """Score one transition: Float [M, V] -> Float [1]."""
        tau = float(transition.tau)
        if tau < self.config.tau_min or not transition.remasked.any():
            return self._without_noise.log_prob(logits, transition)
        log_p_MV = log_softmax(logits)
        logp_M = pick(log_p_MV, transition.pack(transition.proposals))
        revealed_M = transition.pack(transition.revealed)
        chance = log_chance(logp_M[revealed_M].double(), log_p_MV[~revealed_M], tau)
        return (transition.sum_rows(logp_M.masked_fill(~revealed_M, 0.0)) + chance).to(logp_M.dtype)


def log_chance(revealed: Tensor, log_p: Tensor, tau: float) -> Tensor:
    """Log-chance that the scores of all remasked positions lie below those of all revealed ones.

    Args:
        revealed: Float [K], fp64, log p of the revealed proposals.
        log_p: Float [R, V], nats, of the remasked positions.
        tau: temperature of the noise, > 0.

    Returns:
        Float [], fp64, nats.
    """
    with torch.no_grad():
        low, high = _window(revealed, log_p, tau)
    nodes_Q = torch.linspace(low, high, NODES, dtype=torch.float64, device=log_p.device)
    log_f_Q = _log_below(log_p, nodes_Q, tau) + _log_density(revealed, nodes_Q, tau)
    return (log_f_Q.logsumexp(dim=0) + (nodes_Q[1] - nodes_Q[0]).log()).clamp(max=0.0)


def _window(revealed: Tensor, log_p: Tensor, tau: float) -> tuple[float, float]:
    """Find the scores c outside which the integral is negligible.

    Between two nodes it is at most F at the upper times H at the lower one, and at least F at the lower times what H
    loses: F is the chance of all remasked to be below c, H that of all revealed to be above.
    """
    tail = tau * (NEGLIGIBLE + 15 + torch.tensor(float(log_p.numel())).log().item())
    low = float(revealed.min()) - 5 * tau
    high = max(float(revealed.max()), float(log_p.max())) + tail
    for _ in range(ROUNDS):
        nodes_Q = torch.linspace(low, high, SEARCH, dtype=torch.float64, device=log_p.device)
        log_f_Q, log_h_Q = _log_below(log_p, nodes_Q, tau), _log_above(revealed, nodes_Q, tau)
        most_Q = log_f_Q[1:] + log_h_Q[:-1]
        least_Q = log_f_Q[:-1] + log_h_Q[:-1] + (-torch.expm1(log_h_Q.diff().clamp(max=0.0))).log()
        kept = (most_Q >= least_Q.max() - NEGLIGIBLE).nonzero()[:, 0]
        low, high = float(nodes_Q[kept[0]]), float(nodes_Q[kept[-1] + 1])
    return low, high


def _log_below(log_p: Tensor, nodes: Tensor, tau: float) -> Tensor:
    """Log F: the chance that the scores of all remasked positions lie below c. Float [R, V], [Q] -> Float [Q]."""
    size = max(1, PORTION // log_p.numel())
    parts = [
        checkpoint(_log_below_part, log_p, part, tau, use_reentrant=False, preserve_rng_state=False)
        for part in nodes.split(size)
    ]
    return torch.cat(parts)


def _log_below_part(log_p: Tensor, nodes: Tensor, tau: float) -> Tensor:
    log_p_RV = log_p.double()
    steep_QRV = ((log_p_RV - nodes[:, None, None]) / tau).clamp(max=STEEPEST)
    return (log_p_RV - steep_QRV.exp()).logsumexp(dim=-1).sum(dim=-1)


def _log_above_each(revealed: Tensor, nodes: Tensor, tau: float) -> tuple[Tensor, Tensor]:
    """Log of the chance that each revealed score lies above c, and (h - c) / tau: Float [Q, K] both."""
    steep_QK = ((revealed - nodes[:, None]) / tau).clamp(max=STEEPEST)
    far_QK = steep_QK < -STEEPEST  # there it is e^x, of which 1 - e^-e^x has no digits left
    near_QK = (-torch.expm1(-steep_QK.masked_fill(far_QK, 0.0).exp())).log()
    return torch.where(far_QK, steep_QK, near_QK), steep_QK


def _log_above(revealed: Tensor, nodes: Tensor, tau: float) -> Tensor:
    """Log H: the chance that all revealed scores lie above c: Float [K], [Q] -> Float [Q]."""
    return _log_above_each(revealed, nodes, tau)[0].sum(dim=-1)


def _log_density(revealed: Tensor, nodes: Tensor, tau: float) -> Tensor:
    """Log-density at c of the least of all revealed scores, -dH/dc: Float [K], [Q] -> Float [Q]."""
    above_QK, steep_QK = _log_above_each(revealed, nodes, tau)
    one_QK = steep_QK - steep_QK.exp() - above_QK
    log_tau = torch.tensor(tau, dtype=torch.float64).log().item()
    return above_QK.sum(dim=-1) + one_QK.logsumexp(dim=-1) - log_tau
