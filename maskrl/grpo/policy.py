"""What a generator's logits are to the sampler and to its scorers, at the step of each row.

Both must agree to the last bit, so guidance and the temperature of proposals come in here.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from maskrl.errors import RecipeError
from maskrl.grpo import answers
from maskrl.grpo.config import Sampling
from maskrl.grpo.guidance import guidance_weights
from maskrl.grpo.temperature import tempered, value_temperatures
from maskrl.interfaces import Condition, MaskedGenerator, TransitionProb
from maskrl.places import Places
from maskrl.types import StepIndex


def guided_logits(
    generator: MaskedGenerator,
    tokens: Tensor,
    condition: Condition,
    step: StepIndex,
    sampling: Sampling,
    guidance: float,
    places: Places,
) -> Tensor:
    """Ask for the logits at M places, after the guidance of each row's step: Float [M, V]."""
    weights = guidance_weights(step.num_steps, sampling.guidance_rule, guidance)
    return answers.logits(generator, tokens, condition, step, at(step, weights), places)


def temperature_at(step: StepIndex, sampling: Sampling) -> Tensor | None:
    """Return what the logits of each row are divided by: Float [B], fp64; None: by nothing, at no step."""
    rule = sampling.value_temperature_rule
    temperatures = value_temperatures(step.num_steps, rule, sampling.value_temperature)
    return None if all(value == 1 for value in temperatures) else at(step, temperatures)


def are_greedy(num_steps: int, sampling: Sampling) -> list[bool]:
    """Tell at which of T steps the likeliest codes are proposed: their temperature is 0."""
    rule = sampling.value_temperature_rule
    return [value == 0 for value in value_temperatures(num_steps, rule, sampling.value_temperature)]


def by_chance(steps: Tensor, num_steps: int, sampling: Sampling) -> Tensor:
    """Tell which of some steps can teach, Long [k] in [0, T) -> Bool [k]: those at which something is left to chance.

    What is proposed at temperature 0 has probability 1 under all weights near these: no ratio, and no gradient.
    """
    return ~torch.tensor(are_greedy(num_steps, sampling))[steps]


def check_temperatures(num_steps: int, sampling: Sampling) -> None:
    """Refuse a training rollout of which no step can teach.

    Raises:
        RecipeError: it is such.
    """
    if all(are_greedy(num_steps, sampling)):
        raise RecipeError(
            f"with value_temperature_rule = {sampling.value_temperature_rule!r} and T = {num_steps} every step"
            " proposes the likeliest codes, and there is nothing to learn from; take more steps, or"
            ' value_temperature_rule = "constant"'
        )


def at(step: StepIndex, values: Sequence[float]) -> Tensor:
    """Take for each row, of T numbers, that of its step: Float [B], fp64, on the device of ``step``."""
    return torch.tensor(values, dtype=torch.float64).to(step.t.device)[step.t]


def policy_logits(
    generator: MaskedGenerator,
    tokens: Tensor,
    condition: Condition,
    step: StepIndex,
    sampling: Sampling,
    guidance: float,
    places: Places,
) -> Tensor:
    """Return the logits whose softmax the proposals at M places are drawn from: Float [M, V]."""
    logits_MV = guided_logits(generator, tokens, condition, step, sampling, guidance, places)
    temperature_B = temperature_at(step, sampling)
    return logits_MV if temperature_B is None else tempered(logits_MV, temperature_B[places.rows])


def check_score(transition: TransitionProb, sampling: Sampling) -> None:
    """Refuse a transition probability whose formula is not that of the sampler in training.

    Raises:
        RecipeError: it is not.
    """
    painted = sampling.in_training
    if transition.needs_log_prob and not painted.is_by_log_prob:
        is_apart = painted.position_policy != sampling.position_policy
        key = "position_policy_train" if is_apart else "position_policy"
        raise RecipeError(
            f"{type(transition).__name__} takes for granted that the proposals of the highest log p are revealed, but"
            f' sampling has score = "{painted.score}" and {key} = "{painted.position_policy}";'
            f' choose score = "log_prob" and {key} = "confidence", or another transition'
        )
