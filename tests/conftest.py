"""maskrl comes first: its guard must stand before anything imports torchvision. Nothing here may download."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
if (
    "PYTEST_XDIST_WORKER" in os.environ
):  # files run side by side: threads of their own would wait for each other
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import importlib
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import settings

import maskrl  # noqa: F401
from maskrl.cli import main


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


signal.signal(signal.SIGTERM, _interrupt)  # so that what a test has started is ended when pytest is
settings.register_profile("maskrl", deadline=None)  # a first example may import torch
settings.load_profile("maskrl")

TOY = Path(__file__).with_name("toy_run.py")

TOY_RECIPE = f"""
[generator]
name = "{TOY}:ToyGenerator"
[transition]
name = "p_theta1"
[reward]
name = "{TOY}:Red"
[filter]
name = "keep_all"
[reducer]
name = "none"
[grpo]
group_size = 4
[prompts]
train = "prompts.txt"
[training]
updates = 2
prompts_per_update = 2
learning_rate = 0.01
device = "cpu"
[tracking]
tensorboard = false
"""


class Result(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[..., Result]]:
    """Run a command of maskrl in this process."""

    def run(*arguments: object) -> Result:
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return Result(int(end.value.code or 0), out, err)

    before = signal.getsignal(signal.SIGTERM)
    yield run
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def toy_recipe(tmp_path: Path) -> Path:
    """A complete recipe of a toy world."""
    (tmp_path / "prompts.txt").write_text("red tiles\nblue tiles\n\n  green tiles  \n")
    path = tmp_path / "toy.toml"
    path.write_text(TOY_RECIPE)
    return path


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Install a package for one test: its code as module ``NAME`` (``-`` as ``_``), and its entry points."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))
    modules = []

    def add(package: str, code: str, offers: Mapping[str, Mapping[str, str]], version: str = "0.1") -> None:
        module = package.replace("-", "_")
        modules.append(module)
        (site / f"{module}.py").write_text(code)
        info = site / f"{module}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
        points = (
            f"[{group}]\n" + "".join(f"{n} = {t}\n" for n, t in entries.items())
            for group, entries in offers.items()
        )
        (info / "entry_points.txt").write_text("\n".join(points))
        importlib.invalidate_caches()

    yield add
    for module in modules:
        sys.modules.pop(module, None)
