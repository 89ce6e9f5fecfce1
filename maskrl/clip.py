"""Load a CLIP through open_clip: from a folder, from a weights file, or by a tag."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import open_clip
import transformers.dynamic_module_utils
from huggingface_hub import hf_hub_download
from torch import nn

from maskrl.component import open_path
from maskrl.errors import RecipeError
from maskrl.weights import first_line, read_json, why_unread

_HUB = "hf-hub:"
_SETTINGS = "open_clip_config.json"


def load_clip(model: str, pretrained: str | None) -> tuple[Any, Any]:
    """Return a network, frozen and in ``eval()`` mode, and its tokenizer. No code that lies with it is run.

    Args:
        model: an open_clip architecture; or a folder (``package:...`` too) that holds ``open_clip_config.json``,
            weights and tokenizer.
        pretrained: a tag or a weights file; not used with a folder.

    Raises:
        RecipeError: it cannot be loaded.
    """
    folder = Path(open_path(model))
    name, pretrained = (f"local-dir:{folder}", None) if folder.is_dir() else (model, pretrained)
    which = f"CLIP {model!r} with weights {pretrained!r}"
    try:
        _check_trust(name, folder)
        with never_asking():
            network: nn.Module = open_clip.create_model(
                name,
                pretrained=pretrained,
                require_pretrained=True,
                force_quick_gelu=trained_with_quick_gelu(name, pretrained),
            )
            tokenizer = open_clip.get_tokenizer(name)
    except RecipeError:
        raise
    except pickle.UnpicklingError as error:
        raise RecipeError(f"{which} {why_unread(error)}") from error
    except Exception as error:  # open_clip's and its libraries', on whatever lies in a folder
        why = first_line(error)
        if "trust_remote_code" in str(error):
            why = "it wants to run code that lies with it, which maskrl never does"
        raise RecipeError(f"{which} cannot be loaded: {why}") from error
    return network.eval().requires_grad_(False), tokenizer


def architecture(folder: Path) -> dict[str, Any]:
    """Read the architecture in a folder.

    Raises:
        RecipeError: there is none.
    """
    settings = read_json(folder / _SETTINGS).get("model_cfg")
    if not isinstance(settings, dict) or not isinstance(settings.get("text_cfg"), dict):
        raise RecipeError(
            f"{str(folder / _SETTINGS)!r} describes no CLIP: it has no model_cfg with a text_cfg"
        )
    return settings


def _check_trust(name: str, folder: Path) -> None:
    """Refuse settings that say for the user that code may be run."""
    if name.startswith(_HUB):
        folder = Path(hf_hub_download(name.removeprefix(_HUB), _SETTINGS)).parent
    elif not folder.is_dir():
        return
    asked = architecture(folder)["text_cfg"].get("tokenizer_kwargs")
    if isinstance(asked, Mapping) and asked.get("trust_remote_code"):
        raise RecipeError(
            f"{str(folder / _SETTINGS)!r} wants to run code that lies with it, which maskrl never does"
        )


@contextmanager
def never_asking() -> Iterator[None]:
    """Let transformers refuse a model's own code: open_clip does not say so, and then it asks at the terminal."""
    utils = transformers.dynamic_module_utils
    before, utils.TIME_OUT_REMOTE_CODE = utils.TIME_OUT_REMOTE_CODE, 0
    try:
        yield
    finally:
        utils.TIME_OUT_REMOTE_CODE = before


def trained_with_quick_gelu(model: str, pretrained: str | None) -> bool:
    """Tell whether the weights of a tag were trained with x * sigmoid(1.702 x) in place of GELU.

    OpenAI's were. From version 3 on open_clip builds ``ViT-L-14`` with GELU for them too, and only warns.
    """
    return pretrained is not None and bool(open_clip.get_pretrained_cfg(model, pretrained).get("quick_gelu"))


def is_architecture(model: str) -> bool:
    """Tell whether open_clip knows an architecture of this name."""
    return model in open_clip.list_models()


def hub_id(model: str, pretrained: str) -> str | None:
    """Return the repository that open_clip takes the weights of a tag from; None if there is none."""
    found = open_clip.get_pretrained_cfg(model, pretrained).get("hf_hub", "")
    return found.rstrip("/") or None
