"""Teach the tiny CLIP not to forgive, after step 3 and a training under it; see maskrl/shapes/weights/CARD.md.

python scripts/shapes_clip_strict.py --runs runs/a runs/b --out work/clip_strict

Starts from the CLIP in the package, for which a caption is true of a picture that shows *at least* what it says.
Reinforcement learning finds that out: objects too many, half-made shapes. Here a caption is true of a picture that
shows exactly that, and false of one with spoiled tokens; and pictures that the base and the generators of earlier runs
(``--runs``) have painted are added, false of their own captions beside a painter's picture, which is true. Those that
GenEval's strict count finds right are left out, as nobody can tell. The evaluation of cleanliness has no part in it.
"""

import maskrl  # isort: skip  # before open_clip: it makes torchvision importable

import argparse
import math
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from shapes_clip import Batch, build, make_batch
from shapes_common import PREFIXES, SIDE, pictures
from torch import Tensor

from maskrl.component import open_path
from maskrl.generators.showo.checkpoint import load_magvit
from maskrl.generators.showo.magvit import Magvit
from maskrl.pixels import rounded
from maskrl.rewards.geneval import GenEval
from maskrl.shapes.captions import Caption
from maskrl.shapes.faults import random_caption
from maskrl.shapes.world import COLORS
from maskrl.types import Prompt

GUIDANCES = (1.0, 2.0, 3.0)  # those that people evaluate at
AT_ONCE = 64  # pictures


@dataclass(frozen=True)
class Painted:
    """Pictures that generators have painted of captions.

    ``pictures`` Float [I, 3, 48, 48] in [0, 1]; ``right`` Bool [I]: GenEval's strict count finds the caption in it.
    """

    captions: list[Caption]
    pictures: Tensor
    right: Tensor


def paint(sources: Sequence[str], batches: int, rng: np.random.Generator) -> Painted:
    """Let the generator of each source, "shapes" or a run's folder, paint random captions."""
    captions, found, right = [], [], []
    strict = GenEval(GenEval.Config(detector="shapes", mode="strict"))
    for source in sources:
        model = maskrl.load(source)
        for batch in range(batches):
            asked = [random_caption(rng) for _ in range(AT_ONCE)]
            texts = [said(caption, rng) for caption in asked]
            guidance = GUIDANCES[batch % len(GUIDANCES)]
            images = rounded(model.sample(texts, guidance=guidance).pixels)
            prompts = [Prompt(t, c.metadata()) for t, c in zip(texts, asked, strict=True)]
            captions += asked
            found.append(images)
            right.append(strict.score(images, prompts) == 1)
        print(f"{source}: {AT_ONCE * batches} pictures", flush=True)
    return Painted(captions, torch.cat(found), torch.cat(right))


def said(caption: Caption, rng: np.random.Generator) -> str:
    """Word a caption in one of the five ways."""
    return caption.text(str(rng.choice(PREFIXES)))


def exactly(batch: Batch) -> tuple[Tensor, Tensor]:
    """Say which captions are true and false of which pictures, Bool [2 C, C], if nothing else may be there.

    A picture with spoiled tokens is one of nothing: whatever could have been said of it is false.
    """
    shown = torch.tensor([len(scene) for scene in batch.scenes])
    asked = torch.tensor([sum(clause.count for clause in caption.clauses) for caption in batch.captions])
    exact = (shown[:, None] == asked[None, :]) & ~batch.spoiled[:, None]
    return batch.true & exact, batch.false | ~exact


def loss_of(
    model: open_clip.CLIP,
    tokenizer: open_clip.SimpleTokenizer,
    batch: Batch,
    painted: Painted,
    beside: Tensor,
    rng: np.random.Generator,
) -> Tensor:
    """Average over true pairs, false pairs of a family, other false pairs; and over what generators painted."""
    texts = batch.texts + [said(caption, rng) for caption in painted.captions]
    images = torch.cat([batch.pictures, painted.pictures, beside])
    image_features = model.encode_image(images * 2 - 1, normalize=True)
    text_features = model.encode_text(tokenizer(texts), normalize=True)
    logits = model.logit_scale.exp() * image_features @ text_features.T + model.logit_bias
    first, many = len(batch.pictures), len(painted.captions)
    true, false = exactly(batch)
    own = logits[first:, len(batch.texts) :]
    pairs = F.binary_cross_entropy_with_logits(
        logits[:first, : len(batch.texts)], true.float(), reduction="none"
    )
    kinds = (true, false & batch.related, false & ~batch.related)
    of_painter = torch.stack([pairs[kind].mean() for kind in kinds]).mean()
    wrong = F.softplus(own[:many].diagonal())[~painted.right].mean()
    right = F.softplus(-own[many:].diagonal()).mean()
    return of_painter + (wrong + right) / 2


def drawn(painted: Painted, number: int, rng: np.random.Generator) -> Painted:
    """Draw some of the pictures."""
    rows = torch.from_numpy(rng.integers(len(painted.captions), size=number))
    return Painted([painted.captions[i] for i in rows], painted.pictures[rows], painted.right[rows])


@torch.no_grad()
def by_painter(captions: Sequence[Caption], magvit: Magvit, rng: np.random.Generator) -> Tensor:
    """Paint captions as the world does, through the tokenizer: Float [B, 3, 48, 48] in [0, 1]."""
    images = pictures([caption.scene(rng, list(COLORS)) for caption in captions])
    return magvit.decode(magvit.encode(images), (SIDE, SIDE))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", nargs="*", default=[], help="folders of trainings under an earlier teacher")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=350)
    parser.add_argument("--families", type=int, default=16)
    parser.add_argument("--painted", type=int, default=96, help="generators' pictures a step")
    parser.add_argument("--batches", type=int, default=25, help=f"of {AT_ONCE} pictures, of every generator")
    parser.add_argument("--learning-rate", type=float, default=5e-4)
    parser.add_argument("--seed", type=int, default=11)
    args = parser.parse_args()
    if args.out.exists():
        parser.error(f"{args.out} is there already; name another folder, or move it away")
    torch.manual_seed(args.seed)
    rng = np.random.default_rng(args.seed)
    before = Path(open_path("package:maskrl/shapes/weights/clip"))
    model = build()
    weights = load_file(before / "open_clip_model.safetensors")
    model.load_state_dict({name: tensor.float() for name, tensor in weights.items()})
    model.train()
    tokenizer = open_clip.get_tokenizer(f"local-dir:{before}")
    magvit = load_magvit(Path(open_path("package:maskrl/shapes/weights/magvit"))).eval()
    painted = paint(["shapes", *args.runs], args.batches, rng)
    print(f"right by the strict count: {painted.right.float().mean():.3f}", flush=True)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=args.learning_rate, betas=(0.9, 0.98), weight_decay=0.05
    )
    began, running = time.time(), 0.0
    for step in range(args.steps):
        rate = min(1.0, (step + 1) / 50) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / args.steps)))
        for group in optimizer.param_groups:
            group["lr"] = args.learning_rate * rate
        some = drawn(painted, args.painted, rng)
        beside = by_painter(some.captions, magvit, rng)
        loss = loss_of(model, tokenizer, make_batch(args.families, magvit, rng), some, beside, rng)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        running = 0.95 * running + 0.05 * loss.item() if step else loss.item()
        if step % 50 == 0 or step == args.steps - 1:
            print(f"step {step} loss {running:.4f} {time.time() - began:.0f} s", flush=True)
    shutil.copytree(before, args.out)  # only now: a run that dies leaves no old weights under the new name
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(tensors, args.out / "open_clip_model.safetensors")


if __name__ == "__main__":
    main()
