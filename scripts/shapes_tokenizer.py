"""Train the tiny MAGVIT-v2 of the shapes world, step 1 of 3; see maskrl/shapes/weights/CARD.md.

python scripts/shapes_tokenizer.py --out work/encoder --steps 2800
python scripts/shapes_tokenizer.py --decoder-of work/encoder --out work/magvit --steps 2000
Resumes from the folder's checkpoint when there is one.
"""

import argparse
import json
import math
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from maskrl.generators.showo.magvit import Magvit, MagvitConfig
from maskrl.shapes.world import COLORS, SHAPES, lay_out, paint

CONFIG = MagvitConfig(
    channels=16,
    encoder_multipliers=(1, 2, 4, 4),
    encoder_blocks=(1, 1, 1, 1),
    decoder_multipliers=(1, 2, 4, 4),
    decoder_blocks=(1, 1, 1, 2),
    bits=10,
    norm_groups=8,
)


def random_images(count: int, rng: np.random.Generator) -> Tensor:
    """Paint scenes of one to four random objects: Float [count, 3, 48, 48] in [0, 1]."""
    pictures = []
    for _ in range(count):
        kinds = [(str(rng.choice(SHAPES)), str(rng.choice(list(COLORS)))) for _ in range(rng.integers(1, 5))]
        pictures.append(paint(lay_out(kinds, rng)))
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255


def losses(model: Magvit, images: Tensor) -> tuple[Tensor, dict[str, float]]:
    """Reconstruction (L1 + L2, a little more near objects), commitment, and bits that are used evenly."""
    z = math.sqrt(CONFIG.bits) * F.normalize(
        model.encoder(images * 2 - 1), dim=1
    )  # a sphere: the bits cannot freeze
    hard = torch.where(z > 0, 1.0, -1.0)
    difference = model.decoder(z + (hard - z).detach()) - (images * 2 - 1)
    painted = (images.amin(dim=1, keepdim=True) < 0.99).float()
    weight = 1 + 2 * F.max_pool2d(painted, 3, stride=1, padding=1)
    reconstruction = (weight / weight.mean() * (difference.abs() + 2 * difference.square())).mean()
    commitment = (z - hard).square().mean()
    average = torch.sigmoid(2 * z).mean(dim=(0, 2, 3)).clamp(1e-4, 1 - 1e-4)
    spread = -(average * average.log() + (1 - average) * (1 - average).log()).mean()
    loss = reconstruction + 0.1 * commitment - 0.02 * spread
    return loss, {
        "l1": difference.abs().mean().item() / 2,
        "commitment": commitment.item(),
        "spread": spread.item(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument(
        "--pool", type=int, default=8000, help="pictures painted once and drawn from again and again"
    )
    parser.add_argument(
        "--decoder-of", type=Path, help="start from this folder's weights and train its decoder only"
    )
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(args.seed)
    rng = np.random.default_rng(args.seed)
    pool = random_images(args.pool, rng)
    model = Magvit(CONFIG).to(memory_format=torch.channels_last)
    if args.decoder_of:  # the codes stay what they are, so that a network trained on them stays right
        model.load_state_dict(load_file(args.decoder_of / "model.safetensors"))
        model.encoder.requires_grad_(False)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=args.learning_rate, betas=(0.9, 0.95), weight_decay=0.01)
    start, state = 0, args.out / "state.pt"
    if state.exists():
        saved = torch.load(state, weights_only=True)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        start = saved["step"]
        rng = np.random.default_rng((args.seed, start))
    began = time.time()
    for step in range(start, args.steps):
        progress = step / args.steps
        rate = (
            args.learning_rate
            * min(1.0, (step + 1) / 50)
            * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress)))
        )
        for group in optimizer.param_groups:
            group["lr"] = rate
        images = pool[rng.integers(len(pool), size=args.batch)].contiguous(memory_format=torch.channels_last)
        loss, metrics = losses(model, images)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        if step % 50 == 0 or step == args.steps - 1:
            numbers = " ".join(f"{k} {v:.4f}" for k, v in metrics.items())
            print(f"step {step} loss {loss.item():.4f} {numbers} {time.time() - began:.0f} s", flush=True)
        if step % 200 == 199 or step == args.steps - 1:
            save(model, args.out)
            torch.save(
                {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step + 1}, state
            )


def save(model: Magvit, folder: Path) -> None:
    """Write the published layout, plus the sizes it lacks."""
    tensors = {k: v.contiguous() for k, v in model.state_dict().items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(model.config.model_dump(), indent=2) + "\n")
    assert load_file(folder / "model.safetensors").keys() == tensors.keys()


if __name__ == "__main__":
    main()
