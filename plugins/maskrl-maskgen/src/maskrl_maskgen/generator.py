"""MaskGen-VQ as a masked generator: 128 codes in a row, whose order means nothing to the eye.

Source: Kim et al. 2025 (arXiv 2501.07730); published as ``turkeyju/generator_maskgen_vq_l`` and ``_xl``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from maskrl.component import ComponentConfig
from maskrl.counting import measure
from maskrl.errors import RecipeError
from maskrl.grpo.guidance import guided
from maskrl.interfaces import Condition, MaskedGenerator
from maskrl.types import Cost, GeneratorSpec, Prompt, SamplerDefaults, StepIndex
from maskrl_maskgen.checkpoint import load_generator, load_tokenizer, save_generator
from maskrl_maskgen.cost import counted, sizes_of
from maskrl_maskgen.network import MaskGenNetwork
from maskrl_maskgen.sizes import GeneratorModel, TokenizerFile
from maskrl_maskgen.text import TextReader


@dataclass(frozen=True)
class MaskGenCondition(Condition):
    """What the text encoder says of U texts, the last of which is the empty one, the null branch.

    Attributes:
        memory: Float [U, P, D], its last layer but one: the network attends to it.
        final: Float [U, P, D], its last layer: the decoder paints by it.
        pooled: Float [U, D], a vector for the whole text.
        rows: Long [B] in [0, U).
    """

    memory: Tensor
    final: Tensor
    pooled: Tensor
    rows: Tensor

    def select(self, rows: Tensor) -> MaskGenCondition:
        """Long [K] -> a condition of K rows."""
        return replace(self, rows=self.rows[rows.to(self.rows.device)])


class MaskGen(MaskedGenerator):
    """Codes and text in two streams that attend to each other; a decoder that paints codes and reads the text again."""

    class Config(ComponentConfig):
        """Where the weights are: hub ids, or folders in the published layout.

        ``text_model`` and ``text_pretrained`` name a CLIP as open_clip does: an architecture and a tag or file; or a
        folder. ``aesthetic`` is the score that the network is told of its own images; None: the checkpoint's (6.5).
        """

        checkpoint: str = "turkeyju/generator_maskgen_vq_l"
        tokenizer: str = "turkeyju/tokenizer_tatitok_bl128_vq"
        text_model: str = "ViT-L-14-336"
        text_pretrained: str | None = "openai"
        aesthetic: float | None = None

    paths = ("checkpoint", "tokenizer", "text_model", "text_pretrained")
    module: MaskGenNetwork

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.module, sizes, self._settings = load_generator(config.checkpoint)
        self._tatitok, tokenizer = load_tokenizer(config.tokenizer)
        self._text = TextReader(
            config.text_model,
            config.text_pretrained,
            sizes.vq_model.text_embed_dim,
            tokenizer.model.vq_model.text_context_length,
        )
        self.frozen = (self._text.network, self._tatitok)
        self.spec = make_spec(sizes, tokenizer)
        own = sizes.maskgen.sample_aesthetic_score
        self._aesthetic: float = own if config.aesthetic is None else config.aesthetic

    @classmethod
    def cost(cls, config: Config, *, text_tokens: int) -> Cost:
        """See :class:`MaskedGenerator`; the published sizes are known without fetching them. Every text is padded."""
        sizes, tokenizer = sizes_of(config.checkpoint, config.tokenizer)
        return measure(counted(sizes, tokenizer, config.text_model, make_spec(sizes, tokenizer)))

    @torch.no_grad()
    def encode(self, prompts: Sequence[Prompt]) -> MaskGenCondition:
        """Read every text by itself; one that is too long is cut, and the first that is gets named."""
        texts = [*(prompt.text for prompt in prompts), ""]
        self._text.tell_cut(texts)
        device = self.module.pos_embed.device
        memory, final, pooled = (
            torch.cat(parts).to(device) for parts in zip(*map(self._text.read, texts), strict=True)
        )
        return MaskGenCondition(memory, final, pooled, torch.arange(len(prompts), device=device))

    def logits(
        self,
        tokens: Tensor,
        condition: Condition,
        step: StepIndex,
        guidance: Tensor,
        positions: Tensor | None = None,
    ) -> Tensor:
        """See :class:`MaskedGenerator`; MaskGen does not take the time."""
        assert isinstance(condition, MaskGenCondition)
        if not guidance.any():
            return self._predict(tokens, condition, condition.rows, positions)
        rows = torch.cat([condition.rows, torch.full_like(condition.rows, len(condition.pooled) - 1)])
        twice = None if positions is None else torch.cat([positions, positions])
        both = self._predict(torch.cat([tokens, tokens]), condition, rows, twice)
        conditional, unconditional = both.chunk(2)
        return guided(conditional, unconditional, guidance, positions)

    def _predict(
        self, tokens: Tensor, condition: MaskGenCondition, rows: Tensor, positions: Tensor | None
    ) -> Tensor:
        """Run the network on Long [B, N] and the text of each row."""
        found: Tensor = self.module(
            tokens, condition.memory[rows], condition.pooled[rows], self._aesthetic, positions
        )
        return found

    @torch.no_grad()
    def decode(self, tokens: Tensor, condition: Condition) -> Tensor:
        """Long [B, N] and the texts -> Float [B, 3, H, W] in [0, 1]."""
        assert isinstance(condition, MaskGenCondition)
        painted: Tensor = self._tatitok(tokens, condition.final[condition.rows])
        return painted.float().clamp(0, 1)

    def save(self, folder: str) -> None:
        """Write the network in the published layout, to be loaded by ``checkpoint``."""
        save_generator(self.module, self._settings, folder)

    def checkpoint_activations(self) -> None:
        """Compute the activations of the blocks again in the backward pass."""
        self.module.checkpoint_activations()


def make_spec(sizes: GeneratorModel, tokenizer: TokenizerFile) -> GeneratorSpec:
    """Say what the algorithm must know; the sampler is the published one.

    Its score is the guided logit over 0.5 + 0.8 (1 - r), with noise of temperature 2 (1 - r): as an order, the logit
    with noise of the temperature that its proposals have.

    Raises:
        RecipeError: generator and tokenizer are not of the same codes.
    """
    codes, painted = sizes.vq_model, tokenizer.model.vq_model
    mine, theirs = ((vq.num_latent_tokens, vq.codebook_size, vq.text_embed_dim) for vq in (codes, painted))
    if mine != theirs:
        raise RecipeError(
            f"the generator makes {mine[0]} of {mine[1]} codes, from texts of {mine[2]}, and the tokenizer paints"
            f" {theirs[0]} of {theirs[1]}, with texts of {theirs[2]}: they do not belong together"
        )
    side = tokenizer.dataset.preprocessing.crop_size
    return GeneratorSpec(
        num_tokens=codes.num_latent_tokens,
        num_codes=codes.codebook_size,
        mask_id=codes.codebook_size,
        grid=None,
        image_size=(side, side),
        sampler=SamplerDefaults(
            num_steps=16,
            schedule=sizes.maskgen.mask_schedule_strategy,
            score="logit",
            temperature_rule="maskgen",
            tau_init=2.0,
            value_temperature_rule="maskgen",
            value_temperature=2.0,
            guidance=12.0,
            guidance_rule="cosine",
        ),
        lora_targets=("to_q", "to_k", "to_v"),
    )
