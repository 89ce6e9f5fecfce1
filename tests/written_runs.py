"""Runs as folders that a test writes in a moment: a small metrics file, and what it wants beside it."""

import json

import numpy as np
from PIL import Image

from maskrl.evals.results import Report, Result, write_report
from maskrl.interfaces import Number

RECIPE = """
[generator]
name = "showo"
checkpoint = "package:maskrl/shapes/weights/showo"
tokenizer = "package:maskrl/shapes/weights/magvit"
[transition]
name = "p_theta2"
[reward]
name = "clip"
model = "package:maskrl/shapes/weights/clip_strict"
[filter]
name = "keep_all"
[reducer]
name = "none"
[grpo]
group_size = 8
num_updates = {passes}
[prompts]
train = "shapes_train"
[training]
updates = {planned}
prompts_per_update = 8
learning_rate = 0.0004
[tracking]
sample_prompts = ["{prompt}"]
"""


def update(number, **others):
    """Return the row of a healthy update: a reward that rises, with a little of a wave."""
    row = {
        "kind": "update",
        "update": number,
        "reward_mean": 0.1 * number + 0.05 * (-1) ** number,
        "reward_std": 1.0 + 0.01 * (-1) ** number,
        "diversity_tokens": 0.5 + 0.01 * (-1) ** number,
        "ratio_min": 1.0,
        "ratio_max": 1.0,
        "clip_fraction": 0.0,
        "grad_norm": 1.0 + 0.1 * (-1) ** number,
        "skipped": 0.0,
        "seconds_total": 2.0,
    }
    return {**row, **others}


def write_run(folder, rows, starts=1, planned=None, passes=1, tail="", prompt="a red circle"):
    """Write a run's recipe, record and metrics; ``tail`` stands behind the last row."""
    folder.mkdir(parents=True)
    planned = planned or max(1, len(rows))
    (folder / "recipe.toml").write_text(RECIPE.format(planned=planned, passes=passes, prompt=prompt))
    (folder / "run.json").write_text(json.dumps({"contents": None, "starts": [{}] * starts, "saved": None}))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + tail)
    return folder


def measure(folder, label, when, means, guidance=1.0, se=0.01):
    """Write an evaluation of a run."""
    numbers = {name: Number(mean, se) for name, mean in means.items()}
    result = Result("nobody_has_it", "Beauty", numbers, 240, {"guidance": guidance}, {}, {})
    write_report(Report(result, ()), folder / "eval" / label / when)


def paint(folder, *names, size=(640, 480)):
    """Write sample sheets of noise."""
    (folder / "samples").mkdir(exist_ok=True)
    noise = np.random.default_rng(0).integers(0, 255, (*size[::-1], 3), dtype=np.uint8)
    for name in names:
        Image.fromarray(noise).save(folder / "samples" / f"{name}.png")


def film(folder, side=4, steps=3, prompt="a red circle"):
    """Write the groups of update 1, two of four images, and the films of two of each; tokens in a square."""
    (folder / "groups").mkdir(exist_ok=True)
    noise = np.random.default_rng(0).integers(0, 255, (128, 256, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "groups" / "update_00001.png")
    films = [
        {
            "image": image,
            "revealed_in": [token % steps for token in range(side * side)],
            "logp": [-0.2 * (token % 7) for token in range(side * side)],
            "lesson": [lesson] * steps,
        }
        for image, lesson in ((0, 1.5), (3, -1.5))
    ]
    group = {"prompt": prompt, "rewards": [4.0, 3.0, 2.0, 1.0], "advantages": [1.5, 0.5, -0.5, -1.5]}
    record = {"update": 1, "width": 64, "height": 64, "grid": [side, side]}
    groups = [{**group, "kept": True, "films": films} for _ in range(2)]
    (folder / "groups" / "update_00001.json").write_text(json.dumps({**record, "groups": groups}))
