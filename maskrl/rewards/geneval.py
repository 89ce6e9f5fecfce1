"""GenEval as a reward: an exact judge in place of a similarity, for prompts that say what can be checked.

Source: the scoring of Ghosh et al. 2023 (arXiv 2310.11513), and its partial credit in Flow-GRPO (arXiv 2505.05470).
Images are judged as they are, after rounding to 8 bits: there they pass through JPEG, and the detector sees red and
blue exchanged. Never train on the prompts that evaluate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Annotated, Any, Literal

import torch
from torch import Tensor

from maskrl import pixels
from maskrl.asking import asking
from maskrl.component import Chosen, ComponentConfig, named
from maskrl.geneval import answers
from maskrl.geneval.credit import FLOW_GRPO, PARTIAL, credit
from maskrl.geneval.metadata import check_prompts, read_metadata
from maskrl.geneval.scoring import judge, select
from maskrl.interfaces import Detector, RewardModel
from maskrl.types import Prompt


class GenEval(RewardModel):
    """What a detector finds, judged by GenEval's rules."""

    class Config(ComponentConfig):
        """Who judges, and how.

        ``detector`` is a detector's name, or a section with its settings. ``mode``:

        - official: 1 if the image is correct by the official rules, else 0;
        - strict: 1 if every number is met exactly, and every colour and relation with it, else 0;
        - partial: the mean over what a prompt asks, in [0, 1], 1 where strict is;
        - flow_grpo: as Flow-GRPO computes it, at most 1 and unbounded below; for comparison.
        """

        detector: Annotated[Chosen[Detector], *named("detectors")]
        mode: Literal["official", "strict", "partial", "flow_grpo"] = "partial"

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._detector = config.detector.build()
        self.modules = self._detector.modules
        self._mode = config.mode
        self._is_tested = False

    def check(self, prompts: Sequence[Prompt]) -> None:
        """See that every prompt has GenEval's metadata and asks for what the detector knows, and test the detector."""
        check_prompts(prompts, self._detector)
        self._test()

    @torch.no_grad()
    def score(self, images: Tensor, prompts: Sequence[Prompt]) -> Tensor:
        """Float [B, 3, H, W] in [0, 1] and B prompts with GenEval's metadata -> Float [B].

        Raises:
            RecipeError: a prompt has no such metadata, or asks for what the detector does not know.
            TrainingError: the detector fails its self-test, which comes before the first image.
        """
        if not self._is_tested:
            self._test()
        check_prompts(list({id(prompt): prompt for prompt in prompts}.values()), self._detector)
        rounded = pixels.rounded(images)
        scores = [self._score(image, read_metadata(p)) for image, p in zip(rounded, prompts, strict=True)]
        return torch.tensor(scores, dtype=torch.float32, device=images.device)

    def _test(self) -> None:
        with asking(self._detector):
            self._detector.self_test()
        self._is_tested = True

    def _score(self, image: Tensor, metadata: Mapping[str, Any]) -> float:
        objects = select(answers.detect(self._detector, image), metadata["tag"])
        color = partial(answers.color, self._detector)
        if self._mode == "official":
            return float(judge(image, objects, metadata, color)[0])
        rule = FLOW_GRPO if self._mode == "flow_grpo" else PARTIAL
        strict, score = credit(image, objects, metadata, color, rule)
        return float(strict) if self._mode == "strict" else score
