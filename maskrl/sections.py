"""The sections of a recipe that name no component: how long, how fast, from which prompts, judged by what."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    Field,
    ValidationInfo,
    model_validator,
)

from maskrl import registry
from maskrl.component import (
    Chosen,
    ComponentConfig,
    Label,
    at_most,
    base_of,
    named,
    needs_of,
    resolve_path,
)
from maskrl.errors import RecipeError
from maskrl.interfaces import RewardModel

TENSORBOARD = "tensorboard"


def _source(value: str, info: ValidationInfo) -> str:
    """Accept a file that exists, or the name of an installed prompt set; anything, where no prompts are needed."""
    if "prompts" not in needs_of(info).kinds:
        return value
    base, where = _beside(info)
    path = Path(resolve_path(value, base))  # absolute if it is a file there
    if path.is_absolute() and path.exists() and not path.is_file():
        raise RecipeError(f"{str(path)!r} is no file of prompts")
    if not (path.is_absolute() and path.exists()) and not registry.is_local(value):
        try:
            registry.find("prompts", value)
        except RecipeError as error:
            raise RecipeError(f"there is no file {value!r} {where}, and {error}") from error
        return value
    return registry.resolve_local(str(path), base)


def _train_source(value: str, info: ValidationInfo) -> str:
    """Accept what :func:`_source` does, and a dataset: a folder, or an id on the hub."""
    if "prompts" not in needs_of(info).kinds:
        return value
    path = Path(resolve_path(value, _beside(info)[0]))
    if value and path.is_absolute() and path.is_dir() and path != path.parent:
        return str(path)
    try:
        return _source(value, info)
    except RecipeError:
        if _HUB_ID.fullmatch(value):
            return value
        raise


def _beside(info: ValidationInfo) -> tuple[Path, str]:
    """Return the folder that a source of prompts starts from, and what it is called: of ``--set`` the current one."""
    typed = (info.context or {}).get("typed", {})
    if info.field_name in typed:
        return Path(typed[info.field_name]), "in the working directory"
    return base_of(info), "beside the recipe"


def is_dataset(source: str) -> bool:
    """Tell whether a source of prompts is a folder, or looks like an id on the hub (``owner/name``)."""
    path = Path(source)
    return (path.is_absolute() and path.is_dir()) or _HUB_ID.fullmatch(source) is not None


Beta = Annotated[float, Field(ge=0, lt=1)]
STEPS = at_most(100_000, "a step reveals at least one token, and no image has so many")
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
    matrices alone, no biases and no norms. ``max_seconds`` stops a run cleanly; ``max_skipped`` ends it, as an error,
    after so many updates in a row that taught nothing (None: that is said, and the run goes on).

    ``max_staleness`` is by how many updates the weights that paint may be behind those that learn: at 1 the batch of
    the next update is painted while this one is learnt from, at 0 each is painted by the weights that learn from it.

    ``schedule_updates`` is where ``lr_schedule`` would end (None: with the last of ``updates``): a run may stop before.
    """

    updates: int = Field(ge=0)
    prompts_per_update: int = Field(ge=1)
    micro_batch: int = Field(default=64, ge=1)
    score_batch: int | None = Field(default=None, ge=1)
    rollout_batch: int | None = Field(default=None, ge=1)
    reward_batch: int | None = Field(default=None, ge=1)
    overlap_reward: bool = False
    max_staleness: int = Field(default=0, ge=0)
    learning_rate: float = Field(gt=0)
    betas: tuple[Beta, Beta] = (0.9, 0.95)
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
    max_skipped: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _overlaps(self) -> Self:
        if self.overlap_reward and self.rollout_batch is None:
            raise ValueError(
                "overlap_reward needs portions: set rollout_batch to fewer images than an update has"
            )
        return self

    @model_validator(mode="after")
    def _paints_ahead(self) -> Self:
        if self.max_staleness > 1:
            raise ValueError(
                f"max_staleness = {self.max_staleness}: one batch is painted ahead, never more; choose 0 or 1"
            )
        if self.max_staleness and self.compile:
            raise ValueError(
                "max_staleness = 1 with compile = true: layers are not compiled in two threads at a time; leave one out"
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


class ParallelConfig(ComponentConfig):
    """How several processes share the network: each holds all of it (replicate), or a part (shard: FSDP2).

    With shard the trained weights, their gradients, the optimizer's moments, the average of ``[ema]`` and the reference
    of a KL are divided among the processes; a part is whole only while it runs.

    ``reward_ranks`` are the processes that hold the rewards, those of ``[watch]`` too (None: all do): images travel to
    them, and scores back.
    """

    strategy: Literal["replicate", "shard"] = "replicate"
    reward_ranks: tuple[Annotated[int, Field(ge=0)], ...] | None = None

    @model_validator(mode="after")
    def _has_judges(self) -> Self:
        ranks = self.reward_ranks
        if ranks is not None and (not ranks or len(set(ranks)) < len(ranks)):
            raise ValueError(
                f"reward_ranks = {list(ranks)}: name at least one process, each once; or leave it out, and all of them"
                " hold the rewards"
            )
        return self


class LoraConfig(ComponentConfig):
    """Low-rank adapters in place of a full fine-tune.

    ``alpha`` scales them by alpha / rank (None: by 1); ``targets`` are names of layers (None: the generator's own
    choice); ``base_dtype`` is what the frozen weights are kept in.
    """

    rank: Annotated[int, at_most(4096, "larger adapters are larger than the layers they stand beside")] = (
        Field(default=32, ge=1)
    )
    alpha: float | None = Field(default=None, gt=0)
    targets: tuple[str, ...] | None = None
    base_dtype: Literal["fp32", "bf16"] = "fp32"


class EmaConfig(ComponentConfig):
    """An average of the trained weights: after each update ``decay`` of it stays, and the rest is of the new weights.

    With ``warmup`` less stays at the beginning: at most (1 + u) / (10 + u) after u updates. With ``evaluate`` the
    average is what was trained: it is evaluated, shown in pictures, and saved as a checkpoint's generator. Without, the
    weights themselves are, and the average lies beside them in the checkpoint.
    """

    decay: float = Field(ge=0, lt=1)
    warmup: bool = True
    evaluate: bool = True


class HeldOutConfig(ComponentConfig):
    """Held-out rewards, by the names they have in the metrics: they score every ``every``-th update, and never teach.

    Each is a reward's name, or a section with its settings.
    """

    every: int = Field(default=10, ge=1)
    rewards: dict[Label, Annotated[Chosen[RewardModel], *named("rewards")]] = Field(default_factory=dict)


class EarlyStopConfig(ComponentConfig):
    """Ends a run whose held-out ``reward``, one of ``[watch]``, has not risen in ``patience`` measurements.

    A rise of at most ``min_delta`` over the best so far is none. The checkpoint of the best is kept beside the others.
    """

    reward: str
    patience: int = Field(default=3, ge=1)
    min_delta: float = Field(default=0.0, ge=0)


class CheckpointConfig(ComponentConfig):
    """A checkpoint ``every`` so many updates, of which the newest ``keep`` stay."""

    every: int = Field(default=25, ge=1)
    keep: int = Field(default=2, ge=1)


def _tracker(name: str) -> str:
    """Accept a name in accelerate's table of trackers."""
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS  # a second, and only where a recipe names another

    if name != TENSORBOARD and name not in LOGGER_TYPE_TO_CLASS:
        hint = registry.nearest(name, LOGGER_TYPE_TO_CLASS)
        raise RecipeError(f"no tracker is called {name!r}{hint} ({', '.join(sorted(LOGGER_TYPE_TO_CLASS))})")
    return name


class TrackingConfig(ComponentConfig):
    """What a run writes beside its metrics: to ``trackers``, and pictures of ``sample_prompts``.

    ``trackers`` are TensorBoard and any of accelerate's, by name; ``project`` is what groups runs there, and
    ``options`` what each of them is opened with, by its name. Without ``sample_prompts`` the pictures show the run's
    own: a prompt of each task of its evaluation, else some of those that it trains on.
    """

    trackers: tuple[Annotated[str, AfterValidator(_tracker)], ...] = (TENSORBOARD,)
    project: str = Field(default="maskrl", min_length=1)
    options: dict[str, dict[str, Any]] = Field(default_factory=dict)
    samples_every: int = Field(default=25, ge=1)
    sample_prompts: tuple[str, ...] | None = None

    @model_validator(mode="after")
    def _has_options_of_its_own(self) -> Self:
        if others := sorted(self.options.keys() - set(self.trackers) - {TENSORBOARD}):
            raise ValueError(f"options.{others[0]}: {others[0]!r} is not among the trackers")
        return self
