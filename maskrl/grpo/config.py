"""The settings of the algorithm: the sections ``[grpo]`` and ``[sampling]`` of a recipe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from maskrl.component import ComponentConfig, at_most
from maskrl.errors import RecipeError
from maskrl.types import GeneratorSpec


class GRPOConfig(ComponentConfig):
    """Group relative policy optimisation. Source: eqs. 10-12; the reasons are in docs/equations.md.

    ``num_updates`` is the number of optimizer steps per collected batch; ``max_resamples`` how often a group
    that the filter rejects is drawn again before it is left out of the loss; ``kl_coef`` is beta.

    ``dual_clip`` bounds the ratio where the advantage is negative (None: not at all, as in eq. 10); 3 is usual, and
    wise where ``num_updates`` is more than 1. ``kl``: "exact" and "k2" have the gradient of KL(policy || reference),
    eq. 10's; "k3" that of KL(reference || policy).

    ``advantage_of``: what is standardised within a group: the score that the reward returns, or each of its terms by
    itself, before they are added up (GDPO).
    """

    group_size: Annotated[int, at_most(10_000, "a group is kept until it is judged as a whole")] = Field(
        default=6, ge=2
    )
    num_steps: Annotated[int, at_most(100_000, "a step reveals a token or more")] | None = Field(
        default=None, ge=1
    )
    num_updates: Annotated[int, at_most(10_000, "each goes over the whole batch")] = Field(default=1, ge=1)
    eps_low: float = Field(default=0.1, gt=0, lt=1)
    eps_high: float = Field(default=0.2, gt=0)
    kl_coef: float = Field(default=0.0, ge=0)
    dual_clip: float | None = Field(default=None, gt=1)
    kl: Literal["exact", "k2", "k3"] = "exact"
    advantage_of: Literal["score", "terms"] = "score"
    advantage_std: Literal["group", "global", "none"] = "group"
    advantage_eps: float = Field(default=1e-4, gt=0)
    max_resamples: Annotated[int, at_most(1_000, "each paints the group anew")] = Field(default=2, ge=0)

    @model_validator(mode="after")
    def _clips_in_order(self) -> Self:
        if self.dual_clip is not None and self.dual_clip <= 1 + self.eps_high:
            raise ValueError(
                f"dual_clip = {self.dual_clip} must lie above 1 + eps_high = {1 + self.eps_high}; 3 is usual"
            )
        return self

    @model_validator(mode="after")
    def _terms_are_standardised(self) -> Self:
        if self.advantage_of == "terms" and self.advantage_std == "none":
            raise ValueError(
                "advantage_of = 'terms' standardises each term, and advantage_std = 'none' does not; choose 'group' or"
                " 'global', or advantage_of = 'score'"
            )
        return self

    def steps(self, spec: GeneratorSpec) -> int:
        """T before any reduction: the recipe's number, else the generator's published one."""
        return self.num_steps or spec.sampler.num_steps


class SamplingConfig(ComponentConfig):
    """How images are drawn; ``None`` means the generator's published default (``guidance_train``: 0)."""

    schedule: Literal["cosine", "linear"] | None = None
    temperature_rule: Literal["compound", "linear"] | None = None
    tau_init: float | None = Field(default=None, ge=0)
    guidance_train: float | None = None
    guidance_eval: float | None = None
    guidance_in_loss: Literal["same", "rollout_only"] = "same"


@dataclass(frozen=True)
class Sampling:
    """:class:`SamplingConfig` with every default filled in."""

    schedule: str
    temperature_rule: str
    tau_init: float
    guidance_train: float
    guidance_eval: float
    guidance_in_loss: str

    @property
    def guidance_loss(self) -> float:
        """The guidance under which transitions are scored."""
        return 0.0 if self.guidance_in_loss == "rollout_only" else self.guidance_train


def resolve(config: SamplingConfig, spec: GeneratorSpec) -> Sampling:
    """Fill in the generator's published defaults.

    Raises:
        RecipeError: the generator ranks positions by something else than log p.
    """
    published = spec.sampler
    if published.score != "log_prob":
        raise RecipeError(
            f"the sampler ranks positions by 'log_prob'; this generator asks for {published.score!r}"
        )
    given = {name: value for name, value in config.model_dump().items() if value is not None}
    return Sampling(
        **{
            "schedule": published.schedule,
            "temperature_rule": published.temperature_rule,
            "tau_init": published.tau_init,
            "guidance_train": 0.0,
            "guidance_eval": published.guidance,
            **given,
        }
    )
