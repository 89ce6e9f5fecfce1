"""Checkpoints that are whole or absent, and that never unpickle: safetensors, JSON, and a manifest.

::

    checkpoints/update_00025/
    ├── generator/            what ``MaskedGenerator.save`` writes: to sample from, to evaluate
    ├── training.safetensors  the trained parameters and the optimizer's moments, in the dtype training used
    ├── training.json         counters, the filter's history: whatever else a resumed run needs
    └── manifest.json         size and sha256 of every file above, written last

It is written under another name and renamed when complete, and renamed again before it is removed: a kill leaves at
most an ``*.unfinished``.
"""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from maskrl import files
from maskrl.asking import asking
from maskrl.errors import TrainingError
from maskrl.interfaces import MaskedGenerator

# whose tensors they are: of training, of the average of its weights, and of what paints ahead
PARAMETER, EMA, PAINTER = "parameter", "ema", "painter"
TENSORS, STATE, MANIFEST, GENERATOR = "training.safetensors", "training.json", "manifest.json", "generator"


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint: ``tensors`` on the CPU, ``state`` as it came from JSON."""

    folder: Path
    tensors: Mapping[str, Tensor]
    state: Mapping[str, Any]


def put_into(module: nn.Module, checkpoint: Checkpoint, whose: str) -> None:
    """Copy trained parameters out of a checkpoint into a network, to the last bit.

    Raises:
        TrainingError: it holds none of that name and size; or none at all.
    """
    saved = checkpoint.tensors
    own = {f"{whose}/{name}": p for name, p in module.named_parameters() if f"{PARAMETER}/{name}" in saved}
    for key, parameter in own.items():
        if key not in saved or saved[key].shape != parameter.shape:
            raise TrainingError(f"checkpoint {str(checkpoint.folder)!r} has no {key!r} of this recipe")
        parameter.data.copy_(saved[key])


def name(update: int) -> str:
    """Return the folder's name for a run that has made ``update`` updates."""
    return f"update_{update:05d}"


def listed(checkpoints: Path) -> list[Path]:
    """Return the checkpoints in a run's folder for them, oldest first; they are not verified."""
    found = (path for path in checkpoints.glob("update_*") if path.name.removeprefix("update_").isdigit())
    return sorted(found, key=lambda path: int(path.name.removeprefix("update_")))


def save(
    checkpoints: Path,
    update: int,
    generator: MaskedGenerator,
    tensors: Mapping[str, Tensor],
    state: Mapping[str, Any],
    keep: int,
) -> Path:
    """Write a checkpoint, then remove others, all but the newest ``keep`` - 1.

    Args:
        checkpoints: the run's folder for them.
        update: how many updates the run has made.
        generator: saved in its published layout.
        tensors: any dtype, any device.
        state: plain numbers, strings, lists and mappings.
        keep: at least 1.

    Raises:
        TrainingError: the disk is full or the folder not writable; checkpoints that were there stay.
    """
    final = checkpoints / name(update)
    unfinished = checkpoints / f"{name(update)}.unfinished"
    try:
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        with asking(generator, OSError, SafetensorError):
            generator.save(str(unfinished / GENERATOR))
        save_file(_apart(tensors), unfinished / TENSORS)
        (unfinished / STATE).write_text(json.dumps(state, allow_nan=False), encoding="utf-8")
        (unfinished / MANIFEST).write_text(json.dumps(_describe(unfinished), indent=2), encoding="utf-8")
        for path in unfinished.rglob("*"):
            files.sync(path)
        files.sync(unfinished)
        if final.exists():
            _discard(final)
        os.replace(unfinished, final)
        files.sync(checkpoints)
    except (OSError, SafetensorError) as error:  # a full disk is either, by who noticed it
        reason = error.strerror if isinstance(error, OSError) else error
        raise TrainingError(f"cannot write the checkpoint {str(final)!r}: {reason}") from error
    others = [other for other in listed(checkpoints) if other != final]
    for old in others[: max(0, len(others) - (keep - 1))]:
        _remove(old)
    return final


def try_saving(checkpoints: Path, generator: MaskedGenerator) -> None:
    """Save a generator as a checkpoint would, and throw it away: that it cannot be is known before hours of training.

    Raises:
        TrainingError: it cannot be saved.
    """
    trial = checkpoints / f"trial{files.UNFINISHED}"
    try:
        shutil.rmtree(trial, ignore_errors=True)
        trial.mkdir(parents=True)
        with asking(generator, OSError, SafetensorError):
            generator.save(str(trial / GENERATOR))
    except (OSError, SafetensorError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        raise TrainingError(f"this run could not be saved in {str(checkpoints)!r}: {reason}") from error
    finally:
        shutil.rmtree(trial, ignore_errors=True)


def _apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors on the CPU of which no two share memory, as the tables of an 8-bit optimizer do."""
    apart, seen = {}, set()
    for key, tensor in tensors.items():
        copy = tensor.detach().cpu().contiguous()
        place = copy.untyped_storage().data_ptr()
        apart[key] = copy.clone() if place in seen else copy
        seen.add(place)
    return apart


def _remove(old: Path) -> None:
    """Remove a checkpoint; that it cannot be is no reason to end a run that has just been saved."""
    try:
        _discard(old)
    except OSError as error:
        warnings.warn(f"the old checkpoint {str(old)!r} stays: {error.strerror or error}", stacklevel=3)


def _discard(checkpoint: Path) -> None:
    """Remove a checkpoint, first its name: a kill leaves no half of one that is taken for it."""
    doomed = checkpoint.with_name(f"{checkpoint.name}.old{files.UNFINISHED}")
    shutil.rmtree(doomed, ignore_errors=True)
    os.replace(checkpoint, doomed)
    shutil.rmtree(doomed)


def load(folder: Path) -> Checkpoint:
    """Verify a checkpoint against its manifest and read it.

    Raises:
        TrainingError: a file is missing, cut short or changed; the message has it, and what to use instead.
    """
    if damage := damaged(folder):
        raise TrainingError(f"checkpoint {str(folder)!r} is damaged: {damage}; {_instead(folder)}")
    try:
        state = json.loads((folder / STATE).read_text(encoding="utf-8"))
        return Checkpoint(folder, load_file(folder / TENSORS), state)
    except (OSError, ValueError, SafetensorError) as error:  # the disk goes away while it is read
        raise TrainingError(
            f"checkpoint {str(folder)!r} cannot be read: {error}; {_instead(folder)}"
        ) from error


def damaged(folder: Path) -> str | None:
    """Return what is wrong with a checkpoint, in half a sentence, or None if nothing is."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        expected = {file: (int(entry["size"]), str(entry["sha256"])) for file, entry in manifest.items()}
    except FileNotFoundError:
        return f"{MANIFEST!r} is missing"
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return f"{MANIFEST!r} is not readable"
    for file, (size, sha256) in expected.items():
        path = folder / file
        if not path.is_file():
            return f"{file!r} is missing"
        if path.stat().st_size != size:
            return f"{file!r} has {path.stat().st_size} bytes instead of {size}"
        if files.sha256(path) != sha256:
            return f"{file!r} is not what was written"
    absent = {TENSORS, STATE} - set(expected)
    return f"{MANIFEST!r} does not list {min(absent)!r}" if absent else None


def intact_before(folder: Path) -> str | None:
    """Return the name of the newest intact checkpoint that is older than one, if there is any."""
    older = [path for path in listed(folder.parent) if int(path.name[7:]) < int(folder.name[7:])]
    return next((path.name for path in reversed(older) if damaged(path) is None), None)


def _instead(folder: Path) -> str:
    """Say what to do about a damaged checkpoint."""
    usable = intact_before(folder)
    if usable is not None:
        return f"delete that folder, and --resume goes on from {usable!r}, which is intact"
    return "no older one is intact: restore it; or delete that folder and metrics.jsonl, and --resume begins again"


def _describe(folder: Path) -> dict[str, dict[str, int | str]]:
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): {"size": path.stat().st_size, "sha256": files.sha256(path)}
        for path in found
    }
