"""Read and write Show-o's published layout: ``config.json``, one weights file, and the language model it names.

``llm_model_path`` in the config names the folder or hub id that holds Phi's config and text tokenizer; a relative
path lies inside the checkpoint. ``max_text_length`` and ``sampler`` are read where a checkpoint has them; the
published ones do not.
"""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoConfig, AutoTokenizer, PhiConfig

from maskrl.component import open_path
from maskrl.errors import RecipeError
from maskrl.generators.showo.magvit import Magvit, MagvitConfig
from maskrl.generators.showo.prompting import TextTokenizer, Vocabulary
from maskrl.types import SamplerDefaults
from maskrl.weights import as_state_dict, fill, first_line, is_hub_id, read_file, read_json, unreachable

WEIGHTS = ("pytorch_model.safetensors", "model.safetensors")  # the first is the published, odd name
_NEEDED = ("config.json", *WEIGHTS, "llm/*")  # of a repository on the hub
_IGNORED = "mm_projector."  # of the CLIP-ViT variants; text-to-image never uses it


class ShowoConfig(BaseModel):
    """The published ``config.json``, as far as text-to-image reads it, and two additions of ours."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    vocab_size: int
    llm_vocab_size: int
    codebook_size: int
    num_vq_tokens: int
    llm_model_path: str
    max_text_length: int = 128
    sampler: dict[str, Any] | None = None

    @property
    def vocabulary(self) -> Vocabulary:
        """The shared vocabulary, from the sizes in the file."""
        return Vocabulary(self.llm_vocab_size, self.codebook_size)

    def defaults(self) -> SamplerDefaults:
        """How the authors sample: the numbers of their README for the 256 and 512 pixel models."""
        if self.sampler is not None:
            return SamplerDefaults(**self.sampler)
        if self.num_vq_tokens >= 1024:
            return SamplerDefaults(num_steps=50, guidance=5.0)
        return SamplerDefaults(num_steps=16, guidance=1.75)


def find_folder(name: str, what: str) -> Path:
    """Return the local folder of a checkpoint: a folder, ``package:...``, or a hub id, downloaded once."""
    local = Path(open_path(name))
    if local.is_dir():
        return local
    if not is_hub_id(name):
        raise RecipeError(
            f"{what} {name!r} is no folder and no hub id; give a folder in the published layout"
        )
    try:
        return Path(snapshot_download(name, allow_patterns=list(_NEEDED)))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise RecipeError(unreachable(f"{what} {name!r}", error)) from error


def read_config(folder: Path) -> ShowoConfig:
    """Read ``config.json`` and check that its sizes agree with each other."""
    try:
        config = ShowoConfig(**read_json(folder / "config.json"))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise RecipeError(
            f"{str(folder / 'config.json')!r} is no Show-o config: {key}: {first['msg']}"
        ) from error
    if config.vocabulary.size != config.vocab_size:
        raise RecipeError(
            f"{str(folder / 'config.json')!r}: vocab_size is {config.vocab_size}, but {config.llm_vocab_size} words, "
            f"10 special tokens, {config.codebook_size} codes and a mask make {config.vocabulary.size}"
        )
    return config


def language_model(config: ShowoConfig, folder: Path) -> str:
    """Return the folder or hub id of Phi's config and tokenizer."""
    inside = folder / config.llm_model_path
    return str(inside) if inside.is_dir() else config.llm_model_path


def load_language_model(source: str) -> tuple[PhiConfig, TextTokenizer]:
    """Read phi's config and text tokenizer from a folder or a hub id.

    Raises:
        RecipeError: they are not there.
    """
    try:
        return AutoConfig.from_pretrained(source), AutoTokenizer.from_pretrained(source)
    except (OSError, ValueError) as error:
        if Path(source).is_dir():
            message = f"the language model in {source!r} cannot be read: {first_line(error)}"
            raise RecipeError(message) from error
        raise RecipeError(
            unreachable(f"the language model {source!r}", error) + " with generator.language_model"
        ) from error


def load_magvit(folder: Path) -> Magvit:
    """Load the image tokenizer; without sizes in a ``config.json`` it has the published ones."""
    path = folder / "config.json"
    config = MagvitConfig(**read_json(path)) if path.exists() else MagvitConfig()
    with torch.device("meta"):
        model = Magvit(config)
    load_weights(model, folder)
    return model


def load_weights(module: nn.Module, folder: Path) -> None:
    """Load a folder's weights file into a module, strictly; the module may have been built on the meta device.

    Raises:
        RecipeError: there is no weights file, it is damaged, or keys are missing, unknown or of another shape.
    """
    path = next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)
    if path is None:
        raise RecipeError(f"{str(folder)!r} holds no weights: neither {WEIGHTS[0]} nor {WEIGHTS[1]}")
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise RecipeError(
            f"{str(path)!r} cannot be read ({error}); it may be incomplete: fetch it again"
        ) from error
    if any(key.startswith(_IGNORED) for key in tensors):
        warnings.warn(f"{path.name}: {_IGNORED}* is ignored; text-to-image does not use it", stacklevel=2)
        tensors = {key: value for key, value in tensors.items() if not key.startswith(_IGNORED)}
    fill(module, tensors, path)


def load_state_dict(module: nn.Module, path: Path) -> None:
    """Load a file that holds a plain state dict, such as Mask-GRPO's ``.pth``, strictly.

    Raises:
        RecipeError: there is no such file; it holds more than tensors, which is never executed; or it does not fit.
    """
    fill(module, as_state_dict(read_file(path), path), path)


def save_folder(module: nn.Module, source: Path, config: ShowoConfig, folder: Path) -> None:
    """Write ``module`` in the layout it was loaded from: its weights, the config, and the language model's files."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {key: value.detach().cpu().contiguous() for key, value in module.state_dict().items()}
    save_file(tensors, folder / WEIGHTS[0], metadata={"format": "pt"})
    shutil.copyfile(source / "config.json", folder / "config.json")
    inside = source / config.llm_model_path
    if inside.is_dir():
        shutil.copytree(inside, folder / config.llm_model_path, dirs_exist_ok=True)
