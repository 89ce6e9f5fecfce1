"""The folder of one run, and whose it is.

It holds ``recipe.toml`` (every default filled in), ``run.json`` (what it read and where, at every start), ``plugins/``
(the source of components from files, each beside the first digits of its sha256), ``metrics.jsonl``, ``samples/``,
``groups/`` (what some updates learnt from), ``checkpoints/``, ``best/``, ``eval/``.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from maskrl import files
from maskrl.component import Needs
from maskrl.errors import RecipeError, TrainingError
from maskrl.identity import source_of
from maskrl.recipe import SECTIONS, Recipe, read_recipe
from maskrl.runtime.record import WATCHED, changed_contents, changed_versions, components, short
from maskrl.runtime.record_file import RECORD, read_record, write_record

RECIPE, PLUGINS = "recipe.toml", "plugins"

# What may change when a run is resumed: memory and speed, how long it goes on, what is written and shown beside.
FREE = (
    *("training.updates", "training.micro_batch", "training.score_batch", "training.rollout_batch"),
    *("training.reward_batch", "training.overlap_reward", "training.activation_checkpointing"),
    *("training.offload", "training.compile", "training.device", "training.max_seconds"),
    *("training.max_skipped", "parallel.reward_ranks", "checkpoint.", "tracking.", "watch."),
    *("ema.evaluate", "early_stop.patience", "early_stop.min_delta"),
)

_FREE_EVAL = re.compile(r"eval\.[^.]+\.(batch|every|subset)")


def default_folder(recipe_name: str, now: datetime) -> Path:
    """Name a run after its recipe and the time: ``runs/shapes_clip-20261120-191500``."""
    return Path("runs") / f"{recipe_name}-{now:%Y%m%d-%H%M%S}"


def check_folder(run: Path, resume: bool) -> None:
    """Look whether a run can begin in a folder, or be resumed there; writes nothing.

    Raises:
        RecipeError: the folder holds something else; it holds a run and ``resume`` was not asked; or there is nothing
            to resume.
    """
    if (run / RECIPE).exists():
        if not resume:
            raise RecipeError(f"{str(run)!r} holds a run already; add --resume, or choose another --run")
    elif resume:
        raise RecipeError(f"{str(run)!r} holds no run to resume; leave out --resume to begin one there")
    elif not files.is_empty(run):
        raise RecipeError(f"{str(run)!r} is not empty and holds no run; choose another --run")


def begin(run: Path, recipe: Recipe, contents: Mapping[str, Any], about: Mapping[str, Any]) -> list[str]:
    """Save what a run is, or check that it is the one that is there; only the folder's owner may.

    Args:
        run: the folder.
        recipe: of the run.
        contents: what it reads, as :func:`maskrl.runtime.record.contents` tells it.
        about: where it runs, and anything else to remember of this start.

    Returns:
        What a person should know: a line for every setting that has changed since the run began, for what watches and
        for packages.

    Raises:
        RecipeError: the run belongs to another recipe, or what it reads has changed; the message says what, and what to
            do.
        TrainingError: the folder cannot be written, or its recipe was changed.
    """
    files.clear_leftovers(run)
    record = read_record(run)
    text, said = recipe.to_toml(), []
    if (run / RECIPE).exists():
        check_recipe(run, record)
        known = record["contents"]
        changed = _check_same(run, recipe, by_contents=known is not None)
        if known is None:
            said.append("this run does not say what it read when it began: it is taken to be the same")
        else:
            said += _check_contents(run, known, contents)
        said += [_say_change(key, now, was, recipe) for key, (was, now) in changed.items()]
        said += changed_versions(record["starts"], about)
        about = {**about, "changed": {key: now for key, (_, now) in changed.items()}}
    else:
        files.write_text(run / RECIPE, text)  # first: a kill behind it leaves a run that can be resumed
    # both, for a kill may come before the new one is written
    told = [files.sha256(run / RECIPE), files.sha256_text(text)]
    starts = [*record["starts"], about]
    write_record(run, {**record, "contents": contents, "recipe_sha256": told, "starts": starts})
    files.write_text(run / RECIPE, text)
    _copy_plugins(run / PLUGINS, recipe)
    return said


def check_recipe(run: Path, record: Mapping[str, Any]) -> None:
    """See that a run's recipe is what the run wrote; one of before it was hashed is taken to be.

    Raises:
        TrainingError: it was changed.
    """
    known = record["recipe_sha256"]
    if known is not None and files.sha256(run / RECIPE) not in known:
        raise TrainingError(
            f"{str(run / RECIPE)!r} is not what the run wrote there: restore it (what may change is given by --set),"
            f" or, if it is what you want, delete {str(run / RECORD)!r}: then nothing is known of what the run read"
        )


def _copy_plugins(folder: Path, recipe: Recipe) -> None:
    """Keep the source of components that come from files, each beside its hash: two may have one name."""
    sources = (source_of(one.component) for one in components(recipe))
    for source in (source for source in sources if source is not None):
        copy = folder / files.sha256(source)[:12] / source.name
        if not copy.exists() or files.sha256(copy) != files.sha256(source):
            with files.whole(copy) as unfinished:
                shutil.copyfile(source, unfinished)


def difference(run: Path, recipe: Recipe, contents: Mapping[str, Any]) -> str | None:
    """Say what a run did not begin with: the first setting, free or not, or the first content; None: it did with all.

    Raises:
        RecipeError: its recipe or its record cannot be read.
    """
    known = read_record(run)["contents"]
    for key, (was, now) in _different(run, recipe, by_contents=known is not None).items():
        return f"{key} was {short(was)} and is {short(now)}"
    for name, (place, was, now) in changed_contents(known or contents, contents):
        return f"of {name} {place} was {short(was)} and is {short(now)}"
    return None


def _check_same(run: Path, recipe: Recipe, by_contents: bool) -> dict[str, tuple[Any, Any]]:
    """Return which free settings have changed: what they were and are. Components are compared by their contents."""
    different = _different(run, recipe, by_contents)
    fixed = [key for key in different if not key.startswith(FREE) and not _FREE_EVAL.fullmatch(key)]
    if fixed:
        was, now = different[fixed[0]]
        more = f", and {len(fixed) - 1} more" if len(fixed) > 1 else ""
        raise RecipeError(
            f"{str(run)!r} belongs to another recipe: {fixed[0]} is {was!r} there and {now!r} here{more}; choose"
            " another --run"
        )
    return different


def _different(run: Path, recipe: Recipe, by_contents: bool) -> dict[str, tuple[Any, Any]]:
    """Return the settings of a run that are others now: what they were and are."""
    try:
        # what is told by contents need not lie where it lay
        theirs = flat(read_recipe(run / RECIPE, needs=Needs((), ()) if by_contents else Needs()))
    except RecipeError as error:
        raise RecipeError(f"{str(run / RECIPE)!r} cannot be read any more: {error}") from error
    ours = flat(recipe)
    return {
        key: (theirs.get(key), ours.get(key))
        for key in sorted(theirs | ours)
        if theirs.get(key) != ours.get(key) and not (by_contents and _is_told_by_contents(key))
    }


_OF_EVAL = (
    "images_per_prompt",
    "num_steps",
    "guidance",
    "every",
    "subset",
    "batch",
)  # keys that are no contents


def _is_told_by_contents(key: str) -> bool:
    """Tell whether ``run.json`` has the contents of what a setting names, so that the setting itself may change."""
    section, *inside = key.split(".")
    if section == "eval":
        return len(inside) > 1 and inside[1] not in _OF_EVAL
    return section in SECTIONS or key == "prompts.train"


def _check_contents(run: Path, known: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Refuse to go on with other contents; those of what watches and never teaches are said."""
    said = []
    for name, (place, was, new) in changed_contents(known, now):
        change = f"{place} was {short(was)} and is {short(new)}"
        if name.startswith(WATCHED):
            said.append(f"the contents of {name} are not those with which the run began: {change}")
            continue
        copies = run / PLUGINS
        is_code = "source_sha256" in place and copies.is_dir()
        kept = f" (copies of files with code are in {str(copies)!r})" if is_code else ""
        raise RecipeError(
            f"the contents of {name} are not those with which the run in {str(run)!r} began:"
            f" {change}; put back what was there{kept}, or begin another run,"
            " with generator.checkpoint = the newest checkpoint's generator"
        )
    return said


def check_updates(run: Path, updates: int, made: int) -> None:
    """Refuse to go on with fewer updates than a run has made: its recipe would not repeat it.

    Raises:
        RecipeError: there are more.
    """
    if updates < made:
        raise RecipeError(
            f"training.updates = {updates}, but the run in {str(run)!r} has made {made} already; give {made} or more"
        )


def _say_change(key: str, now: Any, was: Any, recipe: Recipe) -> str:
    moved = key == "training.updates" and recipe.training.lr_schedule != "constant"
    return f"continuing with {key} = {now!r}, was {was!r}" + (
        "; the learning rate's schedule follows" if moved and recipe.training.schedule_updates is None else ""
    )


def settings(recipe: Recipe) -> dict[str, Any]:
    """Return the settings by which a recipe is told, beside its contents."""
    return {key: value for key, value in flat(recipe).items() if not _is_told_by_contents(key)}


def flat(recipe: Recipe) -> dict[str, Any]:
    """Return every setting of a recipe by its full key, defaults included."""

    def walk(table: Mapping[str, Any], prefix: str) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in table.items():
            inside = isinstance(value, dict)
            found |= walk(value, f"{prefix}{key}.") if inside else {f"{prefix}{key}": value}
        return found

    return walk(recipe.model_dump(mode="json"), "")


def note_saved(run: Path, update: int) -> None:
    """Remember that a checkpoint of this update was saved: a run whose checkpoints are gone must not begin anew."""
    record = read_record(run)
    if record["saved"] != update:
        write_record(run, {**record, "saved": update})


def note_end(run: Path, reason: str) -> None:
    """Remember the error that ended this start of a run, for those who look at it later."""
    record = read_record(run)
    *before, last = record["starts"]
    write_record(run, {**record, "starts": [*before, {**last, "ended": reason}]})


def check_saved(run: Path, checkpoint_every: int, last_update: int) -> None:
    """Refuse to begin anew what has been saved and cannot be found: ``last_update`` is the newest row's.

    Raises:
        TrainingError: there was a checkpoint; the message says what to do.
    """
    record = read_record(run)
    is_old = record["contents"] is None  # nobody noted what was saved; behind its row an update is saved
    was_saved = record["saved"] is not None or (is_old and last_update > checkpoint_every)
    if was_saved and last_update > 0:
        raise TrainingError(
            f"{str(run)!r} has made {last_update} updates, but no checkpoint can be found in"
            f" {str(run / 'checkpoints')!r}; restore that folder (is its disk mounted?), or delete"
            f" {str(run / 'metrics.jsonl')!r} to begin this run again"
        )
