"""Measure the shapes world's base model and judge: the numbers on maskrl/shapes/weights/CARD.md.

python scripts/shapes_card.py --showo work/showo --tokenizer work/magvit --clip work/clip --guidance 0 1 2 3 5 8
Prints, for each guidance, GenEval-shapes by task; and, at ``--judge-at``, how well the tiny CLIP ranks the base's own
pictures of one prompt against the detector's verdict (AUC over the pairs of a group, one right and one wrong).
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from maskrl.component import ComponentConfig
from maskrl.evals.generate import generate
from maskrl.evals.live import evaluate
from maskrl.evaluations.geneval import GenEvalBenchmark, judge_image
from maskrl.generators.showo.generator import Showo
from maskrl.geneval.metadata import TASKS
from maskrl.grpo.config import Sampling, SamplingConfig, resolve
from maskrl.pixels import rounded
from maskrl.rewards.clip import Clip
from maskrl.shapes.detector import ShapesDetector
from maskrl.shapes.prompts import ShapesGenEval
from maskrl.types import Stream


def ranking(
    generator: Showo, clip: Clip, sampling: Sampling, guidance: float, images: int
) -> dict[str, dict[str, float]]:
    """Return AUC, pairs and share of right pictures for every task."""
    detector, prompts = ShapesDetector(ComponentConfig()), ShapesGenEval(ComponentConfig()).prompts()
    pairs = {task: [0.0, 0.0, 0.0, 0.0] for task in TASKS}  # won, pairs, right, images
    stream = Stream(7)
    for p, prompt in enumerate(prompts):
        streams = [stream.child("card", p, i) for i in range(images)]
        steps = generator.spec.sampler.num_steps
        painted = torch.cat(
            [x for _, x in generate(generator, [prompt] * images, streams, steps, sampling, guidance, 64)]
        )
        painted = rounded(painted)
        right = torch.tensor([judge_image(image, prompt, detector, "").correct for image in painted])
        score = clip.score(painted, [prompt] * images)
        tally = pairs[prompt.metadata["tag"]]
        tally[0] += won(score[right], score[~right])
        tally[1] += int(right.sum()) * int((~right).sum())
        tally[2] += int(right.sum())
        tally[3] += images
    return {t: {"auc": w / max(n, 1), "pairs": n, "right": r / m} for t, (w, n, r, m) in pairs.items()}


def won(right: Tensor, wrong: Tensor) -> float:
    """Count the pairs in which the right picture scores higher; a tie is half a pair."""
    difference = right[:, None] - wrong[None, :]
    return float((difference > 0).sum() + 0.5 * (difference == 0).sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--showo", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--clip", type=Path)
    parser.add_argument("--guidance", type=float, nargs="*", default=[0.0, 1.0, 2.0, 3.0, 5.0, 8.0])
    parser.add_argument("--judge-at", type=float, nargs="*", default=[])
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--judge-images", type=int, default=16, help="pictures per prompt for the ranking")
    args = parser.parse_args()
    generator = Showo(Showo.Config(checkpoint=str(args.showo), tokenizer=str(args.tokenizer)))
    sampling = resolve(SamplingConfig(), generator.spec)
    for guidance in args.guidance:
        report = evaluate(
            GenEvalBenchmark(GenEvalBenchmark.Config()),
            generator,
            ShapesGenEval(ComponentConfig()).prompts(),
            sampling=replace(sampling, guidance_eval=guidance),
            num_steps=generator.spec.sampler.num_steps,
            images_per_prompt=args.images,
            stream=Stream(0),
            batch=64,
        )
        tasks = " ".join(f"{name} {report.numbers[name].mean:.3f}" for name in TASKS)
        overall = report.headline
        print(f"guidance {guidance}: overall {overall.mean:.3f} +- {overall.se:.3f}  {tasks}", flush=True)
    for guidance in args.judge_at:
        clip = Clip(Clip.Config(model=str(args.clip)))
        for task, numbers in ranking(generator, clip, sampling, guidance, args.judge_images).items():
            print(
                f"guidance {guidance} {task}: {json.dumps({k: round(v, 3) for k, v in numbers.items()})}",
                flush=True,
            )


if __name__ == "__main__":
    main()
