"""Bias and variance of the policy gradient with each transition probability, where all can be enumerated.

    python benchmarks/estimator_bias.py

writes benchmarks/results/estimator_bias.json and the table in docs/results.md: for small random networks on a canvas of
N = V = 4 painted in T = 3 steps, every proposal and every order of revealing enumerated in fp64, under each way to
choose positions. For each estimator: the cosine between its expected gradient and the gradient of the expected reward
(1: no bias), its length over that one's, and the variance of the gradient from one image, over its length squared.

The gradient of one image is the sum over its steps, times its reward less the mean: an infinite group's, not divided.
The reward is a random table over the 256 images. Nothing is sampled: the numbers are exact for each network.
"""

from __future__ import annotations

import json
import statistics
from itertools import combinations, product
from pathlib import Path

import torch
from cli_startup import commit, machine
from small_canvas import (
    COUNTS,
    MASK,
    NETWORKS,
    POLICIES,
    SHARPNESS,
    TAUS,
    N,
    Network,
    Policy,
    Step,
    T,
    V,
    enumerate_steps,
    transition,
)
from torch import Tensor

from maskrl.grpo.confidence import log_softmax, pick
from maskrl.interfaces import TransitionProb
from maskrl.transitions.ar import Ar
from maskrl.transitions.exact import Exact
from maskrl.transitions.p_theta1 import PTheta1
from maskrl.transitions.p_theta2 import PTheta2
from maskrl.transitions.plackett_luce import PlackettLuce

RESULT = Path(__file__).parent / "results" / "estimator_bias.json"
PAGE = Path(__file__).parents[1] / "docs" / "results.md"
BEGIN, END = "<!-- estimator_bias -->", "<!-- /estimator_bias -->"


def built(kind: type[TransitionProb], **settings: object) -> TransitionProb:
    """Build an estimator."""
    return kind(kind.Config(**settings))


ESTIMATORS = {
    "ar": built(Ar),
    "p_theta1": built(PTheta1),
    "p_theta2": built(PTheta2),
    "plackett_luce": built(PlackettLuce),
    "exact": built(Exact),
    "ar, mean": built(Ar, normalize="mean"),
    "p_theta1, mean": built(PTheta1, normalize="mean"),
    "p_theta2, mean": built(PTheta2, normalize="mean"),
    "p_theta2, order_from 0.2": built(PTheta2, order_from=0.2),
}
NAMES = (*ESTIMATORS, "random_remask")


class Canvas:
    """The states and events of every step for one network, and how each logit depends on the parameters."""

    def __init__(self, network: Network, steps: list[Step], policy: Policy) -> None:
        self.network, self.steps, self.policy = network, steps, policy
        self.logits, self.made, self.chance = [], [], []
        for t, step in enumerate(steps):
            masked = step.states == MASK
            per_state = network(step.states, t)[masked].view(len(step.states), -1, V)
            logits = per_state[step.source].flatten(0, 1)
            made = transition(step, log_softmax(logits.detach()), t, policy.taus[t])
            logp = made.unpack(pick(log_softmax(logits), made.pack(step.proposals)))
            order = policy.order(logits, logp, made, policy.taus[t])
            self.logits.append(logits.detach())
            self.made.append(made)
            self.chance.append((ESTIMATORS["ar"].log_prob(logits, made) + order).exp())
        self.jacobian = [self._jacobian(step.states, t) for t, step in enumerate(steps)]

    def _jacobian(self, states: Tensor, t: int) -> Tensor:
        """Float [S, M * V, all parameters]."""
        parameters = dict(self.network.named_parameters())

        def logits(values: dict[str, Tensor], state: Tensor) -> Tensor:
            return torch.func.functional_call(self.network, values, (state[None], t))[0]

        parts = torch.func.vmap(torch.func.jacrev(logits), in_dims=(None, 0))(parameters, states)
        slope = torch.cat([part.detach().flatten(3) for part in parts.values()], dim=3)
        return slope[states == MASK].view(len(states), -1, slope.shape[-1])

    def expected(self, reward: Tensor) -> list[Tensor]:
        """Return the mean of something of the images from every state of every step; differentiable."""
        values = [reward]
        for step, likely in zip(reversed(self.steps), reversed(self.chance), strict=True):
            start = torch.zeros(len(step.states), dtype=torch.float64)
            values.append(start.index_add(0, step.source, likely * values[-1][step.target]))
        return values[::-1]

    def images(self) -> Tensor:
        """Return the probability of each image."""
        reached = torch.ones(1, dtype=torch.float64)
        for step, likely in zip(self.steps, self.chance, strict=True):
            weight = reached[step.source] * likely.detach()
            reached = torch.zeros(int(step.target.max()) + 1, dtype=torch.float64)
            reached.index_add_(0, step.target, weight)
        assert abs(float(reached.sum()) - 1) < 1e-9, "the probabilities of all images add up to 1"
        return reached

    def scores(self, estimator: TransitionProb, t: int) -> Tensor:
        """Return the gradient of every event's log-probability: Float [E, all parameters]."""
        step, jacobian = self.steps[t], self.jacobian[t]
        events = torch.arange(len(step.source))
        if isinstance(estimator, Exact):  # it forgets what was remasked: once for each next state
            pair, events = (step.source * V**N + step.target).unique(return_inverse=True)
            first = torch.full((len(pair),), len(events)).scatter_reduce(
                0, events, torch.arange(len(events)), "amin"
            )
        else:
            first = events
        logits = self.logits[t].view(len(step.source), -1)[first].requires_grad_()
        value = estimator.log_prob(logits.view(-1, V), self.made[t].select(first)).sum()
        (slope,) = torch.autograd.grad(value, logits)
        by_source = step.source[first]
        found = torch.zeros(len(first), jacobian.shape[-1], dtype=torch.float64)
        for source in by_source.unique().tolist():
            mine = by_source == source
            found[mine] = slope[mine] @ jacobian[source]
        return found[events]


def moments(
    canvas: Canvas, estimator: TransitionProb, first: list[Tensor], second: list[Tensor]
) -> tuple[Tensor, float]:
    """Return the mean of one image's gradient and the mean of its square, from the last step to the first.

    ``first`` and ``second`` are the mean gain of an image and of its square, from every state.
    """
    size = canvas.jacobian[0].shape[-1]
    final = len(first[-1])
    mean, mixed = torch.zeros(final, size).double(), torch.zeros(final, size).double()
    square = torch.zeros(final).double()
    for t in reversed(range(T)):
        step, likely = canvas.steps[t], canvas.chance[t].detach()
        slope, to = canvas.scores(estimator, t), step.target
        gain, gain2 = first[t + 1][to][:, None], second[t + 1][to]
        count = len(step.states)

        def add(values: Tensor, source: Tensor = step.source, count: int = count) -> Tensor:
            return torch.zeros(count, *values.shape[1:]).double().index_add(0, source, values)

        crossed = 2 * (slope * mixed[to]).sum(1)
        square = add(likely * (slope.square().sum(1) * gain2 + crossed + square[to]))
        mean = add(likely[:, None] * (slope * gain + mean[to]))
        mixed = add(likely[:, None] * (slope * gain2[:, None] + mixed[to]))
    return mean[0], float(square[0])


def remasked_moments(canvas: Canvas, chance: Tensor, gain: Tensor) -> tuple[Tensor, float]:
    """Return the same of ``random_remask``: masks drawn for every step of the finished image, apart from each other."""
    images = torch.tensor(sorted(product(range(V), repeat=N)))
    means, squares = [], []
    left = N
    for t in range(T):
        places = [list(place) for place in combinations(range(N), left)]
        states = images.repeat_interleave(len(places), dim=0)
        for row, place in enumerate(places * len(images)):
            states[row, place] = MASK
        jacobian = canvas._jacobian(states, t)
        logits = canvas.network(states, t)[states == MASK].detach()
        codes = images.repeat_interleave(len(places), dim=0)[states == MASK]
        slope = torch.nn.functional.one_hot(codes, V) - logits.softmax(-1)
        found = torch.bmm(slope.view(len(states), 1, -1), jacobian)[:, 0].view(len(images), len(places), -1)
        means.append(found.mean(dim=1))
        squares.append(found.square().sum(dim=2).mean(dim=1))
        left -= COUNTS[t]
    total = torch.stack(means).sum(0)
    square = torch.stack(squares).sum(0) + total.square().sum(1)
    square = square - sum(mean.square().sum(1) for mean in means)
    return (chance * gain) @ total, float((chance * gain**2 * square).sum())


def compare(canvas: Canvas, reward: Tensor) -> dict[str, dict[str, float]]:
    """Compare every estimator's gradient with that of the expected reward."""
    value = canvas.expected(reward)[0].sum()
    slopes = torch.autograd.grad(value, list(canvas.network.parameters()), retain_graph=True)
    truth = torch.cat([slope.flatten() for slope in slopes])
    chance, gain = canvas.images(), reward - value.detach()
    first, second = ([v.detach() for v in canvas.expected(x)] for x in (gain, gain**2))
    table = {}
    for name in NAMES:
        if name == "random_remask":
            mean, square = remasked_moments(canvas, chance, gain)
        elif ESTIMATORS[name].needs_log_prob and not canvas.policy.is_by_log_prob:
            continue
        else:
            mean, square = moments(canvas, ESTIMATORS[name], first, second)
        size = float(truth.norm())
        table[name] = {
            "cosine": float(torch.cosine_similarity(mean, truth, dim=0)),
            "length": float(mean.norm()) / size,
            "variance": (square - float(mean.square().sum())) / size**2,
        }
    return table


def measure(networks: int = NETWORKS) -> dict[str, dict[str, dict[str, dict[str, float]]]]:
    """Return median and minimum or maximum over the networks, by policy, sharpness and estimator."""
    steps = enumerate_steps()
    reward = torch.randn(V**N, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    table: dict[str, dict[str, dict[str, dict[str, float]]]] = {}
    for policy_name, policy in POLICIES.items():
        for sharpness in SHARPNESS:
            rows = [
                compare(Canvas(Network(seed, sharpness), steps, policy), reward) for seed in range(networks)
            ]
            table.setdefault(policy_name, {})[f"{sharpness:g}"] = {
                name: summary(name, rows) for name in rows[0]
            }
            print(policy_name, sharpness, flush=True)
    return table


def summary(name: str, rows: list[dict[str, dict[str, float]]]) -> dict[str, float]:
    """Return medians over the networks, and the least cosine."""
    medians = {key: statistics.median(row[name][key] for row in rows) for key in rows[0][name]}
    found = medians | {"least_cosine": min(row[name]["cosine"] for row in rows)}
    return {key: float(f"{value:.4g}") for key, value in found.items()}


def rendered(table: dict[str, dict[str, dict[str, dict[str, float]]]]) -> str:
    """Return the Markdown table."""
    lines = [
        "| positions | estimator | cosine, logits x 3 | length | variance | cosine, logits x 8 | length | variance |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for policy, columns in table.items():
        for name in next(iter(columns.values())):
            cells = [
                f"{row[name]['cosine']:.3f} ({row[name]['least_cosine']:.3f}) | {row[name]['length']:.2f} |"
                f" {row[name]['variance']:.3g}"
                for row in columns.values()
            ]
            lines.append(f"| {policy} | `{name}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Measure and write."""
    table = measure()
    about = {
        "command": "python benchmarks/estimator_bias.py",
        "commit": commit(),
        "machine": machine(),
        "torch": torch.__version__,
        "canvas": {"N": N, "V": V, "T": T, "counts": COUNTS, "taus": TAUS, "networks": NETWORKS},
    }
    RESULT.write_text(json.dumps({**about, "policies": table}, indent=1) + "\n", encoding="utf-8")
    page = PAGE.read_text(encoding="utf-8")
    before, after = page.split(BEGIN)[0], page.split(END)[1]
    PAGE.write_text(f"{before}{BEGIN}\n{rendered(table)}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
