"""``python -m maskrl`` is ``maskrl``."""

import sys
from pathlib import Path

# -m puts the working directory before what is installed: any `evil.py` there would be imported, under `maskrl` none is
if not sys.flags.safe_path and sys.path and Path(sys.path[0]).resolve() == Path.cwd():
    del sys.path[0]

from maskrl.cli import main

main()
