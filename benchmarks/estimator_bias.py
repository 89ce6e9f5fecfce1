"""How far each transition probability's expected gradient is from the true one, where all can be enumerated.

    python benchmarks/estimator_bias.py

writes benchmarks/results/estimator_bias.json: the cosine between the gradient of the expected reward under the real
sampler and what the policy gradient with each transition probability is on average, for small random networks on a
canvas of N = V = 4 painted in T = 3 steps, every proposal and every order of revealing enumerated in fp64. A cosine of
1 is no bias; below 0 an update makes things worse.

``plackett_luce`` scores all that was sampled (proposals, and the order under Gumbel noise) and must come out as 1: it
checks the enumeration. ``/length`` divides by the number of positions that the sum is over. The reward is a random
table over the 256 images; images have the mean reward taken off, as an infinite group would.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from itertools import permutations, product
from pathlib import Path

import torch
from cli_startup import commit, machine
from torch import Tensor, nn

from maskrl.grpo.confidence import border, log_softmax, pick, remaskable
from maskrl.grpo.schedule import unmask_counts
from maskrl.grpo.temperature import temperatures
from maskrl.transitions.ar import Ar
from maskrl.transitions.p_theta1 import PTheta1
from maskrl.transitions.p_theta2 import PTheta2
from maskrl.types import StepIndex, Transition

N = V = 4
T, MASK, WIDTH, NETWORKS = 3, V, 8, 20
SHARPNESS = (3.0, 8.0)
RULE, TAU_INIT, SCHEDULE = "compound", 1.0, "cosine"
COUNTS, TAUS = unmask_counts(N, T, SCHEDULE), temperatures(T, RULE, TAU_INIT)
RESULT = Path(__file__).parent / "results" / "estimator_bias.json"

LogProb = Callable[[Tensor, Transition], Tensor]


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


def transition(step: Step, log_p: Tensor, t: int) -> Transition:
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
        tau=torch.full((rows,), TAUS[t]),
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


def plackett_luce(logits: Tensor, made: Transition) -> Tensor:
    """Score all that was sampled: the proposals and the order."""
    logp = made.unpack(pick(log_softmax(logits), made.pack(made.proposals)))
    order = order_log_prob(logp, made, float(made.tau[0]))
    return AR.log_prob(logits, made) + order.masked_fill(order == -torch.inf, 0.0)


AR, P1, P2 = Ar(Ar.Config()), PTheta1(PTheta1.Config()), PTheta2(PTheta2.Config())
ESTIMATORS: dict[str, LogProb] = {
    "ar": AR.log_prob,
    "p_theta1": P1.log_prob,
    "p_theta2": P2.log_prob,
    "plackett_luce": plackett_luce,
    "ar/length": lambda logits, made: AR.log_prob(logits, made) / made.masked.sum(dim=1),
    "p_theta1/length": lambda logits, made: P1.log_prob(logits, made) / made.masked.sum(dim=1),
    "p_theta2/length": lambda logits, made: P2.log_prob(logits, made) / made.revealed.sum(dim=1),
}


def gradient(value: Tensor, network: nn.Module) -> Tensor:
    """Return the gradient in all parameters as one vector."""
    parts = torch.autograd.grad(value, list(network.parameters()), retain_graph=True)
    return torch.cat([part.flatten() for part in parts])


def cosines(steps: list[Step], network: Network, reward: Tensor) -> dict[str, float]:
    """Compare every estimator's expected gradient with that of the expected reward."""
    logits, made, chance = [], [], []
    for t, step in enumerate(steps):
        masked = step.states == MASK
        per_state = network(step.states, t)[masked].view(len(step.states), -1, V)
        logits.append(per_state[step.source].flatten(0, 1))
        made.append(transition(step, log_softmax(logits[-1].detach()), t))
        logp = made[-1].unpack(pick(log_softmax(logits[-1]), made[-1].pack(step.proposals)))
        log_chance = AR.log_prob(logits[-1], made[-1]) + order_log_prob(logp, made[-1], TAUS[t])
        chance.append(log_chance.exp())
    values = [reward]  # of the states after each step, from the last to the first
    for step, likely in zip(reversed(steps), reversed(chance), strict=True):
        start = torch.zeros(len(step.states), dtype=torch.float64)
        values.append(start.index_add(0, step.source, likely * values[-1][step.target]))
    values.reverse()
    truth = gradient(values[0].sum(), network)
    mean, reached = values[0].detach(), torch.ones(1, dtype=torch.float64)
    expected = dict.fromkeys(ESTIMATORS, torch.zeros((), dtype=torch.float64))
    for t, step in enumerate(steps):
        weight = reached[step.source] * chance[t].detach()
        gain = weight * (values[t + 1].detach()[step.target] - mean)
        for name, log_prob in ESTIMATORS.items():
            expected[name] = expected[name] + (gain * log_prob(logits[t], made[t])).sum()
        reached = torch.zeros(len(values[t + 1]), dtype=torch.float64).index_add(0, step.target, weight)
    assert abs(float(reached.sum()) - 1) < 1e-9, "the probabilities of all images add up to 1"
    return {
        name: float(torch.cosine_similarity(gradient(value, network), truth, dim=0))
        for name, value in expected.items()
    }


def measure() -> dict[str, dict[str, dict[str, float]]]:
    """Return median and minimum over the networks, by sharpness and estimator."""
    steps = enumerate_steps()
    reward = torch.randn(V**N, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    table = {}
    for sharpness in SHARPNESS:
        rows = [cosines(steps, Network(seed, sharpness), reward) for seed in range(NETWORKS)]
        table[f"sharpness {sharpness:g}"] = {
            name: {
                "median": round(statistics.median(row[name] for row in rows), 4),
                "minimum": round(min(row[name] for row in rows), 4),
            }
            for name in ESTIMATORS
        }
    return table


def main() -> None:
    """Measure, print and write."""
    table = measure()
    for sharpness, rows in table.items():
        print(sharpness)
        for name, numbers in rows.items():
            print(f"  {name:<16} {numbers['median']:.3f} ({numbers['minimum']:+.3f})")
    about = {
        "command": "python benchmarks/estimator_bias.py",
        "commit": commit(),
        "machine": machine(),
        "torch": torch.__version__,
        "canvas": {"N": N, "V": V, "T": T, "counts": COUNTS, "taus": TAUS, "networks": NETWORKS},
    }
    RESULT.write_text(json.dumps({**about, "cosine": table}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
