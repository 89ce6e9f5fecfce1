"""Load a CLIP through open_clip: from a folder, from a weights file, or by a tag."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import open_clip
from torch import nn

from maskrl.component import open_path
from maskrl.errors import RecipeError


def load_clip(model: str, pretrained: str | None) -> tuple[Any, Any]:
    """Return a network, frozen and in ``eval()`` mode, and its tokenizer.

    Args:
        model: an open_clip architecture; or a folder (``package:...`` too) that holds ``open_clip_config.json``,
            weights and tokenizer.
        pretrained: a tag or a weights file; not used with a folder.

    Raises:
        RecipeError: it cannot be loaded.
    """
    folder = Path(open_path(model))
    name, pretrained = (f"local-dir:{folder}", None) if folder.is_dir() else (model, pretrained)
    try:
        network: nn.Module = open_clip.create_model(
            name,
            pretrained=pretrained,
            require_pretrained=True,
            force_quick_gelu=trained_with_quick_gelu(name, pretrained),
        )
        tokenizer = open_clip.get_tokenizer(name)
    except (RuntimeError, OSError, ValueError) as error:
        raise RecipeError(f"CLIP {model!r} with weights {pretrained!r} cannot be loaded: {error}") from error
    return network.eval().requires_grad_(False), tokenizer


def trained_with_quick_gelu(model: str, pretrained: str | None) -> bool:
    """Tell whether the weights of a tag were trained with x * sigmoid(1.702 x) in place of GELU.

    OpenAI's were. From version 3 on open_clip builds ``ViT-L-14`` with GELU for them too, and only warns.
    """
    return pretrained is not None and bool(open_clip.get_pretrained_cfg(model, pretrained).get("quick_gelu"))
