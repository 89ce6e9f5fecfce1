"""Tables on a terminal or in a file: numbers are never cut, and nothing that comes from outside is markup."""

from __future__ import annotations

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table


def plain_console(quiet: bool = False) -> Console:
    """Make a console that writes texts as they are."""
    return Console(quiet=quiet, markup=False, emoji=False, highlight=False)


def print_table(table: Table, console: Console | None = None) -> None:
    """Print a table in its full width, whatever the terminal's: a line that breaks can be read, a number cut cannot."""
    target = console or plain_console()
    wanted = Measurement.get(target, target.options.update(width=10_000), table).maximum
    was = target.width
    target.width = max(was, wanted)
    try:
        target.print(table, crop=False, no_wrap=True)
    finally:
        target.width = was
