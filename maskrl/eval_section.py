"""The sections ``[eval.NAME]`` of a recipe: which evaluation, by its own settings, and when and of what it is made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, PlainSerializer, PlainValidator, ValidationInfo

from maskrl.component import TYPED, Chosen, ComponentConfig, Label, at_most, choose_section, validate
from maskrl.errors import PluginError
from maskrl.grpo.config import Sampling
from maskrl.interfaces import Evaluation
from maskrl.sections import STEPS, Source

RESERVED = ("kind", "update", "when")  # columns of every row of metrics
USUAL_IMAGES = 4  # of each prompt of an evaluation


class EvalConfig(ComponentConfig):
    """When a run makes an evaluation, and of what; the evaluation's own settings stand beside these.

    ``prompts``: a file or a prompt set (None: the evaluation's own). ``images_per_prompt`` None: as the evaluation has
    it, else 4. ``every`` counts updates, 0 evaluates before and after only; in between the first ``subset`` prompts of
    each of the evaluation's tasks are used. ``num_steps`` None: as in ``[grpo]``. ``batch``: images at a time.
    ``guidance`` None: ``sampling.guidance_eval``; several sections may make one evaluation, each at a guidance of its
    own.
    """

    prompts: Source | None = None
    images_per_prompt: Annotated[int, at_most(10_000, "a mean needs no more")] | None = Field(
        default=None, ge=1
    )
    every: int = Field(default=0, ge=0)
    subset: int = Field(default=8, ge=1)
    num_steps: Annotated[int, STEPS] | None = Field(default=None, ge=1)
    batch: int = Field(default=64, ge=1)
    guidance: float | None = None


@dataclass(frozen=True)
class EvalSection:
    """A section ``[eval.NAME]``: which evaluation, by its own settings, and when and of what it is made."""

    evaluation: Chosen[Evaluation]
    config: EvalConfig

    @property
    def images_per_prompt(self) -> int:
        """How many images of each prompt; imports the evaluation where the section does not say."""
        return self.config.images_per_prompt or self.evaluation.component.images_per_prompt or USUAL_IMAGES

    def painted_as(self, sampling: Sampling) -> Sampling:
        """Return how images are drawn for it: with its own guidance, where it says one."""
        own = self.config.guidance
        return sampling if own is None else replace(sampling, guidance_eval=own)

    def settings(self) -> dict[str, Any]:
        """Return the section, as :meth:`Chosen.settings` does."""
        number = self.images_per_prompt if self.evaluation.is_read else self.config.images_per_prompt
        taken = self._taken() if self.evaluation.is_read else ()
        own = {key: value for key, value in self.evaluation.settings().items() if key not in taken}
        return {**own, **self.config.model_dump(mode="json"), "images_per_prompt": number}

    def given(self) -> dict[str, Any]:
        """Return what the section itself says, no defaults."""
        settings = self.evaluation.read().settings()  # read: paths start from where the section stands
        own = {key: settings[key] for key in ("name", *self.evaluation.given)}
        return {**own, **self.config.model_dump(mode="json", exclude_unset=True)}

    def build(self, recipe: Mapping[str, Any]) -> Evaluation:
        """Build the evaluation.

        Args:
            recipe: its sections by name: what the evaluation ``takes``, where it is left out.

        Raises:
            RecipeError: its settings are wrong, or weights cannot be had.
            PluginError: it does not import.
        """
        return self.evaluation.build({key: recipe[key] for key in self._taken() if key in recipe})

    def _taken(self) -> list[str]:
        """Return the settings that are the recipe's, since the section leaves them out."""
        return [key for key in self.evaluation.component.takes if key not in self.evaluation.given]


def _read_eval(value: Any, info: ValidationInfo) -> EvalSection:
    if not isinstance(value, Mapping):
        raise ValueError("is a section: write [eval.NAME]")
    own = {key: one for key, one in value.items() if key not in EvalConfig.model_fields}
    engine = {key: one for key, one in value.items() if key in EvalConfig.model_fields}
    context = {**(info.context or {}), "typed": value.get(TYPED, {})}
    config = validate(EvalConfig, engine, context)
    chosen = choose_section("evaluations", own, info)
    if chosen.is_read and (
        both := sorted(EvalConfig.model_fields.keys() & chosen.component.Config.model_fields)
    ):
        raise PluginError(
            f"the evaluation {chosen.name!r} has a setting {both[0]!r}, which every section [eval.NAME] has already"
        )
    return EvalSection(chosen, config)


def _name_sections(value: Any) -> Any:
    """Let a section be called after its evaluation: ``[eval.geneval]`` needs no name."""
    if not isinstance(value, Mapping):
        return value
    if taken := [label for label in value if label in RESERVED]:
        raise ValueError(f"a section cannot be called {taken[0]!r}, as a column of the metrics is: rename it")
    return {
        label: {"name": label, **section} if isinstance(section, Mapping) else section
        for label, section in value.items()
    }


Evaluations = Annotated[
    dict[Label, Annotated[EvalSection, PlainValidator(_read_eval), PlainSerializer(EvalSection.settings)]],
    BeforeValidator(_name_sections),
]
