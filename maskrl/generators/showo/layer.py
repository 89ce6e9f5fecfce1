"""A layer of Show-o's transformer: Phi's, in the order in which nothing is computed twice and nothing copied."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.models.phi.modeling_phi import PhiDecoderLayer

from maskrl.generators.showo.asked import Asked

KeysValues = tuple[Tensor, Tensor]
Attend = Callable[[Tensor, Tensor, Tensor], Tensor]


class Table(NamedTuple):
    """What a layer makes of each of R inputs before it attends.

    Attributes:
        beside: the input and what the MLP adds to it, Float [R, D].
        queries_keys: normalised, not yet turned, Float [R, 2 * heads * head_dim].
        values: Float [R, heads * head_dim].
    """

    beside: Tensor
    queries_keys: Tensor
    values: Tensor


class Block(PhiDecoderLayer):  # type: ignore[misc]  # transformers has no types
    """One layer of Phi: attention and MLP side by side on one layer norm.

    ``forward`` stays that of transformers; ours is ``run``.
    """

    def run(
        self, x: Tensor, rotation: KeysValues, attend: Attend, asked: Asked | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Run it, Float [B, L, D] -> the output, [B, L, D] or [M, D] where asked, and the keys and values."""
        if asked is None or asked.queries is None:
            normed, q, k, v = self.before_attention(self, x, rotation)
        else:
            normed, q, k, v = self.before_asking(self, x, rotation, asked.queries)
        attended = attend(q, k, v)
        if asked is not None:
            x, normed = _at(asked.places, x), _at(asked.places, normed)
            attended = _at(asked.answers, attended)
        return self.after_attention(self, x, normed, attended), k, v

    def tabulate(self, x: Tensor) -> Table:
        """Run all that comes before attention, Float [R, D], for :meth:`look_up`."""
        normed, q, k, v = (part.flatten(1) for part in _project(self, x))
        return Table(x + self.mlp(normed), torch.cat([q, k], dim=1), v)

    def look_up(
        self, table: Table, index: Tensor, rotation: KeysValues, attend: Attend, asked: Asked | None = None
    ) -> Tensor:
        """Run the rest of it, where Long [B, L] says which row of ``table`` stands: the output of :meth:`run`."""
        heads = -1, self.self_attn.head_dim
        q, k = _rows(table.queries_keys, index).unflatten(-1, (2, *heads)).unbind(2)
        v = _rows(table.values, index).unflatten(-1, heads)
        attended = attend(_turn(q, rotation, v), _turn(k, rotation, v), v.transpose(1, 2))
        if asked is not None:
            index, attended = _at(asked.places, index), _at(asked.places, attended)
        out: Tensor = _rows(table.beside, index) + self.self_attn.dense(attended)
        return out


def _rows(table: Tensor, index: Tensor) -> Tensor:
    """Float [R, D], Long [...] -> [..., D]; ``F.embedding`` would add up thousands of bf16 gradients in bf16."""
    rows: Tensor = table.index_select(0, index.flatten()).unflatten(0, index.shape)
    return rows


def _at(places: Tensor, part: Tensor) -> Tensor:
    """Pick M places of a tensor [B, L, ...]: -> [M, ...]."""
    picked: Tensor = part.flatten(0, 1).index_select(0, places)
    return picked


def _project(layer: Any, x: Tensor, queries: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Float [..., D] -> normalised x, and queries, keys, values Float [..., heads, head_dim], the former normalised."""
    attention, normed = layer.self_attn, layer.input_layernorm(x)
    asking = normed if queries is None else _within_rows(normed, queries)
    q, k, v = (
        project(part).unflatten(-1, (-1, attention.head_dim))
        for project, part in (
            (attention.q_proj, asking),
            (attention.k_proj, normed),
            (attention.v_proj, normed),
        )
    )
    return normed, attention.q_layernorm(q), attention.k_layernorm(k), v


def _within_rows(part: Tensor, positions: Tensor) -> Tensor:
    """Pick positions, Long [B, Q], of the rows of [B, L, D]: -> [B, Q, D]."""
    first = torch.arange(0, part.shape[:2].numel(), part.shape[1], device=part.device)
    picked: Tensor = _at((first[:, None] + positions).flatten(), part).unflatten(0, positions.shape)
    return picked


def before_attention(layer: Any, x: Tensor, rotation: KeysValues) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Float [B, L, D] -> normalised x, and queries, keys, values Float [B, heads, L, head_dim].

    Norms and angles come before the dims change places: so nothing is copied.
    """
    normed, q, k, v = _project(layer, x)
    return normed, _turn(q, rotation, v), _turn(k, rotation, v), v.transpose(1, 2)


def before_asking(
    layer: Any, x: Tensor, rotation: KeysValues, queries: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Do as :func:`before_attention`, with queries of some positions, Long [B, Q]: Float [B, heads, Q, head_dim]."""
    normed, q, k, v = _project(layer, x, queries)
    of_queries = rotation[0][0, queries], rotation[1][0, queries]
    return normed, _turn(q, of_queries, v), _turn(k, rotation, v), v.transpose(1, 2)


def _turn(x: Tensor, rotation: KeysValues, values: Tensor) -> Tensor:
    """Turn queries or keys, Float [B, L, heads, head_dim] -> [B, heads, L, head_dim].

    To the values' dtype: under autocast norms and angles are in fp32, attention is not.
    """
    return _rotate(x, *rotation).to(values.dtype).transpose(1, 2)


def after_attention(layer: Any, x: Tensor, normed: Tensor, attended: Tensor) -> Tensor:
    """Add to ``x`` what attention found, Float [..., D], and what the MLP makes of ``normed`` beside it.

    Phi runs the two side by side: the MLP does not see what attention found. -> Float [..., D].
    """
    out: Tensor = x + layer.self_attn.dense(attended) + layer.mlp(normed)
    return out


Block.before_attention = staticmethod(before_attention)
Block.before_asking = staticmethod(before_asking)
Block.after_attention = staticmethod(after_attention)


def see(q: Tensor, k: Tensor, v: Tensor, texts: KeysValues) -> Tensor:
    """Attend to a text and to all of oneself: q, k, v Float [b, heads, L, head_dim], the texts as many -> [b, L, D]."""
    keys, values = (
        torch.cat([text.transpose(1, 2), own.transpose(1, 2)], dim=1).transpose(1, 2)  # as own lies in memory
        for text, own in zip(texts, (k, v), strict=True)
    )
    return attention(q, keys, values)


def attend_before(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attend to oneself and what stands before: Float [B, heads, L, head_dim] each -> Float [B, L, D]."""
    return attention(q, k, v, is_causal=True)


def attention(q: Tensor, k: Tensor, v: Tensor, is_causal: bool = False) -> Tensor:
    """Attend: Float [B, heads, L, head_dim] each -> Float [B, L, D]."""
    return F.scaled_dot_product_attention(q, k, v, is_causal=is_causal).transpose(1, 2).flatten(2)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the first dims of every head by the angles of its position; the others stay."""
    half = cos.shape[-1] // 2  # the two halves of cosines and sines are the same
    cos, sin = cos[..., :half], sin[..., :half]
    first, second, kept = x.split((half, half, x.shape[-1] - 2 * half), dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin, kept], dim=-1)
