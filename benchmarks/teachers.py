"""How well each small teacher ranks the base's own pictures, and Table 5: whether it prefers the right number.

    python benchmarks/teachers.py

writes benchmarks/results/teachers.json. Of two pictures of one held-out prompt, one right and one wrong, how often has
the right one the higher reward (AUC; a tie is half)? Right by GenEval's rules, which forgive what is too many, and by
cleanliness: exactly what was asked for, in whole shapes and nothing else. All teachers see the same 240 x 8 pictures,
painted at guidance 1. The error is a bootstrap's over prompts. Table 5 is ``maskrl eval relative_correctness``.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cli_startup import commit, machine

import maskrl
from maskrl.component import ComponentConfig
from maskrl.evaluations.cleanliness import Cleanliness
from maskrl.evaluations.scores import score_each
from maskrl.pixels import rounded
from maskrl.recipe import read_recipe
from maskrl.runtime.prompts import load_prompts

MISREAD = str(Path(__file__).parent / "studies" / "misread.toml")  # the recipe that the numbers are of
RESULT = Path(__file__).parent / "results" / "teachers.json"
WEIGHTS = "package:maskrl/shapes/weights"
TEACHERS = {
    "clip": ("reward.name=clip", f"reward.model={WEIGHTS}/clip"),
    "clip_strict": ("reward.name=clip", f"reward.model={WEIGHTS}/clip_strict"),
    "image_reward": (f"reward={{ name = 'image_reward', weights = '{WEIGHTS}/image_reward' }}",),
}
PER_PROMPT = 8


def won(right: list[float], wrong: list[float]) -> tuple[float, int]:
    """Count the pairs in which the right one is higher, and all pairs."""
    difference = np.subtract.outer(right, wrong)
    return float((difference > 0).sum() + 0.5 * (difference == 0).sum()), difference.size


def auc(scores: list[float], right: list[bool], groups: list[int]) -> dict[str, float]:
    """Rank within groups, and resample the groups 1,000 times for the error."""
    of_group: dict[int, tuple[list[float], list[float]]] = defaultdict(lambda: ([], []))
    for score, is_right, group in zip(scores, right, groups, strict=True):
        of_group[group][0 if is_right else 1].append(score)
    pairs = np.array([won(*both) for both in of_group.values()])
    draws = np.random.default_rng(0).integers(len(pairs), size=(1000, len(pairs)))
    sums = pairs[draws].sum(axis=1)
    total = pairs.sum(axis=0)
    return {"auc": total[0] / total[1], "se": float((sums[:, 0] / sums[:, 1]).std()), "pairs": int(total[1])}


def table_5(name: str, changes: tuple[str, ...], folder: Path) -> dict[str, Any]:
    """Ask a teacher for the rewards of half the right number, the right one, and double of it."""
    options = [part for change in changes for part in ("--set", change)]
    command = [
        "eval",
        "relative_correctness",
        "--recipe",
        MISREAD,
        *options,
        "--out",
        str(folder / name),
    ]
    command += ["--images-per-prompt", "16"]
    subprocess.run([sys.executable, "-m", "maskrl", *command], check=True, stdout=subprocess.DEVNULL)
    told: dict[str, Any] = json.loads((folder / name / "relative_correctness" / "summary.json").read_text())
    return {"images": told["images"], **told["numbers"]}


def main() -> None:
    """Paint once, judge, score by every teacher, and write it down."""
    prompts = load_prompts("shapes_geneval")
    every = [prompt for prompt in prompts for _ in range(PER_PROMPT)]
    groups = [i // PER_PROMPT for i in range(len(every))]
    model = maskrl.load(MISREAD)
    painted = model.sample([prompt.text for prompt in prompts], n=PER_PROMPT, seed=7, guidance=1.0)
    pixels = list(rounded(painted.pixels))
    rows = Cleanliness(ComponentConfig()).judge(pixels, every)
    verdicts = {
        "geneval": [bool(row["geneval"]) for row in rows],
        "exact": [bool(row["clean"] and row["strict"]) for row in rows],
    }
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, changes in TEACHERS.items():
            reward = read_recipe(MISREAD, ["eval=", *changes]).reward.build()
            with torch.no_grad():
                scores = score_each(reward, pixels, every)
            ranked = {verdict: auc(scores, right, groups) for verdict, right in verdicts.items()}
            found[name] = {**ranked, "relative_correctness": table_5(name, changes, Path(folder))}
            print(name, json.dumps(found[name]), flush=True)
    result = {"command": "python benchmarks/teachers.py", "commit": commit(), "machine": machine()}
    RESULT.write_text(json.dumps({**result, "teachers": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
