"""The table for people, on a terminal and for docs/performance.md."""

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tests.bench.measure import Row


def show(rows: Sequence[Row], console: Console) -> None:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("figure", "measured", "reference", "ratio", "rounds", "CPU", "bar", ""):
        table.add_column(heading, justify="left" if heading in {"figure", ""} else "right", no_wrap=heading != "figure")
    for row in rows:
        table.add_row(*cells(row))
    console.print(table)
    for name in dict.fromkeys(row.reference_name for row in rows if row.reference_name):
        figures = [row.figure for row in rows if row.reference_name == name]
        console.print(f"beside {name}: {'; '.join(figures)}", style="dim", highlight=False)
    for row in rows:
        if row.note:
            console.print(f"{row.figure}: {row.note}", style="dim", highlight=False)


def markdown(rows: Sequence[Row]) -> str:
    """The table in Markdown."""
    lines = ["| figure | measured | reference | ratio | rounds | CPU | bar | |", "| --- " + "| --: " * 6 + "| --- |"]
    lines += ["| " + " | ".join(str(cell) for cell in cells(row)) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def cells(row: Row) -> list[str | Text]:
    sign = "≥" if row.at_least else "≤"
    bar = "" if row.bar is None else f"{sign} {row.bar:g}{' x' if row.ratio is not None else f' {row.unit}'}"
    verdict = {None: Text(""), True: Text("ok", "green"), False: Text("MISSED", "bold red")}[row.met]
    return [
        f"{row.figure} ({row.unit})",
        number(row.value),
        "-" if row.reference is None else number(row.reference),
        "-" if row.ratio is None else f"{row.ratio:.2f} x",
        "" if row.spread is None else f"{row.spread[0]:.2f} … {row.spread[1]:.2f}",
        "" if row.cpu_ratio is None else f"{row.cpu_ratio:.2f} x",
        bar,
        verdict,
    ]


def number(value: float) -> str:
    return f"{value:,.0f}".replace(",", " ") if value >= 1000 else f"{value:.3g}"
