"""How tables are shown where stdout goes: a terminal has a width and perhaps colours, a pipe has neither."""

import shutil
import sys

from controller.cli.show import colours
from controller.cli.show.table import Layout, Table


def width() -> int | None:
    """Columns of the terminal; None if stdout is none."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def shown(table: Table, *, whole: bool = False) -> str:
    """A table for stdout. `whole`: with every column, whatever the terminal's width."""
    return table.text(width=None if whole else width(), coloured=colours.wanted())


def layout(table: Table, *, whole: bool = False) -> Layout:
    """The same columns for this table and the rows that follow it."""
    return Layout(table, None if whole else width())
