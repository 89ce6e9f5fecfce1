"""Who answers questions about a picture: an interface, and the networks that are known by their ``config.json``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms.v2.functional import normalize
from transformers import AutoTokenizer, BlipConfig, BlipForQuestionAnswering
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from maskrl.errors import RecipeError
from maskrl.pixels import to_bytes
from maskrl.quiet import quiet
from maskrl.weights import as_state_dict, built_from, find_file, first_line, read_file, read_json

LONGEST_ANSWER = 8  # tokens; one that counts has one


class Judge(ABC):
    """Answers questions about pictures, always alike. ``modules`` are its networks, so that they can be placed."""

    modules: tuple[nn.Module, ...] = ()

    @abstractmethod
    def answer(self, image: Tensor, questions: Sequence[str]) -> list[str]:
        """Answer Q questions, each by itself, about a picture, Float [3, H, W] in [0, 1]: Q texts in small letters."""


class BlipJudge(Judge):
    """BLIP for visual question answering (Li et al. 2022, arXiv 2201.12086): reads a question, writes an answer."""

    def __init__(self, source: str) -> None:
        """Load it from a folder in transformers' layout, or a hub id.

        Raises:
            RecipeError: it is not there, is damaged, or does not fit its ``config.json``.
        """
        self._network = load_network(source)
        self._tokenizer = load_tokenizer(source, self._network.config.text_config.vocab_size)
        self.modules = (self._network,)

    @torch.no_grad()
    def answer(self, image: Tensor, questions: Sequence[str]) -> list[str]:
        """See :class:`Judge`."""
        device = next(self._network.parameters()).device
        pixels = prepare(image, self._network.config.vision_config.image_size).to(device)
        ids = [self._tokenizer(question.lower()).input_ids for question in questions]
        answers = [""] * len(questions)
        for places in by_length(ids):
            read = torch.tensor([ids[i] for i in places], device=device)
            for i, text in zip(places, self._generate(pixels, read), strict=True):
                answers[i] = text
        return answers

    def _generate(self, pixels: Tensor, ids: Tensor) -> list[str]:
        """Float [1, 3, S, S] and Long [Q, L] -> Q answers, greedily."""
        with torch.autocast(pixels.device.type, enabled=False):
            written = self._network.generate(
                pixel_values=pixels.expand(len(ids), -1, -1, -1),
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=LONGEST_ANSWER,
                do_sample=False,
                num_beams=1,
            )
        texts = self._tokenizer.batch_decode(written[:, 1:], skip_special_tokens=True)
        return [text.strip().lower() for text in texts]


JUDGES: dict[str, type[BlipJudge]] = {"blip": BlipJudge}  # by ``model_type``


def load_judge(source: str) -> Judge:
    """Load the judge that a folder in transformers' layout, or a hub id, holds.

    Raises:
        RecipeError: it is not there, is damaged, or is of a kind that is not known here.
    """
    path = find_file(source, "config.json")
    kind = read_json(path).get("model_type")
    if kind not in JUDGES:
        known = " or ".join(map(repr, JUDGES))
        raise RecipeError(f"{str(path)!r} describes a {kind!r}, which is no judge here; take a {known}")
    return JUDGES[kind](source)


def load_network(source: str) -> Any:
    """Load a ``BlipForQuestionAnswering`` in fp32, frozen and in ``eval()`` mode.

    Raises:
        RecipeError: its files are missing, damaged, or do not fit each other.
    """
    sizes_file = find_file(source, "config.json")
    path = find_file(source, "model.safetensors", "pytorch_model.bin")
    tensors = as_state_dict(read_file(path), path)
    with built_from(sizes_file), quiet():
        network, told = BlipForQuestionAnswering.from_pretrained(
            None,
            config=BlipConfig.from_dict(read_json(sizes_file)),
            state_dict=tensors,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
        )
    misshapen = [key if isinstance(key, str) else key[0] for key in told["mismatched_keys"]]  # 4, 5
    for keys, fault in ((sorted(told["missing_keys"]), "missing"), (misshapen, "of another shape")):
        if keys:
            raise RecipeError(
                f"{str(path)!r} does not fit the judge: {len(keys)} {fault}, {keys[0]} among them"
            )
    return network.float().eval().requires_grad_(False)


def load_tokenizer(source: str, vocab_size: int) -> Any:
    """Load BERT's tokenizer.

    Raises:
        RecipeError: it is not there, is damaged, does not know "yes" and "no", or knows more than the network.
    """
    folder = find_file(source, "tokenizer_config.json").parent
    find_file(source, "vocab.txt", "tokenizer.json")
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # of a damaged file the library tokenizers raises just that
        raise RecipeError(f"the tokenizer in {str(folder)!r} cannot be read: {first_line(error)}") from error
    answers = tokenizer.convert_tokens_to_ids(["yes", "no"])
    if tokenizer.unk_token_id in answers or len(tokenizer) > vocab_size:
        raise RecipeError(
            f"the tokenizer in {str(folder)!r}, of {len(tokenizer)} tokens, is not that of the network, which reads"
            f" {vocab_size}, 'yes' and 'no' among them"
        )
    return tokenizer


def prepare(image: Tensor, size: int) -> Tensor:
    """Resize and normalise a picture, as BLIP's own processor does: Float [3, H, W] in [0, 1] -> [1, 3, size, size].

    Pillow resizes, bicubic and whatever the proportions are, on bytes: the same on every device.
    """
    resized = Image.fromarray(to_bytes(image)).resize((size, size), Image.Resampling.BICUBIC)
    pixels = torch.from_numpy(np.asarray(resized).copy()).permute(2, 0, 1)[None] / 255
    prepared: Tensor = normalize(pixels, OPENAI_CLIP_MEAN, OPENAI_CLIP_STD)
    return prepared


def by_length(ids: Sequence[Sequence[int]]) -> list[list[int]]:
    """Return the places of questions of equal length: the network attends to what fills up shorter ones."""
    places: dict[int, list[int]] = defaultdict(list)
    for i, one in enumerate(ids):
        places[len(one)].append(i)
    return list(places.values())
