"""The questions of a benchmark: who asks what of a picture, and which answer presumes which.

Source: the table ``dpg_bench.csv`` of TencentQQGYLab/ELLA at 3c228f1, whose columns are those of DSG (Cho et al. 2023,
arXiv 2310.18235). It is read from the user's copy. How we differ: there the first row below the header is skipped.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from maskrl.component import open_path
from maskrl.errors import RecipeError, quote

ITEM, TEXT, NUMBER, PARENTS = "item_id", "text", "proposition_id", "dependency"
TUPLE, QUESTION = "tuple", "question_natural_language"
COLUMNS = (ITEM, TEXT, NUMBER, PARENTS, TUPLE, QUESTION)
NO_PARENT = 0


@dataclass(frozen=True)
class Question:
    """One question of a prompt.

    ``parents`` are the numbers of those that must be answered "yes" for it to count. ``category`` is what it is about:
    ``entity - whole``, of which ``topic`` is the first half.
    """

    text: str
    parents: tuple[int, ...]
    category: str

    @property
    def topic(self) -> str:
        """What it is about, coarsely: entity, attribute, relation..."""
        return self.category.partition("-")[0].strip()


@dataclass(frozen=True)
class Item:
    """A prompt, and its questions by their numbers."""

    name: str
    text: str
    questions: Mapping[int, Question]


def read_items(file: str) -> dict[str, Item]:
    """Read a table of questions, a row each: items by the texts of their prompts.

    Raises:
        RecipeError: it is not there, is no such table, or a question presumes one that is not there.
    """
    path = Path(open_path(file))
    items: dict[str, Item] = {}
    of_name: dict[str, tuple[str, dict[int, Question]]] = {}
    for where, row in _rows(path):
        text, questions = of_name.setdefault(row[ITEM], (row[TEXT].strip(), {}))
        number = _number(row[NUMBER], where)
        if number in questions:
            raise RecipeError(f"{where}: the item {row[ITEM]!r} has two questions {number}")
        parents = (_number(one, where) for one in row[PARENTS].split(","))
        known = tuple(parent for parent in parents if parent != NO_PARENT)
        questions[number] = Question(row[QUESTION].strip(), known, row[TUPLE].partition("(")[0].strip())
    for name, (text, questions) in of_name.items():
        if text in items:
            raise RecipeError(
                f"{path}: the items {items[text].name!r} and {name!r} have one prompt, {quote(text)}"
            )
        items[text] = _check(Item(name, text, questions), path)
    if not items:
        raise RecipeError(f"{path}: holds no questions")
    return items


def _check(item: Item, path: Path) -> Item:
    for number, question in item.questions.items():
        unknown = [parent for parent in question.parents if parent not in item.questions]
        if unknown:
            raise RecipeError(
                f"{path}: question {number} of the item {item.name!r} depends on question {unknown[0]}, which is not"
                " there"
            )
    return item


def _rows(path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield where each row stands, and its cells by column; a header that is repeated is no row."""
    reader = csv.DictReader(io.StringIO(_text(path), newline=""), strict=True)
    try:
        if absent := [column for column in COLUMNS if column not in (reader.fieldnames or ())]:
            raise RecipeError(f"{path}: has no column {absent[0]!r}; is it the benchmark's dpg_bench.csv?")
        for row in reader:
            where = f"{path}:{reader.line_num}"
            if empty := [column for column in COLUMNS if not (row[column] or "").strip()]:
                raise RecipeError(f"{where}: has nothing under {empty[0]!r}")
            if row[NUMBER] != NUMBER:
                yield where, row
    except csv.Error as error:
        raise RecipeError(f"{path}:{reader.line_num}: cannot be read as a table: {error}") from error


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise RecipeError(
            f"there is no file {str(path)!r}; the questions are dpg_bench/dpg_bench.csv of TencentQQGYLab/ELLA"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{str(path)!r} cannot be read: {error}") from error


def _number(cell: str, where: str) -> int:
    try:
        return int(cell)
    except ValueError as error:
        raise RecipeError(f"{where}: {cell.strip()!r} is no question's number") from error
