"""A canvas on which every proposal and every order of revealing can be enumerated, and ways to choose positions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import permutations, product
from math import perm

import torch
from torch import Tensor, nn

from maskrl.grpo.confidence import border, log_softmax, pick, remaskable
from maskrl.grpo.halton import halton_order
from maskrl.grpo.schedule import unmask_counts
from maskrl.grpo.temperature import temperatures
from maskrl.types import StepIndex, Transition

N = V = 4
T, MASK, WIDTH, NETWORKS = 3, V, 8, 4
SHARPNESS = (3.0, 8.0)
RULE, TAU_INIT, SCHEDULE = "compound", 1.0, "cosine"
COUNTS, TAUS = unmask_counts(N, T, SCHEDULE), temperatures(T, RULE, TAU_INIT)
Order = Callable[
    [Tensor, Tensor, Transition, float], Tensor
]  # log p, logits, what was done, tau -> Float [E]


class Network(nn.Module):
    """A state and a step -> logits [B, N, V]: every position sees its own token and the mean of all."""

    def __init__(self, seed: int, sharpness: float) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.token, self.place = nn.Embedding(V + 1, WIDTH), nn.Embedding(N, WIDTH)
        self.hidden, self.head = nn.Linear(2 * WIDTH, WIDTH), nn.Linear(WIDTH, V)
        self.sharpness = sharpness
        self.double()

    def forward(self, states: Tensor, t: int) -> Tensor:
        """Predict."""
        here = self.token(states) + self.place.weight
        around = (here.mean(dim=1, keepdim=True) + t / T).expand_as(here)
        return self.sharpness * self.head(torch.tanh(self.hidden(torch.cat([here, around], dim=-1))))


@dataclass(frozen=True)
class Step:
    """Every event of a step: from which state, which proposals, revealed in which order; and where it leads."""

    states: Tensor  # Long [S, N]
    source: Tensor  # Long [E] in [0, S)
    proposals: Tensor  # Long [E, N]
    rank: Tensor  # Long [E, N]
    target: Tensor  # Long [E], in the next step's states; of the last step: the number of the image


def enumerate_steps() -> list[Step]:
    """List the states of each step and their events."""
    states, steps = [(MASK,) * N], []
    for t in range(T):
        events = []
        for source, state in enumerate(states):
            masked = [i for i in range(N) if state[i] == MASK]
            for codes in product(range(V), repeat=len(masked)):
                proposal = list(state)
                for position, code in zip(masked, codes, strict=True):
                    proposal[position] = code
                for order in permutations(masked, COUNTS[t]):
                    after = tuple(proposal[i] if i in order or state[i] != MASK else MASK for i in range(N))
                    events.append((source, proposal, order, after))
        reached = sorted({after for *_, after in events})
        rank = torch.full((len(events), N), -1)
        for event, (_, _, order, _) in enumerate(events):
            rank[event, list(order)] = torch.arange(len(order))
        place = {state: index for index, state in enumerate(reached)}
        steps.append(
            Step(
                torch.tensor(states),
                torch.tensor([source for source, *_ in events]),
                torch.tensor([proposal for _, proposal, _, _ in events]),
                rank,
                torch.tensor([place[after] for *_, after in events]),
            )
        )
        states = reached
    return steps


def transition(step: Step, log_p: Tensor, t: int, tau: float) -> Transition:
    """Make the record that a rollout would make of every event; log_p Float [E * M, V]."""
    state = step.states[step.source]
    masked, revealed = state == MASK, step.rank >= 0
    logp = torch.full(state.shape, torch.inf, dtype=log_p.dtype)
    logp[masked] = pick(log_p, step.proposals[masked])
    threshold, behind = border(logp, revealed)
    possible = remaskable(log_p, threshold[:, None].expand_as(logp)[masked], behind[masked]).any(dim=-1)
    floored = torch.zeros_like(masked)
    floored[masked] = ~possible
    rows = len(state)
    return Transition(
        state=state,
        proposals=step.proposals,
        reveal_rank=step.rank,
        floored=floored & ~revealed,
        threshold=threshold.exp(),
        tau=torch.full((rows,), tau),
        step=StepIndex(torch.full((rows,), t), T),
        mask_id=MASK,
    )


def order_log_prob(logp: Tensor, made: Transition, tau: float) -> Tensor:
    """Log-probability of the order of revealing under Gumbel noise: Float [E, N] of the proposals -> Float [E].

    Without noise it is 0 for the order by confidence, ties to the lowest index, and -inf for every other.
    """
    masked = made.masked
    if tau == 0:
        order = logp.masked_fill(~masked, -torch.inf).argsort(dim=1, descending=True, stable=True)
        wanted = made.reveal_rank.gather(1, order)
        count = (made.reveal_rank >= 0).sum(dim=1, keepdim=True)
        ahead = torch.arange(N) < count
        is_it = ((wanted == torch.arange(N)) | ~ahead).all(dim=1)
        return torch.where(is_it, 0.0, -torch.inf).to(logp.dtype)
    total = torch.zeros(len(logp), dtype=logp.dtype)
    left = masked.clone()
    for place in range(int(made.reveal_rank.max()) + 1):
        picked = made.reveal_rank == place
        weights = (logp / tau).masked_fill(~left, -torch.inf)
        chosen = torch.where(picked, logp / tau, 0.0).sum(dim=1)
        total = total + torch.where(picked.any(dim=1), chosen - weights.logsumexp(dim=1), 0.0)
        left = left & ~picked
    return total


def by_log_p(logits: Tensor, logp: Tensor, made: Transition, tau: float) -> Tensor:
    """Log-probability of the order, by log p of the proposals."""
    return order_log_prob(logp, made, tau)


def by_max_prob(logits: Tensor, logp: Tensor, made: Transition, tau: float) -> Tensor:
    """Log-probability of the order, by that of the likeliest codes."""
    return order_log_prob(made.unpack(log_softmax(logits).amax(dim=-1)), made, tau)


def at_random(logits: Tensor, logp: Tensor, made: Transition, tau: float) -> Tensor:
    """Log-probability of the order, where all are alike."""
    ways = [
        perm(m, n) for m, n in zip(made.masked.sum(1).tolist(), made.revealed.sum(1).tolist(), strict=True)
    ]
    return -torch.tensor(ways, dtype=torch.float64).log()


def by_halton(logits: Tensor, logp: Tensor, made: Transition, tau: float) -> Tensor:
    """Log-probability of the order, where it is fixed."""
    return order_log_prob(-halton_order(2, 2).double().expand(made.state.shape), made, 0.0)


@dataclass(frozen=True)
class Policy:
    """How positions are chosen: the order's log-probability, the noise, and whether it is by log p."""

    order: Order
    taus: list[float]
    is_by_log_prob: bool = False


POLICIES = {
    "confidence": Policy(by_log_p, TAUS, True),
    "confidence, tau 0": Policy(by_log_p, [0.0] * T, True),
    "max_prob": Policy(by_max_prob, TAUS),
    "random": Policy(at_random, TAUS),
    "halton": Policy(by_halton, TAUS),
}
