"""Recipes as text: TOML read, overridden by ``--set section.key=value``, and written."""

from __future__ import annotations

import copy
import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from datetime import date, time
from pathlib import Path
from typing import Any

from maskrl import registry
from maskrl.component import TYPED
from maskrl.errors import RecipeError
from maskrl.mistakes import shown, told, written

_DEEPEST = 32  # tables and lists inside each other
_INTEGERS = 2**63  # TOML's are of 64 bits
_UNWANTED = re.compile("[\0\ud800-\udfff]")
_NO_COMPONENT = ("prompts",)  # sections that may have a key "name" of their own: a column


def read_toml(path: Path) -> dict[str, Any]:
    """Read a file.

    Raises:
        RecipeError: it cannot be read, is no TOML, or holds what no setting is: a date, or a number of over 64 bits.
    """
    try:
        data = tomllib.loads(path.read_bytes().decode("utf-8"))
        _check_values(data)
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path}: is not UTF-8: byte {error.start}") from error
    except tomllib.TOMLDecodeError as error:  # its message ends with the line and column
        raise RecipeError(f"{path}: is no TOML: {error}") from error
    except RecursionError as error:
        raise RecipeError(f"{path}: is nested too deeply, more than {_DEEPEST} times") from error
    except ValueError as error:  # ours, and Python's of numbers with thousands of digits
        raise RecipeError(f"{path}: {error}") from error
    return data


def _check_values(value: Any, key: tuple[str, ...] = ()) -> None:
    """Refuse what TOML or the command line can say and no setting is."""
    if len(key) > _DEEPEST:
        raise RecursionError
    if isinstance(value, date | time):
        raise ValueError(
            f"{told(key)}: {value} is a date or a time, which no setting is; a text needs quotes"
        )
    if isinstance(value, int) and not -_INTEGERS <= value < _INTEGERS:
        raise ValueError(f"{told(key)}: an integer has 64 bits at most")
    if isinstance(value, str) and _UNWANTED.search(value):
        raise ValueError(f"{told(key)}: holds a null character, or is not UTF-8")
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, one in inside:
        _check_values(one, (*key, str(name)))


def apply(
    data: dict[str, Any], overrides: Sequence[str], folder: Path | None = None
) -> dict[str, Any] | None:
    """Apply ``section.key=value`` to what was read, in place.

    A component's section remembers which texts were typed here: their paths start from ``folder``, by default the
    working directory.

    Returns:
        Where a default was to be restored (``section.key=``) of a key that is not written, the same data with None
        there, so that the key can be checked; else None.

    Raises:
        RecipeError: an override is malformed.
    """
    restored, start = [], folder or Path.cwd()
    for override in overrides:
        keys, text = _split(override)
        if text.strip():
            value = _value(override, text)
            table = _table(data, keys, override)
            table[keys[-1]] = _typed(value, start)
            is_component = "name" in table or keys[:-2] == ["eval"]  # its name may be left out
            if isinstance(value, str) and is_component and keys[0] not in _NO_COMPONENT:
                table.setdefault(TYPED, {})[keys[-1]] = str(start)
        elif not _remove(data, keys):  # a key that was there may go, whoever takes its section's place
            restored.append((keys, override))
    if not restored:
        return None
    probe = copy.deepcopy(data)
    for keys, override in restored:
        _table(probe, keys, override)[keys[-1]] = None
    return probe


OLD_EVAL = {"prompts", "detector", "images_per_prompt", "every", "num_steps", "batch"}
OLD_SUBSET = "prompts_per_task_during"


def old_spelling(data: Mapping[str, Any]) -> str | None:
    """Say how to write today what was once written otherwise; None if nothing was."""
    section = data.get("eval")
    if not isinstance(section, Mapping):
        return None
    old = [key for key, value in section.items() if _is_old(key, value)]
    if not old:
        return None
    renamed = f", and in it subset in place of {OLD_SUBSET}" if OLD_SUBSET in old else ""
    return (
        f"eval.{old[0]}: every evaluation has a section of its own now: write [eval.geneval] in place of [eval]"
        f" (--set eval.geneval.KEY=VALUE; eval.geneval= leaves it out){renamed}"
    )


def _is_old(key: str, value: Any) -> bool:
    return key == OLD_SUBSET or (key in OLD_EVAL and (key == "detector" or not isinstance(value, Mapping)))


def upgrade(data: dict[str, Any]) -> None:
    """Write a run's recipe of before evaluations had sections of their own as it is written today, in place."""
    section = data.get("eval", {})
    if not any(_is_old(key, value) for key, value in section.items()):
        return
    renamed = {"subset" if key == OLD_SUBSET else key: value for key, value in section.items()}
    data["eval"] = {"geneval": renamed} if "prompts" in section else {}


def read_switch(data: dict[str, Any]) -> None:
    """Read ``tracking.tensorboard = true`` or ``false`` as ``trackers``, in place.

    Raises:
        RecipeError: it is neither, or stands beside ``trackers``.
    """
    section = data.get("tracking")
    if not isinstance(section, dict) or "tensorboard" not in section:
        return
    wanted = section.pop("tensorboard")
    if wanted is None:  # its default is to be restored
        return
    if not isinstance(wanted, bool) or "trackers" in section:
        raise RecipeError(
            'tracking.tensorboard: write trackers = ["tensorboard"], or [] for none, in its place'
            " (--set tracking.tensorboard= takes it out)"
        )
    section["trackers"] = ["tensorboard"] if wanted else []


def _split(override: str) -> tuple[list[str], str]:
    key, equals, text = override.partition("=")
    keys = key.strip().split(".")
    if not equals or not all(keys) or len(keys) > _DEEPEST:
        raise RecipeError(f"--set {shown(override)}: write it as section.key=value")
    return keys, text


def _table(data: dict[str, Any], keys: Sequence[str], override: str) -> dict[str, Any]:
    """Return the table that holds the last key; tables on the way that are not there are made."""
    table = data
    for section in keys[:-1]:
        inside = table.setdefault(section, {})
        if isinstance(inside, str):  # a component's name alone is short for a section
            inside = table[section] = {"name": inside}
        table = inside
        if not isinstance(table, dict):
            raise RecipeError(f"--set {shown(override)}: {shown(section)} is a value, not a section")
    return table


def _remove(data: dict[str, Any], keys: Sequence[str]) -> bool:
    """Remove a key; return whether it was there."""
    table: Any = data
    for section in keys[:-1]:
        table = table.get(section) if isinstance(table, dict) else None
    if not isinstance(table, dict) or keys[-1] not in table:
        return False
    del table[keys[-1]]
    return True


def _value(override: str, text: str) -> Any:
    """Read a value as TOML does; what is no TOML is a text."""
    try:
        read = tomllib.loads(f"value = {text}")
        value = read["value"] if read.keys() == {"value"} else text.strip()
    except tomllib.TOMLDecodeError:
        value = text.strip()
    except (RecursionError, ValueError) as error:
        raise RecipeError(f"--set {shown(override)}: no setting is so long or so deep") from error
    try:
        _check_values(value, tuple(override.partition("=")[0].split(".")))
    except (RecursionError, ValueError) as error:
        raise RecipeError(f"--set {shown(override)}: {str(error) or 'is nested too deeply'}") from error
    return value


def _typed(value: Any, start: Path) -> Any:
    """Make the paths of files with code absolute; mark the sections in a table that was typed."""
    if isinstance(value, str):
        return registry.resolve_local(value, start)
    if isinstance(value, list):
        return [_typed(one, start) for one in value]
    if not isinstance(value, dict):
        return value
    table = {key: _typed(one, start) for key, one in value.items()}
    texts = {key: str(start) for key, one in table.items() if isinstance(one, str)}
    return {**table, TYPED: texts} if "name" in table else table


def write_toml(data: Mapping[str, Any]) -> str:
    """Write scalars, then a table for every section; what is None is left out."""
    lines = [
        f"{written([key])} = {toml_value(v)}" for key, v in data.items() if not isinstance(v, dict | None)
    ]
    for section, values in data.items():
        if (
            section == "eval"
            and isinstance(values, dict)
            and all(isinstance(one, dict) for one in values.values())
        ):
            lines += [line for label, one in values.items() for line in _section([section, label], one)]
        elif isinstance(values, dict):
            lines += _section([section], values)
    return "\n".join(lines) + "\n"


def _section(names: Sequence[str], values: Mapping[str, Any]) -> list[str]:
    inside = [f"{written([key])} = {toml_value(v)}" for key, v in values.items() if v is not None]
    return ["", f"[{written(names)}]", *inside]


def _text(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def toml_value(value: Any) -> str:
    """Write a value as TOML does, in one line."""
    if isinstance(value, Path):
        value = str(value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, Mapping):
        inside = ", ".join(f"{_text(key)} = {toml_value(v)}" for key, v in value.items() if v is not None)
        return f"{{ {inside} }}"
    return "[" + ", ".join(toml_value(item) for item in value) + "]"
