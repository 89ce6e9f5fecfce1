"""Train the tiny CLIP of the shapes world, step 2 of 3; see maskrl/shapes/weights/CARD.md.

python scripts/shapes_clip.py --tokenizer work/magvit --out work/clip --steps 6000
Resumes from the folder's checkpoint when there is one.

A batch is made of families: a caption and three near misses of it, each with a picture of its own, and as many
disturbed pictures: an object more or less, of another kind or elsewhere. Some pictures pass through the image
tokenizer, because that is how the reward will see pictures, and some of those with a few tokens exchanged, because that
is how a generator errs. Every picture is judged against every caption of the batch, by a sigmoid each (SigLIP, arXiv
2303.15343): the painter knows which captions are true of which picture.
"""

import maskrl  # isort: skip  # noqa: F401  # before open_clip: it makes torchvision importable

import argparse
import json
import math
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from shapes_common import PREFIXES, SIDE, clip_tokenizer, pictures
from torch import Tensor

from maskrl.generators.showo.checkpoint import load_magvit
from maskrl.generators.showo.magvit import Magvit
from maskrl.geneval.metadata import TASKS
from maskrl.shapes.captions import Caption
from maskrl.shapes.faults import disturb, near_miss, random_caption
from maskrl.shapes.world import COLORS, GRID, IMAGE_SIZE, SHAPES, Scene, Thing, is_at, relation_between

FAMILY = 4  # captions; it has twice as many pictures
TOKENIZED, SPOILED = 0.4, 0.25  # shares of the pictures; the second is part of the first
CONTEXT = 16


def model_config() -> dict[str, object]:
    """Return the open_clip configuration: a transformer for pixels, whose patches are tokens, and one for words."""
    return {
        "model_cfg": {
            "embed_dim": 96,
            "init_logit_scale": math.log(10),
            "init_logit_bias": -5.0,
            "vision_cfg": {
                "image_size": IMAGE_SIZE,
                "patch_size": GRID,
                "layers": 5,
                "width": 128,
                "head_width": 32,
                "mlp_ratio": 3.0,
            },
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


def build() -> open_clip.CLIP:
    """Make the network, with random weights."""
    config = model_config()["model_cfg"]
    assert isinstance(config, dict)
    text_config = {k: v for k, v in config["text_cfg"].items() if k != "hf_tokenizer_name"}
    return open_clip.CLIP(**{**config, "text_cfg": text_config})


def write_config(folder: Path) -> None:
    """Write everything a local open_clip model needs but its weights."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "open_clip_config.json").write_text(json.dumps(model_config(), indent=2) + "\n")
    clip_tokenizer().save_pretrained(folder)


@dataclass(frozen=True)
class Batch:
    """C captions and 2 C pictures; pictures 2 c and 2 c + 1 belong to caption c.

    ``texts`` says the captions; ``pictures`` Float [2 C, 3, 48, 48] in [0, 1]; ``true``, ``false`` Bool [2 C, C]: what
    is so of every object and what of none; where neither holds (two stars, one of them left of the square) nobody can
    tell. ``scenes`` are what was painted; ``spoiled`` Bool [2 C]: tokens were exchanged afterwards.
    """

    captions: list[Caption]
    texts: list[str]
    pictures: Tensor
    true: Tensor
    false: Tensor
    scenes: list[Scene]
    spoiled: Tensor

    @property
    def related(self) -> Tensor:
        """Bool [I, C]: whether a picture and a caption are of one family."""
        caption = torch.arange(len(self.captions)) // FAMILY
        picture = torch.arange(len(self.pictures)) // (2 * FAMILY)
        return picture[:, None] == caption[None, :]


def make_batch(families: int, magvit: Magvit, rng: np.random.Generator) -> Batch:
    """Draw families, paint them, and say what is true of what."""
    captions: list[Caption] = []
    scenes: list[Scene] = []
    for _ in range(families):
        caption = random_caption(rng)
        family = [caption] + [near_miss(caption, rng) for _ in range(FAMILY - 1)]
        for member in family:
            scene = member.scene(rng, list(COLORS))
            scenes += [scene, disturb(scene, rng)]
        captions += family
    images = pictures(scenes)
    draw = torch.from_numpy(rng.random(len(images)))
    tokenized, spoiled = draw < TOKENIZED, draw < SPOILED
    sure, possible = list(scenes), list(scenes)
    with torch.no_grad():
        codes = magvit.encode(images[tokenized])
        for row, index in enumerate(tokenized.nonzero().flatten().tolist()):
            if spoiled[index]:
                places = spoil(codes, row, rng)
                possible[index] = tuple(t for t in scenes[index] if not _covers(t, places, 0))
                sure[index] = tuple(t for t in scenes[index] if not _covers(t, places, 1))
        images[tokenized] = magvit.decode(codes, (SIDE, SIDE))
    every, some = zip(*(truth(captions, part) for part in (scenes, sure, possible)), strict=True)
    return Batch(
        captions=captions,
        texts=[caption.text(str(rng.choice(PREFIXES))) for caption in captions],
        pictures=images,
        true=every[0] & every[1] & every[2],
        false=~(some[1] | some[2]),
        scenes=scenes,
        spoiled=spoiled,
    )


def spoil(codes: Tensor, row: int, rng: np.random.Generator) -> list[tuple[int, int]]:
    """Exchange one to five tokens of a picture for tokens of others, in place; return their (column, row)."""
    places = rng.choice(SIDE * SIDE, size=rng.integers(1, 6), replace=False)
    for place in places:
        codes[row, place] = codes[rng.integers(len(codes)), rng.integers(SIDE * SIDE)]
    return [(int(place) % SIDE, int(place) // SIDE) for place in places]


def _covers(thing: Thing, places: Sequence[tuple[int, int]], margin: int) -> bool:
    """Say whether a thing's 2 x 2 tokens, or those within ``margin`` of them, hold one of these places."""
    right, below = int(thing.x) // GRID, int(thing.y) // GRID
    return any(
        right - 1 - margin <= column <= right + margin and below - 1 - margin <= row <= below + margin
        for column, row in places
    )


def truth(captions: list[Caption], scenes: Sequence[Scene]) -> tuple[Tensor, Tensor]:
    """Say of which scene a caption is true: Bool [scenes, captions], of every object it could mean, and of some."""
    shapes, colors = list(SHAPES), list(COLORS)
    found = np.zeros((len(scenes), len(shapes), len(colors) + 1), dtype=np.int64)
    for i, scene in enumerate(scenes):
        for thing in scene:
            found[i, shapes.index(thing.shape), colors.index(thing.color)] += 1
            found[i, shapes.index(thing.shape), -1] += 1
    some = np.ones((len(scenes), len(captions)), dtype=bool)
    every = np.ones((len(scenes), len(captions)), dtype=bool)
    for j, caption in enumerate(captions):
        for clause in caption.clauses:
            of_shape = found[:, shapes.index(clause.shape)]
            matching = of_shape[:, colors.index(clause.color) if clause.color else -1]
            wanted = matching == clause.count if caption.task == "counting" else matching >= 1
            all_match = matching == of_shape[:, -1]
            every[:, j] &= wanted & all_match
            some[:, j] &= wanted & (all_match if caption.task == "counting" else True)
        if caption.relation or caption.place:
            for i in np.flatnonzero(some[:, j]):
                held = _placed(caption, scenes[i])
                every[i, j] &= all(held)
                some[i, j] &= any(held)
    return torch.from_numpy(every), torch.from_numpy(some)


def _placed(caption: Caption, scene: Scene) -> list[bool]:
    """Say of each object, or pair, that a caption could mean whether it stands as told."""
    first, *second = ([t for t in scene if t.shape == clause.shape] for clause in caption.clauses)
    if caption.place is not None:
        return [is_at(thing, caption.place) for thing in first]
    return [caption.relation in relation_between(a, b) for a in first for b in second[0]]


def sigmoid_loss(logits: Tensor, batch: Batch) -> Tensor:
    """Average over true pairs, false pairs within a family, and other false pairs, each for itself."""
    loss = F.binary_cross_entropy_with_logits(logits, batch.true.float(), reduction="none")
    kinds = (batch.true, batch.false & batch.related, batch.false & ~batch.related)
    return torch.stack([loss[kind].mean() for kind in kinds]).mean()


def ranking(scores: Tensor, batch: Batch) -> dict[str, float]:
    """Return, by task, how often a picture of which a caption is true beats one of its family of which it is not."""
    won: dict[str, list[float]] = defaultdict(list)
    for j, caption in enumerate(batch.captions):
        family = batch.related[:, j]
        right, wrong = (scores[family & kind[:, j], j] for kind in (batch.true, batch.false))
        won[caption.task] += (right[:, None] > wrong[None, :]).float().flatten().tolist()
    return {task: sum(won[task]) / max(len(won[task]), 1) for task in TASKS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokenizer", type=Path, required=True, help="the folder of step 1")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--families", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    write_config(args.out)
    torch.manual_seed(args.seed)
    magvit = load_magvit(args.tokenizer).eval()
    model = build()
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
    began, running, ranked = time.time(), 0.0, []
    for step in range(start, args.steps):
        rate = args.learning_rate * min(1.0, (step + 1) / 200)
        rate *= 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / args.steps))
        for group in optimizer.param_groups:
            group["lr"] = rate
        batch = make_batch(args.families, magvit, rng)
        image_features = model.encode_image(batch.pictures * 2 - 1, normalize=True)
        text_features = model.encode_text(tokenizer(batch.texts), normalize=True)
        cosine = image_features @ text_features.T
        loss = sigmoid_loss(model.logit_scale.exp() * cosine + model.logit_bias, batch)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        running = 0.98 * running + 0.02 * loss.item() if step > start else loss.item()
        ranked = [*ranked[-19:], ranking(cosine.detach(), batch)]
        if step % 50 == 0 or step == args.steps - 1:
            tasks = " ".join(f"{t} {sum(r[t] for r in ranked) / len(ranked):.3f}" for t in TASKS)
            scale = model.logit_scale.exp().item()
            print(
                f"step {step} loss {running:.4f} scale {scale:.1f} {tasks} {time.time() - began:.0f} s",
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


if __name__ == "__main__":
    main()
