"""Keep transformers from talking while it loads: what matters of it is told in one line.

Plugins may import this module.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers from drawing a bar and listing weights; what it did before it does again afterwards."""
    from transformers.utils import logging  # slow to import

    verbosity, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bar:
            logging.enable_progress_bar()
