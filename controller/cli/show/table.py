"""Tables as text: columns that line up, for pipes and for terminals. Pure.

A pipe gets every column and every cell on one line. A terminal that is too narrow first loses the columns that a table
can do without, and then has the last column wrapped: it is the one with sentences in it.
"""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from controller.cli.show.colours import painted

NONE = "-"
"""In a cell that has nothing to show."""
GAP = "   "
WIDEST = 48
"""Columns are as wide as their longest cell, up to this: one long name then shifts its own row and no other."""
LEAST_LAST = 24
"""Characters for the last column, below which other columns make room for it."""


@dataclass(frozen=True, slots=True)
class Table:
    """Column heads and rows of equal length. `spare`: columns to do without on a narrow terminal, the first one first.

    The last column is the one with the long texts.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    spare: Sequence[str] = ()

    def text(self, *, width: int | None = None, coloured: bool = False) -> str:
        """The whole of it, for a terminal of this width, or for none."""
        layout = Layout(self, width)
        return "\n".join([layout.head(), *layout.lines(self.rows, coloured=coloured)])


class Layout:
    """Which columns a table has, and how wide: decided by the rows that are there first, wider with what comes."""

    def __init__(self, table: Table, width: int | None = None) -> None:
        self._columns = table.columns
        self._width = width
        self._widths = [len(column) for column in table.columns]
        self.grow(table.rows)
        self._kept = _kept(table, self._widths, width)

    def grow(self, rows: Sequence[Sequence[str]]) -> None:
        """Make room for more rows."""
        for index, known in enumerate(self._widths):
            longest = max((len(row[index]) for row in rows), default=0)
            self._widths[index] = max(known, min(longest, WIDEST))

    def head(self) -> str:
        """The line of heads."""
        return GAP.join(self._padded(self._columns)).rstrip()

    def lines(self, rows: Sequence[Sequence[str]], *, coloured: bool = False) -> list[str]:
        """The rows as lines, padded as the heads are."""
        return [line for row in rows for line in self._row(row, coloured=coloured)]

    def _row(self, row: Sequence[str], *, coloured: bool) -> list[str]:
        cells = [row[index] for index in self._kept]
        padded = self._padded(row)
        start = sum(len(cell) + len(GAP) for cell in padded[:-1])
        first, *more = self._wrapped(cells[-1], start)
        padded[-1] = first
        if coloured:
            padded = [painted(cell, text) for cell, text in zip(cells, padded, strict=True)]
        return [GAP.join(padded).rstrip(), *(" " * start + line for line in more)]

    def _padded(self, row: Sequence[str]) -> list[str]:
        return [row[index].ljust(self._widths[index]) for index in self._kept[:-1]] + [row[self._kept[-1]]]

    def _wrapped(self, text: str, start: int) -> list[str]:
        if self._width is None or len(text) <= self._width - start:
            return [text]
        room = max(LEAST_LAST, self._width - start)
        return textwrap.wrap(text, room, break_long_words=False, break_on_hyphens=False) or [""]


def _kept(table: Table, widths: Sequence[int], width: int | None) -> list[int]:
    """The columns that are shown, by their numbers."""
    kept = list(range(len(table.columns)))
    if width is None:
        return kept
    last = max((len(row[-1]) for row in [table.columns, *table.rows]), default=0)
    for name in table.spare:
        if sum(widths[index] + len(GAP) for index in kept[:-1]) + min(last, LEAST_LAST) <= width:
            break
        kept = [index for index in kept if table.columns[index] != name]
    return kept
