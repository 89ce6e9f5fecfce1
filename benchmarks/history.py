"""How fast rollout and update of a reduced Show-o were at some commits, in turns: ratios, not seconds.

OMP_NUM_THREADS=1 python benchmarks/history.py dc7cc8a baffb2c HEAD       # the last is what the others are divided by
Each commit runs in a process and a work tree of its own, with its own ``benchmarks/showo.py``; all paint the same
images with the same weights, must come to the same tokens, and learn by ``p_theta2``. Stores
benchmarks/results/history.json.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from showo import cpu_name

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results"

# Runs inside a commit: a line of numbers for each line that it is sent.
TURN = """
import sys
sys.path[:0] = [".", "benchmarks"]
import maskrl, json, tempfile, time, torch, showo
from pathlib import Path
from maskrl.transitions.p_theta2 import PTheta2
try:
    from maskrl.runtime.allocator import keep_freed_memory
    keep_freed_memory()  # as a run of this commit does
except ImportError:
    pass
showo.TRANSITION = PTheta2(PTheta2.Config())
device = torch.device("cpu")
with tempfile.TemporaryDirectory() as folder:
    generator = showo.Showo(showo.write_checkpoint(showo.SIZES["reduced"], Path(folder), device))
bench = showo.Bench(generator, device, False, 8, 12, 1)
texts, _ = bench.work(6)
adv, trajectory = torch.linspace(-1, 1, 6), bench.paint(6)
def seconds(run):
    began = time.process_time()
    run()
    return time.process_time() - began
for _ in sys.stdin:
    rolling = seconds(lambda: bench.paint(6))
    learning = seconds(lambda: showo.ours_update(generator, texts, trajectory, adv, 12))
    generator.module.zero_grad(set_to_none=True)
    print(json.dumps([rolling, learning, trajectory.tokens.sum().item()]), flush=True)
"""


def git(*arguments: str) -> str:
    """Ask git about this repository."""
    found = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    return found.stdout.strip()


def started(commit: str, folder: Path, stack: ExitStack) -> subprocess.Popen[str]:
    """Start the process of a commit, which ends with the stack."""
    tree = folder / commit
    git("worktree", "add", "--detach", str(tree), commit)
    stack.callback(git, "worktree", "remove", "--force", str(tree))
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    process: subprocess.Popen[str] = subprocess.Popen([sys.executable, "-c", TURN], cwd=tree, **pipes)
    stack.callback(process.wait)
    stack.callback(process.kill)
    return process


def turn(process: subprocess.Popen[str]) -> list[float]:
    """Let a commit work once: CPU seconds of rollout and update, and the sum of its tokens."""
    process.stdin.write("\n")
    process.stdin.flush()
    answer: list[float] = json.loads(process.stdout.readline())
    return answer


def compare(turns: list[list[list[float]]], commits: list[str]) -> dict[str, Any]:
    """Divide the CPU seconds of every commit by those of the last: of the fastest turn, and the range of turns."""
    found: dict[str, Any] = {}
    for index, commit in enumerate(commits):
        row = {
            "date": git("log", "-1", "--format=%cs", commit),
            "what": git("log", "-1", "--format=%s", commit),
        }
        for part, name in enumerate(("rollout", "update")):
            own, last = ([of_turn[who][part] for of_turn in turns] for who in (index, -1))
            ratios = [a / b for a, b in zip(own, last, strict=True)]
            row |= {name: {"ratio": min(own) / min(last), "of_a_turn": [min(ratios), max(ratios)]}}
        found[commit] = row
    return found


def main() -> None:
    """Measure, print, store."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("commits", nargs="+")
    parser.add_argument("--turns", type=int, default=6)
    args = parser.parse_args()
    commits = [git("rev-parse", "--short", commit) for commit in args.commits]
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        processes = [started(commit, Path(folder), stack) for commit in commits]
        turns = [[turn(process) for process in processes] for _ in range(args.turns)]
    tokens = {row[2] for of_turn in turns for row in of_turn}
    result = {
        "device": cpu_name(),
        "same_tokens": len(tokens) == 1,
        "commits": compare(turns, commits),
    }
    print(json.dumps(result, indent=2))
    (RESULTS / "history.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
