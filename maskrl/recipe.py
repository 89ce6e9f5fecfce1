"""The recipe: one flat TOML file that says everything about a run.

One rule: a section names a component, that component's own ``Config`` validates the section, and the
component is built from that ``Config`` and nothing else. Every mistake is reported at the user's own key.
"""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, cast

from pydantic import (
    AfterValidator,
    Field,
    PlainSerializer,
    PlainValidator,
    ValidationError,
    ValidationInfo,
    model_validator,
)
from pydantic_core import ErrorDetails

import maskrl
from maskrl import registry
from maskrl.component import (
    Chosen,
    ComponentConfig,
    Label,
    Needs,
    base_of,
    build,
    choose_section,
    named,
    needs_of,
    resolve_path,
    say,
)
from maskrl.errors import RecipeError
from maskrl.grpo.config import GRPOConfig, SamplingConfig
from maskrl.interfaces import Detector, GroupFilter, MaskedGenerator, RewardModel, StepReducer, TransitionProb

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


def _source(value: str, info: ValidationInfo) -> str:
    """Accept a file that exists, or the name of an installed prompt set; anything, where no prompts are needed."""
    if "prompts" not in needs_of(info).kinds:
        return value
    path = resolve_path(value, base_of(info))  # absolute if it is a file beside the recipe
    if not (Path(path).is_absolute() and Path(path).exists()) and not registry.is_local(value):
        try:
            registry.find("prompts", value)
        except RecipeError as error:
            raise RecipeError(f"there is no file {value!r} beside the recipe, and {error}") from error
    return registry.resolve_local(path, base_of(info))


def _train_source(value: str, info: ValidationInfo) -> str:
    """Accept what :func:`_source` does, and a dataset: a folder, or an id on the hub."""
    if "prompts" not in needs_of(info).kinds:
        return value
    path = Path(resolve_path(value, base_of(info)))
    if path.is_absolute() and path.is_dir():
        return str(path)
    try:
        return _source(value, info)
    except RecipeError:
        if is_dataset(value):
            return value
        raise


def is_dataset(source: str) -> bool:
    """Tell whether a source of prompts is a folder, or looks like an id on the hub (``owner/name``)."""
    return Path(source).is_dir() or (_HUB_ID.fullmatch(source) is not None and not Path(source).exists())


def _detector(value: Any, info: ValidationInfo) -> str | Chosen[Detector]:
    """Accept a detector's name, which is not imported yet, or a section with its settings."""
    if isinstance(value, Mapping):
        return choose_section("detectors", value, info)
    if not isinstance(value, str):
        raise ValueError("names a detector, or is a section that does")
    if not registry.is_local(value):
        registry.find("detectors", value)
    return registry.resolve_local(value, base_of(info))


def _name_or_settings(value: str | Chosen[Detector]) -> str | dict[str, Any]:
    return value if isinstance(value, str) else value.settings()


_Section = (PlainValidator(_section), PlainSerializer(Chosen.settings))
Source = Annotated[str, AfterValidator(_source)]
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*(?<!\.txt)(?<!\.jsonl)(?<!\.json)(?<!\.csv)(?<!\.tsv)")


class PromptsConfig(ComponentConfig):
    """Where the prompts of training come from.

    ``train`` is a text file of one prompt a line; a file of rows with columns (``.jsonl``, a ``.json`` array, ``.csv``,
    ``.tsv``); the name of an installed prompt set; or a dataset: an id on the hub or a folder. ``column`` is that of
    the text; of several columns each is a prompt of its own. ``where`` keeps the rows in which these columns have these
    values.

    Of a dataset ``split`` is streamed until there are ``limit`` prompts. Of any source, prompts of fewer than
    ``min_words`` or more than ``max_words`` words are left out.
    """

    train: Annotated[str, AfterValidator(_train_source)]
    column: str | tuple[str, ...] = "text"
    split: str = "train"
    where: dict[str, str | int | float | bool] = Field(default_factory=dict)
    limit: int | None = Field(default=None, ge=1)
    min_words: int = Field(default=1, ge=1)
    max_words: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _is_bounded(self) -> Self:
        if is_dataset(self.train) and self.limit is None:
            raise ValueError(f"say how many prompts to take from the dataset {self.train!r}: limit = 100_000")
        if self.max_words is not None and self.max_words < self.min_words:
            raise ValueError(f"max_words = {self.max_words} is less than min_words = {self.min_words}")
        return self


class TrainingConfig(ComponentConfig):
    """How long, how fast, in what portions. ``prompts_per_update`` counts over all processes.

    These change memory and speed only, and count on each process: ``micro_batch`` ((image, step) pairs per forward and
    backward), ``score_batch`` (pairs whose log-probabilities are computed at a time, those of the others again in the
    backward pass; None: all of the micro-batch), ``rollout_batch`` and ``reward_batch`` (images per forward; None: all
    at once), ``overlap_reward`` (images are judged while the next ``rollout_batch`` is painted, by default that many at
    a time), ``activation_checkpointing`` (the network's activations are computed again in the backward pass),
    ``offload`` (decoder and reward are on the device only while they are used), ``compile`` (the network's layers,
    by torch.compile).

    ``dtype`` bf16 is autocast: weights, log-probabilities and sums stay fp32. ``optimizer`` adamw_8bit keeps its
    moments in 8 bits (package bitsandbytes). ``decay`` says what ``weight_decay`` acts on: all trained weights, or
    matrices alone, no biases and no norms. ``max_seconds`` stops a run cleanly.

    ``schedule_updates`` is where ``lr_schedule`` would end (None: with the last of ``updates``): a run may stop before.
    """

    updates: int = Field(ge=0)
    prompts_per_update: int = Field(ge=1)
    micro_batch: int = Field(default=64, ge=1)
    score_batch: int | None = Field(default=None, ge=1)
    rollout_batch: int | None = Field(default=None, ge=1)
    reward_batch: int | None = Field(default=None, ge=1)
    overlap_reward: bool = False
    learning_rate: float = Field(gt=0)
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = Field(default=0.0, ge=0)
    decay: Literal["all", "matrices"] = "all"
    warmup_updates: int = Field(default=0, ge=0)
    lr_schedule: Literal["constant", "cosine", "linear"] = "constant"
    schedule_updates: int | None = Field(default=None, ge=1)
    max_grad_norm: float = Field(default=1.0, gt=0)
    optimizer: Literal["adamw", "adamw_8bit"] = "adamw"
    activation_checkpointing: bool = False
    compile: bool = False
    offload: bool = False
    dtype: Literal["fp32", "bf16"] = "fp32"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    max_seconds: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _overlaps(self) -> Self:
        if self.overlap_reward and self.rollout_batch is None:
            raise ValueError(
                "overlap_reward needs portions: set rollout_batch to fewer images than an update has"
            )
        return self

    @model_validator(mode="after")
    def _ends_within_its_schedule(self) -> Self:
        if self.schedule_updates is not None and self.schedule_updates < self.updates:
            raise ValueError(
                f"schedule_updates = {self.schedule_updates} is less than updates = {self.updates}: behind its end"
                " there is no learning rate; raise it, or leave it out"
            )
        return self


class LoraConfig(ComponentConfig):
    """Low-rank adapters in place of a full fine-tune.

    ``alpha`` scales them by alpha / rank (None: by 1); ``targets`` are names of layers (None: the generator's own
    choice); ``base_dtype`` is what the frozen weights are kept in.
    """

    rank: int = Field(default=32, ge=1)
    alpha: float | None = Field(default=None, gt=0)
    targets: tuple[str, ...] | None = None
    base_dtype: Literal["fp32", "bf16"] = "fp32"


class EvalConfig(ComponentConfig):
    """Which GenEval a run reports; without ``prompts`` none.

    ``every`` counts updates, 0 evaluates before and after only; in between ``prompts_per_task_during``
    prompts a task are used. ``num_steps`` None: as in ``[grpo]``. Guidance is ``sampling.guidance_eval``.
    ``detector`` is a detector's name, or a section with its settings.
    """

    prompts: Source | None = None
    detector: Annotated[
        str | Chosen[Detector], PlainValidator(_detector), PlainSerializer(_name_or_settings)
    ] = "shapes"
    images_per_prompt: int = Field(default=4, ge=1)
    every: int = Field(default=0, ge=0)
    prompts_per_task_during: int = Field(default=8, ge=1)
    num_steps: int | None = Field(default=None, ge=1)
    batch: int = Field(default=64, ge=1)

    def build_detector(self) -> Detector:
        """Build what judges.

        Raises:
            RecipeError: its settings are wrong, or its weights cannot be had.
            PluginError: it does not import.
        """
        if not isinstance(self.detector, str):
            return self.detector.build()
        return cast(Detector, build("detectors", {"name": self.detector}, Path()))


class WatchConfig(ComponentConfig):
    """Held-out rewards, by the names they have in the metrics: they score every ``every``-th update, and never teach.

    Each is a reward's name, or a section with its settings.
    """

    every: int = Field(default=10, ge=1)
    rewards: dict[Label, Annotated[Chosen[RewardModel], *named("rewards")]] = Field(default_factory=dict)


class CheckpointConfig(ComponentConfig):
    """A checkpoint ``every`` so many updates, of which the newest ``keep`` stay."""

    every: int = Field(default=25, ge=1)
    keep: int = Field(default=2, ge=1)


class TrackingConfig(ComponentConfig):
    """What a run writes beside its metrics: TensorBoard files, and pictures of ``sample_prompts``.

    Without ``sample_prompts`` the pictures show the run's own: a prompt of each task of its evaluation, else some of
    those that it trains on.
    """

    tensorboard: bool = True
    samples_every: int = Field(default=25, ge=1)
    sample_prompts: tuple[str, ...] | None = None


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
    lora: LoraConfig | None = None
    eval: EvalConfig = EvalConfig()
    watch: WatchConfig = WatchConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    tracking: TrackingConfig = TrackingConfig()

    def to_toml(self) -> str:
        """Write the recipe with every default; what has no value (None) is left out."""
        return _write_toml(self.model_dump(mode="json"))

    def unread(self) -> list[str]:
        """Return the names of components that were not imported, as :class:`Needs` asked."""
        chosen = [*(value for _, value in self), *self.watch.rewards.values(), self.eval.detector]
        return [one.name for one in chosen if isinstance(one, Chosen) and not one.is_read]

    def digest(self) -> str:
        """Return 12 hexadecimal digits that two recipes share only if every setting is equal."""
        return hashlib.sha256(self.to_toml().encode()).hexdigest()[:12]


EVERYTHING = Needs()


def read_recipe(path_or_name: str | Path, overrides: Sequence[str] = (), needs: Needs = EVERYTHING) -> Recipe:
    """Read a recipe, apply overrides, import the components that are needed and fill in their defaults.

    Args:
        path_or_name: a TOML file, or the name of a recipe that comes with maskrl.
        overrides: ``section.key=value``, the value as in TOML; a bare word is a string, no value at all
            restores the default.
        needs: which components; the others are imported when they are built. Without prompts no prompt file is
            looked for.

    Raises:
        RecipeError: there is no such file, it is no TOML, or it holds mistakes: one line each.
        PluginError: a component does not import.
    """
    path = locate_recipe(path_or_name)
    data = _read_toml(path)
    for override in overrides:
        _override(data, override)
    try:
        return Recipe.model_validate(data, context={"base": path.parent, "needs": needs})
    except ValidationError as error:
        raise _mistakes(path, data, error) from error


def shipped_recipes() -> dict[str, Path]:
    """Find the recipes that come with maskrl, by name: in the wheel, or beside the package in a clone."""
    package = Path(maskrl.__file__).parent
    folder = package / "recipes" if (package / "recipes").is_dir() else package.parent / "recipes"
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def locate_recipe(path_or_name: str | Path) -> Path:
    """Find the file of a recipe.

    Raises:
        RecipeError: there is none.
    """
    path = Path(path_or_name)
    if path.is_file():
        return path
    shipped = shipped_recipes()
    if str(path_or_name) in shipped:
        return shipped[str(path_or_name)]
    hint = registry.nearest(path.stem, shipped)
    raise RecipeError(
        f"there is no recipe {str(path_or_name)!r}{hint} (shipped: {', '.join(shipped) or 'none'})"
    )


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_bytes().decode("utf-8"))
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path}: is not UTF-8: byte {error.start}") from error
    except tomllib.TOMLDecodeError as error:  # its message ends with the line and column
        raise RecipeError(f"{path}: is no TOML: {error}") from error


def _override(data: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    *sections, last = key.strip().split(".")
    if not equals or not last:
        raise RecipeError(f"--set {override!r}: write it as section.key=value")
    table = data
    for section in sections:
        inside = table.setdefault(section, {})
        if isinstance(inside, str):  # a component's name alone is short for a section
            inside = table[section] = {"name": inside}
        table = inside
        if not isinstance(table, dict):
            raise RecipeError(f"--set {override!r}: {section!r} is a value, not a section")
    if text.strip():
        table[last] = _value(text)
    else:
        table.pop(last, None)


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text.strip()


def _mistakes(path: Path, data: Mapping[str, Any], error: ValidationError) -> RecipeError:
    """Turn pydantic's list into one line a mistake; a single mistake keeps its own class of error."""
    details = error.errors()
    known = [_known_keys(detail, data, path.parent) for detail in details]
    message = "\n".join(f"{path}: {say(detail, keys)}" for detail, keys in zip(details, known, strict=True))
    cause = details[0].get("ctx", {}).get("error")
    kind = type(cause) if len(details) == 1 and isinstance(cause, RecipeError) else RecipeError
    return kind(message)


def _known_keys(detail: ErrorDetails, data: Mapping[str, Any], base: Path) -> list[str]:
    """List what could have been written where an unknown key stands."""
    section, inside = str(detail["loc"][0]), detail["loc"][1:]
    if detail["type"] != "extra_forbidden" or len(inside) > 1:
        return []
    if not inside:
        return list(Recipe.model_fields)
    if section in SECTIONS:
        return list(registry.load(SECTIONS[section], data[section]["name"], base).Config.model_fields)
    model: Any = Recipe.model_fields[section].annotation
    return list(model.model_fields)


def _write_toml(data: Mapping[str, Any]) -> str:
    """Write scalars, then a table for every section."""
    lines = [f"{key} = {_toml(v)}" for key, v in data.items() if not isinstance(v, dict | None)]
    for section, values in data.items():
        if isinstance(values, dict):
            lines += ["", f"[{section}]"]
            lines += [f"{key} = {_toml(v)}" for key, v in values.items() if v is not None]
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, Mapping):
        return (
            "{ "
            + ", ".join(f"{json.dumps(k)} = {_toml(v)}" for k, v in value.items() if v is not None)
            + " }"
        )
    return "[" + ", ".join(_toml(item) for item in value) + "]"
