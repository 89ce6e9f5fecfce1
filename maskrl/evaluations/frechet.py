"""Two normal distributions: the distance between them, and the file that holds one."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from maskrl.errors import RecipeError
from maskrl.evaluations.running_covariance import Array
from maskrl.files import whole

_ROUNDING = 1e-6  # of the largest eigenvalue, what fp32 features may leave below 0


@dataclass(frozen=True)
class Statistics:
    """Mean ``mu`` Float [D] and covariance ``sigma`` Float [D, D] of features, and what is known of their making.

    ``about`` is None in a file that another tool wrote.
    """

    mu: Array
    sigma: Array
    about: Mapping[str, Any] | None


def frechet_distance(first: Statistics, second: Statistics) -> float:
    """Return the squared Fréchet distance of two normal distributions.

    |mu1 - mu2|^2 + tr(S1 + S2) - 2 tr((S1 S2)^(1/2)). The eigenvalues of S1 S2 are those of R^T S2 R with S1 = R R^T,
    which is symmetric: no square root of a matrix is taken, and rounding makes nothing complex. It is never below 0, as
    rounding would have it for what is equal.

    Source: Heusel et al. (arXiv 1706.08500), equation 6; pytorch-fid computes a matrix square root by SciPy instead.
    """
    values, vectors = np.linalg.eigh(first.sigma)
    root = vectors * np.sqrt(_roundings(values, "the first covariance"))
    shared = np.linalg.eigvalsh(root.T @ second.sigma @ root)
    trace = (
        np.trace(first.sigma)
        + np.trace(second.sigma)
        - 2 * np.sqrt(_roundings(shared, "the product of the covariances")).sum()
    )
    apart = first.mu - second.mu
    return max(0.0, float(apart @ apart + trace))


def _roundings(values: Array, what: str) -> Array:
    """Put 0 in the place of eigenvalues that rounding has made negative; refuse those that are.

    Raises:
        RecipeError: one is: no covariance has such.
    """
    if float(values.min()) < -_ROUNDING * max(float(np.abs(values).max()), np.finfo(np.float64).tiny):
        raise RecipeError(f"{what} has the eigenvalue {float(values.min()):.4g}: it is none of real features")
    return np.maximum(values, 0)


def write_statistics(path: Path, statistics: Statistics) -> None:
    """Write a ``.npz`` in pytorch-fid's layout, whole or not at all.

    Raises:
        TrainingError: the place cannot be written.
    """
    with whole(path) as unfinished, unfinished.open("wb") as file:
        np.savez(file, mu=statistics.mu, sigma=statistics.sigma, maskrl=json.dumps(statistics.about))


def check_reference(path: Path) -> None:
    """Refuse a reference that is not there, before anything costly.

    Raises:
        RecipeError: there is no such file.
    """
    if not path.is_file():
        raise RecipeError(f"there is no file of reference statistics {str(path)!r}")


def read_statistics(path: Path, width: int) -> Statistics:
    """Read a ``.npz`` in pytorch-fid's layout, by whomever it was made. No code in it is run.

    Args:
        path: where it is.
        width: D, how many numbers a feature must have.

    Raises:
        RecipeError: there is no such file, it is damaged or of another layout, or its features are others.
    """
    check_reference(path)
    try:
        with path.open("rb") as stream, np.load(stream) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, AttributeError, TypeError) as error:
        raise RecipeError(
            f"{str(path)!r} is no .npz file of arrays, or damaged: fetch it again, or make it anew by 'maskrl eval"
            " fid_statistics'"
        ) from error
    if not {"mu", "sigma"} <= arrays.keys():
        raise RecipeError(
            f"{str(path)!r} holds no 'mu' and 'sigma' as pytorch-fid writes them, but {', '.join(arrays) or 'nothing'}"
        )
    for name in ("mu", "sigma"):
        if arrays[name].dtype.kind not in "fiu":
            raise RecipeError(f"{str(path)!r} holds no real numbers as {name!r}, but {arrays[name].dtype}")
    mu, sigma = (np.asarray(arrays[name], dtype=np.float64) for name in ("mu", "sigma"))
    if mu.shape != (width,) or sigma.shape != (width, width):
        raise RecipeError(
            f"{str(path)!r} is of other features: mu {mu.shape} and sigma {sigma.shape} for {width} numbers each"
        )
    if not (np.isfinite(mu).all() and np.isfinite(sigma).all()):
        raise RecipeError(f"{str(path)!r} holds numbers that are not finite")
    least = float(np.linalg.eigvalsh((sigma + sigma.T) / 2)[0])
    if least < -_ROUNDING * max(float(np.abs(sigma).max()), np.finfo(np.float64).tiny):
        raise RecipeError(
            f"{str(path)!r} holds no covariance as 'sigma': an eigenvalue is {least:.4g}; make it anew"
        )
    about = _about(str(arrays["maskrl"]), path) if "maskrl" in arrays else None
    return Statistics(mu, sigma, about)


def _about(text: str, path: Path) -> dict[str, Any] | None:
    """Read what our references say of their making, beside the two arrays that pytorch-fid reads."""
    try:
        about = json.loads(text)
    except ValueError as error:
        raise RecipeError(f"{str(path)!r} is damaged: what it says of its making is no JSON") from error
    if about is not None and not isinstance(about, dict):
        raise RecipeError(f"{str(path)!r} is damaged: what it says of its making is no JSON object")
    return about
