"""The transformer of Show-o: Phi with normalised queries and keys, in which the text is read once.

The text attends to the text before it and never to the image; the image attends to everything. So the keys and
values of a text do not depend on any image: they are computed once per text, without padding, and shared by all images
and steps. Among the images whose texts are of one length every query then sees every key, and attention needs no mask.

Before its attention the first layer knows of no other position: what it makes of an id is always the same. Where there
are more positions than ids it is looked up in a table.

Source: Xie et al. 2024 (arXiv 2408.12528), section 3.2; the modules and their keys are those of ``PhiForCausalLM``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PhiConfig, PhiForCausalLM
from transformers.models.phi.modeling_phi import PhiRotaryEmbedding

from maskrl.generators.showo.asked import Asked
from maskrl.generators.showo.layer import (
    Block,
    KeysValues,
    Table,
    after_attention,
    attend_before,
    before_asking,
    before_attention,
    see,
)
from maskrl.generators.showo.prompting import Vocabulary

REPEATS = 2  # positions for each id of the table: from there on it is worth its while in a single pass


@dataclass(frozen=True)
class KVCache:
    """What the layers know of some texts: ``layers`` has (keys, values) of each, Float [U, heads, P, head_dim].

    ``lengths`` are those of the U texts; what lies behind a text's length is not to be looked at. ``table``: of the
    ids of images, where it pays to have it.
    """

    layers: tuple[KeysValues, ...]
    lengths: tuple[int, ...]
    table: Table | None = None

    def of(self, layer: int, run: Run) -> KeysValues:
        """Return keys and values of the texts of some rows, a copy for each: Float [b, heads, length, head_dim]."""
        keys, values = (part[:, :, : run.length][run.texts] for part in self.layers[layer])
        return keys, values

    def select(self, texts: Sequence[int]) -> KVCache:
        """Pick K of the U texts; all of them in their order are not copied."""
        if list(texts) == list(range(len(self.lengths))):
            return self
        index = torch.tensor(texts, device=self.layers[0][0].device)
        layers = tuple((keys[index], values[index]) for keys, values in self.layers)
        return replace(self, layers=layers, lengths=tuple(self.lengths[text] for text in texts))


@dataclass(frozen=True)
class Run:
    """Rows side by side whose texts have one length; ``texts``: which text each has, Long [b]."""

    length: int
    texts: Tensor


class ShowoNetwork(nn.Module):
    """Phi over the shared vocabulary; keys begin with ``showo.`` as in the published checkpoints."""

    def __init__(self, phi: PhiConfig, vocabulary: Vocabulary) -> None:
        super().__init__()
        self.vocabulary = vocabulary
        self.showo = PhiForCausalLM(phi)
        for layer in self.layers:
            layer.__class__ = Block  # with the modules and the keys that it has
        self._checkpointing = False

    @classmethod
    def unfilled(cls, phi: PhiConfig, vocabulary: Vocabulary) -> Self:
        """Build without memory or time spent on weights, which are to be loaded."""
        with torch.device("meta"):
            network = cls(phi, vocabulary)
        network.showo.model.rotary_emb = PhiRotaryEmbedding(phi)  # its angles are in no checkpoint
        return network

    @property
    def layers(self) -> Sequence[Block]:
        """The layers of Phi."""
        layers: Sequence[Block] = self.showo.model.layers
        return layers

    @property
    def head(self) -> nn.Linear:
        """The output layer, over the whole vocabulary."""
        layer: nn.Linear = self.showo.lm_head
        return layer

    def gradient_checkpointing_enable(self) -> None:
        """Keep of every layer's activations only its input, and compute the others again in the backward pass."""
        self._checkpointing = True

    def compile_layers(self) -> None:
        """Compile the layers but for their attention, whose shapes differ from text to text."""
        before = torch.compile(before_attention, dynamic=True)
        asking = torch.compile(before_asking, dynamic=True)
        after = torch.compile(after_attention, dynamic=True)
        for layer in self.layers:
            layer.before_attention, layer.before_asking, layer.after_attention = before, asking, after

    def read(self, texts: Sequence[Tensor], end: int) -> KVCache:
        """Read U texts, Long [P_u] each, that end before position ``end``; differentiable.

        Shorter texts are padded on the right, where causal attention never looks.
        """
        longest = max(len(text) for text in texts)
        ids_UP = torch.stack([F.pad(text, (0, longest - len(text))) for text in texts])
        start_U1 = torch.tensor([[end - len(text)] for text in texts], device=ids_UP.device)
        rotation = self._rotation(start_U1 + torch.arange(longest, device=ids_UP.device))
        x = self.showo.model.embed_tokens(ids_UP)
        layers: list[KeysValues] = []
        for layer in self.layers:
            x, keys, values = layer.run(x, rotation, attend_before)
            layers.append((keys, values))
        return KVCache(tuple(layers), tuple(len(text) for text in texts))

    def tabulate(self) -> Table:
        """Run the first layer up to its attention on every id that an image may have, once."""
        ids, device = self.vocabulary.not_text, self.showo.model.embed_tokens.weight.device
        ids_R = torch.arange(ids.start, ids.stop, device=device)
        table: Table = self._run(self.layers[0].tabulate, self.showo.model.embed_tokens(ids_R))
        return table

    def with_table(self, memory: KVCache, positions: int) -> KVCache:
        """Make the table, if there is none, for a pass through so many positions that it is worth its while."""
        if memory.table is not None or positions < REPEATS * len(self.vocabulary.not_text):
            return memory
        return replace(memory, table=self.tabulate())

    def forward_image(
        self,
        ids: Tensor,
        groups: Sequence[int],
        memory: KVCache,
        start: int,
        asked: Asked | None = None,
    ) -> Tensor:
        """Run images, which see their text and all of themselves: Long [B, L] -> Float [B, L, D], normalised.

        The last layer makes but its keys and values for all positions, if some are asked for: -> Float [M, D].

        Args:
            ids: row by row, those of one text side by side; none is one of a text.
            groups: how many rows belong to each text of ``memory``; they add up to B. It is fastest where texts of one
                length are side by side.
            memory: of the texts, under the weights as they are.
            start: the position of the first id.
            asked: M positions.
        """
        rotation = self._rotation(torch.arange(start, start + ids.shape[1], device=ids.device)[None])
        runs = [run for run in _runs(groups, memory.lengths, ids.device) if len(run.texts)]
        sizes = [len(run.texts) for run in runs]
        is_known = memory.table is not None
        x = ids - self.vocabulary.not_text.start if is_known else self.showo.model.embed_tokens(ids)
        last = len(self.layers) - 1
        for index, layer in enumerate(self.layers):
            wanted = asked if index == last else None

            def attend(q: Tensor, k: Tensor, v: Tensor, index: int = index) -> Tensor:
                parts = zip(runs, q.split(sizes), k.split(sizes), v.split(sizes), strict=True)
                seen = [see(q_b, k_b, v_b, memory.of(index, run)) for run, q_b, k_b, v_b in parts]
                return seen[0] if len(seen) == 1 else torch.cat(seen)

            if is_known and index == 0:  # x says where in the table
                x = self._run(layer.look_up, memory.table, x, rotation, attend, wanted)
            else:
                x = self._run(layer.run, x, rotation, attend, wanted)[0]
        out: Tensor = self.showo.model.final_layernorm(x)
        return out

    def code_logits(self, hidden: Tensor) -> Tensor:
        """Float [..., D] -> [..., V]: the rows of the head that belong to codes."""
        first, last = self.vocabulary.code_offset, self.vocabulary.mask_id
        return F.linear(hidden, self.head.weight[first:last], self.head.bias[first:last])

    def _run(self, part: Callable[..., Any], *inputs: Any) -> Any:
        """Run a part of a layer; with checkpointing only its inputs are kept."""
        if self._checkpointing and torch.is_grad_enabled():
            return checkpoint(part, *inputs, use_reentrant=False, preserve_rng_state=False)
        return part(*inputs)

    def _rotation(self, positions: Tensor) -> KeysValues:
        """Long [B, L] -> cosines and sines of the rotary embedding, Float [B, L, 1, rotated dims]."""
        weight = self.showo.model.embed_tokens.weight
        cos, sin = self.showo.model.rotary_emb(weight, positions)
        return cos[:, :, None], sin[:, :, None]


def _runs(groups: Sequence[int], lengths: Sequence[int], device: torch.device) -> Iterator[Run]:
    """Divide rows, so many of each text, where the length of the texts changes."""
    for length, same in groupby(range(len(groups)), key=lambda text: lengths[text]):
        texts = [text for text in same for _ in range(groups[text])]
        yield Run(length, torch.tensor(texts, dtype=torch.long, device=device))


def phi_config(published: PhiConfig, vocabulary: Vocabulary) -> PhiConfig:
    """Return Phi's config with what Show-o changes: the vocabulary, layer norm on queries and keys."""
    values = published.to_dict()
    values |= {"vocab_size": vocabulary.size, "qk_layernorm": True, "use_cache": False}
    if values["hidden_act"] == "gelu_new":  # the same function, fused; a third of the tiny model's time
        values["hidden_act"] = "gelu_pytorch_tanh"
    values |= {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attention_dropout": 0.0}
    return PhiConfig(**values)
