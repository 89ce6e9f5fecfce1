"""The records that stages hand to each other, all frozen.

Shape legend, one for the whole package; local tensors carry their letters (``rewards_PG``):

===  ==========================================================================
P    prompts of this update on this process
G    images per prompt: one *group* is the G images of one prompt
B    images, or rows of a micro-batch; P * G where all images are meant
T    unmasking steps of this rollout
N    tokens per image
V    codes of the image tokenizer
M    masked positions of a batch of states, packed row by row
R    terms of a reward
===  ==========================================================================
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from maskrl.places import Places


@dataclass(frozen=True)
class Prompt:
    """A text, and what a reward or a detector may want to know about it (GenEval's ``tag`` and ``include``...)."""

    text: str
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class SamplerDefaults:
    """How the authors of a generator sample from it; every value can be overridden in ``[sampling]``.

    ``tau_init`` scales the Gumbel noise of the confidence, ``value_temperature`` divides the logits of the proposals.
    ``score`` is what the noise is added to: ``log_prob`` is log p of the proposal. ``guidance`` is w in
    (1 + w) * cond - w * uncond. The names are those of the tables in ``maskrl/grpo``.
    """

    num_steps: int
    schedule: str = "cosine"
    temperature_rule: str = "compound"
    tau_init: float = 1.0
    score: str = "log_prob"
    guidance: float = 0.0
    guidance_rule: str = "constant"
    value_temperature_rule: str = "constant"
    value_temperature: float = 1.0
    position_policy: str = "confidence"


@dataclass(frozen=True)
class GeneratorSpec:
    """What the algorithm must know of a generator.

    Tokens are Long in code space: a code in [0, ``num_codes``) or ``mask_id``, which is outside that range.
    ``grid`` is (rows, columns) of codes, or None for a 1-D tokenizer. ``image_size`` is (H, W) in pixels.
    """

    num_tokens: int
    num_codes: int
    mask_id: int
    grid: tuple[int, int] | None
    image_size: tuple[int, int]
    sampler: SamplerDefaults
    lora_targets: tuple[str, ...] = ()


@dataclass(frozen=True)
class Pass:
    """One run of a network over some images, whose memory is asked for.

    Attributes:
        rows: images; with guidance those of the null branch too.
        masked: positions of all rows at which codes are wanted.
        texts: that are read in this pass; 0: they have been read before.
        gradient: whether a backward pass follows.
        bf16: whether the network computes in bf16, by autocast.
        checkpointing: whether activations are computed again in the backward pass.
        prepare: what is done to the network first, such as putting adapters beside its layers.
    """

    rows: int
    masked: int
    texts: int
    gradient: bool
    bf16: bool
    checkpointing: bool
    prepare: Callable[[nn.Module], object]


@dataclass(frozen=True)
class Footprint:
    """Bytes that a pass takes beside weights and gradients.

    Attributes:
        kept: what is there between the forward and the backward pass, the logits aside.
        peak: the most that is there at a time, the logits or their gradient included, what scores them aside.
    """

    kept: float
    peak: float


@dataclass(frozen=True)
class Cost:
    """What a generator costs, known without its weights. A multiplication and an addition are two FLOPs.

    Attributes:
        spec: its sizes.
        parameters: of the network that training updates.
        frozen_parameters: of the networks that are never trained.
        adapter_sizes: what adapters of rank 1 hold: inputs + outputs, by name of layer, over all layers of that name.
        prompt_flops: reading one text.
        image_flops: one image at one step, forward, without what is done at positions that are asked for alone.
        again_flops: of ``image_flops``, what activation checkpointing does a second time.
        position_flops: what one position that is asked for adds: the head, and whatever else is done there alone.
        decode_flops: painting one image; ``decode_bytes``: what it takes beside the weights, in fp32.
        footprint: says what a pass of the network takes.
        joins_blank: whether images of one prompt of which nothing is painted yet run as one.
    """

    spec: GeneratorSpec
    parameters: int
    frozen_parameters: int
    adapter_sizes: Mapping[str, int]
    prompt_flops: float
    image_flops: float
    again_flops: float
    position_flops: float
    decode_flops: float
    decode_bytes: float
    footprint: Callable[[Pass], Footprint]
    joins_blank: bool = False


@dataclass(frozen=True)
class Stream:
    """A named source of random numbers: a pure function of a seed and a path.

    Two paths give unrelated numbers, but for one pair in 2**32 that happens to give the same: PyTorch's generator on
    the CPU starts from 32 bits. ``Stream(seed).child("rollout", update, round, slot, image)`` is the same on every
    process, for every micro-batch and after a resume. Source: docs/equations.md, "Randomness is an input".
    """

    seed: int
    path: tuple[str | int, ...] = ()

    def child(self, *names: str | int) -> Stream:
        """Return the stream further down the path."""
        return Stream(self.seed, self.path + names)

    def generator(self) -> torch.Generator:
        """Return a fresh CPU generator at the start of this stream; two calls give equal generators."""
        digest = hashlib.blake2b(repr((self.seed, *self.path)).encode(), digest_size=8).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)


@dataclass(frozen=True)
class StepIndex:
    """Which unmasking step each row is at: ``t`` Long [B] in [0, T), of ``num_steps`` = T."""

    t: Tensor
    num_steps: int


def _at(values: Any, index: Any) -> Any:
    return None if values is None else values[index]


@dataclass(frozen=True)
class Transition:
    """One unmasking step of each of B rows; rows may be at different steps.

    Attributes:
        state: Long [B, N], Y_t: codes, or ``mask_id`` where masked.
        proposals: Long [B, N], the code sampled at every masked position; the known code elsewhere.
        reveal_rank: Long [B, N], 0 for the most confident revealed position, -1 where nothing was revealed.
        floored: Bool [B, N], remasked positions at which, under the behaviour policy, no code was less confident than
            the threshold (Gumbel noise alone remasked them): eq. 14's inner sum is empty there.
        threshold: Float [B] in (0, 1], min(cs) of the behaviour policy: the smallest p of a revealed proposal.
        tau: Float [B], temperature of the Gumbel noise on the confidence.
        step: which step each row is at.
        mask_id: the token that means "masked".
        sets: the set {k} of eq. 14 under the behaviour policy, as bits: uint8 [B, N, ceil(V / 8)]; None: not asked for.
        asked: Bool [B, N], the masked positions at which logits are given; None: all.
    """

    state: Tensor
    proposals: Tensor
    reveal_rank: Tensor
    floored: Tensor
    threshold: Tensor
    tau: Tensor
    step: StepIndex
    mask_id: int
    sets: Tensor | None = None
    asked: Tensor | None = None

    @property
    def masked(self) -> Tensor:
        """Bool [B, N]: masked before this step."""
        return self.state == self.mask_id

    @property
    def packed(self) -> Tensor:
        """Bool [B, N]: the M positions at which logits are given, and what is packed row by row."""
        return self.masked if self.asked is None else self.asked

    @cached_property
    def places(self) -> Places:
        """Those positions, found once."""
        return Places.of(self.packed)

    @property
    def revealed(self) -> Tensor:
        """Bool [B, N]: revealed by this step (CaM = 1 in eq. 5)."""
        return self.reveal_rank >= 0

    @property
    def remasked(self) -> Tensor:
        """Bool [B, N]: masked before and after this step."""
        return self.masked & ~self.revealed

    def select(self, rows: Tensor) -> Transition:
        """Pick rows: Long [K] in [0, B)."""
        kept: Any = {"step": StepIndex(self.step.t[rows], self.step.num_steps), "mask_id": self.mask_id}
        names = [field.name for field in fields(self) if field.name not in kept]
        return Transition(**kept, **{name: _at(getattr(self, name), rows) for name in names})

    def pack(self, values: Tensor) -> Tensor:
        """Pick [B, N, ...] -> [M, ...] at the positions that have logits, row by row."""
        return self.places.pack(values)

    def unpack(self, packed: Tensor, fill: float = 0.0) -> Tensor:
        """Put [M] back where it came from: [B, N], ``fill`` elsewhere. Differentiable."""
        return self.places.unpack(packed, fill)

    def sum_rows(self, packed: Tensor) -> Tensor:
        """Sum [M] within each row -> [B]; the order of summation does not depend on the other rows."""
        return self.unpack(packed).sum(dim=1)


@dataclass(frozen=True)
class Trajectory:
    """All T transitions of B images, and the finished images' codes.

    Attributes:
        state, proposals, reveal_rank: Long [B, T, N]; floored: Bool [B, T, N]; as in :class:`Transition`.
        threshold: Float [B, T]; tau: Float [T].
        tokens: Long [B, N], all codes; entropy: Float [B, T], nats: mean entropy of p over the masked positions.
        mask_id: the token that means "masked".
        sets: uint8 [B, T, N, ceil(V / 8)], as in :class:`Transition`.
        completions: Long [B, T, N], each state filled up with the likeliest codes; [B, T, 0] or None: not recorded.
        revealed_in: Long [B, N], the step that painted each code; logp: Float [B, N], nats, its log p then; or None.
    """

    state: Tensor
    proposals: Tensor
    reveal_rank: Tensor
    floored: Tensor
    threshold: Tensor
    tau: Tensor
    tokens: Tensor
    entropy: Tensor
    mask_id: int
    sets: Tensor | None = None
    completions: Tensor | None = None
    revealed_in: Tensor | None = None
    logp: Tensor | None = None

    @property
    def num_images(self) -> int:
        """B."""
        return int(self.state.shape[0])

    @property
    def num_steps(self) -> int:
        """T."""
        return int(self.state.shape[1])

    def transitions(self, rows: Tensor, steps: Tensor) -> Transition:
        """Gather (image, step) pairs: ``rows`` Long [K] in [0, B), ``steps`` Long [K] in [0, T)."""
        names = ("state", "proposals", "reveal_rank", "floored", "threshold", "sets")
        taken = {name: _at(getattr(self, name), (rows, steps)) for name in names}
        at = StepIndex(steps, self.num_steps)
        return Transition(**taken, tau=self.tau[steps], step=at, mask_id=self.mask_id)

    def select(self, rows: Tensor) -> Trajectory:
        """Pick images: ``rows`` Long [K] in [0, B)."""
        shared = ("tau", "mask_id")
        return replace(self, **{name: _at(v, rows) for name, v in vars(self).items() if name not in shared})
