"""The day a GPU is at hand: everything that only a GPU can tell, by one command of ten minutes.

    python benchmarks/gpu_day.py                    # the published sizes with random weights, in bf16
    python benchmarks/gpu_day.py --size tiny        # the same on a CPU, to see that it runs

Part after part, each in a process of its own with a limit of time, and written down as soon as it is done, into
benchmarks/results/gpu_day_DEVICE_SIZE.json. The same command goes on where it ended; parts of another commit, or of
another machine, are made again, and so are those that failed. ``--only PART`` makes one. Nothing is fetched; without a
GPU, what needs one says so.
"""

import maskrl  # isort: skip  # noqa: F401

import argparse
import json
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from showo import GROUP, RESULTS, SIZES, Bench, compare, machine, ours_update, speed, write_checkpoint
from torch import Tensor

from maskrl.component import ComponentConfig
from maskrl.errors import RecipeError
from maskrl.generators.showo.generator import Showo
from maskrl.interfaces import RewardModel
from maskrl.recipe import Recipe, read_recipe
from maskrl.training.plan import plan
from maskrl.training.setup import set_up
from maskrl.training.updating import make_update
from maskrl.types import Prompt

LIMIT = 150  # seconds of a part
TOTAL = 600  # seconds of all
STEPS = {"full": 50, "tiny": 3}  # T
NO_DEVICE = {"left out": "it needs a GPU"}
VARIANTS: dict[str, tuple[str, ...]] = {
    "full": (),
    "checkpointing": ("training.activation_checkpointing=true",),
    "lora": ("lora.rank=32",),
    "lora, bf16 base, checkpointing": (
        "lora.rank=32",
        "lora.base_dtype=bf16",
        "training.activation_checkpointing=true",
    ),
    "8-bit moments": ("training.optimizer=adamw_8bit",),
    "compile": ("training.compile=true",),
    "offload": ("training.offload=true",),
    "overlapped rewards": ("training.overlap_reward=true", "training.rollout_batch=3"),
}


class Redness(RewardModel):
    """A reward that costs nothing, so that nothing but the generator is measured."""

    class Config(ComponentConfig):
        """Nothing to set."""

    @classmethod
    def cost(cls, config: ComponentConfig) -> tuple[int, float]:
        """See :class:`RewardModel`."""
        return 0, 0.0

    def score(self, images: Tensor, prompts: Sequence[Prompt]) -> Tensor:
        """Mean of red less mean of blue."""
        return images[:, 0].mean(dim=(1, 2)) - images[:, 2].mean(dim=(1, 2))


def device() -> torch.device:
    """Return the GPU, or the CPU where there is none."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def bench_of(
    size: str, folder: Path, where: torch.device, bf16: bool, tokens: int | None = None
) -> tuple[Bench, Any]:
    """Build a network of random weights, and say what it costs."""
    chosen = SIZES[size] if tokens is None else replace(SIZES[size], tokens=tokens)
    folder.mkdir()
    config = write_checkpoint(chosen, folder, torch.device("cpu") if size != "full" else where)
    generator = Showo(config)
    generator.module.to(where)
    return Bench(generator, where, bf16, STEPS[size], 12, 2), Showo.cost(config, text_tokens=4)


def tests(size: str, folder: Path) -> Any:
    """Run the tests that are marked for a GPU."""
    if device().type == "cpu":
        return NO_DEVICE
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-q", "tests"]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=False)
    return {"exit": done.returncode, "said": done.stdout.strip().splitlines()[-1:]}


def parity(size: str, folder: Path) -> Any:
    """Compare the device with the CPU in fp32: tokens of a rollout, and the gradient of one record in fp32 and bf16."""
    small = "tiny" if size == "tiny" else "reduced"
    STEPS.setdefault("reduced", 8)
    here, _ = bench_of(small, folder / "cpu", torch.device("cpu"), bf16=False)
    there, _ = bench_of(small, folder / "device", device(), bf16=False)
    texts, _ = here.work(GROUP)
    adv = torch.linspace(-1, 1, GROUP)
    expected = here.paint(GROUP)

    def gradient(bench: Bench) -> Tensor:
        moved: dict[str, Any] = {
            name: value.to(bench.device)
            for name, value in vars(expected).items()
            if isinstance(value, Tensor)
        }
        record = replace(expected, **moved)
        return bench.gradient(lambda: ours_update(bench.policy, texts, record, adv.to(bench.device), 12))

    truth = gradient(here)
    found: dict[str, Any] = {}
    for name, bench in (("fp32", there), ("bf16", replace(there, bf16=True))):
        tokens = bench.paint(GROUP).tokens.cpu()
        found[name] = {
            "same_tokens": float((tokens == expected.tokens).float().mean()),
            "gradient_difference": float((gradient(bench) - truth).norm() / truth.norm()),
        }
    return found


def waits(size: str, folder: Path) -> Any:
    """Count how often a step of a rollout and a micro-batch make the host wait, by CUDA's own account."""
    if device().type == "cpu":
        return NO_DEVICE | {"instead": "tests/test_waits.py counts them on a CPU"}
    bench, _ = bench_of(size, folder / "showo", device(), bf16=True)
    texts, _ = bench.work(GROUP)
    adv = torch.linspace(-1, 1, GROUP, device=bench.device)

    def count(run: Callable[[], object]) -> int:
        run()
        torch.cuda.set_sync_debug_mode("warn")
        try:
            with warnings.catch_warnings(record=True) as said:
                warnings.simplefilter("always")
                run()
        finally:
            torch.cuda.set_sync_debug_mode("default")
        return sum("synchroniz" in str(one.message) for one in said)

    trajectory = bench.paint(GROUP, 8)
    by_micro_batch = [
        count(partial(ours_update, bench.policy, texts, trajectory, adv, size)) for size in (12, 6)
    ]
    by_steps = [count(partial(bench.paint, GROUP, steps)) for steps in (4, 12)]
    return {
        "of a step": (by_steps[1] - by_steps[0]) / 8,
        "of a micro-batch": (by_micro_batch[1] - by_micro_batch[0]) / 4,
    }


def speed_at(tokens: int | None) -> Callable[[str, Path], Any]:
    """Return the part that measures images and transitions a second, and shares of the matrix product rate."""

    def measure(size: str, folder: Path) -> Any:
        bench, cost = bench_of(
            size, folder / "showo", device(), bf16=True, tokens=tokens if size == "full" else None
        )
        bench.generator.module.gradient_checkpointing_enable()
        return speed(bench, cost, GROUP)

    return measure


def released(size: str, folder: Path) -> Any:
    """Measure the released way beside ours, in turns, with few steps."""
    bench, _ = bench_of(size, folder / "showo", device(), bf16=True)
    bench.generator.module.gradient_checkpointing_enable()
    return compare(replace(bench, num_steps=min(bench.num_steps, 8), repeats=1), GROUP)


def recipe_of(size: str, folder: Path, changes: Sequence[str]) -> Recipe:
    """Return an update of one group: rollout, reward, filter, loss, step."""
    folder.mkdir()
    config = write_checkpoint(SIZES[size], folder, device() if size == "full" else torch.device("cpu"))
    (folder / "prompts.txt").write_text("a\nb c\n")
    common = (
        f"generator.checkpoint={config.checkpoint}",
        f"generator.tokenizer={config.tokenizer}",
        f"reward={{ name = '{__file__}:Redness' }}",
        "filter={ name = 'keep_all' }",
        "reducer={ name = 'none' }",
        f"prompts.train={folder / 'prompts.txt'}",
        f"grpo.group_size={GROUP}",
        f"grpo.num_steps={min(STEPS[size], 16)}",
        "sampling.guidance_train=0",
        "training.prompts_per_update=1",
        "training.updates=2",
        "training.micro_batch=12",
        "training.dtype=bf16",
        "eval=",
    )
    return read_recipe("shapes_clip", [*common, *changes])


def update_of(changes: Sequence[str]) -> Callable[[str, Path], Any]:
    """Return the part that makes two updates: ratio, seconds, and peak memory beside the plan's."""

    def measure(size: str, folder: Path) -> Any:
        try:
            recipe = recipe_of(size, folder / "showo", changes)
            setup = set_up(recipe)
        except RecipeError as error:  # a package that is not there
            return {"left out": str(error)}
        first = make_update(setup, 0)
        if device().type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        second = make_update(setup, 1)
        planned = plan(recipe, 4, 1).peak / 2**30
        seconds = ("seconds_rollout", "seconds_reward", "seconds_update")
        found = {name: second[name] for name in seconds} | {"peak_gib_planned": planned}
        if device().type == "cuda":
            found["peak_gib"] = torch.cuda.max_memory_allocated() / 2**30
        ratios = ("ratio_min", "ratio_max", "policy_gap")
        return found | {name: first[name] for name in ratios}

    return measure


PARTS: dict[str, Callable[[str, Path], Any]] = {
    "tests": tests,
    "parity": parity,
    "waits": waits,
    "speed, 512 px": speed_at(1024),
    "speed, 256 px": speed_at(256),
    **{f"update, {name}": update_of(changes) for name, changes in VARIANTS.items()},
    "the released way": released,
}


def measured(part: str, size: str) -> Any:
    """Make a part, in this process."""
    with tempfile.TemporaryDirectory() as folder:
        return PARTS[part](size, Path(folder))


def in_its_own_process(part: str, size: str, limit: float) -> Any:
    """Make a part where its memory is its own; what goes wrong is its result."""
    command = [sys.executable, __file__, "--size", size, "--measure", part]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=limit)
    except subprocess.TimeoutExpired:
        return {"failed": f"it took more than {limit:.0f} s"}
    if done.returncode:
        return {"failed": (done.stderr.strip().splitlines() or ["it said nothing"])[-1]}
    return json.loads(done.stdout.splitlines()[-1])


def go(
    size: str, parts: Sequence[str], out: Path, make: Callable[[str, str, float], Any] = in_its_own_process
) -> bool:
    """Make what is missing of some parts, and write each down; tell whether none has failed."""
    about = machine(device())
    known = json.loads(out.read_text()) if out.exists() else {}
    if known.get("machine") != about:
        known = {"machine": about, "size": size, "parts": {}}
    ends = time.monotonic() + TOTAL
    for part in parts:
        left = min(LIMIT, ends - time.monotonic())
        if "failed" not in known["parts"].get(part, {"failed": ""}) or left <= 0:
            continue
        began = time.monotonic()
        found = make(part, size, left)
        known["parts"][part] = {**found, "seconds_of_the_part": round(time.monotonic() - began, 1)}
        out.write_text(json.dumps(known, indent=1) + "\n")
        print(f"{part}: {found}", flush=True)
    print(table(known))
    missing = [part for part in parts if "failed" in known["parts"].get(part, {"failed": ""})]
    if missing:
        print(f"not done: {', '.join(missing)}; the same command goes on")
    return not missing


def table(known: Mapping[str, Any]) -> str:
    """Return the updates as a table in Markdown."""
    columns = ("seconds_rollout", "seconds_update", "peak_gib", "peak_gib_planned", "ratio_min", "ratio_max")
    lines = [f"| | {' | '.join(columns)} |", "|" + "---|" * (1 + len(columns))]
    for part, found in known["parts"].items():
        if part.startswith("update, "):
            cells = [f"{found[name]:.4g}" if name in found else "-" for name in columns]
            lines.append(f"| {part.removeprefix('update, ')} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Make all parts, or one."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=STEPS, default="full")
    parser.add_argument("--only", choices=PARTS, help="one part")
    parser.add_argument("--measure", choices=PARTS, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help="another file for the results")
    given = parser.parse_args()
    if given.measure:
        print(json.dumps(measured(given.measure, given.size)))
        return
    if given.size == "full" and device().type == "cpu":
        sys.exit("there is no GPU, and a CPU would take hours at full size: --size tiny tries the parts")
    out = given.out or RESULTS / f"gpu_day_{device().type}_{given.size}.json"
    sys.exit(not go(given.size, [given.only] if given.only else list(PARTS), out))


if __name__ == "__main__":
    main()
