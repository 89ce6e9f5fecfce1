"""ImageReward's files: read and checked; and written, for a model of other sizes.

::

    ImageReward.pt         the weights, by their published names; or ImageReward.safetensors, which is preferred
    med_config.json        ``Sizes``; what it does not say is as published
    vocab.txt              BERT's words; without it, those of bert-base-uncased

The published repository holds the first two.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from accelerate import init_empty_weights
from pydantic import ValidationError
from safetensors.torch import save_file
from transformers import BertTokenizerFast

from maskrl.component import open_path
from maskrl.errors import RecipeError
from maskrl.rewards.blip import ImageRewardNetwork, Sizes, published_name
from maskrl.weights import (
    as_state_dict,
    check_shapes,
    fill,
    find_file,
    first_line,
    read_file,
    read_json,
)

PUBLISHED = "THUDM/ImageReward"
_WEIGHTS = ("ImageReward.safetensors", "ImageReward.pt")
_SIZES = "med_config.json"
_VOCABULARY = "vocab.txt"
_TOKENIZER = "google-bert/bert-base-uncased"
_SPECIAL_TOKENS = ("[DEC]", "[ENC]")  # BLIP's, behind BERT's own; it counts only if a prompt spells one
_UNUSED = ("blip.text_encoder.embeddings.position_ids", "blip.vision_proj.", "blip.text_proj.")


def read_sizes(source: str) -> Sizes:
    """Return the sizes of the model in a folder, or in a repository on the hub; the published one's are known.

    Raises:
        RecipeError: they cannot be read, or make no sense.
    """
    if source == PUBLISHED:
        return Sizes()
    path = find_file(source, _SIZES)
    try:
        return Sizes.model_validate(read_json(path))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise RecipeError(f"{str(path)!r}: {where}: {first['msg']}, not {first['input']!r}") from error


def new_network(sizes: Sizes, source: str) -> ImageRewardNetwork:
    """Build a network of these sizes, which ``source`` gave; it has random weights.

    Raises:
        RecipeError: they make no sense.
    """
    try:
        return ImageRewardNetwork(sizes).eval()
    except (ValueError, RuntimeError) as error:  # the latter of sizes that no memory holds
        raise RecipeError(f"the sizes of {source!r} make no ImageReward: {first_line(error)}") from error


def load_network(source: str) -> ImageRewardNetwork:
    """Load a network, frozen and in ``eval()`` mode.

    Raises:
        RecipeError: a file is missing, damaged or could run code; a tensor is missing, unknown or of another shape.
    """
    with init_empty_weights():
        network = new_network(read_sizes(source), source)
    path = find_file(source, *_WEIGHTS)
    found = as_state_dict(read_file(path), path)
    tensors = {name: tensor for name, tensor in found.items() if not name.startswith(_UNUSED)}
    own = network.state_dict()
    shapes = {published_name(name): tuple(tensor.shape) for name, tensor in own.items()}
    check_shapes(tensors, shapes, path, "ImageReward")
    fill(network, {name: tensors[published_name(name)] for name in own}, path)
    return network.requires_grad_(False)


def load_tokenizer(source: str | None, weights: str, vocab_size: int) -> Any:
    """Load a BERT tokenizer: the one asked for, or what lies beside the weights, or that of ``bert-base-uncased``.

    Raises:
        RecipeError: it cannot be had, or has not as many tokens as the text encoder, ``vocab_size``.
    """
    beside = weights if Path(open_path(weights), _VOCABULARY).is_file() else _TOKENIZER
    path = find_file(source or beside, _VOCABULARY)  # from_pretrained makes an empty one of a missing file
    try:
        path.read_text(encoding="utf-8")  # of what is no text it says so in an error that has no type
        tokenizer = BertTokenizerFast.from_pretrained(str(path.parent))
    except (OSError, ValueError) as error:
        raise RecipeError(f"{str(path)!r} is no tokenizer of BERT's: {first_line(error)}") from error
    tokenizer.add_tokens(list(_SPECIAL_TOKENS), special_tokens=True)
    if len(tokenizer) != vocab_size:
        raise RecipeError(
            f"{str(path)!r} makes {len(tokenizer)} tokens with BLIP's two, and the text encoder has {vocab_size}"
        )
    return tokenizer


def save_network(network: ImageRewardNetwork, vocabulary: Sequence[str], folder: Path) -> None:
    """Write a network, its sizes and its words in the layout above; ``vocabulary`` is without BLIP's two tokens."""
    folder.mkdir(parents=True, exist_ok=True)
    state = network.state_dict()
    tensors = {published_name(name): tensor.cpu().contiguous() for name, tensor in state.items()}
    save_file(tensors, folder / _WEIGHTS[0])
    sizes = json.dumps(network.sizes.model_dump(mode="json"), indent=1)
    (folder / _SIZES).write_text(sizes + "\n", encoding="utf-8")
    (folder / _VOCABULARY).write_text("".join(f"{word}\n" for word in vocabulary), encoding="utf-8")
