"""The six interfaces that a recipe names, and two small ones: detectors and prompt sets.

A concrete class is final: component -> interface -> class, and nothing implemented here is overridden. To vary
one, wrap it.

What holds of all: equal input gives equal output, with no noise but a given stream's; what is handed in stays as it
is; one row, image or prompt is told nothing of the others. ``maskrl.testing`` checks these promises and those that
stand at the methods.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from maskrl.component import Component
from maskrl.errors import RecipeError
from maskrl.interfaces.evaluation import (
    DistributionEvaluation,
    Evaluation,
    ImageEvaluation,
    Number,
    Published,
    Row,
)
from maskrl.types import Cost, GeneratorSpec, Prompt, StepIndex, Stream, Trajectory, Transition

__all__ = [
    "Condition",
    "Detection",
    "Detector",
    "DistributionEvaluation",
    "Evaluation",
    "GroupFilter",
    "ImageEvaluation",
    "MaskedGenerator",
    "Number",
    "PromptSet",
    "Published",
    "RewardModel",
    "Row",
    "StepReducer",
    "TransitionProb",
]


class Condition(ABC):
    """What a generator knows of its prompts: made once per unique prompt, indexable along B."""

    @abstractmethod
    def select(self, rows: Tensor) -> Self:
        """Pick or repeat prompts: Long [K] in [0, B) -> a condition of K rows."""


class MaskedGenerator(Component):
    """A network that fills masked tokens, and the tokenizer that turns tokens into pixels.

    Attributes:
        module: the network that training updates; in ``eval()`` mode always (dropout would falsify the ratio).
        frozen: every other network, in ``eval()`` mode, never trained (an image tokenizer's decoder, a text encoder).
        spec: what the algorithm must know.
    """

    module: nn.Module
    frozen: Sequence[nn.Module]
    spec: GeneratorSpec
    attributes = {  # noqa: RUF012  # declared in Component
        "module": nn.Module,
        "frozen": [nn.Module],
        "spec": GeneratorSpec,
        "spec.num_tokens": Integral,
        "spec.num_codes": Integral,
        "spec.mask_id": Integral,
        "spec.sampler.num_steps": Integral,
    }

    precision: str = "fp32"  # that the network computes in; a wrapper may change it

    @classmethod
    def cost(cls, config: Any, *, text_tokens: int) -> Cost:
        """Say what a generator of these settings costs, without loading its weights: the parameters are its networks'.

        Args:
            config: as the generator would get it.
            text_tokens: length of a text, as the network counts it.

        Raises:
            RecipeError: this generator does not know.
        """
        raise RecipeError(f"{cls.__name__} does not say what it costs: it has no cost()")

    @abstractmethod
    def encode(self, prompts: Sequence[Prompt]) -> Condition:
        """Prepare B prompts, once per unique prompt: tokens or text memory, the null branch, what ``decode`` needs.

        A row is the same whatever the other prompts and their lengths, and holds nothing that changes with ``module``.
        """

    def prefill(self, condition: Condition) -> Condition:
        """Compute once what depends on the prompts and the weights alone, for a rollout; by default nothing.

        No gradient. The result, a condition of its own, gives the same logits; it is good as long as no weight changes,
        and asking again costs nothing.
        """
        return condition

    @abstractmethod
    def logits(
        self,
        tokens: Tensor,
        condition: Condition,
        step: StepIndex,
        guidance: Tensor,
        positions: Tensor | None = None,
    ) -> Tensor:
        """Predict the codes, after guidance; differentiable in the parameters of ``module``.

        Args:
            tokens: Long [B, N], codes or ``spec.mask_id``.
            condition: of B rows.
            step: the step of each row: some networks take the time.
            guidance: Float [B], fp64: w of each row in (1 + w) * cond - w * uncond, which no text enters; where all
                are 0, the conditional branch runs alone. ``grpo.guidance.guided`` adds it.
            positions: Bool [B, N], the positions wanted.

        Returns:
            Float [B, N, V], or Float [M, V] for the M wanted positions, packed row by row; bf16 where the network
            computes in it and nothing was added to what came out.

        Raises:
            RecipeError: this generator has no guidance (its sampler's default is then 0), or takes no such T.
        """

    def confidence(self, logits: Tensor, proposals: Tensor, step: StepIndex) -> Tensor:
        """Say how good proposals are, for ``sampling.score`` = "generator": the best positions are revealed.

        Args:
            logits: Float [M, V], after guidance.
            proposals: Long [M], a code each.
            step: the step of each of the M.

        Returns:
            Float [M]; Gumbel noise of the step's temperature is added.

        Raises:
            RecipeError: this generator has no score but log p.
        """
        raise RecipeError(
            f'sampling.score = "generator", but {type(self).__name__} has no confidence(): choose "log_prob"'
        )

    @abstractmethod
    def decode(self, tokens: Tensor, condition: Condition) -> Tensor:
        """Paint: Long [B, N] of codes -> Float [B, 3, H, W] in [0, 1], fp32. No gradient."""

    @abstractmethod
    def save(self, folder: str) -> None:
        """Make a folder and write the network into it as trained, in the layout that ``Config`` loads, nothing else."""

    @classmethod
    def saved_settings(cls, folder: str) -> dict[str, str | None]:
        """Return the settings under which ``Config`` loads what :meth:`save` wrote in a folder; None: the default.

        By default the folder is the setting ``checkpoint``. Override it where the setting is called otherwise, and
        where another one would take precedence over it.
        """
        return {"checkpoint": folder}

    def checkpoint_activations(self) -> None:
        """Compute the activations of ``module`` again in the backward pass, from now on, instead of keeping them.

        Raises:
            RecipeError: this generator cannot.
        """
        raise RecipeError(
            f"training.activation_checkpointing = true, but {type(self).__name__} has no checkpoint_activations()"
        )

    def compile_layers(self) -> None:
        """Compile the layers of ``module``, by torch.compile.

        Raises:
            RecipeError: this generator cannot.
        """
        raise RecipeError(f"training.compile = true, but {type(self).__name__} has no compile_layers()")


class TransitionProb(Component):
    """The probability of one unmasking step. Sees logits and a recorded step, never a model.

    ``needs_sets`` asks the rollout to record :attr:`maskrl.types.Transition.sets`, N * V / 8 bytes an image and step.
    ``continuous`` says whether ``log_prob`` is, in the logits: where it jumps, a second pass over a batch
    (``grpo.num_updates``) has ratios far from 1, and in bf16 nothing but.
    ``needs_log_prob`` says whether its formula takes for granted that the proposals of the highest log p are revealed.
    """

    needs_sets: bool = False
    continuous: bool = True
    needs_log_prob: bool = False

    @abstractmethod
    def log_prob(self, logits: Tensor, transition: Transition) -> Tensor:
        """Score B transitions.

        Args:
            logits: Float [M, V] at the masked positions of ``transition``, packed row by row; a network that computes
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


@dataclass(frozen=True)
class Detection:
    """One object found in an image: ``box`` (x1, y1, x2, y2) in pixels, ``score`` in [0, 1], ``mask`` Bool [H, W]."""

    box: tuple[float, float, float, float]
    score: float
    mask: NDArray[np.bool_]


class Detector(Component):
    """Finds objects and names colours for GenEval's rules.

    Attributes:
        classes: what it can find, singular, as written in prompts' metadata.
        colors: what ``color`` can answer.
        modules: its networks, so that placement can move them.
        label: what numbers are called that rest on it; "GenEval" is the official detector's alone.
    """

    classes: Sequence[str]
    colors: Sequence[str]
    modules: Sequence[nn.Module] = ()
    attributes = {"modules": [nn.Module]}  # noqa: RUF012  # declared in Component
    label: str = "GenEval-custom"

    @abstractmethod
    def detect(self, image: Tensor) -> dict[str, list[Detection]]:
        """Float [3, H, W] in [0, 1] -> every candidate by class, in any order, before any threshold."""

    @abstractmethod
    def color(self, image: Tensor, detection: Detection, class_name: str) -> str:
        """Name the colour of one detected object: one of ``colors``."""

    def self_test(self) -> None:  # not abstract: not every detector can be broken
        """Test whether it works here and now; every evaluation begins with it. By default there is no test.

        Raises:
            TrainingError: it does not; the message names what failed.
        """


class PromptSet(Component):
    """A named list of prompts that a package ships."""

    @abstractmethod
    def prompts(self) -> list[Prompt]:
        """Return the prompts, each with a text, in an order that is the same for every instance."""
