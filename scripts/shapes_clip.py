"""Train the tiny CLIP of the shapes world, step 2 of 3; see maskrl/shapes/weights/CARD.md.

python scripts/shapes_clip.py --tokenizer work/magvit --out work/clip --steps 3000
Resumes from the folder's checkpoint when there is one.

A batch is made of families: a caption and three near misses of it, each with a picture of its own. Every picture is
scored against every caption of the batch; captions that happen to be true of another picture are left out of the sum.
Half of the pictures pass through the image tokenizer, because that is how the reward will see pictures.
"""

import maskrl  # isort: skip  # noqa: F401  # before open_clip: it makes torchvision importable

import argparse
import json
import math
import time
from pathlib import Path

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from shapes_common import PREFIXES, clip_tokenizer, pictures
from torch import Tensor

from maskrl.generators.showo.checkpoint import load_magvit
from maskrl.shapes.captions import Caption
from maskrl.shapes.faults import near_miss, random_caption
from maskrl.shapes.world import COLORS, IMAGE_SIZE, SHAPES, Scene

FAMILY = 4
CONTEXT = 16


def model_config() -> dict[str, object]:
    """Return the open_clip configuration: a ResNet for pixels, a transformer for words."""
    return {
        "model_cfg": {
            "embed_dim": 96,
            "vision_cfg": {"image_size": IMAGE_SIZE, "layers": [1, 1, 1, 1], "width": 16, "patch_size": None},
            "text_cfg": {
                "context_length": CONTEXT,
                "vocab_size": len(clip_tokenizer()),
                "hf_tokenizer_name": "tokenizer",
                "width": 96,
                "heads": 4,
                "layers": 3,
            },
        },
        "preprocess_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]},
    }


def write_config(folder: Path) -> None:
    """Write everything a local open_clip model needs but its weights."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "open_clip_config.json").write_text(json.dumps(model_config(), indent=2) + "\n")
    clip_tokenizer().save_pretrained(folder)


def truth(captions: list[Caption], scenes: list[Scene]) -> Tensor:
    """Say which caption is true of which scene: Bool [scenes, captions]. Equals ``Caption.holds``, vectorised."""
    shapes, colors = list(SHAPES), list(COLORS)
    found = np.zeros((len(scenes), len(shapes), len(colors) + 1), dtype=np.int64)
    for i, scene in enumerate(scenes):
        for thing in scene:
            found[i, shapes.index(thing.shape), colors.index(thing.color)] += 1
            found[i, shapes.index(thing.shape), -1] += 1
    table = np.ones((len(scenes), len(captions)), dtype=bool)
    for j, caption in enumerate(captions):
        for clause in caption.clauses:
            of_shape = found[:, shapes.index(clause.shape)]
            matching = of_shape[:, colors.index(clause.color) if clause.color else -1]
            if caption.task == "counting":
                table[:, j] &= (matching == clause.count) & (of_shape[:, -1] == clause.count)
            else:
                table[:, j] &= matching >= 1
        if caption.relation:
            for i in np.flatnonzero(table[:, j]):
                table[i, j] = caption.holds(scenes[i])
    return torch.from_numpy(table)


def families(count: int, rng: np.random.Generator) -> tuple[list[Caption], list[Scene]]:
    """Draw captions in families of near misses, each with a scene of which it is true."""
    captions = []
    for _ in range(count):
        caption = random_caption(rng)
        captions += [caption] + [near_miss(caption, rng) for _ in range(FAMILY - 1)]
    return captions, [caption.scene(rng, list(COLORS)) for caption in captions]


def contrast(image_features: Tensor, text_features: Tensor, scale: Tensor, true: Tensor) -> Tensor:
    """CLIP's symmetric cross-entropy, without the pairs that are true by accident."""
    logits = scale * image_features @ text_features.T
    accident = true & ~torch.eye(len(true), dtype=torch.bool)
    logits = logits.masked_fill(accident, -torch.inf)
    target = torch.arange(len(logits))
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokenizer", type=Path, required=True, help="the folder of step 1")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--families", type=int, default=48)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    write_config(args.out)
    torch.manual_seed(args.seed)
    rng = np.random.default_rng(args.seed)
    magvit = load_magvit(args.tokenizer).eval()
    config = model_config()["model_cfg"]
    assert isinstance(config, dict)
    text_config = {k: v for k, v in config["text_cfg"].items() if k != "hf_tokenizer_name"}
    model = open_clip.CLIP(config["embed_dim"], config["vision_cfg"], text_config)
    tokenizer = open_clip.get_tokenizer(f"local-dir:{args.out}")
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=args.learning_rate, betas=(0.9, 0.98), weight_decay=0.05
    )
    start, state = 0, args.out / "state.pt"
    if state.exists():
        saved = torch.load(state, weights_only=True)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        start = saved["step"]
        rng = np.random.default_rng((args.seed, start))
    began, running = time.time(), 0.0
    for step in range(start, args.steps):
        rate = args.learning_rate * min(1.0, (step + 1) / 100)
        rate *= 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / args.steps))
        for group in optimizer.param_groups:
            group["lr"] = rate
        captions, scenes = families(args.families, rng)
        images = pictures(scenes)
        half = torch.from_numpy(rng.random(len(images)) < 0.5)
        with torch.no_grad():
            images[half] = magvit.decode(magvit.encode(images[half]), (6, 6))
        texts = tokenizer([caption.text(str(rng.choice(PREFIXES))) for caption in captions])
        image_features = model.encode_image(images * 2 - 1, normalize=True)
        text_features = model.encode_text(texts, normalize=True)
        true = truth(captions, scenes)
        loss = contrast(image_features, text_features, model.logit_scale.exp(), true)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, math.log(100))
        running = 0.98 * running + 0.02 * loss.item() if step > start else loss.item()
        if step % 50 == 0 or step == args.steps - 1:
            accuracy = within_family(image_features.detach(), text_features.detach(), true)
            print(
                f"step {step} loss {running:.3f} within family {accuracy:.3f} {time.time() - began:.0f} s",
                flush=True,
            )
        if step % 200 == 199 or step == args.steps - 1:
            save_file(
                {k: v.contiguous() for k, v in model.state_dict().items()},
                args.out / "open_clip_model.safetensors",
            )
            torch.save(
                {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step + 1}, state
            )


def within_family(image_features: Tensor, text_features: Tensor, true: Tensor) -> float:
    """Return how often, for one caption, its own picture scores above a near miss of which the caption is false."""
    scores = image_features @ text_features.T
    right = total = 0
    for j in range(len(scores)):
        family = range(j - j % FAMILY, j - j % FAMILY + FAMILY)
        for i in family:
            if i != j and not true[i, j]:
                right += int(scores[j, j] > scores[i, j])
                total += 1
    return right / max(total, 1)


if __name__ == "__main__":
    main()
