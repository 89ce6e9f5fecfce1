"""What every evaluation writes: one JSON file with the numbers, and all that is needed to get them again."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from maskrl.errors import RecipeError, TrainingError
from maskrl.evals.sameness import differing
from maskrl.files import sha256_text, write_text
from maskrl.interfaces import Number, Row


def read_text(path: Path) -> str:
    """Read a text that an evaluation wrote.

    Raises:
        TrainingError: it is missing, or no text.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TrainingError(f"cannot read the results in {str(path)!r}: {error}") from error


def to_json(values: Mapping[str, Any]) -> str:
    """Return indented JSON; NaN, a standard error that does not exist, becomes null."""
    return json.dumps(_without_nan(values), indent=2, allow_nan=False) + "\n"


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nan(inner) for key, inner in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value


@dataclass(frozen=True)
class Result:
    """What an evaluation found, and all that is needed to get it again: the one file that every evaluation writes.

    Attributes:
        evaluation: its name on the command line.
        label: what its numbers may be called ("GenEval", "GenEval-HF", "CLIP score (ViT-L-14 openai)").
        numbers: the headline first.
        images: how many were judged.
        settings: what must be equal in two results that are compared.
        provenance: what was judged: generator, checkpoint, recipe.
        versions: of the packages that can change a number.
        rows_sha256: of the rows beside it; None where it has none, or is from before they were hashed.
    """

    evaluation: str
    label: str
    numbers: Mapping[str, Number]
    images: int
    settings: Mapping[str, Any]
    provenance: Mapping[str, Any]
    versions: Mapping[str, str]
    rows_sha256: str | None = None


@dataclass(frozen=True)
class Report:
    """A result and its rows, one for each image; none where the evaluation is of all images at once."""

    result: Result
    rows: tuple[Row, ...]

    @property
    def numbers(self) -> Mapping[str, Number]:
        """The numbers, the headline first."""
        return self.result.numbers

    @property
    def headline(self) -> Number:
        """The first of the numbers."""
        return next(iter(self.result.numbers.values()))


CONTENTS = "contents_sha256"  # of the images that were judged, in their provenance
_READ = TypeAdapter(Result)
RESULT, ROWS = "summary.json", "results.jsonl"


def write_result(result: Result, folder: Path) -> None:
    """Write ``summary.json``, whole or not at all.

    Raises:
        TrainingError: the folder cannot be written.
    """
    write_text(folder / RESULT, to_json(asdict(result)))


def read_result(path: Path) -> Result:
    """Read a ``summary.json``, or that of a folder.

    Raises:
        RecipeError: there is none.
        TrainingError: it is damaged, or no evaluation's.
    """
    file = path / RESULT if path.is_dir() else path
    if not file.is_file():
        raise RecipeError(f"there are no results in {str(path)!r}: no {RESULT}")
    try:
        saved = json.loads(read_text(file))
        numbers = {name: _with_nan(number) for name, number in saved.pop("numbers").items()}
        return _READ.validate_python({**saved, "numbers": numbers})
    except ValidationError as error:
        detail = error.errors()[0]
        where = ".".join(map(str, detail["loc"]))
        raise TrainingError(_damaged(file, f"{where}: {detail['msg']}")) from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise TrainingError(_damaged(file, repr(error))) from error


def _damaged(file: Path, why: str) -> str:
    return f"the results in {str(file)!r} are damaged, or no evaluation's: {why}"


def refuse_others(
    folder: Path, evaluation: str, settings: Mapping[str, Any], images: Mapping[str, Any]
) -> None:
    """Keep results of other settings, or of other images, from being overwritten.

    Args:
        folder: for results.
        evaluation: its name.
        settings: of the evaluation.
        images: which they are, as ``ImageFolder.identity`` says; results of which this is not known are taken for those
            of the same.

    Raises:
        RecipeError: the folder holds such results.
    """
    if not (folder / RESULT).is_file():
        return
    saved = read_result(folder)
    if saved.evaluation != evaluation:
        raise RecipeError(
            f"{str(folder)!r} holds results of the evaluation {saved.evaluation!r}, not of {evaluation!r}; choose"
            " another --out"
        )
    judged = saved.provenance.get("judged") or {}
    if judged.get(CONTENTS, images[CONTENTS]) != images[CONTENTS]:
        raise RecipeError(
            f"{str(folder)!r} holds results of other images, or of these as they were before (in"
            f" {judged.get('folder')!r}); choose another --out, or delete {str(folder / RESULT)!r}"
        )
    different = differing(saved.settings, json.loads(to_json(settings)))
    if different:
        raise RecipeError(
            f"{str(folder)!r} holds results of other settings: they differ in {', '.join(different)}; choose"
            f" another --out, or delete {str(folder / RESULT)!r}"
        )


def write_report(report: Report, folder: Path) -> None:
    """Write ``results.jsonl``, where there are rows, and ``summary.json``.

    Raises:
        TrainingError: the folder cannot be written.
    """
    digest = write_rows(folder, report.rows) if report.rows else None
    write_result(replace(report.result, rows_sha256=digest), folder)


def read_report(folder: Path) -> Report:
    """Read what :func:`write_report` wrote.

    Raises:
        RecipeError: there are no results.
        TrainingError: a file is missing or damaged, or the two do not belong together.
    """
    result = read_result(folder)
    if result.rows_sha256 is None and not (folder / ROWS).exists():
        return Report(result, ())
    rows = read_rows(folder, result)
    if len(rows) != result.images:
        raise TrainingError(
            f"the results in {str(folder)!r} are damaged: {len(rows)} of {result.images} rows"
        )
    return Report(replace(result, rows_sha256=None), tuple(rows))


def write_details(details: Mapping[str, Any], folder: Path, evaluation: str) -> None:
    """Write more than the numbers, as JSON called after the evaluation.

    Raises:
        TrainingError: the folder cannot be written.
    """
    write_text(folder / f"{evaluation}.json", to_json(details))


def write_rows(folder: Path, rows: Sequence[Mapping[str, Any]]) -> str:
    """Write ``results.jsonl``, a row per image; return its sha256, which belongs into the summary beside it.

    Raises:
        TrainingError: the folder cannot be written.
    """
    text = "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows)
    write_text(folder / ROWS, text)
    return sha256_text(text)


def read_rows(folder: Path, result: Result) -> list[dict[str, Any]]:
    """Read the ``results.jsonl`` that belongs to a result.

    Raises:
        TrainingError: it is missing or damaged, or not what was written beside that result.
    """
    text = read_text(folder / ROWS)
    if result.rows_sha256 not in (None, sha256_text(text)):
        raise TrainingError(
            f"{str(folder / ROWS)!r} is not what was written beside its {RESULT}: it was changed; evaluate again, or"
            f" delete {str(folder)!r}: then it is measured again"
        )
    try:
        rows = [json.loads(line) for line in text.splitlines()]
    except (ValueError, RecursionError) as error:
        raise TrainingError(f"the results in {str(folder / ROWS)!r} are damaged: {error}") from error
    if not all(isinstance(row, dict) and "filename" in row for row in rows):
        raise TrainingError(f"the results in {str(folder / ROWS)!r} are damaged: a row names no image")
    return rows


def _with_nan(number: Mapping[str, Any]) -> dict[str, Any]:
    """Return a number as it was: its standard error may be none, its mean may not."""
    return {**number, "se": math.nan if number.get("se") is None else number["se"]}


def check_comparable(first: Result, second: Result, apart_from: Collection[str] = ()) -> None:
    """Refuse to compare what was not measured alike; the settings in ``apart_from`` may differ.

    Raises:
        RecipeError: evaluation, label or settings differ; the message names what.
    """
    if first.evaluation != second.evaluation:
        raise RecipeError(
            f"{first.evaluation!r} and {second.evaluation!r} are different evaluations: nothing to compare"
        )
    different = [] if first.label == second.label else [f"label ({first.label!r} and {second.label!r})"]
    different += [key for key in differing(first.settings, second.settings) if key not in apart_from]
    if different:
        raise RecipeError(f"these results cannot be compared: they differ in {', '.join(different)}")
