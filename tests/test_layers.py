"""Imports point down, and the light commands stay light."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_import_contract_holds():
    assert "1 kept, 0 broken" in run(
        "from importlinter.cli import lint_imports_command as run; run(['--no-cache'])"
    )


def test_no_file_of_the_package_has_more_than_300_lines():
    lengths = {path: len(path.read_text().splitlines()) for path in sorted((ROOT / "maskrl").rglob("*.py"))}
    assert {str(path.relative_to(ROOT)): n for path, n in lengths.items() if n > 300} == {}


LIGHT = """
import sys
from maskrl.cli import main
try:
    main({arguments!r})
except SystemExit as end:
    assert not end.code, end.code
print("loaded:", *sorted({heavy!r} & set(sys.modules)))
"""
HEAVY = {"torch", "transformers", "numpy", "accelerate", "torchvision", "PIL"}


@pytest.mark.parametrize(
    "arguments", [["--help"], ["plugins", "list"], ["train", "--help"], ["report", "--help"], ["--version"]]
)
def test_the_light_commands_load_nothing_heavy(arguments):
    assert run(LIGHT.format(arguments=arguments, heavy=HEAVY)).splitlines()[-1] == "loaded:"


def test_importing_the_package_loads_neither_torch_nor_pydantic():
    assert run("import sys, maskrl; print({'torch', 'pydantic'} & set(sys.modules))").strip() == "set()"
