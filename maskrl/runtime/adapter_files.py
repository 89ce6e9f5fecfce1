"""Adapters apart from the network they stand beside, in peft's layout, which other tools read and write.

::

    adapter_config.json          rank, alpha, names of layers
    adapter_model.safetensors    two small matrices a layer

Names of layers are those of the generator's network, which are those of its published weights.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from maskrl.errors import MaskRLError, RecipeError, TrainingError
from maskrl.interfaces import MaskedGenerator
from maskrl.runtime.checkpoint import EMA, PARAMETER, load
from maskrl.runtime.lora import ADAPTER, inject, kept_in, peft_package, settings_of
from maskrl.sections import LoraConfig

if TYPE_CHECKING:
    from peft import LoraConfig as PeftConfig

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_PREFIX = "base_model.model."  # of a name in the file, before the layer's


def holds_adapters(folder: Path) -> bool:
    """Tell whether a folder is one of adapters alone."""
    return (folder / CONFIG).is_file()


def write_adapters(checkpoint: Path, config: LoraConfig, averaged: bool, folder: Path) -> None:
    """Write the adapters of a checkpoint: the trained ones, or their average.

    Raises:
        TrainingError: the checkpoint is damaged, or holds none.
    """
    own = f"{EMA if averaged else PARAMETER}/"
    saved = {
        name.removeprefix(own): tensor
        for name, tensor in load(checkpoint).tensors.items()
        if name.startswith(own) and f".{ADAPTER}." in name
    }
    if not saved:
        raise TrainingError(f"checkpoint {str(checkpoint)!r} has no adapters of this recipe")
    layers = sorted({name.partition(".lora_")[0] for name in saved})
    settings_of(config, layers).save_pretrained(str(folder))
    tensors = {_PREFIX + name.replace(f".{ADAPTER}.", "."): tensor for name, tensor in saved.items()}
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def adapt_as_published(generator: MaskedGenerator, folder: Path, config: LoraConfig | None) -> None:
    """Put adapters that lie in a folder beside a generator's layers.

    Args:
        generator: the one they were trained beside.
        folder: in peft's layout; whatever wrote it.
        config: what the frozen weights are kept in stands here; rank, scale and layers are the folder's. None: fp32.

    Raises:
        RecipeError: the folder is not of low-rank adapters beside linear layers of this generator; peft is missing.
    """
    settings, tensors = _read(folder)
    module = generator.module
    kept_in(module, (config or LoraConfig()).base_dtype)
    try:
        inject(module, settings, f"{str(folder)!r} holds adapters of layers")
    except MaskRLError:
        raise
    except (
        Exception
    ) as error:  # peft looks at no type: what it makes of a stranger's settings may be any error
        reason = str(error).partition("\n")[0]
        raise RecipeError(
            f"peft cannot use {str(folder / CONFIG)!r}: {type(error).__name__}: {reason}"
        ) from error
    own = {name: p for name, p in module.named_parameters() if f".{ADAPTER}." in name}
    found = {_named(name): tensor for name, tensor in tensors.items()}
    for name in sorted(own.keys() | found.keys()):
        if name not in found or name not in own or own[name].shape != found[name].shape:
            raise RecipeError(
                f"{str(folder)!r} does not fit this generator: {name!r} is {_shape(found, name)} in the file and"
                f" {_shape(own, name)} beside the network; the adapters were trained beside another one"
            )
        own[name].data.copy_(found[name])


def _read(folder: Path) -> tuple[PeftConfig, Mapping[str, Tensor]]:
    peft = peft_package()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of fields that a newer peft has written
            settings = peft.PeftConfig.from_pretrained(str(folder))
    except (ValueError, TypeError, KeyError, OSError) as error:
        raise RecipeError(f"{str(folder / CONFIG)!r} is no configuration of adapters: {error}") from error
    if not isinstance(settings, peft.LoraConfig):
        kind = getattr(settings.peft_type, "value", settings.peft_type)
        raise RecipeError(f"{str(folder)!r} holds no low-rank adapters: its peft_type is {kind}")
    try:
        return settings, load_file(folder / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise RecipeError(f"cannot read {str(folder / WEIGHTS)!r}: {error}") from error


def _named(name: str) -> str:
    """Return a parameter's name beside the network for that in a file: ``a.lora_A.weight``, say."""
    layer, _, part = name.removeprefix(_PREFIX).rpartition(".")
    return f"{layer}.{ADAPTER}.{part}"


def _shape(tensors: Mapping[str, Tensor], name: str) -> str:
    return json.dumps(list(tensors[name].shape)) if name in tensors else "missing"
