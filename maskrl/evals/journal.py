"""Rows of an evaluation under way, on disk at once, so that a killed one is resumed."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from maskrl import files
from maskrl.errors import RecipeError, TrainingError
from maskrl.evals import results
from maskrl.evals.images import ImageFolder, digest_of
from maskrl.evals.ranks import ShowProgress, check_same, dealt, run_on_all_ranks, run_on_main
from maskrl.evals.sameness import differing
from maskrl.grpo.processes import Process
from maskrl.interfaces import Row
from maskrl.types import Prompt

Judge = Callable[[Sequence[Tensor], Sequence[Prompt], Sequence[str]], Sequence[Row]]
JOURNAL = "unfinished"
_DIGITS = 16  # of a row's sha256, which stands behind it


def judge_images(
    images: ImageFolder,
    judge: Judge,
    settings: Mapping[str, Any],
    out: Path,
    *,
    evaluation: str,
    told: Mapping[str, str],
    turned: bool,
    batch: int,
    process: Process,
    progress: ShowProgress,
) -> list[dict[str, Any]]:
    """Judge every image of a folder once, dealt out among the processes; resume what a killed evaluation left.

    Args:
        images: what is judged.
        judge: images Float [3, H, W], prompts and names -> a row each, which JSON can hold.
        settings: of the evaluation.
        out: where rows wait until all are there.
        evaluation: its name.
        told: a sha256 by the name of each image, of all that its row depends on.
        turned: whether images are turned as their EXIF data say.
        batch: images per call; memory and speed only.
        process: this one; every process returns all rows.
        progress: called with the images done and their total, as often on every process.

    Returns:
        The rows with the key ``filename``, in the order of the images.

    Raises:
        RecipeError: ``out`` holds results, or unfinished rows, of other settings; or results of other images; or
            processes see other images or have other settings than others.
        TrainingError: an image is damaged, or ``out`` cannot be written.
    """
    folder, hashes = out / JOURNAL, told

    def begin() -> None:
        results.refuse_others(out, evaluation, settings, images.identity())
        claim(folder, settings)

    check_same(process, {"settings": json.loads(results.to_json(settings)), "images": digest_of(told)})
    run_on_main(process, begin)
    known = _known(folder, hashes)
    process.wait()  # nobody writes before everybody has read
    own = folder / f"{process.rank}.jsonl"
    _mend(own)
    pairs = images.pairs()
    missing = [(prompt, name) for prompt, name in pairs if name not in known]
    for chunk in dealt(missing, len(pairs), batch, process, progress):

        def judge_chunk(chunk: Sequence[tuple[Prompt, str]] = chunk) -> None:
            prompts, names = zip(*chunk, strict=True)
            rows = judge([images.read(name, turned) for name in names], prompts, names)
            _append(own, [(name, hashes[name]) for name in names], rows)

        run_on_all_ranks(process, judge_chunk if chunk else None)
    process.wait()  # all is there
    known = _known(folder, hashes)
    process.wait()  # nobody closes before everybody has read
    return [known[name] for _, name in pairs]


def close(out: Path) -> None:
    """Throw the rows of a finished evaluation away: they are in its results now."""
    shutil.rmtree(out / JOURNAL, ignore_errors=True)


def claim(folder: Path, settings: Mapping[str, Any]) -> None:
    """Go on with what an evaluation of the same settings left.

    Raises:
        RecipeError: another evaluation left it.
        TrainingError: the place cannot be written.
    """
    saved, ours = folder / "settings.json", json.loads(results.to_json(settings))
    if saved.exists():
        try:
            theirs = json.loads(results.read_text(saved))
            theirs.pop("judged", None)  # of before rows knew their images
            different = differing(theirs, ours)
        except (ValueError, AttributeError, RecursionError) as error:
            raise TrainingError(f"{str(saved)!r} is damaged: {error}; delete {str(folder)!r}") from error
        if different:
            raise RecipeError(
                f"{str(folder)!r} holds what an evaluation of other settings left unfinished: they differ in"
                f" {', '.join(different)}; finish that one, choose another --out, or delete {str(folder)!r}"
            )
    files.write_text(saved, results.to_json(settings))


def _known(folder: Path, hashes: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Return the rows of all processes by image: of those that hold what they held when they were judged.

    A row that a kill cut short, or in which a byte has changed, is as if it had never been written.
    """
    known = {}
    for path in sorted(folder.glob("*.jsonl")):
        for line in path.read_bytes().splitlines():
            text, _, digest = line.rpartition(b"\t")
            if hashlib.sha256(text).hexdigest()[:_DIGITS].encode() != digest:
                continue
            entry = json.loads(text)
            if hashes.get(entry["filename"]) == entry["image_sha256"]:
                known[entry["filename"]] = {"filename": entry["filename"], **entry["row"]}
    return known


def _mend(path: Path) -> None:
    """Cut off what a kill left of a row."""
    if path.exists():
        whole = path.read_bytes()
        path.write_bytes(whole[: whole.rfind(b"\n") + 1])


def _append(path: Path, judged: Sequence[tuple[str, str]], rows: Sequence[Row]) -> None:
    lines = []
    for (name, digest), row in zip(judged, rows, strict=True):
        values = {key: value for key, value in row.items() if key != "filename"}
        text = json.dumps({"filename": name, "image_sha256": digest, "row": values})
        lines.append(f"{text}\t{files.sha256_text(text)[:_DIGITS]}\n")
    try:
        with path.open("a", encoding="utf-8") as file:
            file.writelines(lines)
    except OSError as error:
        raise TrainingError(f"cannot write {str(path)!r}: {error.strerror or error}") from error
