"""Meissonic as a masked generator: the transformer is ours, the image tokenizer diffusers', the text encoder CLIP's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from maskrl.clip_text import ClipReader, TextMemory
from maskrl.component import ComponentConfig
from maskrl.counting import measure
from maskrl.errors import RecipeError
from maskrl.grpo.guidance import guided
from maskrl.interfaces import Condition, MaskedGenerator
from maskrl.types import Cost, GeneratorSpec, Prompt, SamplerDefaults, StepIndex
from maskrl_meissonic.checkpoint import load, save_transformer
from maskrl_meissonic.cost import counted, unfilled
from maskrl_meissonic.network import Sizes, Transformer

TARGETS = ("to_q", "to_k", "to_v", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")


class Meissonic(MaskedGenerator):
    """A transformer that sees text and image side by side, and is told how many steps are left."""

    class Config(ComponentConfig):
        """Where the weights are: hub ids, or folders in diffusers' layout.

        ``transformer`` is a folder with the transformer alone, in the place of the checkpoint's: what training saves.
        ``text_encoder`` is another text encoder than the checkpoint's own. ``resolution`` is the side of an image in
        pixels: 1024, or 512 for ``Collov-Labs/Monetico``. ``negative_prompt`` is the text that guidance leads away
        from. ``aesthetic`` is the score that the network is told of its own image (6, as published).
        """

        checkpoint: str = "MeissonFlow/Meissonic"
        transformer: str | None = None
        text_encoder: str | None = None
        resolution: int = Field(default=1024, gt=0)
        negative_prompt: str = ""
        aesthetic: float = 6.0

    paths = ("checkpoint", "transformer", "text_encoder")
    module: Transformer

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        parts = load(config.checkpoint, config.transformer, config.text_encoder)
        self.module, self._settings = parts.transformer, parts.settings
        self._vqvae = parts.vqvae
        self.frozen = (parts.text_encoder, parts.vqvae)
        self.spec = make_spec(config.resolution, self.module.sizes, parts.vqvae.config)
        self._texts = ClipReader("Meissonic", parts.tokenizer, parts.text_encoder)

    @classmethod
    def cost(cls, config: Config, *, text_tokens: int) -> Cost:
        """See :class:`MaskedGenerator`; the published sizes are known without fetching them. Every text is padded."""
        parts = unfilled(config.checkpoint, config.transformer, config.text_encoder)
        spec = make_spec(config.resolution, parts.transformer.sizes, parts.vqvae.config)
        return measure(counted(parts, spec))

    def encode(self, prompts: Sequence[Prompt]) -> TextMemory:
        """Read every text; the null branch is the negative prompt."""
        device = self.module.context_embedder.weight.device
        return self._texts.read(prompts, self.config.negative_prompt, device)

    def logits(
        self,
        tokens: Tensor,
        condition: Condition,
        step: StepIndex,
        guidance: Tensor,
        positions: Tensor | None = None,
    ) -> Tensor:
        """See :class:`MaskedGenerator`. Published: u + g (c - u), which is w = g - 1."""
        assert isinstance(condition, TextMemory)
        left = step.num_steps - 1 - step.t
        if not guidance.any():
            return self._predict(tokens, condition, left, positions)
        twice = None if positions is None else torch.cat([positions, positions])
        both = self._predict(
            torch.cat([tokens, tokens]), condition.with_null(), torch.cat([left, left]), twice
        )
        conditional, unconditional = both.chunk(2)
        return guided(conditional, unconditional, guidance, positions)

    def _predict(
        self, tokens: Tensor, condition: TextMemory, left: Tensor, positions: Tensor | None
    ) -> Tensor:
        """Run the network: Long [B, N] and steps left, Long [B] -> Float [B, N, V], or [M, V] at positions."""
        assert self.spec.grid is not None
        height, width = self.spec.image_size
        about = [width, height, 0, 0, self.config.aesthetic]  # cropped nowhere
        predicted: Tensor = self.module(
            tokens.unflatten(1, self.spec.grid),
            *condition.of_rows,
            torch.tensor(about, device=tokens.device).expand(len(tokens), -1),
            left.to(tokens.device, torch.float32),
            positions,
        )
        return predicted

    @torch.no_grad()
    def decode(self, tokens: Tensor, condition: Condition) -> Tensor:
        """Long [B, N] -> Float [B, 3, H, W] in [0, 1]."""
        assert self.spec.grid is not None
        codes = tokens.unflatten(1, self.spec.grid)
        shape = (*codes.shape, self._vqvae.config.latent_channels)
        painted: Tensor = self._vqvae.decode(codes, force_not_quantize=True, shape=shape).sample
        return painted.clip(0, 1).float()

    def checkpoint_activations(self) -> None:
        """Of every block only the input is kept."""
        self.module.checkpoint_activations()

    @classmethod
    def saved_settings(cls, folder: str) -> dict[str, str | None]:
        """See :class:`MaskedGenerator`: the transformer is what is trained; the rest stays where the checkpoint is."""
        return {"transformer": folder}

    def save(self, folder: str) -> None:
        """Write the transformer in diffusers' layout, to take the place of a published ``transformer/``."""
        save_transformer(self.module, self._settings, Path(folder))


def make_spec(resolution: int, sizes: Sizes, vqvae: Any) -> GeneratorSpec:
    """Say what the algorithm must know; the mask is the last id of the vocabulary.

    Raises:
        RecipeError: images of this resolution have no whole number of positions.
    """
    downsampling = 2 ** (len(vqvae.block_out_channels) - 1)
    if resolution % (downsampling * sizes.halving):
        raise RecipeError(
            f"generator.resolution = {resolution}, and a position of this checkpoint is"
            f" {downsampling * sizes.halving} pixels wide: choose a multiple of that"
        )
    side = resolution // downsampling
    return GeneratorSpec(
        num_tokens=side * side,
        num_codes=sizes.codebook_size,
        mask_id=sizes.vocab_size - 1,
        grid=(side, side),
        image_size=(resolution, resolution),
        sampler=SamplerDefaults(
            num_steps=min(48, side * side), temperature_rule="linear", tau_init=2.0, guidance=8.0
        ),
        lora_targets=TARGETS,
    )
