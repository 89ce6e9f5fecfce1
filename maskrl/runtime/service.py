"""Trackers of accelerate's, by name: wandb, trackio, mlflow, and whatever else is in its table."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from PIL import Image

from maskrl.runtime.tracker import Pixels

PACKAGES = {"comet_ml": "comet-ml"}  # to install; others are called as the tracker is
ONE_IMAGE = ("aim", "clearml")  # where accelerate hands over an image as it is; elsewhere a list of them


def _named(run: Path) -> dict[str, dict[str, Any]]:
    """Say, in each service's own words, what the run is called and where its files go; all else is its default."""
    return {
        "wandb": {"name": run.name, "dir": str(run), "settings": {"console": "off"}},
        "trackio": {"name": run.name},
        "mlflow": {"run_name": run.name},
        "swanlab": {"experiment_name": run.name, "logdir": str(run / "swanlab")},
        "clearml": {"task_name": run.name},
        "dvclive": {"dir": str(run / "dvclive")},
    }


class Service:
    """One of accelerate's trackers. Every start of a run is a run there, with all numbers from the first on."""

    def __init__(self, name: str, run: Path, project: str, options: Mapping[str, Any]) -> None:
        """Open it.

        Args:
            name: in accelerate's table.
            run: the run's folder.
            project: what groups runs there.
            options: what the service is opened with, in place of what it would be.

        Raises:
            ModuleNotFoundError: its package is not installed.
        """
        from accelerate.tracking import LOGGER_TYPE_TO_CLASS

        kind = LOGGER_TYPE_TO_CLASS[name]
        if kind.__module__.startswith("accelerate.") and find_spec(name) is None:
            raise ModuleNotFoundError(f"it is not installed: pip install {PACKAGES.get(name, name)}")
        given = {**_named(run).get(name, {}), **options}
        if kind.requires_logging_directory:
            given.setdefault("logging_dir", str(run / name))
        self._name, self._tracker = name, kind(project, **given)
        self._tracker.start()

    def log(self, numbers: Mapping[str, float], update: int) -> None:
        """Plot numbers by their tags."""
        self._tracker.log(dict(numbers), step=update)

    def picture(self, name: str, pixels: Pixels, update: int) -> None:
        """Show a picture, where the service has any."""
        if hasattr(self._tracker, "log_images"):
            image = Image.fromarray(pixels)
            self._tracker.log_images({name: image if self._name in ONE_IMAGE else [image]}, step=update)

    def table(self, name: str, headings: Sequence[str], rows: Sequence[Sequence[str]], update: int) -> None:
        """Show a table, where the service has any."""
        if hasattr(self._tracker, "log_table"):
            self._tracker.log_table(name, columns=list(headings), data=list(map(list, rows)), step=update)

    def recipe(self, toml: str) -> None:
        """Hand over the settings."""
        self._tracker.store_init_configuration(tomllib.loads(toml))

    def close(self) -> None:
        """Write what is left."""
        self._tracker.finish()
