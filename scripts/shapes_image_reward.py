"""Train the tiny ImageReward of the shapes world, after step 1; see maskrl/shapes/weights/CARD.md.

python scripts/shapes_image_reward.py --tokenizer work/magvit --out work/image_reward --steps 1000

The pictures and captions are those that the tiny CLIP is taught with. A caption is judged with every picture of its
family: of each pair of them, one it is true of and one it is false of, the first is preferred, and the loss is
-log sigmoid(s_preferred - s_other), as for people's preferences (arXiv 2304.05977, eq. 1).
"""

import maskrl  # isort: skip  # noqa: F401  # before torchvision, which it makes importable

import argparse
import math
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from shapes_clip import FAMILY, Batch, make_batch
from shapes_common import words
from torch import Tensor, nn
from transformers import BertTokenizerFast

from maskrl.generators.showo.checkpoint import load_magvit
from maskrl.generators.showo.magvit import Magvit
from maskrl.geneval.metadata import TASKS
from maskrl.rewards.blip import MEAN, STD, ImageRewardNetwork, Sizes, VisionSizes
from maskrl.rewards.image_reward import prepare
from maskrl.rewards.image_reward_checkpoint import load_tokenizer, save_network
from maskrl.shapes.world import GRID, IMAGE_SIZE

VOCABULARY = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words())
HELD_OUT = 2**32  # the seed of the pictures that accuracy is measured on


def sizes() -> Sizes:
    """Return the sizes of the tiny network: its patches are tokens of the generator."""
    return Sizes(
        vocab_size=len(VOCABULARY) + 2,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=192,
        max_position_embeddings=35,
        head=(16, 16, 16, 16),
        vision=VisionSizes(
            image_size=IMAGE_SIZE, patch_size=GRID, hidden_size=88, num_hidden_layers=3, num_attention_heads=4
        ),
    )


@dataclass(frozen=True)
class Judged:
    """F families of 4 captions and 8 pictures.

    ``difference`` Float [F, 8, 8, 4]: by how much the score of a picture exceeds that of another, for each caption.
    ``preferred`` Bool [F, 8, 8, 4]: the caption is true of the first and false of the second. ``tasks``: F x 4.
    """

    difference: Tensor
    preferred: Tensor
    tasks: list[str]

    def loss(self) -> Tensor:
        """Average over pairs."""
        return -F.logsigmoid(self.difference[self.preferred]).mean()

    def won(self) -> dict[str, tuple[int, int]]:
        """Return, by task, how many pairs are in the right order, and how many there are."""
        right = (self.difference > 0) & self.preferred
        counts = torch.stack([right.sum(dim=(1, 2)), self.preferred.sum(dim=(1, 2))]).flatten(1)
        of_task = {task: torch.tensor([t == task for t in self.tasks]) for task in TASKS}
        return {task: tuple(counts[:, of].sum(dim=1).tolist()) for task, of in of_task.items()}


def judge(network: ImageRewardNetwork, tokenizer: BertTokenizerFast, batch: Batch) -> Judged:
    """Judge every picture by every caption of its family."""
    picture, caption = batch.related.nonzero(as_tuple=True)
    text = tokenizer(batch.texts, padding=True, return_tensors="pt")
    seen = network.forward_image(prepare(batch.pictures, IMAGE_SIZE))
    read = network.read(seen[picture], text["input_ids"][caption], text["attention_mask"][caption])
    scores, true, false = (
        of_pair.view(-1, 2 * FAMILY, FAMILY)
        for of_pair in (network.judge(read), batch.true[batch.related], batch.false[batch.related])
    )
    return Judged(
        difference=scores[:, :, None] - scores[:, None],
        preferred=true[:, :, None] & false[:, None],
        tasks=[c.task for c in batch.captions],
    )


@torch.no_grad()
def accuracy(network: ImageRewardNetwork, tokenizer: BertTokenizerFast, magvit: Magvit, batches: int) -> str:
    """Say how many pairs of held-out pictures are in the right order, by task."""
    rng = np.random.default_rng(HELD_OUT)
    won = [judge(network, tokenizer, make_batch(32, magvit, rng)).won() for _ in range(batches)]
    sums = {task: np.sum([counts[task] for counts in won], axis=0) for task in TASKS}
    return " ".join(f"{task} {right / pairs:.3f} of {pairs}" for task, (right, pairs) in sums.items())


@torch.no_grad()
def standardise(network: ImageRewardNetwork, tokenizer: BertTokenizerFast, magvit: Magvit) -> None:
    """Let the scores of captions with pictures of their families have mean 0 and standard deviation 1."""
    batch = make_batch(64, magvit, np.random.default_rng(HELD_OUT + 1))
    picture, caption = batch.related.nonzero(as_tuple=True)
    text = tokenizer(batch.texts, padding=True, return_tensors="pt")
    scores = network(
        prepare(batch.pictures, IMAGE_SIZE)[picture],
        text["input_ids"][caption],
        text["attention_mask"][caption],
    )
    last = network.head[-1]
    assert isinstance(last, nn.Linear)
    last.weight /= scores.std()
    last.bias.copy_((last.bias - MEAN - STD * scores.mean()) / scores.std() + MEAN)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokenizer", type=Path, required=True, help="the folder of step 1")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--families", type=int, default=24)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    rng = np.random.default_rng(args.seed)
    magvit = load_magvit(args.tokenizer).eval()
    network = ImageRewardNetwork(sizes()).eval()
    for layer in network.head:
        if isinstance(layer, nn.Linear):
            nn.init.orthogonal_(layer.weight)
    save_network(network, VOCABULARY, args.out)
    tokenizer = load_tokenizer(None, str(args.out), network.sizes.vocab_size)
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=args.learning_rate, betas=(0.9, 0.98), weight_decay=0.05
    )
    recent: deque[Batch] = deque(maxlen=100)
    began, running = time.time(), math.log(2)
    for step in range(args.steps):
        if step % 2 == 0:  # painting takes as long as learning: each batch is seen twice
            recent.append(make_batch(args.families, magvit, rng))
        for group in optimizer.param_groups:
            group["lr"] = args.learning_rate * min(1.0, (step + 1) / 100, 1.5 * (1 - step / args.steps))
        loss = judge(network, tokenizer, recent[rng.integers(len(recent))]).loss()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        running = 0.98 * running + 0.02 * loss.item()
        if step % 50 == 49:
            print(f"step {step + 1} loss {running:.4f} {time.time() - began:.0f} s", flush=True)
        if step % 200 == 199:
            print(accuracy(network, tokenizer, magvit, 2), flush=True)
    standardise(network, tokenizer, magvit)
    save_network(network, VOCABULARY, args.out)
    print(accuracy(network, tokenizer, magvit, 16))


if __name__ == "__main__":
    main()
