"""What the training scripts of the shapes world share: its two small tokenizers of words, and painted pictures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from maskrl.generators.showo.prompting import UniversalPrompting
from maskrl.geneval.metadata import RELATIONS
from maskrl.geneval.wording import NUMBERS
from maskrl.shapes.captions import EVALUATION_PREFIX, TRAINING_PREFIXES, Clause
from maskrl.shapes.world import COLORS, GRID, IMAGE_SIZE, PLACES, SHAPES, Scene, paint

PREFIXES = (EVALUATION_PREFIX, *TRAINING_PREFIXES)
SIDE = IMAGE_SIZE // GRID  # tokens along an axis


def words() -> list[str]:
    """Return every word that a caption can hold, sorted."""
    phrases: Iterable[str] = (
        *PREFIXES,
        "a an and",
        *RELATIONS,
        *PLACES,
        *COLORS,
        *NUMBERS[2:5],  # what a scene holds of a kind, at most
        *(Clause(s).words() for s in SHAPES),
        *(Clause(s, None, 2).words() for s in SHAPES),
    )
    return sorted({word for phrase in phrases for word in phrase.split()})


def word_tokenizer(first: Sequence[str], last: Sequence[str], framed: bool) -> PreTrainedTokenizerFast:
    """Make a tokenizer of whole words: special tokens ``first``, the words, special tokens ``last``.

    ``framed`` puts ``<s>`` and ``</s>`` around every text, as CLIP wants.
    """
    vocabulary = {token: i for i, token in enumerate((*first, *words(), *last))}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if framed:
        frame = [("<s>", vocabulary["<s>"]), ("</s>", vocabulary["</s>"])]
        core.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=frame)
    return PreTrainedTokenizerFast(
        tokenizer_object=core, unk_token="<unk>", clean_up_tokenization_spaces=False
    )


def showo_tokenizer() -> PreTrainedTokenizerFast:
    """Make the tiny Show-o's: like phi's, one token is both beginning and end."""
    tokenizer = word_tokenizer(("<|endoftext|>", "<unk>"), (), framed=False)
    tokenizer.add_special_tokens({"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"})
    return tokenizer


def clip_tokenizer() -> PreTrainedTokenizerFast:
    """Make the tiny CLIP's: the end has the highest id, where CLIP's text tower looks for it."""
    tokenizer = word_tokenizer(("<pad>", "<unk>", "<s>"), ("</s>",), framed=True)
    tokenizer.add_special_tokens({"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"})
    return tokenizer


def padded(prompting: UniversalPrompting, texts: Sequence[str]) -> Tensor:
    """Return prefixes as the published code lays them out: Long [B, length], padded on the left."""
    pad = prompting.vocabulary.special("[PAD]")
    ids = [prompting.ids(text)[0] for text in texts]
    return torch.stack([F.pad(row, (prompting.length - len(row), 0), value=pad) for row in ids])


def omni_attention(prefix_is_text: Tensor, image_length: int) -> Tensor:
    """Build the additive mask: text is causal, the image part sees all text and all of itself; nobody sees padding.

    Bool [B, L], False at the padding, and N + 2 -> Float [B, 1, L + N + 2, L + N + 2]. Rows of padding attend to
    themselves and the padding before them, so that no row is empty.
    """
    batch, text_length = prefix_is_text.shape
    length = text_length + image_length
    visible = torch.cat([prefix_is_text, prefix_is_text.new_ones(batch, image_length)], dim=1)
    is_image = torch.arange(length) >= text_length
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    allowed = (visible[:, :, None] == visible[:, None, :]) & (causal | is_image[:, None])
    return torch.zeros(allowed.shape).masked_fill(~allowed, torch.finfo(torch.float32).min)[:, None]


def pictures(scenes: Sequence[Scene]) -> Tensor:
    """Paint scenes: Float [B, 3, 48, 48] in [0, 1]."""
    painted = np.stack([paint(scene) for scene in scenes])
    return torch.from_numpy(painted).permute(0, 3, 1, 2).float() / 255
