"""What all code of a process shares and no component may change: PyTorch's defaults, and the working directory.

A default dtype that is another rounds other numbers of the core; a mode without gradients ends the learning.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

Shared = Mapping[str, Any]


def shared() -> Shared:
    """Read what is shared, by name; what is PyTorch's only where somebody has imported it."""
    found: dict[str, Any] = {"the working directory": ""}
    with suppress(OSError):  # it was removed
        found["the working directory"] = os.getcwd()
    torch = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "get_default_device"):
        found["torch's default dtype"] = torch.get_default_dtype()
        found["torch's default device"] = torch.get_default_device()
        found["torch's grad mode"] = torch.is_grad_enabled()
        found["torch's inference mode"] = torch.is_inference_mode_enabled()
        found["torch's number of threads"] = torch.get_num_threads()
    return found


def put_back(before: Shared) -> str | None:
    """Put back what was changed since then, as far as can be, and say what the first of it was."""
    now = shared()
    changed = [name for name in before if now[name] != before[name]]
    for name in changed:
        _set(name, before[name])
    if not changed:
        return None
    name = changed[0]
    return f"it changed {name} from {before[name]} to {now[name]}, for all code of the process"


def _set(name: str, value: Any) -> None:
    torch: Any = sys.modules.get("torch")
    if name == "the working directory":
        with suppress(OSError):  # it is gone
            os.chdir(value)
    elif name == "torch's default dtype":
        torch.set_default_dtype(value)
    elif name == "torch's default device":
        torch.set_default_device(None if value.type == "cpu" else value)
    elif name == "torch's grad mode":
        torch.set_grad_enabled(value)
    elif name == "torch's number of threads":
        torch.set_num_threads(value)
