"""What a device can do: how fast it multiplies, how much it holds."""

from __future__ import annotations

from time import perf_counter

import torch


def matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Measure a device: the best FLOP/s of a large square matrix product, of a second's worth."""
    size = 8192 if device.type == "cuda" else 1536
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    fastest, until = float("inf"), perf_counter() + 1.0
    while perf_counter() < until:
        _wait(device)
        began = perf_counter()
        a @ b
        _wait(device)
        fastest = min(fastest, perf_counter() - began)
    return 2 * size**3 / fastest


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def device_memory(device: torch.device) -> float | None:
    """Return the bytes of a GPU; None for a CPU."""
    return float(torch.cuda.get_device_properties(device).total_memory) if device.type == "cuda" else None
