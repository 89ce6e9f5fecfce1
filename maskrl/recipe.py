"""The recipe: one flat TOML file that says everything about a run.

One rule: a section names a component, that component's own ``Config`` validates the section, and the
component is built from that ``Config`` and nothing else. Every mistake is reported at the user's own key.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Self, get_args

from pydantic import (
    Field,
    PlainSerializer,
    PlainValidator,
    PrivateAttr,
    ValidationError,
    ValidationInfo,
    model_validator,
)
from pydantic_core import ErrorDetails

from maskrl import mistakes, recipe_file, registry
from maskrl.component import Chosen, ComponentConfig, Needs, choose_section, validate
from maskrl.errors import RecipeError
from maskrl.eval_section import EvalConfig, EvalSection, Evaluations
from maskrl.grpo.config import GRPOConfig, SamplingConfig
from maskrl.identity import chosen_in
from maskrl.interfaces import GroupFilter, MaskedGenerator, RewardModel, StepReducer, TransitionProb
from maskrl.recipes_at_hand import locate_recipe
from maskrl.sections import (
    CheckpointConfig,
    EarlyStopConfig,
    EmaConfig,
    HeldOutConfig,
    LoraConfig,
    ParallelConfig,
    PromptsConfig,
    TrackingConfig,
    TrainingConfig,
)

MOST_IMAGES = 1_000_000  # of an update
SECTIONS = {
    "generator": "generators",
    "transition": "transitions",
    "reward": "rewards",
    "filter": "filters",
    "reducer": "reducers",
}


def _section(value: Any, info: ValidationInfo) -> Chosen[Any]:
    if not isinstance(value, Mapping):
        raise ValueError(f"is a section: write [{info.field_name}]")
    return choose_section(SECTIONS[str(info.field_name)], value, info)


_Section = (PlainValidator(_section), PlainSerializer(Chosen.settings))


class Recipe(ComponentConfig):
    """Everything about a run, every default filled in."""

    seed: int = Field(default=0, ge=0)
    generator: Annotated[Chosen[MaskedGenerator], *_Section]
    transition: Annotated[Chosen[TransitionProb], *_Section]
    reward: Annotated[Chosen[RewardModel], *_Section]
    filter: Annotated[Chosen[GroupFilter], *_Section]
    reducer: Annotated[Chosen[StepReducer], *_Section]
    grpo: GRPOConfig = GRPOConfig()
    sampling: SamplingConfig = SamplingConfig()
    prompts: PromptsConfig
    training: TrainingConfig
    parallel: ParallelConfig = ParallelConfig()
    lora: LoraConfig | None = None
    ema: EmaConfig | None = None
    eval: Evaluations = Field(default_factory=dict)
    watch: HeldOutConfig = HeldOutConfig()
    early_stop: EarlyStopConfig | None = None
    checkpoint: CheckpointConfig = CheckpointConfig()
    tracking: TrackingConfig = TrackingConfig()
    _adapters: Path | None = PrivateAttr(default=None)

    @property
    def adapters(self) -> Path | None:
        """Whose adapters stand beside the generator: a run's checkpoint, or a folder of theirs. It is no setting."""
        return self._adapters

    def with_adapters(self, folder: Path) -> Self:
        """Return the recipe with the adapters of a checkpoint, or of a folder in peft's layout."""
        copy = self.model_copy()
        copy._adapters = folder
        return copy

    @model_validator(mode="after")
    def _fits_memory(self) -> Self:
        images = self.training.prompts_per_update * self.grpo.group_size
        if images > MOST_IMAGES:
            raise ValueError(
                f"training.prompts_per_update * grpo.group_size = {images:,} images an update; more than"
                f" {MOST_IMAGES:,} are not kept until it is over: take fewer, and more updates"
            )
        return self

    @model_validator(mode="after")
    def _can_be_sharded(self) -> Self:
        if self.parallel.strategy == "shard" and self.training.optimizer == "adamw_8bit":
            raise ValueError(
                "parallel.strategy = 'shard' with training.optimizer = 'adamw_8bit': bitsandbytes does not know"
                " divided weights; choose 'adamw', whose moments are divided too"
            )
        if self.parallel.strategy == "shard" and self.training.max_staleness:
            raise ValueError(
                "parallel.strategy = 'shard' with training.max_staleness = 1: a divided network is gathered by all"
                " processes in one order, so it cannot paint and learn at a time; choose 'replicate', or"
                " max_staleness = 0"
            )
        return self

    @model_validator(mode="after")
    def _stops_by_what_is_watched(self) -> Self:
        if self.early_stop is not None and (name := self.early_stop.reward) not in self.watch.rewards:
            hint = registry.nearest(name, self.watch.rewards)
            raise ValueError(
                f"early_stop.reward = {name!r}: no held-out reward is called that{hint}; name one of watch.rewards"
                f" ({', '.join(self.watch.rewards) or 'there are none: watch.rewards.NAME = REWARD adds one'})"
            )
        return self

    def to_toml(self) -> str:
        """Write the recipe with every default; what has no value (None) is left out."""
        return recipe_file.write_toml(self.model_dump(mode="json"))

    def unread(self) -> list[str]:
        """Return the names of components that were not imported, as :class:`Needs` asked."""
        chosen = [*(value for _, value in self if isinstance(value, Chosen)), *self.watch.rewards.values()]
        for section in self.eval.values():
            is_read = section.evaluation.is_read
            inside = chosen_in(dict(section.evaluation.config)) if is_read else []
            chosen += [section.evaluation, *inside]
        return [one.name for one in chosen if not one.is_read]

    def digest(self) -> str:
        """Return 12 hexadecimal digits that two recipes share only if every setting is equal."""
        return hashlib.sha256(self.to_toml().encode()).hexdigest()[:12]


EVERYTHING = Needs()


def read_recipe(
    path_or_name: str | Path,
    overrides: Sequence[str] = (),
    needs: Needs = EVERYTHING,
    typed_in: Path | None = None,
) -> Recipe:
    """Read a recipe, apply overrides, import the components that are needed and fill in their defaults.

    Args:
        path_or_name: a TOML file, the name of a recipe that comes with maskrl, or ``package:NAME/FILE``.
        overrides: ``section.key=value``, the value as in TOML; a bare word is a string, no value at all
            restores the default.
        needs: which components; the others are imported when they are built. Without prompts no prompt file is
            looked for.
        typed_in: the folder that paths in the overrides start from; by default the working directory.

    Raises:
        RecipeError: there is no such file, it is no TOML, or it holds mistakes: one line each.
        PluginError: a component does not import.
    """
    path = locate_recipe(path_or_name)
    data = recipe_file.read_toml(path)
    if _is_of_run(path):
        recipe_file.upgrade(data)
    probe = recipe_file.apply(data, overrides, typed_in)
    written = [line.partition("=")[0].strip() for line in overrides]
    typed = (
        {"train": typed_in or Path.cwd()}
        if any("prompts.train.".startswith(f"{key}.") for key in written)
        else {}
    )
    context = {"base": path.parent, "needs": needs, "typed": typed}
    if old := recipe_file.old_spelling(data if probe is None else probe):
        raise RecipeError(f"{path}: {old}")
    for one in (data, probe or {}):
        recipe_file.read_switch(one)
    if probe is not None:
        _check_keys(path, probe, context)
    try:
        return validate(Recipe, data, context)
    except ValidationError as error:
        raise _mistakes(path, data, error) from error


class _Judging(ComponentConfig):
    """What there is of a recipe where nothing is painted and nothing trained."""

    eval: Evaluations


def read_evaluation(label: str, overrides: Sequence[str]) -> EvalSection:
    """Read the section of one evaluation that stands on the command line alone.

    Args:
        label: what it is called: ``eval.LABEL``.
        overrides: ``eval.LABEL.key=value``; others are mistakes.

    Raises:
        RecipeError: there are mistakes, one line each.
        PluginError: a component does not import.
    """
    data: dict[str, Any] = {}
    recipe_file.apply(data, overrides)
    if old := recipe_file.old_spelling(data):
        raise RecipeError(f"--set: {old}")
    if others := [key for key in data if key != "eval"] or [key for key in data["eval"] if key != label]:
        raise RecipeError(
            f"--set {others[0]}: nothing is painted and no recipe is read, so it would be ignored; what can be set is"
            f" eval.{label}"
        )
    return read_section(label, data["eval"][label])


def read_section(label: str, section: Mapping[str, Any]) -> EvalSection:
    """Read the section of one evaluation, ``[eval.LABEL]``; paths start from the working directory.

    Raises:
        RecipeError: there are mistakes, one line each.
        PluginError: a component does not import.
    """
    data = {"eval": {label: dict(section)}}
    try:
        return validate(_Judging, data, {"base": Path.cwd(), "needs": Needs()}).eval[label]
    except ValidationError as error:
        known = [_known_keys(detail, data, Path.cwd()) for detail in error.errors()]
        raise RecipeError("\n".join(mistakes.lines(error.errors(), data, known))) from error


def _is_of_run(path: Path) -> bool:
    """Tell whether a file is the recipe of a run, which an older maskrl may have written."""
    return path.name == "recipe.toml" and any(
        path.with_name(name).exists() for name in ("run.json", "metrics.jsonl")
    )


def _check_keys(path: Path, probe: Mapping[str, Any], context: Mapping[str, Any]) -> None:
    """Refuse a key whose default is to be restored, None in ``probe``, and that there is not."""
    try:
        validate(Recipe, probe, context)
    except ValidationError as error:
        details = [d for d in error.errors() if d["type"] == "extra_forbidden" and _is_nothing(d["input"])]
        if details:
            known = [_known_keys(detail, probe, path.parent) for detail in details]
            lines = mistakes.lines(details, probe, known)
            raise RecipeError("\n".join(f"{path}: {line}" for line in lines)) from error


def _is_nothing(value: Any) -> bool:
    """Tell whether there is nothing but None in a value."""
    return all(map(_is_nothing, value.values())) if isinstance(value, Mapping) else value is None


def _mistakes(path: Path, data: Mapping[str, Any], error: ValidationError) -> RecipeError:
    """Turn pydantic's list into one line a mistake; a single mistake keeps its own class of error."""
    details = error.errors()
    known = [_known_keys(detail, data, path.parent) for detail in details]
    message = "\n".join(f"{path}: {line}" for line in mistakes.lines(details, data, known))
    cause = details[0].get("ctx", {}).get("error")
    kind = type(cause) if len(details) == 1 and isinstance(cause, RecipeError) else RecipeError
    return kind(message)


def _known_keys(detail: ErrorDetails, data: Mapping[str, Any], base: Path) -> list[str]:
    """List what could have been written where an unknown key stands."""
    if detail["type"] != "extra_forbidden" or not 0 < len(detail["loc"]) <= 3:
        return []
    section, *inside = map(str, detail["loc"])
    if section == "eval" and len(inside) == 2:
        name = data["eval"][inside[0]].get("name", inside[0])
        return [*EvalConfig.model_fields, *registry.load("evaluations", name, base).Config.model_fields]
    if len(inside) > 1:
        return []
    if not inside:
        return list(Recipe.model_fields)
    if section in SECTIONS:
        return list(registry.load(SECTIONS[section], data[section]["name"], base).Config.model_fields)
    annotation: Any = Recipe.model_fields[section].annotation
    models = [model for model in (annotation, *get_args(annotation)) if hasattr(model, "model_fields")]
    return list(models[0].model_fields)
