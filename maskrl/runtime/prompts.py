"""Prompts: from a text file, from a JSONL file, from a prompt set that a package ships, or from a dataset."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from maskrl import registry
from maskrl.component import build, resolve_path
from maskrl.errors import RecipeError
from maskrl.interfaces import PromptSet
from maskrl.recipe import PromptsConfig, is_dataset
from maskrl.types import Prompt


def training_prompts(config: PromptsConfig) -> list[Prompt]:
    """Read what the section ``[prompts]`` of a recipe asks for, in order.

    Raises:
        RecipeError: there is no such source, it cannot be read, or nothing is left of it.
    """
    columns = (config.column,) if isinstance(config.column, str) else config.column
    if is_dataset(config.train):
        found = read_dataset(config, columns)
    else:
        found = (prompt for column in columns for prompt in load_prompts(config.train, column))
    wanted = list(islice((prompt for prompt in found if _fits(prompt.text, config)), config.limit))
    if not wanted:
        raise RecipeError(f"no prompt of {config.train!r} is left after filtering; loosen [prompts]")
    return wanted


def read_dataset(config: PromptsConfig, columns: Sequence[str]) -> Iterator[Prompt]:
    """Stream a dataset from the hub or a folder; reads no further than it is asked.

    Raises:
        RecipeError: the package ``datasets`` is missing, the dataset cannot be had, or it has no such column.
    """
    try:
        import datasets  # an extra, and slow to import
    except ModuleNotFoundError as error:
        raise RecipeError(
            f"the dataset {config.train!r} needs the package 'datasets': pip install 'maskrl[datasets]'"
        ) from error
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # the line below says it all
    try:
        rows = iter(datasets.load_dataset(config.train, split=config.split, streaming=True))
        for row in rows:
            yield from _from_row(row, config, columns)
    except RecipeError:
        raise
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        reason = str(error).partition("\n")[0]
        raise RecipeError(
            f"the dataset {config.train!r}, split {config.split!r}, cannot be read: {reason};"
            " without a hub, point prompts.train to a folder or a file"
        ) from error


def _from_row(row: Mapping[str, Any], config: PromptsConfig, columns: Sequence[str]) -> Iterator[Prompt]:
    absent = [column for column in (*columns, *config.where) if column not in row]
    if absent:
        raise RecipeError(
            f"the dataset {config.train!r} has no column {absent[0]!r}; it has {', '.join(map(repr, row))}"
        )
    if all(row[column] == value for column, value in config.where.items()):
        texts = (row[column] for column in columns)
        yield from (Prompt(text.strip()) for text in texts if isinstance(text, str) and text.strip())


def _fits(text: str, config: PromptsConfig) -> bool:
    words = len(text.split())
    return config.min_words <= words <= (config.max_words or words)


def load_prompts(source: str, column: str | None = None, base: Path | None = None) -> list[Prompt]:
    """Read every prompt of a source, in order.

    Args:
        source: a text file of one prompt a line; a ``.jsonl`` file of one object a line; the name of an
            installed prompt set, or ``my_file.py:MyPrompts``.
        column: the key of the text in a JSONL file; the other keys are metadata. Without it ``text``, or ``prompt``
            as in GenEval's own file.
        base: the folder that a relative path starts from; the current one if not given.

    Raises:
        RecipeError: there is no such source, or the file is empty, not UTF-8 or malformed: the message names
            the line.
    """
    base = base or Path()
    path = Path(resolve_path(source, base))
    if path.is_file():
        prompts = list(_read_file(path, column))
    elif registry.is_local(source) or not _looks_like_a_file(source):
        prompt_set = build("prompts", {"name": source}, base)
        assert isinstance(prompt_set, PromptSet)
        prompts = prompt_set.prompts()
    else:
        raise RecipeError(f"there is no prompt file {source!r}")
    if not prompts:
        raise RecipeError(f"{source!r} holds no prompts")
    return prompts


def _looks_like_a_file(source: str) -> bool:
    return Path(source).suffix in (".txt", ".jsonl") or source.startswith((".", "/", "~"))


def _read_file(path: Path, column: str | None) -> Iterator[Prompt]:
    for number, line in enumerate(_read_text(path).split("\n"), start=1):
        if line.strip():
            is_json = path.suffix == ".jsonl"
            yield _from_json(line, column, f"{path}:{number}") if is_json else Prompt(line.strip())


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise RecipeError(f"{path}:{line}: is not UTF-8; save the file as UTF-8") from error


def _from_json(line: str, column: str | None, where: str) -> Prompt:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise RecipeError(f"{where}: is no JSON: {error.msg}") from error
    if not isinstance(record, dict):
        raise RecipeError(f"{where}: is no JSON object")
    key = column or ("text" if "text" in record else "prompt")
    text = record.pop(key, None)
    if not isinstance(text, str) or not text.strip():
        wanted = repr(column) if column else "'text' or 'prompt'"
        raise RecipeError(f"{where}: has no text under {wanted}")
    return Prompt(text.strip(), record)
