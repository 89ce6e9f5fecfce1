"""Files of prompts: a text file of one prompt a line, or rows with columns (JSON Lines, a JSON array, CSV, TSV)."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from maskrl.errors import RecipeError
from maskrl.types import Prompt

PlacedRow = tuple[str, Any]  # where it stands, and what stands there: a text, or a mapping of columns
_MOST_COLUMNS_NAMED = 8


def read_prompts(path: Path, column: str | None) -> Iterator[Prompt]:
    """Yield the prompts of a file, in order; what rows hold beside the text is metadata.

    Args:
        path: by its ending ``.jsonl`` (an object a line), ``.json`` (an array of objects or of texts), ``.csv`` or
            ``.tsv`` (with a header); anything else is text.
        column: of the text in rows. Without it ``text``, or ``prompt`` as in GenEval's own file.

    Raises:
        RecipeError: it is not UTF-8 or malformed, or a row has no text; the message says where.
    """
    rows = READERS.get(path.suffix.lower(), _lines)
    for where, row in rows(path, read_text(path)):
        yield Prompt(row) if isinstance(row, str) else _from_row(dict(row), column, where)


def has_columns(path: Path) -> bool:
    """Tell whether the rows of a file have columns."""
    return path.suffix.lower() in READERS


def read_text(path: Path) -> str:
    """Read a text file in UTF-8, with or without a byte order mark.

    Raises:
        RecipeError: it cannot be read, or is not UTF-8: the message names the line.
    """
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise RecipeError(f"{path}:{line}: is not UTF-8; save the file as UTF-8") from error


def _lines(path: Path, text: str) -> Iterator[PlacedRow]:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield f"{path}:{number}", line.strip()


def _json_lines(path: Path, text: str) -> Iterator[PlacedRow]:
    for where, line in _lines(path, text):
        yield where, _object(_parse(line, where), where)


def _json_array(path: Path, text: str) -> Iterator[PlacedRow]:
    found = _parse(text, str(path)) if text.strip() else []
    if not isinstance(found, list):
        raise RecipeError(f"{path}: is no JSON array; one object a line is a .jsonl file")
    for index, item in enumerate(found):
        where = f"{path}[{index}]"
        is_text = isinstance(item, str) and item.strip()
        yield where, item.strip() if is_text else _object(item, where)


def _parse(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise RecipeError(f"{where}: is no JSON: {error.msg}") from error
    except (ValueError, RecursionError) as error:  # a number of 5,000 digits, 100,000 brackets
        raise RecipeError(f"{where}: is no JSON that can be read: {type(error).__name__}") from error


def _object(found: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(found, dict):
        raise RecipeError(f"{where}: is no JSON object")
    return found


def _table(delimiter: str) -> Callable[[Path, str], Iterator[PlacedRow]]:
    def read(path: Path, text: str) -> Iterator[PlacedRow]:
        reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        try:
            for row in reader:
                if None in row:
                    raise RecipeError(f"{path}:{reader.line_num}: has more cells than the header has columns")
                yield f"{path}:{reader.line_num}", row
        except csv.Error as error:
            raise RecipeError(f"{path}:{reader.line_num}: cannot be read as a table: {error}") from error

    return read


READERS: dict[str, Callable[[Path, str], Iterator[PlacedRow]]] = {
    ".jsonl": _json_lines,
    ".json": _json_array,
    ".csv": _table(","),
    ".tsv": _table("\t"),
}


def _from_row(row: dict[str, Any], column: str | None, where: str) -> Prompt:
    key = column or ("text" if "text" in row else "prompt")
    names = list(row)
    text = row.pop(key, None)
    if not isinstance(text, str) or not text.strip():
        wanted = repr(column) if column else "'text' or 'prompt'"
        raise RecipeError(f"{where}: has no text under {wanted}{_hint(key, names)}")
    return Prompt(text.strip(), row)


def _hint(key: str, names: list[str]) -> str:
    """Say which columns there are, where the one wanted is not among them."""
    if key in names or not names:
        return ""
    if "prompt" in names:
        return "; it has 'prompt': set prompts.column = \"prompt\""
    more = ", ..." if len(names) > _MOST_COLUMNS_NAMED else ""
    return f"; it has {', '.join(map(repr, names[:_MOST_COLUMNS_NAMED]))}{more}: set prompts.column"
