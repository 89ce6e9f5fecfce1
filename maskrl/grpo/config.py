"""The settings of the algorithm: the sections ``[grpo]`` and ``[sampling]`` of a recipe."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, fields, replace
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationError, model_validator

from maskrl.asking import refused
from maskrl.component import Component, ComponentConfig, at_most
from maskrl.errors import RecipeError
from maskrl.grpo.guidance import GUIDANCE_RULES
from maskrl.grpo.objective import KL
from maskrl.grpo.positions import POSITION_POLICIES, SCORES
from maskrl.grpo.schedule import SCHEDULES
from maskrl.grpo.tables import name_of
from maskrl.grpo.temperature import TEMPERATURE_RULES, VALUE_TEMPERATURES
from maskrl.interfaces import MaskedGenerator
from maskrl.mistakes import lines
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

    ``credit``: what the steps of an image have for their advantage: all that of the image, or each ("step") its own,
    by what it changed in the reward of the image's likeliest completion, and by ``credit_decay`` of what later steps
    changed (:mod:`maskrl.grpo.credit`).
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
    kl: Annotated[str, name_of(KL, "kl")] = "exact"
    advantage_of: Literal["score", "terms"] = "score"
    advantage_std: Literal["group", "global", "none"] = "group"
    advantage_eps: float = Field(default=1e-4, gt=0)
    credit: Literal["image", "step"] = "image"
    credit_decay: float = Field(default=0.8, ge=0, le=1)
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

    @model_validator(mode="after")
    def _credits_a_score(self) -> Self:
        if self.credit == "step" and self.advantage_of == "terms":
            raise ValueError(
                "credit = 'step' follows the score, and advantage_of = 'terms' standardises its parts; choose"
                " advantage_of = 'score', or credit = 'image'"
            )
        if self.credit == "image" and self.credit_decay != type(self).model_fields["credit_decay"].default:
            raise ValueError(
                f"credit_decay = {self.credit_decay} says how the credit of a step fades, and credit = 'image' gives"
                " every step that of the image; choose credit = 'step', or leave credit_decay out"
            )
        return self

    def steps(self, spec: GeneratorSpec) -> int:
        """T before any reduction: the recipe's number, else the generator's published one."""
        return self.num_steps or spec.sampler.num_steps


class SamplingConfig(ComponentConfig):
    """How images are drawn; ``None`` means the generator's published default (``guidance_train``: 0).

    Names are those of the tables in ``maskrl/grpo``: ``schedule`` says how many positions a step reveals,
    ``position_policy`` which (``position_policy_train``: in training; None: the same): by default the most confident,
    by their ``score`` with Gumbel noise, whose temperature goes by ``temperature_rule`` from ``tau_init`` (0: no
    noise). Logits of proposals are divided by ``value_temperature``, which goes by ``value_temperature_rule``; a step's
    guidance follows from ``guidance_train`` or ``guidance_eval`` by ``guidance_rule``.
    """

    schedule: Annotated[str | None, name_of(SCHEDULES, "schedule")] = None
    temperature_rule: Annotated[str | None, name_of(TEMPERATURE_RULES, "temperature_rule")] = None
    tau_init: float | None = Field(default=None, ge=0)
    value_temperature_rule: Annotated[str | None, name_of(VALUE_TEMPERATURES, "value_temperature_rule")] = (
        None
    )
    value_temperature: float | None = Field(default=None, gt=0)
    score: Annotated[str | None, name_of(SCORES, "score")] = None
    position_policy: Annotated[str | None, name_of(POSITION_POLICIES, "position_policy")] = None
    position_policy_train: Annotated[str | None, name_of(POSITION_POLICIES, "position_policy")] = None
    guidance_rule: Annotated[str | None, name_of(GUIDANCE_RULES, "guidance_rule")] = None
    guidance_train: float | None = None
    guidance_eval: float | None = None
    guidance_in_loss: Literal["same", "rollout_only"] = "same"


@dataclass(frozen=True)
class Sampling:
    """:class:`SamplingConfig` with every default filled in."""

    schedule: str
    temperature_rule: str
    tau_init: float
    value_temperature_rule: str
    value_temperature: float
    score: str
    position_policy: str
    position_policy_train: str
    guidance_rule: str
    guidance_train: float
    guidance_eval: float
    guidance_in_loss: str

    @property
    def guidance_loss(self) -> float:
        """The guidance under which transitions are scored."""
        return 0.0 if self.guidance_in_loss == "rollout_only" else self.guidance_train

    @property
    def in_training(self) -> Sampling:
        """The same with training's ``position_policy``: by these images are painted that teach."""
        return replace(self, position_policy=self.position_policy_train)

    @property
    def is_by_log_prob(self) -> bool:
        """Whether the proposals of the highest log p are revealed, noise aside, as eq. 14 takes for granted."""
        return (self.score, self.position_policy) == ("log_prob", "confidence")


def resolve(
    config: SamplingConfig, spec: GeneratorSpec, generator: Component | type[Component] | None = None
) -> Sampling:
    """Fill in the generator's published defaults.

    Args:
        config: what a recipe says.
        spec: of the generator.
        generator: whose spec it is, to be named if that is wrong.

    Raises:
        PluginError: the generator's defaults name what is in no table, or it takes one weight of guidance for all rows.
        RecipeError: an order by place, where an image has no rows and columns.
    """
    _check_guidance(generator)
    if 0 <= spec.mask_id < spec.num_codes:
        raise refused(generator or MaskedGenerator, f"spec.mask_id = {spec.mask_id} is a code")
    published = {**vars(spec.sampler), "guidance_train": 0.0, "guidance_eval": spec.sampler.guidance}
    try:
        SamplingConfig(**{key: published[key] for key in SamplingConfig.model_fields if key in published})
    except ValidationError as error:
        said = "; ".join(lines(error.errors(), published))
        raise refused(generator or MaskedGenerator, f"spec.sampler: {said}") from error
    given = {name: value for name, value in config.model_dump().items() if value is not None}
    wanted = {**published, **given}
    wanted.setdefault("position_policy_train", wanted["position_policy"])
    by_place = [key for key in ("position_policy", "position_policy_train") if wanted[key] == "halton"]
    if by_place and spec.grid is None:
        raise RecipeError(
            f'sampling.{by_place[0]} = "halton" spreads over rows and columns, and the tokens of this generator have'
            ' none (spec.grid = None); choose "random"'
        )
    return Sampling(**{field.name: wanted[field.name] for field in fields(Sampling)})


def _check_guidance(generator: Component | type[Component] | None) -> None:
    """Refuse a generator that was written when guidance was a number."""
    written = generator if isinstance(generator, type) or generator is None else type(generator.unwrapped())
    taken = inspect.signature(getattr(written, "logits", MaskedGenerator.logits)).parameters.get("guidance")
    if taken is not None and taken.annotation in (float, "float"):
        complaint = "logits takes guidance as a float; it is a Tensor now, a weight for each row"
        raise refused(written, f"{complaint}: add it with maskrl.grpo.guidance.guided")
