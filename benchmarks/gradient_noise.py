"""How much of one update's gradient is signal, and how much noise, of the quickstart's model and some settings.

    python benchmarks/gradient_noise.py

writes benchmarks/results/gradient_noise.json. K batches are collected by the same weights, each with prompts and noise
of its own, and no step is taken: the gradients of two of them have in common what every batch teaches. So the mean
cosine over pairs is the share of signal in the squared length of one gradient: at 0.01 the noise of an update is a
hundred times its signal, and a batch a hundred times as large would have as much of one as of the other. The standard
error is over pairs, which share batches: take it for the order of magnitude.

``--weights FOLDER`` measures at trained weights (``runs/NAME/generator``) instead of the base, and ``--out FILE``
writes elsewhere.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from cli_startup import commit, machine
from torch import Tensor

from maskrl.grpo.update import collect, learn
from maskrl.recipe import read_recipe
from maskrl.training.schedule import prompts_of
from maskrl.training.setup import set_up

MISREAD = str(Path(__file__).parent / "studies" / "misread.toml")  # the recipe that the numbers are of
RESULT = Path(__file__).parent / "results" / "gradient_noise.json"
COMMON = (
    "training.learning_rate=1e-12",  # no step to speak of, and the gradient stays
    "training.lr_schedule=constant",
    "training.max_grad_norm=1e9",
    "grpo.max_resamples=0",
    "reducer={ name = 'none' }",
    "grpo.group_size=8",
    "eval=",
)
VARIANTS: dict[str, tuple[str, ...]] = {
    "guidance 0": ("sampling.guidance_train=0",),
    "guidance 1": ("sampling.guidance_train=1",),
    "guidance 3": ("sampling.guidance_train=3",),
    "guidance 0, ar": ("sampling.guidance_train=0", "transition.name=ar"),
    "guidance 0, p_theta1": ("sampling.guidance_train=0", "transition.name=p_theta1"),
    "guidance 0, groups of 16 x 4 prompts": (
        "sampling.guidance_train=0",
        "grpo.group_size=16",
        "training.prompts_per_update=4",
    ),
    "guidance 0, groups of 4 x 16 prompts": (
        "sampling.guidance_train=0",
        "grpo.group_size=4",
        "training.prompts_per_update=16",
    ),
}
PARTS = {"embed_tokens": "embeddings", "q_proj": "queries", "k_proj": "keys", "v_proj": "values"}
PARTS |= {
    "dense": "attention's output",
    "mlp.fc1": "mlp in",
    "mlp.fc2": "mlp out",
    "lm_head": "head",
    "norm": "norms",
}


def gradients(changes: tuple[str, ...], batches: int) -> tuple[dict[str, list[Tensor]], float]:
    """Return the gradients of some batches by the part of the network, and CPU seconds per batch."""
    setup = set_up(read_recipe(MISREAD, [*COMMON, *changes]))
    count, found = setup.share, defaultdict(list)
    started = time.process_time()
    for update in range(batches):
        prompts = prompts_of(update, setup.prompts, count, setup.actor.stream)
        learn(setup.learner, collect(setup.actor, prompts, update))
        pieces = defaultdict(list)
        for name, parameter in setup.learner.generator.module.named_parameters():
            if parameter.grad is not None:
                part = next((label for key, label in PARTS.items() if key in name), name)
                for label in (part, "all"):
                    pieces[label].append(parameter.grad.flatten().clone())
        for label, parts in pieces.items():
            found[label].append(torch.cat(parts))
    return found, (time.process_time() - started) / batches


def share_of_signal(batches: list[Tensor]) -> dict[str, float]:
    """Return the mean cosine over pairs of gradients, and its standard error."""
    unit = torch.nn.functional.normalize(torch.stack(batches), dim=1)
    first, second = torch.triu_indices(len(unit), len(unit), offset=1)
    cosines = (unit @ unit.T)[first, second].double()
    return {
        "signal": round(float(cosines.mean()), 4),
        "se": round(float(cosines.std() / math.sqrt(len(cosines))), 4),
    }


def measure(weights: str | None, batches: int) -> dict[str, Any]:
    """Measure every variant, all of the network and part by part."""
    where = () if weights is None else (f"generator.checkpoint={Path(weights).resolve()}",)
    table = {}
    for name, changes in VARIANTS.items():
        found, seconds = gradients((*where, *changes), batches)
        table[name] = {
            "cpu_seconds": round(seconds, 2),
            **{label: share_of_signal(parts) for label, parts in found.items()},
        }
        print(f"{name:<40} {table[name]['all']['signal']:.4f} ± {table[name]['all']['se']:.4f}", flush=True)
    return table


def main() -> None:
    """Measure, print and write."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--weights")
    options.add_argument("--batches", type=int, default=8)
    options.add_argument("--out", type=Path, default=RESULT)
    chosen = options.parse_args()
    torch.set_num_threads(1)
    about = {
        "command": "python benchmarks/gradient_noise.py",
        "weights": "base" if chosen.weights is None else Path(chosen.weights).parent.name,
        "commit": commit(),
        "machine": machine(),
        "torch": torch.__version__,
        "batches": chosen.batches,
    }
    table = measure(chosen.weights, chosen.batches)
    chosen.out.write_text(json.dumps({**about, "signal": table}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
