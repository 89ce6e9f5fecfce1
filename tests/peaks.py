"""How much memory something takes, as PyTorch's own profiler sees it."""

import gc
from itertools import accumulate

from torch.profiler import ProfilerActivity, profile


def peak_of(run):
    """The most bytes that the CPU's allocator has handed out at a time while something ran."""
    gc.collect()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        run()
    sizes = [e.nbytes() for e in recorded.profiler.kineto_results.events() if e.name() == "[memory]"]
    return max(accumulate(sizes, initial=0))
