"""A figure, the reference it is measured against in the same run, and the bar it has to hold. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Bar(StrEnum):
    """What the bar bounds."""

    AT_MOST_TIMES = "at most, times the reference"
    AT_LEAST_TIMES = "at least, times the reference"
    AT_MOST = "at most"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One measurement. `reference` is None where the bar is absolute; `of` says what the reference is."""

    name: str
    unit: str
    measured: float
    bar: Bar
    limit: float
    reference: float | None = None
    of: str = ""

    @property
    def value(self) -> float:
        """What is compared with the limit."""
        if self.bar is Bar.AT_MOST:
            return self.measured
        if not self.reference:
            raise ValueError(f"{self.name}: a bar in times of a reference needs a reference")
        return self.measured / self.reference

    @property
    def holds(self) -> bool:
        """Whether the bar is held."""
        return self.value >= self.limit if self.bar is Bar.AT_LEAST_TIMES else self.value <= self.limit


def table(figures: Iterable[Figure]) -> str:
    """A line for each figure."""
    rows = [("figure", "measured", "reference", "ratio", "bar", "")]
    for figure in figures:
        relative = figure.reference is not None
        reference = f"{figure.reference:.4g} {figure.unit} ({figure.of})" if relative else "-"
        sign = "≥" if figure.bar is Bar.AT_LEAST_TIMES else "≤"
        rows.append(
            (
                figure.name,
                f"{figure.measured:.4g} {figure.unit}",
                reference,
                f"{figure.value:.2f} x" if relative else "-",
                f"{sign} {figure.limit:g}{' x' if relative else f' {figure.unit}'}",
                "ok" if figure.holds else "NOT HELD",
            )
        )
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
