"""What the C library does with memory that a tensor no longer needs. Why: docs/decisions/024-freed-memory.md."""

from __future__ import annotations

import ctypes

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of malloc.h
NEVER = -1  # is trimmed


def keep_freed_memory() -> bool:
    """Ask the allocator of this process to keep freed memory for the next tensor, as long as the process lives.

    On a CPU every tensor is allocated anew. By default glibc gives a large one back to the system when it is freed, and
    for the next of that size the kernel clears every page again.

    Returns:
        Whether the C library can be asked; glibc can. Where it cannot, nothing is changed.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(mallopt(M_MMAP_MAX, 0)) and bool(mallopt(M_TRIM_THRESHOLD, NEVER))
