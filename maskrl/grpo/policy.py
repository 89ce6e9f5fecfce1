"""What a generator's logits are to the sampler and to its scorers, at the step of each row.

Both must agree to the last bit, so guidance and the temperature of proposals come in here.
"""

from __future__ import annotations

from torch import Tensor

from maskrl.errors import RecipeError
from maskrl.grpo import answers
from maskrl.grpo.config import Sampling
from maskrl.grpo.guidance import weights_at
from maskrl.grpo.temperature import tempered, value_temperatures_at
from maskrl.interfaces import Condition, MaskedGenerator, TransitionProb
from maskrl.types import StepIndex


def guided_logits(
    generator: MaskedGenerator,
    tokens: Tensor,
    condition: Condition,
    step: StepIndex,
    sampling: Sampling,
    guidance: float,
    positions: Tensor,
) -> Tensor:
    """Ask for the logits at M positions, Bool [B, N], after the guidance of each row's step: Float [M, V]."""
    weight_B = weights_at(step, sampling.guidance_rule, guidance)
    return answers.logits(generator, tokens, condition, step, weight_B, positions)


def temperature_at(step: StepIndex, sampling: Sampling) -> Tensor | None:
    """Return what the logits of each row are divided by: Float [B]; None: by nothing."""
    return value_temperatures_at(step, sampling.value_temperature_rule, sampling.value_temperature)


def policy_logits(
    generator: MaskedGenerator,
    tokens: Tensor,
    condition: Condition,
    step: StepIndex,
    sampling: Sampling,
    guidance: float,
    positions: Tensor,
) -> Tensor:
    """Return the logits whose softmax the proposals at M positions, Bool [B, N], are drawn from: Float [M, V]."""
    logits_MV = guided_logits(generator, tokens, condition, step, sampling, guidance, positions)
    temperature_B = temperature_at(step, sampling)
    if temperature_B is None:
        return logits_MV
    return tempered(logits_MV, temperature_B[:, None].expand_as(positions)[positions])


def check_score(transition: TransitionProb, sampling: Sampling) -> None:
    """Refuse a transition probability whose formula is not that of the sampler.

    Raises:
        RecipeError: it is not.
    """
    if transition.needs_log_prob and not sampling.is_by_log_prob:
        raise RecipeError(
            f"{type(transition).__name__} takes for granted that the proposals of the highest log p are revealed, but"
            f' sampling has score = "{sampling.score}" and position_policy = "{sampling.position_policy}";'
            ' choose score = "log_prob" and position_policy = "confidence", or another transition'
        )
