"""The example of the README and the notebook, run as they stand."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
NOTEBOOK = json.loads((ROOT / "examples" / "first_steps.ipynb").read_text(encoding="utf-8"))


def run(code, folder):
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.slow
def test_the_example_of_the_readme_runs(tmp_path):
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    scores, reward = run(code, tmp_path)
    assert re.fullmatch(r"tensor\(\[(-?\d+\.\d+(, )?){4}\]\)", scores)
    assert -1 < float(reward) < 1
    assert {path.name for path in tmp_path.iterdir()} == {"before.png", "after.png"}


@pytest.mark.slow
def test_the_notebook_runs_from_its_first_cell_to_its_last(tmp_path):
    cells = ["".join(cell["source"]) for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]
    assert len(cells) > 5
    assert not any(
        cell.get("outputs") for cell in NOTEBOOK["cells"]
    )  # outputs are not kept: they would grow old
    shown = [
        re.sub(r"(?m)^(images|before|after|report\.numbers|trainer\.score\(images\))$", r"print(repr(\1))", c)
        for c in cells
    ]
    said = run("\n".join(shown), tmp_path)
    rewards = [float(line.split()[1].rstrip(",")) for line in said if line.startswith("reward ")]
    assert len(rewards) == 3
    assert any("mean" in line for line in said[-2:])
    assert not list(tmp_path.iterdir())
