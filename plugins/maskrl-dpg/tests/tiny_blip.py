"""A BLIP for visual question answering of the published class, small enough to learn the colours while one waits."""

import json

import torch
from maskrl_dpg.canary import COLORS, plain
from maskrl_dpg.judges import load_tokenizer, prepare
from transformers import BlipConfig, BlipForQuestionAnswering
from transformers.utils import logging

PAD, CLS, SEP, DEC, YES, NO = 0, 2, 3, 4, 6, 7
WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[DEC]",
    "[MASK]",
    "yes",
    "no",
    "is",
    "the",
    "picture",
    "?",
    "there",
    "a",
    *COLORS,
]
LAYERS = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
TEXT = {
    **LAYERS,
    **{"vocab_size": len(WORDS), "encoder_hidden_size": 32, "max_position_embeddings": 32},
    **{"bos_token_id": DEC, "pad_token_id": PAD, "eos_token_id": SEP, "sep_token_id": SEP},
    **{"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0},
}
VISION = {**LAYERS, "image_size": 32, "patch_size": 16}
STEPS = 120


def write(folder, learns=True):
    """Write network and tokenizer, which know the colours or, of random weights, nothing."""
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer"}))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = BlipForQuestionAnswering(
            BlipConfig(text_config=TEXT, vision_config=VISION, projection_dim=8)
        )
        (folder / "config.json").write_text(network.config.to_json_string())
        if learns:
            learn(network, load_tokenizer(str(folder), len(WORDS)))
    logging.disable_progress_bar()
    network.save_pretrained(folder)
    return folder


def learn(network, tokenizer):
    """Teach it to answer what the canary asks."""
    pairs = [(shown, asked) for shown in COLORS for asked in COLORS]
    pixels = torch.cat([prepare(plain(COLORS[shown]), VISION["image_size"]) for shown, _ in pairs])
    ids = torch.tensor([tokenizer(f"is the picture {asked}?").input_ids for _, asked in pairs])
    labels = torch.tensor([[DEC, YES if shown == asked else NO, SEP] for shown, asked in pairs])
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    for _ in range(STEPS):
        loss = network(
            input_ids=ids, attention_mask=torch.ones_like(ids), pixel_values=pixels, labels=labels
        ).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return float(loss.detach())
