"""Read and write Show-o's published layout: ``config.json``, the weights, and the language model that it names.

``llm_model_path`` in the config names the folder or hub id that holds Phi's config and text tokenizer; a relative
path starts from the checkpoint. ``max_text_length`` and ``sampler`` are read where a checkpoint has them; the
published ones do not. Weights are one file, or several and an index; what is saved is one, language model included.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import AutoConfig, AutoTokenizer, PhiConfig

from maskrl.component import open_path
from maskrl.errors import RecipeError
from maskrl.generators.showo.magvit import Magvit, MagvitConfig
from maskrl.generators.showo.prompting import TextTokenizer, Vocabulary
from maskrl.types import SamplerDefaults
from maskrl.weights import (
    as_state_dict,
    built_from,
    fill,
    first_line,
    is_hub_id,
    read_file,
    read_json,
    unreachable,
)

WEIGHTS = ("pytorch_model.safetensors", "model.safetensors")  # the first is the published, odd name
LANGUAGE_MODEL = "llm"  # the folder of it in what is saved here
_NEEDED = ("config.json", *WEIGHTS, f"{LANGUAGE_MODEL}/*")  # of a repository on the hub
_READ = (*WEIGHTS, "pytorch_model.bin")  # the last is what the public training code writes
_INDEX = ".index.json"  # of weights in several files
_HEAVY = (
    ".bin",
    ".safetensors",
    ".pt",
    ".pth",
    ".h5",
    ".msgpack",
    ".onnx",
    ".gguf",
)  # weights of a language model
_IGNORED = "mm_projector."  # of the CLIP-ViT variants; text-to-image never uses it

_SAMPLER = TypeAdapter(SamplerDefaults)


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
            return _SAMPLER.validate_python(self.sampler)
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


def language_model(config: ShowoConfig, folder: Path, instead: str | None) -> str:
    """Return the folder or hub id of Phi's config and tokenizer: the checkpoint's, or another ``instead``."""
    if instead is not None:
        return open_path(instead)
    local = folder / config.llm_model_path
    return str(local) if local.is_dir() else config.llm_model_path


def load_language_model(source: str) -> tuple[PhiConfig, TextTokenizer]:
    """Read phi's config and text tokenizer from a folder or a hub id.

    Raises:
        RecipeError: they are not there.
    """
    try:
        never = {"trust_remote_code": False}  # without it transformers asks whether to run a folder's code
        phi = AutoConfig.from_pretrained(source, **never)
        if not isinstance(phi, PhiConfig):
            raise ValueError(f"it is a {phi.model_type}, and Show-o's is a phi")
        return phi, AutoTokenizer.from_pretrained(source, **never)
    except Exception as error:  # of transformers and tokenizers, which have errors of many kinds
        if Path(source).is_dir():
            message = f"the language model in {source!r} cannot be read: {first_line(error)}"
            raise RecipeError(message) from error
        raise RecipeError(
            unreachable(f"the language model {source!r}", error) + " with generator.language_model"
        ) from error


def load_magvit(folder: Path) -> Magvit:
    """Load the image tokenizer; without sizes in a ``config.json`` it has the published ones."""
    with built_from(folder / "config.json"), torch.device("meta"):
        model = Magvit(magvit_config(folder))
    load_weights(model, folder)
    return model


def magvit_config(folder: Path) -> MagvitConfig:
    """Read the sizes of an image tokenizer.

    Raises:
        RecipeError: they are none.
    """
    path = folder / "config.json"
    if not path.exists():
        return MagvitConfig()
    with built_from(path):
        return MagvitConfig(**read_json(path))


def load_weights(module: nn.Module, source: Path, hint: str = "") -> None:
    """Load weights into a module, strictly; the module may have been built on the meta device.

    Args:
        module: what they are for.
        source: a file with a plain state dict, the index of several, or a folder that has one or the other.
        hint: what else can be done where a folder has neither.

    Raises:
        RecipeError: there are no weights, they are damaged or more than tensors, which is never executed; or keys are
            missing, unknown or of another shape.
    """
    path = _find_weights(source, hint) if source.is_dir() else source
    tensors = _read_shards(path) if path.name.endswith(_INDEX) else as_state_dict(read_file(path), path)
    if any(key.startswith(_IGNORED) for key in tensors):
        warnings.warn(f"{path.name}: {_IGNORED}* is ignored; text-to-image does not use it", stacklevel=2)
        tensors = {key: value for key, value in tensors.items() if not key.startswith(_IGNORED)}
    fill(module, tensors, path)


def _find_weights(folder: Path, hint: str) -> Path:
    names = (*_READ, *(name + _INDEX for name in _READ))
    path = next((folder / name for name in names if (folder / name).is_file()), None)
    if path is None:
        raise RecipeError(
            f"{str(folder)!r} holds no weights: none of {', '.join(_READ)}, whole or in parts{hint}"
        )
    return path


def _read_shards(index: Path) -> dict[str, Tensor]:
    """Read the files that an index names, which lie beside it."""
    files = read_json(index).get("weight_map")
    if not isinstance(files, Mapping) or not all(isinstance(file, str) for file in files.values()):
        raise RecipeError(f"{str(index)!r} has no 'weight_map', which says in which file a tensor is")
    shards = [index.parent / Path(file).name for file in sorted(set(files.values()))]
    return {key: tensor for shard in shards for key, tensor in as_state_dict(read_file(shard), shard).items()}


def save_folder(module: nn.Module, source: Path, language_model: str, folder: Path) -> None:
    """Write a module in the published layout, all inside ``folder``.

    Args:
        module: what was trained.
        source: the checkpoint's folder, whose settings hold on.
        language_model: where the language model came from; its config and tokenizer are copied out of a folder.
        folder: where to; it may be moved.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {key: value.detach().cpu().contiguous() for key, value in module.state_dict().items()}
    save_file(tensors, folder / WEIGHTS[0], metadata={"format": "pt"})
    settings = read_json(source / "config.json") | {"llm_model_path": language_model}
    if Path(language_model).is_dir():
        _copy_language_model(Path(language_model), folder / LANGUAGE_MODEL)
        settings["llm_model_path"] = LANGUAGE_MODEL
    (folder / "config.json").write_text(json.dumps(settings, indent=2), encoding="utf-8")


def _copy_language_model(source: Path, folder: Path) -> None:
    """Copy all files but weights: Show-o has its own."""
    folder.mkdir(exist_ok=True)
    for file in source.iterdir():
        if file.is_file() and file.suffix not in _HEAVY:
            (folder / file.name).write_bytes(file.read_bytes())
