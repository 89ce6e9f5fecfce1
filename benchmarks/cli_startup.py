"""How long the light commands take from a shell: wall time of a fresh process, and its CPU time.

    python benchmarks/cli_startup.py

writes benchmarks/results/cli_startup.json. ``cpu_best`` is about what a quiet machine would show as wall time;
wall times on a busy one are longer.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
COMMANDS = {"python -c pass": ["-c", "pass"], "maskrl --help": ["-m", "maskrl", "--help"]}
COMMANDS["maskrl plugins list"] = ["-m", "maskrl", "plugins", "list"]
REPEATS = 15


def cpu_seconds() -> float:
    """Return user and system time of all children so far."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def measure(arguments: list[str]) -> dict[str, float]:
    """Run a command REPEATS times, after one run that fills the caches."""
    wall, cpu = [], []
    for _ in range(REPEATS + 1):
        cpu_before, start = cpu_seconds(), time.perf_counter()
        subprocess.run([sys.executable, *arguments], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        wall.append(time.perf_counter() - start)
        cpu.append(cpu_seconds() - cpu_before)
    seconds = {
        "wall_best": min(wall[1:]),
        "wall_median": statistics.median(wall[1:]),
        "cpu_best": min(cpu[1:]),
        "cpu_median": statistics.median(cpu[1:]),
    }
    return {name: round(value, 3) for name, value in seconds.items()}


def commit() -> str:
    """Return the commit that was measured, with a plus where files differ from it."""
    described = ["git", "describe", "--always", "--abbrev=12", "--dirty=+"]
    return subprocess.run(described, cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()


def machine() -> dict[str, str | int | list[float] | None]:
    """Describe where the numbers come from."""
    models = [line.split(":")[1].strip() for line in _cpuinfo() if line.startswith("model name")]
    return {
        "cpu": models[0] if models else platform.processor(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "load": [round(load, 2) for load in os.getloadavg()],
    }


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


def main() -> None:
    """Measure, write, print."""
    seconds = {name: measure(arguments) for name, arguments in COMMANDS.items()}
    result = {"commit": commit(), "machine": machine(), "repeats": REPEATS, "seconds": seconds}
    path = ROOT / "benchmarks" / "results" / "cli_startup.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(result, indent=2) + "\n")
    print(path.read_text(), end="")


if __name__ == "__main__":
    main()
