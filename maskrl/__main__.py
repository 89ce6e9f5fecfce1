"""``python -m maskrl`` is ``maskrl``."""

from maskrl.cli import main

main()
