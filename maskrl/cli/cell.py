"""``python -m maskrl.cli.cell``: a command of maskrl that ends with whoever started it.

The starter holds the other end of standard input. When that is closed, this process is sent SIGTERM: a training run
saves, and leaves its folder to others.
"""

from __future__ import annotations

import os
import signal
import sys
import threading

from maskrl.cli import main


def _watch() -> None:
    os.read(sys.stdin.fileno(), 1)  # returns when the pipe is closed
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    threading.Thread(target=_watch, daemon=True).start()
    main()
