"""Transformers is quiet while it loads, and afterwards as it was."""

from contextlib import suppress

import pytest
from transformers.utils import logging

from maskrl.quiet import quiet


@pytest.mark.parametrize("bar", [True, False])
def test_transformers_is_as_it_was_afterwards_also_after_an_error(bar):
    before, had_bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    try:
        logging.set_verbosity_info()
        (logging.enable_progress_bar if bar else logging.disable_progress_bar)()
        with quiet():
            assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == (logging.ERROR, False)
        assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == (logging.INFO, bar)
        with suppress(ZeroDivisionError), quiet():
            raise ZeroDivisionError
        assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == (logging.INFO, bar)
    finally:
        logging.set_verbosity(before)
        (logging.enable_progress_bar if had_bar else logging.disable_progress_bar)()
