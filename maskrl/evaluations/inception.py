"""The network whose features FID is made of: Inception-v3 of 2015 with the weights that pytorch-fid carried over."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any, cast
from unittest import mock

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from maskrl.errors import RecipeError
from maskrl.evaluations.fid_protocols import Pixels
from maskrl.evaluations.running_covariance import Array
from maskrl.weights import as_state_dict, first_line, read_file

OFFICIAL = "6726825d"  # how the sha256 of the weights begins with which FID is published


class Inception:
    """Turns prepared images into features of ``width`` numbers; ``modules``: its network."""

    width = 2048

    def __init__(self, weights: Path) -> None:
        """Read the weights, to the CPU, without running what the file holds.

        Raises:
            RecipeError: pytorch-fid is not installed, or the file is missing, damaged or of another network.
        """
        library, state = _library(), as_state_dict(read_file(weights), weights)
        try:
            # the library builds and fetches in one go; its network is wanted, the weights are here
            with mock.patch.object(library, "load_state_dict_from_url", return_value=state):
                network = library.InceptionV3(resize_input=False, normalize_input=False)
        except RuntimeError as error:
            raise RecipeError(
                f"{str(weights)!r} does not fit FID's Inception ({first_line(error)}): give {_name(library)}"
            ) from error
        self.modules: tuple[nn.Module, ...] = (network.eval(),)

    @torch.no_grad()
    def __call__(self, pixels: Pixels) -> Array:
        """Float [B, 3, 299, 299], as a protocol prepares them -> Float [B, 2048], after the last pooling."""
        (network,) = self.modules
        device = next(network.parameters()).device
        (pooled,) = network(torch.from_numpy(pixels).to(device))
        features: NDArray[Any] = pooled.flatten(1).double().cpu().numpy()
        return features.astype(np.float64, copy=False)


def find_weights(path: Path | None) -> Path:
    """Return the weights' file: the one given, or the library's own, fetched once and kept where PyTorch keeps such.

    Raises:
        RecipeError: pytorch-fid is not installed, or its file can neither be found nor fetched.
    """
    if path is not None:
        return path
    library = _library()
    kept = Path(torch.hub.get_dir()) / "checkpoints" / _name(library)
    if not kept.is_file():
        try:
            kept.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(library.FID_WEIGHTS_URL, str(kept), OFFICIAL, progress=False)
        except (OSError, RuntimeError) as error:  # RuntimeError: what came is not what was asked for
            raise RecipeError(
                f"Inception's weights cannot be fetched ({first_line(error)}): download {library.FID_WEIGHTS_URL} and"
                " give the file by --weights FILE"
            ) from error
    return kept


def _name(library: ModuleType) -> str:
    return cast(str, library.FID_WEIGHTS_URL).rpartition("/")[2]


def _library() -> Any:
    try:
        from pytorch_fid import inception  # an extra
    except ModuleNotFoundError as error:
        raise RecipeError("FID needs the package 'pytorch-fid': pip install 'maskrl[fid]'") from error
    return inception
