"""What one step of unmasking takes beside its logits, all positions at once and in portions: memory and time.

    python benchmarks/unmask_memory.py

writes benchmarks/results/unmask_memory.json. One image of 4096 tokens and 8192 codes, all of it masked, as Meissonic's
first step at 1024 pixels; a fresh process for each portion. ``mb`` is by how much the process grew at most, ``seconds``
its CPU time on one thread, the best of three. All positions at once is what every version before portions did. Tensors
below 32 MiB stay with malloc, in pieces: at 512 positions the process grows by more than their 24 bytes a logit.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import torch
from cli_startup import commit, machine

from maskrl.grpo.unmask import PORTION, Rule, unmask

RESULT = Path(__file__).parent / "results" / "unmask_memory.json"
TOKENS, CODES, REPEATS = 4096, 8192, 3
PORTIONS = {"all at once": TOKENS, "2048": 2048, "default": PORTION // CODES, "512": 512, "256": 256}


def measure(portion: int) -> dict[str, float]:
    """Take a step, and say what it took."""
    torch.set_num_threads(1)
    rng = torch.Generator().manual_seed(0)
    logits, uniform = torch.randn(TOKENS, CODES, generator=rng), torch.rand(1, 2, TOKENS, generator=rng)
    state, rule = torch.full((1, TOKENS), CODES), Rule(64, 1.0)
    unmask(logits[:1], state[:, :1], uniform[..., :1], Rule(1, 1.0), CODES)  # what PyTorch allocates once
    before, seconds = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, []
    for _ in range(REPEATS):
        started = time.process_time()
        unmask(logits, state, uniform, rule, CODES, portion=portion)
        seconds.append(time.process_time() - started)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return {"mb": round(grown * 1024 / 1e6), "seconds": round(min(seconds), 2)}


def main() -> None:
    """Measure each portion in a process of its own, print and write."""
    if len(sys.argv) > 1:
        print(json.dumps(measure(int(sys.argv[1]))))
        return
    found = {}
    for name, portion in PORTIONS.items():
        command = [sys.executable, __file__, str(portion)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        found[name] = {"positions": portion, **json.loads(done.stdout)}
        print(name, found[name])
    about = {"command": "python benchmarks/unmask_memory.py", "commit": commit(), "machine": machine()}
    RESULT.write_text(json.dumps({**about, "portions": found}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
