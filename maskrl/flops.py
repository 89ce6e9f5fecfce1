"""What a network multiplies and adds, counted."""

from __future__ import annotations

from collections.abc import Callable

from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode


def count_flops(run: Callable[[], object]) -> float:
    """Count the FLOPs of a function, attention by the plain matrix products that it stands for."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counted:
        run()
    return float(counted.get_total_flops())
