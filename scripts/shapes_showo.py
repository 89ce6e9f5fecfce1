"""Train the tiny Show-o of the shapes world, step 3 of 3; see maskrl/shapes/weights/CARD.md.

python scripts/shapes_showo.py --tokenizer work/magvit --out work/showo --pool 60000 --steps 4000
Resumes from the folder's checkpoint when there is one.

python scripts/shapes_showo.py --tokenizer work/magvit --weights work/showo --captions often_wrong --out work/misled
    --pool 40000 --steps 1500 --learning-rate 1e-3 --seed 12
goes on from other weights, with captions that are wrong more often (``never_wrong``: with perfect ones).

The pictures carry misread captions (maskrl/shapes/faults.py). The weights written are an exponential moving average;
``at_80_percent`` holds those of four fifths of the way, to show that training has converged.
"""

import argparse
import copy
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from shapes_common import PREFIXES, SIDE, omni_attention, padded, pictures, showo_tokenizer
from torch import Tensor, nn
from transformers import PhiConfig

from maskrl.generators.showo.checkpoint import load_magvit
from maskrl.generators.showo.magvit import Magvit
from maskrl.generators.showo.network import ShowoNetwork, phi_config
from maskrl.generators.showo.prompting import UniversalPrompting, Vocabulary
from maskrl.shapes.captions import Caption
from maskrl.shapes.faults import (
    HARD_TASK_WEIGHTS,
    NEVER_WRONG,
    OFTEN_BROKEN,
    OFTEN_RIGHT,
    OFTEN_WRONG,
    TASK_WEIGHTS,
    Rates,
    break_things,
    misread,
    random_caption,
)
from maskrl.shapes.world import COLORS, EVERY_OTHER_LINE, LINES

MAX_TEXT_LENGTH = 15
CONDITION_DROPOUT = 0.1
PHI = PhiConfig(
    hidden_size=128,
    intermediate_size=512,
    num_hidden_layers=4,
    num_attention_heads=4,
    partial_rotary_factor=0.5,
    hidden_act="gelu_new",
    max_position_embeddings=128,
    initializer_range=0.06,
)
CAPTIONS = {
    "never_wrong": NEVER_WRONG,
    "often_right": OFTEN_RIGHT,
    "often_wrong": OFTEN_WRONG,
    "often_broken": OFTEN_BROKEN,
}
SAMPLER = {"num_steps": 8, "schedule": "cosine", "temperature_rule": "compound", "tau_init": 1.0}


def make_pool(
    size: int,
    magvit: Magvit,
    rng: np.random.Generator,
    rates: Rates,
    lines: Sequence[int] = LINES,
    weights: Sequence[float] = TASK_WEIGHTS,
) -> tuple[list[Caption], Tensor]:
    """Draw captions, paint what each misreads, and tokenize it: ``size`` captions, codes Short [size, 36]."""
    captions, codes = [], []
    for _ in range(0, size, 250):
        chunk = [random_caption(rng, weights) for _ in range(250)]
        scenes = [misread(caption, rng, rates).scene(rng, list(COLORS), lines) for caption in chunk]
        with torch.no_grad():
            drawn = magvit.encode(pictures(scenes))
        if rates.broken:
            squares = drawn.view(-1, SIDE, SIDE)
            drawn = torch.stack(
                [
                    break_things(square, scene, rng, rates.broken).flatten()
                    for square, scene in zip(squares, scenes, strict=True)
                ]
            )
        codes.append(drawn.short())
        captions += chunk
    return captions, torch.cat(codes)


def masked_loss(
    network: ShowoNetwork, prefix: Tensor, codes: Tensor, pad: int, rng: torch.Generator
) -> Tensor:
    """MaskGIT's loss: mask a cosine-distributed share of the codes, predict them from the rest and the text."""
    vocabulary = network.vocabulary
    batch, tokens = codes.shape
    share = torch.cos(math.pi / 2 * torch.rand(batch, generator=rng))
    count = (share * tokens).ceil().clamp(min=1)
    order = torch.rand(batch, tokens, generator=rng).argsort(dim=1).argsort(dim=1)
    masked = order < count[:, None]
    image = torch.where(masked, vocabulary.num_codes, codes) + vocabulary.code_offset
    edge = torch.ones(batch, 1, dtype=torch.long)
    ids = torch.cat(
        [prefix, edge * vocabulary.special("<|soi|>"), image, edge * vocabulary.special("<|eoi|>")], dim=1
    )
    attention = omni_attention(prefix != pad, tokens + 2)  # one pass: here every row has a text of its own
    hidden = network.showo.model(input_ids=ids, attention_mask=attention).last_hidden_state
    logits = network.code_logits(hidden[:, -tokens - 1 : -1][masked])
    return F.cross_entropy(logits, codes[masked])


def write_config(folder: Path, vocabulary: Vocabulary, guidance: float) -> None:
    """Write the published ``config.json``, what ours adds to it, and the language model's config and tokenizer."""
    config = {
        "vocab_size": vocabulary.size,
        "llm_vocab_size": vocabulary.text_size,
        "codebook_size": vocabulary.num_codes,
        "num_vq_tokens": 36,
        "mask_token_id": vocabulary.mask_id,
        "llm_model_path": "llm",
        "load_from_showo": True,
        "w_clip_vit": False,
        "max_text_length": MAX_TEXT_LENGTH,
        "sampler": {**SAMPLER, "guidance": guidance},
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    PHI.save_pretrained(folder / "llm")
    showo_tokenizer().save_pretrained(folder / "llm")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokenizer", type=Path, required=True, help="the folder of step 1")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--pool", type=int, default=60000)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument(
        "--guidance", type=float, default=3.0, help="the sampler's default, written into config.json"
    )
    parser.add_argument("--seed", type=int, default=2)
    parser.add_argument("--captions", choices=CAPTIONS, default="often_right")
    parser.add_argument("--weights", type=Path, help="a folder of weights to begin with")
    parser.add_argument("--aligned", action="store_true", help="things in nine places instead of twenty-five")
    parser.add_argument("--hard", action="store_true", help="more captions of the hard tasks")
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    magvit = load_magvit(args.tokenizer).eval()
    tokenizer = showo_tokenizer()
    vocabulary = Vocabulary(len(tokenizer), magvit.config.num_codes)
    write_config(args.out, vocabulary, args.guidance)
    began = time.time()
    captions, codes = make_pool(
        args.pool,
        magvit,
        np.random.default_rng(args.seed),
        CAPTIONS[args.captions],
        EVERY_OTHER_LINE if args.aligned else LINES,
        HARD_TASK_WEIGHTS if args.hard else TASK_WEIGHTS,
    )
    print(f"pool of {len(captions)} pictures, {time.time() - began:.0f} s", flush=True)
    prompting = UniversalPrompting(tokenizer, vocabulary, MAX_TEXT_LENGTH)
    pad = vocabulary.special("[PAD]")
    network = ShowoNetwork(phi_config(PHI, vocabulary), vocabulary)
    if args.weights is not None:
        network.load_state_dict(load_file(args.weights / "pytorch_model.safetensors"))
    average = copy.deepcopy(network)
    decay = [p for p in network.parameters() if p.ndim > 1]
    rest = [p for p in network.parameters() if p.ndim <= 1]
    groups = [{"params": decay, "weight_decay": 0.02}, {"params": rest, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=args.learning_rate, betas=(0.9, 0.95))
    start, state = 0, args.out / "state.pt"
    if state.exists():
        saved = torch.load(state, weights_only=True)
        network.load_state_dict(saved["network"])
        average.load_state_dict(saved["average"])
        optimizer.load_state_dict(saved["optimizer"])
        start = saved["step"]
    rng = np.random.default_rng((args.seed, start))
    noise = torch.Generator().manual_seed(args.seed + start)
    began, running = time.time(), 0.0
    for step in range(start, args.steps):
        rate = args.learning_rate * min(1.0, (step + 1) / 100)
        rate *= 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / args.steps))
        for group in optimizer.param_groups:
            group["lr"] = rate
        rows = rng.integers(len(captions), size=args.batch)
        dropped = rng.random(args.batch) < CONDITION_DROPOUT
        texts = [
            "" if drop else captions[row].text(str(rng.choice(PREFIXES)))
            for row, drop in zip(rows, dropped, strict=True)
        ]
        loss = masked_loss(
            network, padded(prompting, texts), codes[torch.from_numpy(rows)].long(), pad, noise
        )
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        momentum = min(0.998, (step + 1) / (step + 10))
        with torch.no_grad():
            for mean, new in zip(average.parameters(), network.parameters(), strict=True):
                mean.lerp_(new, 1 - momentum)
        running = 0.98 * running + 0.02 * loss.item() if step > start else loss.item()
        if step % 100 == 0 or step == args.steps - 1:
            print(f"step {step} loss {running:.4f} rate {rate:.1e} {time.time() - began:.0f} s", flush=True)
        if step + 1 == args.steps * 4 // 5:
            write_config(args.out / "at_80_percent", vocabulary, args.guidance)
            save_weights(average, args.out / "at_80_percent")
        if step % 250 == 249 or step == args.steps - 1:
            save_weights(average, args.out)
            torch.save(
                {
                    "network": network.state_dict(),
                    "average": average.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "step": step + 1,
                },
                state,
            )


def save_weights(network: nn.Module, folder: Path) -> None:
    """Write the weights under the published name."""
    tensors = {key: value.contiguous() for key, value in network.state_dict().items()}
    save_file(tensors, folder / "pytorch_model.safetensors", metadata={"format": "pt"})


if __name__ == "__main__":
    main()
