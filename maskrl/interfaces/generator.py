"""What paints: a network that fills masked tokens, and what it knows of its prompts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from numbers import Integral
from typing import Any, Self

from torch import Tensor, nn

from maskrl.component import Component
from maskrl.errors import RecipeError
from maskrl.types import Cost, GeneratorSpec, Prompt, StepIndex


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

    def blocks(self) -> Sequence[tuple[nn.Module, str]]:
        """Name the parts of ``module`` that are gathered one by one where it is sharded, and the method that runs each.

        By default there are none, and the network is gathered as a whole. All that is done with a block is done in that
        method (``"forward"`` where it is called), which returns every tensor that goes on from it; a part with several
        methods stands there once for each. How often blocks run depends on no prompt and no token: so they run as often
        on all processes. None lies within another.
        """
        return ()

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
