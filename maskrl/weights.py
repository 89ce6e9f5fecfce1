"""Files that hold weights: found, read without running what they hold, put into a module strictly, or refused.

A refusal is a :class:`maskrl.errors.RecipeError` of one line. Plugins may import this module.
"""

from __future__ import annotations

import json
import pickle
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from maskrl.component import open_path
from maskrl.errors import RecipeError

_MOST_KEYS_LISTED = 5
_DAMAGED = (
    *(SafetensorError, pickle.UnpicklingError, OSError, RuntimeError),
    *(EOFError, LookupError, ValueError, struct.error),
)


def is_hub_id(name: str) -> bool:
    """Tell whether a name looks like an id on the hub, ``owner/name``, and not like a path."""
    return not name.startswith((".", "/", "~")) and name.count("/") == 1


def unreachable(what: str, error: Exception) -> str:
    """Say that something is neither here nor to be had from the hub, and what to do."""
    return (
        f"{what} is no folder here, and the hub could not be reached for it ({type(error).__name__}); "
        "fetch it on a machine that reaches the hub, and point to the folder"
    )


def find_file(source: str, *names: str) -> Path:
    """Return the first of these files that a folder has, or a repository on the hub; from there it is fetched once.

    Args:
        source: a folder (``package:...`` too), or a hub id, ``owner/name``.
        names: of files; the later ones are looked for if the earlier ones are not there.

    Raises:
        RecipeError: there is no such folder, none of the files is there, or the hub cannot be reached.
    """
    folder = Path(open_path(source))
    if folder.is_dir():
        found = next((folder / name for name in names if (folder / name).is_file()), None)
    else:
        found = _fetch_one(source, names)
    if found is None:
        raise RecipeError(f"{source!r} holds no {' and no '.join(names)}")
    return found


def _fetch_one(repository: str, names: tuple[str, ...]) -> Path | None:
    if not is_hub_id(repository):
        raise RecipeError(f"{repository!r} is no folder here, and no hub id, owner/name")
    for name in names:
        try:
            return Path(hf_hub_download(repository, name))
        except (EntryNotFoundError, OSError, ValueError) as error:
            if isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
                continue  # it was asked, and has no such file
            raise RecipeError(unreachable(repr(repository), error)) from error
    return None


def read_file(path: Path) -> Any:
    """Read what a ``.safetensors`` file or a pickle of PyTorch's holds, to the CPU. No code in it is run.

    Raises:
        RecipeError: there is no such file, it is damaged, or a pickle holds more than tensors, numbers and texts.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with torch.serialization.safe_globals(_numpy_scalars()):
            return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise RecipeError(f"there is no weights file {str(path)!r}") from error
    except _DAMAGED as error:
        raise RecipeError(f"{str(path)!r} {why_unread(error)}") from error


def why_unread(error: Exception) -> str:
    """Say why a weights file was not read, without PyTorch's advice to run what is in it."""
    if not isinstance(error, pickle.UnpicklingError):
        return f"cannot be read ({first_line(error)}); fetch it again"
    if "GLOBAL" not in str(error):
        return "cannot be read (no pickle of tensors, or a damaged one); fetch it again"
    return (
        "holds more than tensors and was not opened: it could run code; ask for a plain state dict, or convert it"
        " where you trust it"
    )


def _numpy_scalars() -> list[Any]:
    """What a pickled NumPy number or text is made of: harmless, and common beside the weights of a training run."""
    scalar: Any = np.float64(0).__reduce__()[0]
    both_names = [(scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
    codes = "?" + np.typecodes["AllInteger"] + np.typecodes["AllFloat"] + "SU"
    return [*both_names, np.dtype, *{type(np.dtype(code)) for code in codes}]


def as_state_dict(found: Any, path: Path) -> dict[str, Tensor]:
    """Return what a file held as a table of tensors by name; the ``module.`` of a wrapped network is dropped.

    Raises:
        RecipeError: it is something else.
    """
    if not isinstance(found, Mapping) or not all(isinstance(tensor, Tensor) for tensor in found.values()):
        raise RecipeError(f"{str(path)!r} holds no plain state dict, a table of tensors by name")
    return {key.removeprefix("module."): tensor for key, tensor in found.items()}


def fill(module: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Put copies of tensors in the place of a module's own, in the dtype that those have.

    Raises:
        RecipeError: a tensor is missing, unknown or of another shape.
    """
    expected = module.state_dict()
    shapes = {key: tuple(tensor.shape) for key, tensor in expected.items()}
    check_shapes(tensors, shapes, path, type(module).__name__)
    own = {key: tensor.to(expected[key].dtype, copy=True) for key, tensor in tensors.items()}
    module.load_state_dict(own, assign=True)


def check_shapes(
    tensors: Mapping[str, Tensor], expected: Mapping[str, tuple[int, ...]], path: Path, what: str
) -> None:
    """Check names and shapes of tensors.

    Raises:
        RecipeError: in one line, how many are missing, unknown or of another shape, and the first of each.
    """
    faults = {
        "missing": [key for key in expected if key not in tensors],
        "unknown": [key for key in tensors if key not in expected],
        "of another shape": [
            f"{key} {tuple(tensors[key].shape)} for {shape}"
            for key, shape in expected.items()
            if key in tensors and tuple(tensors[key].shape) != shape
        ],
    }
    told = [f"{len(keys)} {fault} ({_some(keys)})" for fault, keys in faults.items() if keys]
    if told:
        raise RecipeError(f"{str(path)!r} does not fit {what}: {'; '.join(told)}")


def _some(keys: list[str]) -> str:
    more = len(keys) - _MOST_KEYS_LISTED
    return ", ".join(keys[:_MOST_KEYS_LISTED]) + (f", and {more} more" if more > 0 else "")


def read_json(path: Path) -> dict[str, Any]:
    """Read a table of settings.

    Raises:
        RecipeError: it is missing, or no such table.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RecipeError(f"{str(path)!r} is missing; a checkpoint folder needs it") from error
    except (OSError, ValueError, RecursionError) as error:
        raise RecipeError(f"{str(path)!r} cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise RecipeError(f"{str(path)!r} holds no table of settings")
    return found


@contextmanager
def built_from(source: Path | str) -> Iterator[None]:
    """Build what a file or folder of settings describes.

    Raises:
        RecipeError: it describes nothing that can be built; whatever the library said of it is in the one line.
    """
    try:
        yield
    except RecipeError:
        raise
    except Exception as error:  # of torch, transformers and pydantic, on whatever numbers somebody wrote
        why = first_line(error)
        if isinstance(error, ValidationError):
            first = error.errors()[0]
            why = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise RecipeError(f"{str(source)!r} describes nothing that can be built: {why}") from error


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, PyTorch's go on for many, or its name if it says nothing."""
    return str(error).partition("\n")[0] or type(error).__name__
