"""The sizes of the published checkpoints, for those who want to know what one costs before they fetch it.

Source: the ``config.json`` files of the repositories on the hub, and that of ``microsoft/phi-1_5``.
"""

from __future__ import annotations

from pathlib import Path

from transformers import PhiConfig

from maskrl.component import open_path
from maskrl.errors import RecipeError
from maskrl.generators.showo.checkpoint import (
    ShowoConfig,
    language_model,
    load_language_model,
    magvit_config,
    read_config,
)
from maskrl.generators.showo.magvit import MagvitConfig

_TOKENS = {
    "showlab/show-o": 256,
    "showlab/show-o-w-clip-vit": 256,
    "showlab/show-o-512x512": 1024,
    "showlab/show-o-w-clip-vit-512x512": 1024,
    "showlab/show-o-512x512-wo-llava-tuning": 1024,
}
_TOKENIZER = "showlab/magvitv2"
PHI_1_5 = PhiConfig(
    hidden_size=2048,
    intermediate_size=8192,
    num_hidden_layers=24,
    num_attention_heads=32,
    partial_rotary_factor=0.5,
    max_position_embeddings=2048,
)


def published_config(num_tokens: int) -> ShowoConfig:
    """Return the settings that all published checkpoints share, for 256 or 1,024 tokens an image."""
    return ShowoConfig(
        vocab_size=58498,
        llm_vocab_size=50295,
        codebook_size=8192,
        num_vq_tokens=num_tokens,
        llm_model_path="microsoft/phi-1_5",
    )


def sizes_of(
    checkpoint: str, tokenizer: str, instead: str | None
) -> tuple[ShowoConfig, PhiConfig, MagvitConfig]:
    """Return the sizes of a checkpoint and an image tokenizer, from their folders or from what is known of them.

    Args:
        checkpoint: a folder or a hub id.
        tokenizer: a folder or a hub id.
        instead: where the language model is, if not where the checkpoint says.

    Raises:
        RecipeError: one is neither a folder nor published.
    """
    folder, magvit = (Path(open_path(name)) for name in (checkpoint, tokenizer))
    if folder.is_dir():
        config = read_config(folder)
        phi, _ = load_language_model(language_model(config, folder, instead))
    elif checkpoint in _TOKENS:
        config, phi = published_config(_TOKENS[checkpoint]), PHI_1_5
    else:
        known = ", ".join(_TOKENS)
        raise RecipeError(f"the sizes of {checkpoint!r} are not known here: give a folder, or one of {known}")
    if tokenizer == _TOKENIZER or not (magvit / "config.json").exists():
        return config, phi, MagvitConfig()
    return config, phi, magvit_config(magvit)
