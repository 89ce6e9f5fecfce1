"""Prompts: from a file, from a prompt set that a package ships, or from a dataset."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from maskrl import registry
from maskrl.asking import asking, refused
from maskrl.component import build, resolve_path
from maskrl.errors import RecipeError, quote
from maskrl.interfaces import PromptSet
from maskrl.runtime.prompt_files import READERS, has_columns, read_prompts
from maskrl.sections import PromptsConfig, is_dataset
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
        _check_applies(config)
        found = (
            prompt
            for column in columns
            for prompt in load_prompts(config.train, column)
            if _is_wanted(prompt, column, config)
        )
    wanted = list(islice((prompt for prompt in found if _fits(prompt.text, config)), config.limit))
    if not wanted:
        raise RecipeError(f"no prompt of {config.train!r} is left after filtering; loosen [prompts]")
    return wanted


def _check_applies(config: PromptsConfig) -> None:
    """Refuse settings that a file or a prompt set cannot follow."""
    if config.split != "train":
        raise RecipeError(
            f"prompts.split = {config.split!r}: only a dataset has splits, not {config.train!r}"
        )
    path = Path(config.train)
    if config.where and path.is_file() and not has_columns(path):
        raise RecipeError(f"prompts.where: {config.train!r} has a prompt a line and no columns; leave it out")


def _is_wanted(prompt: Prompt, column: str, config: PromptsConfig) -> bool:
    row = {column: prompt.text, **prompt.metadata}
    absent = [name for name in config.where if name not in row]
    if absent:
        raise RecipeError(
            f"prompts.where: the prompt {quote(prompt.text)} of {config.train!r} has no column {absent[0]!r}"
        )
    return all(_is_same(row[name], value) for name, value in config.where.items())


def _is_same(found: object, wanted: str | int | float | bool) -> bool:
    """Compare a cell with what is wanted of it; the cells of a table of text are texts."""
    is_text = isinstance(found, str) and not isinstance(wanted, str)
    return found == json.dumps(wanted) if is_text else found == wanted


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
        source: a file (:func:`maskrl.runtime.prompt_files.read_prompts` says which); the name of an installed prompt
            set, or ``my_file.py:MyPrompts``.
        column: of the text, in a file that has columns.
        base: the folder that a relative path starts from; the current one if not given.

    Raises:
        RecipeError: there is no such source, or the file is empty, not UTF-8 or malformed: the message names
            the line.
    """
    base = base or Path()
    path = Path(resolve_path(source, base))
    if path.is_file():
        prompts = list(read_prompts(path, column))
    elif registry.is_local(source) or not _looks_like_a_file(source):
        prompt_set = build("prompts", {"name": source}, base)
        assert isinstance(prompt_set, PromptSet)
        prompts = ask(prompt_set)
    else:
        raise RecipeError(f"there is no prompt file {source!r}")
    if not prompts:
        raise RecipeError(f"{source!r} holds no prompts")
    return prompts


def ask(prompt_set: PromptSet) -> list[Prompt]:
    """Ask a prompt set for its prompts.

    Raises:
        PluginError: they are something else.
    """
    with asking(prompt_set):
        found = list(prompt_set.prompts())
    for one in found:
        if not isinstance(one, Prompt) or not isinstance(one.text, str) or not one.text.strip():
            raise refused(prompt_set, f"prompts holds {one!r}, no Prompt with a text")
    return found


def _looks_like_a_file(source: str) -> bool:
    return Path(source).suffix in (".txt", *READERS) or source.startswith((".", "/", "~"))


def prompts_digest(prompts: Sequence[Prompt]) -> str:
    """Return the sha256 of texts and metadata, in order; a copy of the text in the metadata does not count."""
    known = [{key: value for key, value in p.metadata.items() if key != "prompt"} for p in prompts]
    lines = [json.dumps([p.text, more], sort_keys=True) for p, more in zip(prompts, known, strict=True)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
