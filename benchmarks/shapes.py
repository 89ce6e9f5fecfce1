"""What the quickstart's updates and evaluation cost on a CPU, part by part, and beside it another commit of maskrl.

    git worktree add /elsewhere 3bc0b3d3
    python benchmarks/shapes.py --against /elsewhere

times the recipe ``shapes_clip`` by CPU time, both in turns, each in a process of its own, with one thread and with
two; it prints, and writes benchmarks/results/shapes.json: seconds of each, the ratio of the fastest turns, the least
and the largest ratio of a turn, and whether both paint the same tokens. An evaluation is of 64 images here, and an
update of 64 as in the recipe; the quickstart has 100 updates and two evaluations of 1000 images and more.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from cli_startup import commit, machine

ROOT = Path(__file__).parents[1]
RESULT = Path(__file__).parent / "results" / "shapes.json"
CHANGES = ("training.device=cpu",)


def work() -> tuple[dict[str, Callable[[], object]], str]:
    """Build the run: what is timed, by name, and a digest of the tokens that it paints first."""
    import torch

    from maskrl.evals.generate import sample_pairs
    from maskrl.evaluations import answers as judged
    from maskrl.grpo import answers
    from maskrl.grpo.rollout import rollout
    from maskrl.grpo.update import collect, learn
    from maskrl.pixels import rounded
    from maskrl.recipe import read_recipe
    from maskrl.training.setup import set_up

    setup = set_up(read_recipe("shapes_clip", list(CHANGES)))
    actor, generator = setup.actor, setup.actor.generator
    prompts = list(setup.prompts[: setup.share])
    batch = collect(actor, prompts, 0)
    asked = [prompt for prompt in prompts for _ in range(batch.rewards.shape[1])]
    sampling, steps = actor.algorithm.sampling, actor.algorithm.config.num_steps
    painting = answers.prefill(generator, batch.condition).select(
        torch.arange(len(asked)) // batch.rewards.shape[1]
    )
    streams = [actor.stream.child("benchmark", i) for i in range(len(asked))]
    weights = {name: value.clone() for name, value in generator.module.state_dict().items()}
    evaluation = setup.evaluations[0]
    pairs = [
        (p, i) for p in range(0, len(evaluation.prompts), len(evaluation.prompts) // 16) for i in range(4)
    ][:64]
    about = [evaluation.prompts[p] for p, _ in pairs]

    def paint_for_evaluation() -> torch.Tensor:
        drawn = (generator, evaluation.prompts, pairs, evaluation.stream, evaluation.num_steps)
        return sample_pairs(*drawn, evaluation.sampling)

    painted = rounded(paint_for_evaluation())

    def update() -> None:
        learn(setup.learner, batch)
        generator.module.load_state_dict(weights)  # the batch was painted by these

    parts: dict[str, Callable[[], object]] = {
        "rollout": lambda: rollout(generator, painting, streams, steps, sampling, sampling.guidance_train),
        "decode": lambda: answers.decode(generator, batch.trajectory.tokens, batch.condition),
        "reward": lambda: answers.score_terms(actor.reward, batch.images, asked),
        "collect": lambda: collect(actor, prompts, 0),
        "update": update,
        "evaluation, painting": paint_for_evaluation,
        "evaluation, judging": lambda: judged.judge(evaluation.evaluation, list(painted), about),
    }
    return parts, hashlib.sha256(batch.trajectory.tokens.numpy().tobytes()).hexdigest()


def serve() -> None:
    """Time every part once for each line of the standard input, and answer with a line."""
    parts, tokens = work()
    print(json.dumps({"tokens": tokens}), flush=True)
    for _ in sys.stdin:
        seconds = {}
        for name, run in parts.items():
            began = time.process_time()
            run()
            seconds[name] = time.process_time() - began
        print(json.dumps(seconds), flush=True)


class Worker:
    """A process with the maskrl of one folder."""

    def __init__(self, tree: Path, threads: int) -> None:
        environment = os.environ | {"PYTHONPATH": str(tree), "OMP_NUM_THREADS": str(threads)}
        command = [sys.executable, __file__, "--serve"]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self._process = subprocess.Popen(command, env=environment, cwd=tree, **pipes)
        self.tokens = self._answer()["tokens"]

    def turn(self) -> dict[str, float]:
        """Time every part once."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def end(self) -> None:
        """Let it end."""
        self._process.communicate()


def measure(trees: list[Path], threads: int, turns: int) -> dict[str, Any]:
    """Time the trees in turns, after one turn that fills the caches."""
    workers = [Worker(tree, threads) for tree in trees]
    rounds = [[worker.turn() for worker in workers] for _ in range(turns + 1)][1:]
    for worker in workers:
        worker.end()
    same = len({worker.tokens for worker in workers}) == 1
    return {"same_tokens": same, "seconds": {name: dict(_row(rounds, name)) for name in rounds[0][0]}}


def _row(rounds: list[list[dict[str, float]]], name: str) -> Iterator[tuple[str, Any]]:
    """Give the fastest of a part, and how many times it the other takes."""
    ours = [turn[0][name] for turn in rounds]
    yield "ours", round(min(ours), 4)
    if len(rounds[0]) > 1:
        theirs = [turn[1][name] for turn in rounds]
        ratios = [b / a for a, b in zip(ours, theirs, strict=True)]
        yield "other", round(min(theirs), 4)
        yield "ratio", round(min(theirs) / min(ours), 3)
        yield "ratio_of_a_turn", [round(min(ratios), 3), round(max(ratios), 3)]


def main() -> None:
    """Measure, print, store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--against", type=Path, help="a folder with another commit of maskrl")
    parser.add_argument("--commit", default="unknown", help="what that commit is called")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--dry", action="store_true", help="print only")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        return serve()
    trees = [ROOT] + ([args.against.resolve()] if args.against else [])
    result: dict[str, Any] = {"commit": commit(), "against": args.commit, "machine": machine()}
    for threads in args.threads:
        result[f"{threads} thread{'s' * (threads > 1)}"] = measure(trees, threads, args.turns)
    print(json.dumps(result, indent=2))
    if not args.dry:
        RESULT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
