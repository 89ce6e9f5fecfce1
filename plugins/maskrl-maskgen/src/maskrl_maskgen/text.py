"""The text half of a CLIP, as MaskGen and TA-TiTok read it: through open_clip, padded with 0."""

from __future__ import annotations

from typing import Any

import open_clip
from torch import Tensor

from maskrl.clip import load_clip
from maskrl.cut_prompts import CutPrompts
from maskrl.errors import RecipeError


class TextReader:
    """Reads a text at a time, without gradient to keep; ``network`` is frozen, and has no image half."""

    def __init__(self, model: str, pretrained: str | None, width: int, length: int) -> None:
        """Load a CLIP.

        Args:
            model: an architecture or a folder, as ``maskrl.clip.load_clip`` takes it.
            pretrained: a tag or a file of weights.
            width: D, of its layers and of its vector for a whole text.
            length: P, tokens of a text.

        Raises:
            RecipeError: it cannot be loaded, or is not of these sizes.
        """
        network, self._tokenizer = load_clip(model, pretrained)
        if not isinstance(network, open_clip.CLIP):
            raise RecipeError(
                f"text_model = {model!r} is another architecture than CLIP's; MaskGen's is ViT-L-14-336"
            )
        del network.visual
        self.network: Any = network
        found = (*network.text_projection.shape, network.context_length)
        if found != (width, width, length):
            raise RecipeError(
                f"text_model = {model!r} has layers of {found[0]}, vectors of {found[1]} and texts of {found[2]}"
                f" tokens; this checkpoint reads {width}, {width} and {length}"
            )
        self._cut = CutPrompts("MaskGen", length)

    def tell_cut(self, texts: list[str]) -> None:
        """Warn, once, of the first text that is too long."""
        most = self.network.context_length
        self._cut.tell(
            [text for text in texts if len(self._tokenizer.encode(text)) + 2 > most]
        )  # start and end

    def read(self, text: str) -> tuple[Tensor, Tensor, Tensor]:
        """Read a text.

        Returns:
            Float [1, P, D] of the last layer but one, without a norm; Float [1, P, D] of the last, normed; Float [1, D]
            of the whole text.
        """
        clip = self.network
        ids = self._tokenizer([text]).to(clip.positional_embedding.device)
        hidden = clip.token_embedding(ids) + clip.positional_embedding
        *early, last = clip.transformer.resblocks
        for block in early:
            hidden = block(hidden, attn_mask=clip.attn_mask)
        final = clip.ln_final(last(hidden, attn_mask=clip.attn_mask))
        end = ids.argmax(dim=1)  # the end of a text has the highest id
        return hidden, final, final[:, int(end)] @ clip.text_projection
