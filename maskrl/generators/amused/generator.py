"""aMUSEd as a masked generator: the networks are diffusers', the unmasking is maskrl's.

Source: Patil et al. 2024 (arXiv 2401.01808); published checkpoints ``amused/amused-256`` and ``amused/amused-512``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from maskrl.clip_text import ClipReader, TextMemory
from maskrl.component import ComponentConfig
from maskrl.counting import measure
from maskrl.generators.amused.checkpoint import Parts, load, load_transformer, save_transformer
from maskrl.generators.amused.cost import counted, unfilled
from maskrl.generators.amused.recompute import recompute_all
from maskrl.grpo.guidance import guided
from maskrl.interfaces import Condition, MaskedGenerator
from maskrl.types import Cost, GeneratorSpec, Prompt, SamplerDefaults, StepIndex


class Amused(MaskedGenerator):
    """A U-Net of convolutions around a transformer, which attends to the text; codes lie in a plane."""

    class Config(ComponentConfig):
        """Where the weights are: a hub id, or a folder in diffusers' layout.

        ``transformer`` is a folder with the transformer alone, in the place of the checkpoint's: what training saves.
        ``aesthetic`` is the score that the network is told of its own image (6, as published).
        """

        checkpoint: str = "amused/amused-256"
        transformer: str | None = None
        aesthetic: float = 6.0

    paths = ("checkpoint", "transformer")
    module: Any  # diffusers' UVit2DModel, which has no types

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._parts: Parts = load(config.checkpoint, with_transformer=config.transformer is None)
        self.module = load_transformer(config.transformer) if config.transformer else self._parts.transformer
        self._text_encoder, self._vqvae = self._parts.text_encoder, self._parts.vqvae
        self.frozen = (self._text_encoder, self._vqvae)
        self.spec = make_spec(self.module.config, self._vqvae.config)
        self._texts = ClipReader("aMUSEd", self._parts.tokenizer, self._text_encoder)

    @classmethod
    def cost(cls, config: Config, *, text_tokens: int) -> Cost:
        """See :class:`MaskedGenerator`; the published sizes are known without fetching them. Every text is padded."""
        parts = unfilled(config.checkpoint, config.transformer)
        return measure(counted(parts, make_spec(parts.transformer.config, parts.vqvae.config)))

    def encode(self, prompts: Sequence[Prompt]) -> TextMemory:
        """Read every text; the null branch is the empty one."""
        return self._texts.read(prompts, null="", device=self.module.device)

    def logits(
        self,
        tokens: Tensor,
        condition: Condition,
        step: StepIndex,
        guidance: Tensor,
        positions: Tensor | None = None,
    ) -> Tensor:
        """See :class:`MaskedGenerator`; aMUSEd does not take the time. Published: u + g (c - u), which is w = g - 1."""
        assert isinstance(condition, TextMemory)
        if not guidance.any():
            return _packed(self._predict(tokens, condition), positions)
        both = self._predict(torch.cat([tokens, tokens]), condition.with_null())
        conditional, unconditional = (_packed(half, positions) for half in both.chunk(2))
        return guided(conditional, unconditional, guidance, positions)

    def _predict(self, tokens: Tensor, condition: TextMemory) -> Tensor:
        """Run the network: Long [B, N] -> Float [B, N, V]."""
        assert self.spec.grid is not None
        height, width = self.spec.image_size
        about = torch.tensor(
            [width, height, 0, 0, self.config.aesthetic], device=tokens.device
        )  # crop at 0, 0
        memory, pooled = condition.of_rows
        planes: Tensor = self.module(
            tokens.unflatten(1, self.spec.grid),
            encoder_hidden_states=memory,
            pooled_text_emb=pooled,
            micro_conds=about.expand(len(tokens), -1),
        )
        return planes.flatten(2).transpose(1, 2)

    @torch.no_grad()
    def decode(self, tokens: Tensor, condition: Condition) -> Tensor:
        """Long [B, N] -> Float [B, 3, H, W] in [0, 1]."""
        assert self.spec.grid is not None
        codes = tokens.unflatten(1, self.spec.grid)
        shape = (*codes.shape, self._vqvae.config.latent_channels)
        painted: Tensor = self._vqvae.decode(codes, force_not_quantize=True, shape=shape).sample
        return painted.clip(0, 1).float()

    def blocks(self) -> Sequence[tuple[nn.Module, str]]:
        """The layers of the transformer; the convolutions are gathered for the length of a call."""
        return [(layer, "forward") for layer in self.module.transformer_layers]

    def checkpoint_activations(self) -> None:
        """Of every layer of the transformer and of both blocks of convolutions only the input is kept."""
        recompute_all(self.module)

    @classmethod
    def saved_settings(cls, folder: str) -> dict[str, str | None]:
        """See :class:`MaskedGenerator`: the transformer is what is trained; the rest stays where the checkpoint is."""
        return {"transformer": folder}

    def save(self, folder: str) -> None:
        """Write the transformer in diffusers' layout, to take the place of a published ``transformer/``."""
        save_transformer(self.module, folder)


def _packed(logits: Tensor, positions: Tensor | None) -> Tensor:
    return logits if positions is None else logits[positions]


def make_spec(transformer: Any, vqvae: Any) -> GeneratorSpec:
    """Say what the algorithm must know, from the two configs; the mask is the last id of the vocabulary."""
    side, downsampling = transformer.sample_size, 2 ** (len(vqvae.block_out_channels) - 1)
    return GeneratorSpec(
        num_tokens=side * side,
        num_codes=transformer.codebook_size,
        mask_id=transformer.vocab_size - 1,
        grid=(side, side),
        image_size=(side * downsampling, side * downsampling),
        sampler=SamplerDefaults(num_steps=12, temperature_rule="linear", tau_init=2.0, guidance=9.0),
        lora_targets=("to_q", "to_k", "to_v"),
    )
