"""Calibrate the evaluation ``cleanliness``: what passes of clean pictures, the tokenizer's, the base's, and of faults.

    python benchmarks/cleanliness.py

writes benchmarks/results/cleanliness.json. Clean pictures are scenes of random captions. A fault is planted in the
picture as it was painted, and in the same picture after the tokenizer, which is harder to judge: the tokenizer's own
errors are added. A dose is a fault that is made weaker until it passes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from cli_startup import commit, machine
from numpy.typing import NDArray
from planted_faults import (
    FAULTS,
    Picture,
    Plant,
    color_between,
    faint_smear,
    painted,
    shape_between,
    smeared,
    speck,
    tinted_background,
)

import maskrl
from maskrl.component import open_path
from maskrl.evaluations.cleanliness import MEASURES
from maskrl.generators.showo.checkpoint import load_magvit
from maskrl.geneval.metadata import TASKS
from maskrl.pixels import to_bytes
from maskrl.shapes.cleanliness import AVERAGED, ELSEWHERE, IN_THINGS, LIKENESS, look
from maskrl.shapes.faults import random_caption
from maskrl.shapes.world import COLORS, GRID, IMAGE_SIZE, Scene

RESULT = Path(__file__).parent / "results" / "cleanliness.json"
SEED = 1  # the limits were chosen on 400 scenes of seed 0
CLEAN, PLANTED = 500, 60  # pictures; of each fault
GUIDANCES, PER_PROMPT = (1.0, 3.0), 2
DOSES: dict[str, tuple[Callable[..., Picture], Sequence[float]]] = {
    "color_between share": (color_between, (0.1, 0.2, 0.3, 0.4)),
    "shape_between share": (shape_between, (0.1, 0.2, 0.3, 0.4)),
    "smeared width": (smeared, (3, 5)),
    "speck side": (speck, (1, 2)),
    "faint_smear share": (faint_smear, (0.05, 0.1, 0.15)),
    "tinted_background share": (tinted_background, (0.05, 0.1, 0.15)),
}


def scenes(number: int, seed: int) -> list[Scene]:
    """Lay out scenes of random captions."""
    rng = np.random.default_rng(seed)
    return [random_caption(rng).scene(rng, list(COLORS)) for _ in range(number)]


@torch.no_grad()
def through_tokenizer(pictures: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Encode and decode pictures, uint8 [N, 48, 48, 3], with the tokenizer that comes with maskrl."""
    magvit = load_magvit(Path(open_path("package:maskrl/shapes/weights/magvit"))).eval()
    images = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255
    side = IMAGE_SIZE // GRID
    return to_bytes(
        torch.cat([magvit.decode(magvit.encode(part), (side, side)) for part in images.split(100)])
    )


def levels(picture: Picture) -> NDArray[np.uint8]:
    """Round to 8 bits."""
    return np.asarray(picture.round().clip(0, 255), dtype=np.uint8)


def share_clean(pictures: Sequence[NDArray[np.uint8]]) -> float:
    """Judge pictures."""
    return round(float(np.mean([not look(picture).fault for picture in pictures])), 4)


def refused(plant: Plant, drawn: Sequence[Scene], decoded: NDArray[np.uint8]) -> dict[str, float]:
    """Plant a fault in pictures of scenes, as painted and after the tokenizer: the shares that are refused."""
    rng = np.random.default_rng(SEED)
    faulty = [plant(scene, rng) for scene in drawn]
    added = [
        picture + (fault - painted(scene))
        for picture, fault, scene in zip(decoded, faulty, drawn, strict=True)
    ]
    found = {
        "painted": share_clean(list(map(levels, faulty))),
        "decoded": share_clean(list(map(levels, added))),
    }
    return {name: round(1 - share, 4) for name, share in found.items()}


def base(guidance: float) -> dict[str, list[float]]:
    """Paint with the base: every number with its standard error over prompts."""
    settings = {"sampling.guidance_eval": guidance, "training.device": "cpu"}
    report = maskrl.load("shapes", settings=settings).evaluate("cleanliness", images_per_prompt=PER_PROMPT)
    names = [*MEASURES, *(f"{measure}_{task}" for measure in MEASURES for task in TASKS)]
    numbers = {name: report.numbers[name] for name in names}
    return {name: [round(number.mean, 4), round(number.se, 4)] for name, number in numbers.items()}


def calibrate() -> dict[str, object]:
    """Make every measurement but the base's."""
    drawn = scenes(CLEAN, SEED)
    pictures = np.stack([levels(painted(scene)) for scene in drawn])
    decoded = through_tokenizer(pictures)
    few, after = drawn[:PLANTED], decoded[:PLANTED]
    doses = {
        name: {str(dose): refused(partial(plant, **{name.split()[1]: dose}), few, after) for dose in some}
        for name, (plant, some) in DOSES.items()
    }
    return {
        "clean": {"painted": share_clean(list(pictures)), "decoded": share_clean(list(decoded))},
        "refused": {name: refused(plant, few, after) for name, plant in FAULTS.items()},
        "refused_by_dose": doses,
    }


def main() -> None:
    """Measure, print and write."""
    limits = {"likeness": LIKENESS, "in_things": IN_THINGS, "elsewhere": ELSEWHERE, "averaged": AVERAGED}
    about = {"command": "python benchmarks/cleanliness.py", "commit": commit(), "machine": machine()}
    sizes = {"seed": SEED, "clean": CLEAN, "planted": PLANTED, "images_per_prompt": PER_PROMPT}
    result = {**about, "limits": limits, "pictures": sizes, **calibrate()}
    result["base"] = {f"guidance {guidance:g}": base(guidance) for guidance in GUIDANCES}
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(RESULT.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
