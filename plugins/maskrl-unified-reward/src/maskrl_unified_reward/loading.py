"""Network and processor from a folder in transformers' layout, or from the hub, whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor

from maskrl.component import open_path
from maskrl.errors import RecipeError
from maskrl.quiet import quiet
from maskrl.weights import find_file, first_line, read_json, unreachable
from maskrl_unified_reward.question import LONGEST_ANSWER

KIND = "qwen2_5_vl"
GREEDY = {"do_sample": False, "num_beams": 1, "temperature": None, "top_p": None, "top_k": None}


def load_network(source: str, dtype: torch.dtype) -> Any:
    """Load a ``Qwen2_5_VLForConditionalGeneration``, frozen, in ``eval()`` mode, that answers greedily.

    What else the folder's ``generation_config.json`` says of answers, such as a penalty on repetition, stays.

    Raises:
        RecipeError: it is not there, is damaged, is another network, or its weights do not fit its ``config.json``.
    """
    path = find_file(source, "config.json")
    kind = read_json(path).get("model_type")
    if kind != KIND:
        raise RecipeError(
            f"{str(path)!r} describes a {kind!r}, no {KIND!r}; take an UnifiedReward of Qwen2.5-VL"
        )
    with _reading("the network", source), quiet():
        network, told = Qwen2_5_VLForConditionalGeneration.from_pretrained(
            open_path(source),
            dtype=dtype,
            use_safetensors=True,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    _check_weights(source, told)
    network.generation_config.update(**GREEDY, max_new_tokens=LONGEST_ANSWER)
    if network.generation_config.eos_token_id is None:
        raise RecipeError(
            f"{source!r} does not say how an answer ends; add eos_token_id to its generation_config.json"
        )
    return network.eval().requires_grad_(False)


def _check_weights(source: str, told: Any) -> None:
    misshapen = [key if isinstance(key, str) else key[0] for key in told["mismatched_keys"]]  # 4, 5
    faults = {
        "missing": sorted(told["missing_keys"]),
        "unknown": sorted(told["unexpected_keys"]),
        "of another shape": sorted(misshapen),
    }
    for fault, keys in faults.items():
        if keys:
            raise RecipeError(
                f"the weights in {source!r} do not fit their config.json: {len(keys)} {fault}, {keys[0]} among them"
            )


def load_processor(source: str, sizes: Any) -> Any:
    """Load the ``Qwen2_5_VLProcessor`` of a network whose config is ``sizes``: tokens, pictures, words of the chat.

    Raises:
        RecipeError: it is not there, is damaged, or is another network's.
    """
    with _reading("the processor", source), quiet():
        processor = Qwen2_5_VLProcessor.from_pretrained(open_path(source))
    if processor.chat_template is None:
        raise RecipeError(
            f"{source!r} holds no chat template; fetch chat_template.json, or chat_template.jinja"
        )
    known = len(processor.tokenizer)
    if processor.image_token_id != sizes.image_token_id or known > sizes.get_text_config().vocab_size:
        raise RecipeError(
            f"the tokenizer in {source!r}, of {known} tokens, is not that of the network: pictures are token"
            f" {processor.image_token_id} to it, and {sizes.image_token_id} to the network, which knows"
            f" {sizes.get_text_config().vocab_size} tokens"
        )
    return processor


@contextmanager
def _reading(what: str, source: str) -> Iterator[None]:
    """Name what could not be read, in one line.

    Raises:
        RecipeError: something was raised.
    """
    try:
        yield
    except Exception as error:  # of transformers, tokenizers and safetensors, which have errors of many kinds
        if Path(open_path(source)).is_dir():
            raise RecipeError(f"{what} in {source!r} cannot be read: {first_line(error)}") from error
        raise RecipeError(unreachable(f"{what} of {source!r}", error)) from error
