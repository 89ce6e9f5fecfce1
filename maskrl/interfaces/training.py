"""What an update is made of beside the generator: transition probability, reward, filter, reducer."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from maskrl.component import Component
from maskrl.errors import RecipeError
from maskrl.types import Prompt, Stream, Trajectory, Transition


class TransitionProb(Component):
    """The probability of one unmasking step. Sees logits and a recorded step, never a model.

    ``needs_sets`` asks the rollout to record :attr:`maskrl.types.Transition.sets`, N * V / 8 bytes an image and step.
    ``continuous`` says whether ``log_prob`` is, in the logits: where it jumps, a second pass over a batch
    (``grpo.num_updates``) has ratios far from 1, and in bf16 nothing but.
    ``needs_log_prob`` says whether its formula takes for granted that the proposals of the highest log p are revealed.
    ``needs_remasked`` says whether ``log_prob`` looks at the positions that stay masked: where it does not, a loss
    without a KL term asks for the logits of the revealed ones alone, and ``pack``, ``unpack`` and ``sum_rows`` of the
    transition go by those.
    """

    needs_sets: bool = False
    continuous: bool = True
    needs_log_prob: bool = False
    needs_remasked: bool = True

    @classmethod
    def scratch(cls, logits: int) -> float:
        """Return the bytes that scoring one row takes beside its log-softmax; by default none.

        Args:
            logits: how many there are at the positions that stay masked.
        """
        return 0.0

    @abstractmethod
    def log_prob(self, logits: Tensor, transition: Transition) -> Tensor:
        """Score B transitions.

        Args:
            logits: Float [M, V] at the positions ``transition.packed``, row by row: the masked ones, or of those the
                revealed ones alone (``needs_remasked``); a network that computes
                in bf16 hands out bf16, of which sums are nats off: take ``grpo.confidence.log_softmax``, which is fp32.
            transition: what happened.

        Returns:
            Float [B], fp32 (fp64 for fp64 logits), nats, finite, at most 0, differentiable in the logits.
        """

    def scored(self, trajectory: Trajectory, stream: Stream) -> Trajectory:
        """Return the transitions to score: the recorded ones, unless an estimator makes its own of the same images."""
        return trajectory


class RewardModel(Component):
    """Judges finished images. ``modules`` lists all its networks, so that placement can move them."""

    modules: Sequence[nn.Module] = ()
    attributes = {"modules": [nn.Module]}  # noqa: RUF012  # declared in Component

    @classmethod
    def cost(cls, config: Any) -> tuple[int, float]:
        """Return the parameters of the ``modules`` of a reward of these settings, and one image's FLOPs; loads nothing.

        Raises:
            RecipeError: this reward does not know.
        """
        raise RecipeError(f"{cls.__name__} does not say what it costs: it has no cost()")

    def check(self, prompts: Sequence[Prompt]) -> None:
        """Look at all prompts of a run before it begins; by default every prompt will do.

        Raises:
            RecipeError: one cannot be judged.
            TrainingError: this reward does not work here and now.
        """

    @abstractmethod
    def score(self, images: Tensor, prompts: Sequence[Prompt]) -> Tensor:
        """Float [B, 3, H, W] in [0, 1] and B prompts -> Float [B], fp32; larger is better. No gradient."""

    def score_terms(self, images: Tensor, prompts: Sequence[Prompt]) -> tuple[Tensor, dict[str, Tensor]]:
        """Score, and say what the scores are made of, by name, for the metrics: by default of one piece.

        Returns:
            Float [B], those of ``score``, and any number of Float [B]; every call has the same names, of letters,
            digits, ``_`` and ``-``.
        """
        return self.score(images, prompts), {}

    def term_weights(self) -> Mapping[str, float] | None:
        """Say what each term of :meth:`score_terms` counts once it is standardised within its group, by its name.

        It is asked where a recipe says ``grpo.advantage_of = "terms"``. None, the default: 1 each, if the terms add up
        to the score; if they do not, such a recipe is refused.
        """
        return None


class GroupFilter(Component):
    """Decides which groups teach, by the scores of their images alone, not by terms; the others are resampled."""

    @abstractmethod
    def keep(self, rewards: Tensor) -> Tensor:
        """Judge one round: Float [P, G], all processes' groups in slot order, untested ones only -> Bool [P]."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Return plain numbers, strings and lists: they are saved as JSON."""

    @abstractmethod
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a saved state, as the filter that was saved would have gone on."""

    @abstractmethod
    def metrics(self) -> dict[str, float]:
        """What this filter wants logged after the latest round: finite, by names that begin with ``filter_``."""


class StepReducer(Component):
    """Decides how many steps the training rollout takes, and which of them enter the loss."""

    @abstractmethod
    def rollout_steps(self, num_steps: int) -> int:
        """``grpo.num_steps`` -> T of the training rollout, at most ``num_steps``."""

    @abstractmethod
    def train_steps(self, rollout_steps: int, stream: Stream) -> tuple[Tensor, Tensor]:
        """T -> (Long [k], Float [k]): the steps that enter the loss, each once, and the weight of each.

        Weights are >= 0 and sum to 1, as 1/T over T steps does: nothing divides by T or k later, so that another sum
        would be another learning rate.
        """

    def train_steps_by(self, change: Tensor, stream: Stream) -> tuple[Tensor, Tensor]:
        """Choose the steps that teach, knowing what was painted; by default as :meth:`train_steps` does.

        Args:
            change: Float [T], on the CPU, in [0, 1]: the share of codes in which the picture that a step proposes
                differs from what the step before proposed (0 at the first step), the mean over the images of all
                processes.
            stream: as :meth:`train_steps` gets it.

        Returns:
            What :meth:`train_steps` returns.
        """
        return self.train_steps(len(change), stream)
