"""UnifiedReward: a language model looks at a picture, lists what the prompt asks for, and writes down a score.

Source: Wang et al. 2025 (arXiv 2503.05236) and CodeGoat24/UnifiedReward at ff6f520,
``inference_qwen/image_generation/qwen_point_score_image_generation.py``. How we differ: pictures come from memory,
rounded to 8 bits; decoding is greedy, there it draws with whatever temperature the weights' folder names; an answer
that ran out of room or holds no score is an error.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from maskrl.component import ComponentConfig
from maskrl.errors import RecipeError, quote
from maskrl.interfaces import RewardModel
from maskrl.types import Prompt
from maskrl_unified_reward.loading import load_network, load_processor
from maskrl_unified_reward.pictures import prepare
from maskrl_unified_reward.question import ask, read_score


class UnifiedReward(RewardModel):
    """The score from 1 to 5 that a Qwen2.5-VL writes below its answer about a picture and its prompt."""

    class Config(ComponentConfig):
        """Which weights, and how many pictures at a time.

        ``model`` is a Qwen2.5-VL in transformers' layout: a hub id or a folder. ``dtype`` is that of its weights and of
        what it computes. ``batch``: so many pictures of one prompt are asked about together; with 1 no answer depends
        on the other pictures, with more than 1 rounding may turn one.
        """

        model: str = "CodeGoat24/UnifiedReward-qwen-7b"
        dtype: Literal["bf16", "fp32"] = "bf16"
        batch: int = Field(default=1, ge=1)

    paths = ("model",)

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._network = load_network(
            config.model, torch.bfloat16 if config.dtype == "bf16" else torch.float32
        )
        self._processor = load_processor(config.model, self._network.config)
        self.modules = (self._network,)

    def check(self, prompts: Sequence[Prompt]) -> None:
        """See that no prompt holds what the model takes for a picture, or for the end of what it is told.

        Raises:
            RecipeError: one does.
        """
        marks = [mark.content for mark in self._processor.tokenizer.added_tokens_decoder.values()]
        for prompt in prompts:
            for mark in marks:
                if mark in prompt.text:
                    raise RecipeError(
                        f"UnifiedReward cannot read {quote(prompt.text)}: {mark!r} is a mark of its own; leave it out"
                    )

    @torch.no_grad()
    def score(self, images: Tensor, prompts: Sequence[Prompt]) -> Tensor:
        """Float [B, 3, H, W] in [0, 1] and B prompts -> Float [B] in [1, 5], fp32.

        Raises:
            TrainingError: an answer has no score; the message has prompt and answer.
        """
        scores = torch.empty(len(prompts))
        for places in by_text([prompt.text for prompt in prompts], self.config.batch):
            text = prompts[places[0]].text
            for i, answer in zip(places, self._answer(images[places], text), strict=True):
                scores[i] = read_score(answer, text)
        return scores.to(images.device)

    def _answer(self, images: Tensor, text: str) -> list[str | None]:
        """Float [N, 3, H, W] and their prompt -> N answers, greedily; None for one that was not brought to an end.

        Pictures of one size and prompt are equally many tokens, so nothing is filled up.
        """
        device = next(self._network.parameters()).device
        asked = ask(self._processor, text)
        inputs: Any = self._processor(text=[asked] * len(images), images=prepare(images), return_tensors="pt")
        with torch.autocast(device.type, enabled=False):
            written = self._network.generate(**inputs.to(device))[:, inputs["input_ids"].shape[1] :]
        ends = torch.tensor(self._network.generation_config.eos_token_id, device=written.device)
        ended = torch.isin(written, ends).any(dim=1).tolist()
        answers = self._processor.batch_decode(written, skip_special_tokens=True)
        return [answer if end else None for answer, end in zip(answers, ended, strict=True)]


def by_text(texts: Sequence[str], most: int) -> list[list[int]]:
    """Return the places of equal texts, at most ``most`` in a list."""
    places: dict[str, list[int]] = defaultdict(list)
    for i, text in enumerate(texts):
        places[text].append(i)
    return [equal[i : i + most] for equal in places.values() for i in range(0, len(equal), most)]
