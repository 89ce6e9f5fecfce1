"""How many functions a reader meets: from one prompt to its gradient, and from six pictures to their verdict.

    python benchmarks/walks.py

writes benchmarks/results/walks.json. Counted are the different functions of maskrl, named ones, that are entered while
the shapes model collects and learns from one prompt (recipe ``shapes_clip``), and while ``maskrl eval geneval --images
FOLDER`` judges a picture of each of the six tasks. Comprehensions, lambdas, what dataclasses write by themselves, and
what runs when a module is imported do not count.
"""

from __future__ import annotations

import inspect
import json
import pkgutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from cli_startup import commit

import maskrl
from maskrl.cli import main as command
from maskrl.grpo.update import collect, learn
from maskrl.recipe import read_recipe
from maskrl.runtime.prompts import load_prompts
from maskrl.training.setup import set_up

ROOT = Path(maskrl.__file__).parent
RESULT = Path(__file__).parent / "results" / "walks.json"
BEFORE = {"commit": "bfd8407", "update": 139, "verdict": 171}


def entered(action: Callable[[], object]) -> dict[str, list[str]]:
    """Run something, and return the functions of maskrl that it entered, by file."""
    seen = set()

    def note(frame: Any, event: str, _: object) -> None:
        if event == "call":
            seen.add(frame.f_code)

    sys.setprofile(note)
    try:
        action()
    finally:
        sys.setprofile(None)
    found = defaultdict(set)
    for code in seen:
        file = Path(code.co_filename)
        is_function = code.co_flags & inspect.CO_OPTIMIZED and not code.co_name.startswith("<")
        if is_function and file.is_relative_to(ROOT):
            found[file.relative_to(ROOT).as_posix()].add(code.co_qualname)
    return {file: sorted(names) for file, names in sorted(found.items())}


def update() -> dict[str, list[str]]:
    """Walk from one prompt to its gradient."""
    setup = set_up(read_recipe("shapes_clip", ["training.prompts_per_update=1", "eval="]))
    prompts = setup.prompts[:1]
    return entered(lambda: learn(setup.learner, collect(setup.actor, prompts, 0)))


def verdict(folder: Path) -> dict[str, list[str]]:
    """Walk from six pictures, which are painted first, to their verdict."""
    by_task = {prompt.metadata["tag"]: prompt for prompt in load_prompts("shapes_geneval")}
    lines = [json.dumps({**prompt.metadata, "prompt": prompt.text}) for prompt in by_task.values()]
    six = folder / "six.jsonl"
    six.write_text("\n".join(lines) + "\n", encoding="utf-8")
    paint = f"eval geneval --prompts {six} --images-per-prompt 1 --out {folder}".split()
    subprocess.run([sys.executable, "-m", "maskrl", *paint], check=True, stdout=subprocess.DEVNULL)
    judge = f"eval geneval --images {folder / 'images'} --out {folder / 'results'}".split()
    return entered(lambda: run(judge))


def run(arguments: Sequence[str]) -> None:
    """Run a command of maskrl in this process."""
    try:
        command(arguments)
    except SystemExit as end:
        if end.code:
            raise


def count(walk: Mapping[str, Sequence[str]]) -> int:
    """Count the functions of a walk."""
    return sum(map(len, walk.values()))


def main() -> None:
    """Walk, print and write."""
    torch.set_num_threads(1)
    for module in pkgutil.walk_packages(maskrl.__path__, "maskrl."):
        if not module.name.endswith("__main__"):
            import_module(module.name)
    with tempfile.TemporaryDirectory() as folder:
        walks = {"verdict": verdict(Path(folder)), "update": update()}
    for name, walk in walks.items():
        print(f"{name}: {count(walk)} functions in {len(walk)} files")
        for file, names in walk.items():
            print(f"  {file}: {', '.join(names)}")
    counts = {name: {"functions": count(walk), "files": len(walk)} for name, walk in walks.items()}
    result = {"command": "python benchmarks/walks.py", "commit": commit(), **counts, "before": BEFORE}
    RESULT.write_text(json.dumps({**result, "walks": walks}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
