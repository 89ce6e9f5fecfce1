"""A reward that is served: built, placed, and asked one request at a time."""

from __future__ import annotations

import json
from collections.abc import Sequence

import torch

from maskrl import __version__
from maskrl.asking import asking
from maskrl.component import Chosen
from maskrl.errors import RecipeError
from maskrl.grpo import answers
from maskrl.grpo.reward_scorer import check_finite
from maskrl.identity import identity
from maskrl.interfaces import RewardModel
from maskrl.rewards.remote_images import unpack
from maskrl.rewards.remote_messages import AskedPrompt, Checked, Judge, Question, Scores, fingerprint
from maskrl.runtime.placement import Placement
from maskrl.types import Prompt


class ServedReward:
    """A reward and its device. ``judge`` says who it is."""

    def __init__(self, chosen: Chosen[RewardModel], device: str, max_request: int) -> None:
        """Build it.

        Args:
            chosen: the section of a recipe.
            device: auto, cpu or cuda.
            max_request: bytes of the largest request, and of its images as fp32.

        Raises:
            RecipeError: a setting is wrong, or there is no such device.
            PluginError: the reward does not load.
        """
        told = identity(
            chosen
        )  # before the weights are read: should they be replaced, the run is told, not fooled
        placement = Placement(device)
        self._reward, self._device = chosen.build(), placement.device
        placement.place_frozen(self._reward.modules)
        self._name, self._max_request = chosen.name, max_request
        with asking(self._reward):
            weights = self._reward.term_weights()
        self.judge = Judge(
            reward=chosen.name,
            version=__version__,
            judge=fingerprint(told),
            identity=json.loads(json.dumps(told)),
            term_weights=None
            if weights is None
            else {name: float(weight) for name, weight in weights.items()},
            max_request=max_request,
        )

    def check(self, prompts: Sequence[AskedPrompt]) -> Checked:
        """Let the reward look at the prompts of a run.

        Raises:
            MaskRLError: it cannot judge them.
        """
        with asking(self._reward):
            self._reward.check(_read(prompts))
        return Checked(judge=self.judge.judge)

    @torch.no_grad()
    def score(self, question: Question) -> Scores:
        """Score images, as a run would that has this reward itself.

        Raises:
            RecipeError: the images cannot be read, or there is not one for each prompt.
            MaskRLError: the reward fails, or a score is not finite.
        """
        prompts = _read(question.prompts)
        images = unpack(question.images, self._max_request).to(self._device)
        if len(images) != len(prompts):
            raise RecipeError(
                f"there are {len(images)} images and {len(prompts)} prompts; each image has one"
            )
        scores, terms = answers.score_terms(self._reward, images, prompts)
        for name, column in ((self._name, scores), *terms.items()):
            check_finite(name, column, prompts, "where it is served")
        columns = {name: column.tolist() for name, column in terms.items()}
        return Scores(judge=self.judge.judge, scores=scores.tolist(), terms=columns)


def _read(prompts: Sequence[AskedPrompt]) -> list[Prompt]:
    return [Prompt(prompt.text, prompt.metadata) for prompt in prompts]
