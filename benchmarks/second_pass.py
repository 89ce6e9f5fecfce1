"""How far ratios are from 1 in a second pass over a batch, after one optimizer step, by transition probability.

    python benchmarks/second_pass.py

writes benchmarks/results/second_pass.json. The shapes model paints a batch of the recipe ``misread.toml``; one step of
AdamW is taken with the gradient of ``p_theta1``; then every probability scores the same transitions before and after:
the root mean square of log(new / old) in nats, and its largest absolute value. ``p_theta1`` with the threshold of the
current weights jumps where codes cross it.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from cli_startup import commit, machine
from torch import Tensor

from maskrl.grpo.policy import policy_logits
from maskrl.grpo.update import collect, learn
from maskrl.recipe import read_recipe
from maskrl.training.setup import Setup, set_up
from maskrl.transitions.p_theta1 import PTheta1
from maskrl.transitions.p_theta2 import PTheta2
from maskrl.types import Transition

MISREAD = str(Path(__file__).parent / "studies" / "misread.toml")  # the recipe that the numbers are of
RESULT = Path(__file__).parent / "results" / "second_pass.json"
RATES, DTYPES, PORTION = (3e-6, 4e-4), ("fp32", "bf16"), 64
SCORERS = {
    "p_theta2": PTheta2(PTheta2.Config()),
    "p_theta1 current": PTheta1(PTheta1.Config()),
    "p_theta1 recorded": PTheta1(PTheta1.Config(threshold="recorded")),
    "p_theta1 kept_set": PTheta1(PTheta1.Config(threshold="kept_set")),
}


def prepare(rate: float, dtype: str) -> Setup:
    """Build the run of the recipe, at a constant rate, so that its batch has the sets that ``kept_set`` needs."""
    changes = [f"training.learning_rate={rate}", f"training.dtype={dtype}", "training.lr_schedule=constant"]
    more = [
        "training.device=cpu",
        "transition.name=p_theta1",
        "transition.threshold=kept_set",
        "eval=",
    ]
    return set_up(read_recipe(MISREAD, [*changes, *more]))


def pairs(setup: Setup, made: Transition, rows: Tensor, condition: object) -> dict[str, Tensor]:
    """Score some transitions by every probability: Float [K] each."""
    sampling = setup.learner.algorithm.sampling
    inputs = (made.step, sampling, sampling.guidance_loss, made.places)
    with torch.no_grad():
        logits = policy_logits(setup.learner.generator, made.state, condition.select(rows), *inputs)
        return {name: scorer.log_prob(logits, made) for name, scorer in SCORERS.items()}


def measure(rate: float, dtype: str) -> dict[str, dict[str, float]]:
    """Return rms and largest |log ratio| of every probability."""
    setup = prepare(rate, dtype)
    prompts = setup.prompts[: setup.share]
    batch = collect(setup.actor, prompts, 0)
    trajectory, size = batch.trajectory, setup.actor.algorithm.config.group_size
    index = torch.cartesian_prod(torch.arange(trajectory.num_images), torch.arange(trajectory.num_steps))

    def score() -> dict[str, Tensor]:
        found = [
            pairs(setup, trajectory.transitions(*part.T), part[:, 0] // size, batch.condition)
            for part in index.split(PORTION)
        ]
        return {name: torch.cat([row[name] for row in found]) for name in SCORERS}

    before = score()
    learn(setup.learner, batch)
    after = score()
    apart = {name: (after[name] - before[name]).double() for name in SCORERS}
    return {
        name: {"rms": round(float(d.square().mean().sqrt()), 4), "largest": round(float(d.abs().max()), 3)}
        for name, d in apart.items()
    }


def main() -> None:
    """Measure, print and write."""
    table = {f"{dtype}, rate {rate:g}": measure(rate, dtype) for dtype in DTYPES for rate in RATES}
    for name, rows in table.items():
        print(name, rows)
    about = {"command": "python benchmarks/second_pass.py", "commit": commit(), "machine": machine()}
    RESULT.write_text(json.dumps({**about, "log_ratio_nats": table}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
