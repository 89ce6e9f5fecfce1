"""Rows of an evaluation under way, on disk at once, so that a killed one is gone on with."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from maskrl import files
from maskrl.errors import TrainingError
from maskrl.evals import results
from maskrl.evals.images import ImageFolder
from maskrl.evals.together import Progress, dealt, on_main, together
from maskrl.grpo.parts import Process
from maskrl.types import Prompt

Row = Mapping[str, Any]
Judge = Callable[[Sequence[Tensor], Sequence[Prompt], Sequence[str]], Sequence[Row]]
JOURNAL = "unfinished"


def judge_images(
    images: ImageFolder,
    judge: Judge,
    settings: Mapping[str, Any],
    out: Path,
    *,
    batch: int,
    process: Process,
    progress: Progress,
) -> list[dict[str, Any]]:
    """Judge every image of a folder once, dealt out among the processes; go on where a killed evaluation stopped.

    Args:
        images: what is judged.
        judge: images Float [3, H, W], prompts and names -> a row each, which JSON can hold.
        settings: of the evaluation; rows of other settings, or of other images, are not gone on with.
        out: where rows wait until all are there.
        batch: images per call; memory and speed only.
        process: this one; every process returns all rows.
        progress: called with the images done and their total, as often on every process.

    Returns:
        The rows with the key ``filename``, in the order of the images.

    Raises:
        RecipeError: ``out`` holds results of other settings, or of other images.
        TrainingError: an image is damaged, or ``out`` cannot be written.
    """
    folder, judged = out / JOURNAL, images.identity()

    def begin() -> None:
        results.refuse_others(out, settings, judged)
        claim(folder, {**settings, "judged": judged})

    on_main(process, begin)
    known = {row["filename"]: row for row in _rows(folder)}
    process.wait()  # nobody writes before everybody has read
    own = folder / f"{process.rank}.jsonl"
    _mend(own)
    pairs = images.pairs()
    missing = [(prompt, name) for prompt, name in pairs if name not in known]
    for chunk in dealt(missing, len(pairs), batch, process, progress):

        def judge_chunk(chunk: Sequence[tuple[Prompt, str]] = chunk) -> None:
            prompts, names = zip(*chunk, strict=True)
            _append(own, names, judge([images.read(name) for name in names], prompts, names))

        together(process, judge_chunk if chunk else None)
    process.wait()  # all is there
    known = {row["filename"]: row for row in _rows(folder)}
    process.wait()  # nobody closes before everybody has read
    return [known[name] for _, name in pairs]


def close(out: Path) -> None:
    """Throw the rows of a finished evaluation away: they are in its results now."""
    shutil.rmtree(out / JOURNAL, ignore_errors=True)


def claim(folder: Path, settings: Mapping[str, Any]) -> None:
    """Keep what an evaluation of the same settings left, throw away what another did.

    Raises:
        TrainingError: the place cannot be written.
    """
    saved, ours = folder / "settings.json", results.to_json(settings)
    if saved.exists() and results.read_text(saved) == ours:
        return
    shutil.rmtree(folder, ignore_errors=True)
    files.write_text(saved, ours)


def _rows(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of all processes; one that a kill cut short is left out."""
    for path in sorted(folder.glob("*.jsonl")):
        for line in results.read_text(path).splitlines(keepends=True):
            if line.endswith("\n"):
                yield json.loads(line)


def _mend(path: Path) -> None:
    """Cut off what a kill left of a row."""
    if path.exists():
        whole = path.read_bytes()
        path.write_bytes(whole[: whole.rfind(b"\n") + 1])


def _append(path: Path, names: Sequence[str], rows: Sequence[Row]) -> None:
    lines = [json.dumps({"filename": name, **row}) + "\n" for name, row in zip(names, rows, strict=True)]
    try:
        with path.open("a", encoding="utf-8") as file:
            file.writelines(lines)
    except OSError as error:
        raise TrainingError(f"cannot write {str(path)!r}: {error.strerror or error}") from error
