"""Each subject of `make bench` runs, in sizes that prove nothing else."""

import re
from pathlib import Path

import pytest
from rich.console import Console

from tests.bench.__main__ import SUBJECTS, run
from tests.bench.document import DOCUMENT, SOAK, TABLE, replace, table, written
from tests.bench.effort import TINY
from tests.bench.machine import cores
from tests.bench.measure import Compared, Row, Sample, percentile, slope
from tests.bench.soak import document, soak
from tests.bench.table import markdown, show


@pytest.mark.long
@pytest.mark.parametrize("subject", SUBJECTS)
async def test_a_subject_yields_figures_that_can_be_judged_and_printed(subject: str) -> None:
    rows = await run([subject], TINY, Console(quiet=True))
    assert rows
    assert all(row.subject == subject and row.value > 0 for row in rows)
    assert any(row.met is not None for row in rows)
    assert all(row.ratio is not None for row in rows if row.reference is not None)
    console = Console(record=True, quiet=True, width=200)
    show(rows, console)
    assert all(row.figure in markdown(rows) for row in rows)
    documented = _without_numbers(written(TABLE))
    assert all(f"| {_without_numbers(row.figure)} (" in documented for row in rows), "make bench BENCH_ARGS=--document"


def _without_numbers(text: str) -> str:
    """How many tasks or Pods were measured is another matter."""
    return re.sub(r"\d+", "#", text)


def test_the_document_has_no_placeholder() -> None:
    text = DOCUMENT.read_text()
    assert not re.search(r"\b(TABLE|TODO|TBD|FIXME|XXX)\b|CLIENT %", text)
    assert written(TABLE).count("\n| ") > 20
    assert "| flat |" in written(SOAK)


def test_a_run_replaces_what_stands_between_its_marks(tmp_path: Path) -> None:
    file = tmp_path / "figures.md"
    file.write_text("before\n<!-- begin bench: by --document -->\nold\n<!-- end bench -->\nafter\n")
    rows = [
        Row(subject="s", figure="a", unit="ms", value=1.0, note="n"),
        Row(subject="s", figure="b", unit="s", value=2),
    ]
    replace(TABLE, table(rows, "2026-01-01: here."), file)
    replace(TABLE, table(rows, "2026-01-02: there."), file)
    text = file.read_text()
    assert text.startswith("before\n<!-- begin bench: by --document -->\n\n2026-01-02: there.\n")
    assert text.endswith("- a: n.\n\n<!-- end bench -->\nafter\n")
    assert "old" not in text
    assert "2026-01-01" not in text
    with pytest.raises(ValueError, match="no marks"):
        written(SOAK, file)


@pytest.mark.long
async def test_a_soak_looks_at_the_agent_as_tasks_go_by() -> None:
    course = await soak(30, 30.0, cores())
    assert course.tasks == 30
    figures = course.to_json()
    assert figures["rss_highest_kib"]
    assert "| tasks | 30 |" in document(figures, "2026-01-01: here.")


def test_a_ratio_is_the_median_of_the_rounds() -> None:
    compared = Compared(
        subject=[Sample(value=1.0), Sample(value=2.0), Sample(value=9.0)],
        reference=[Sample(value=2.0), Sample(value=2.0), Sample(value=3.0)],
    )
    row = compared.row("s", "f", "u", bar=0.9, at_least=True)
    assert (row.value, row.reference, row.ratio, row.spread, row.met) == (2.0, 2.0, 1.0, (0.5, 3.0), True)


def test_a_bar_without_a_reference_is_for_the_value() -> None:
    assert Row(subject="s", figure="f", unit="ms", value=21.0, bar=20.0).met is False
    assert Row(subject="s", figure="f", unit="ms", value=21.0).met is None


def test_slope_and_percentile() -> None:
    assert slope([1.0, 3.0, 5.0]) == 2.0
    assert percentile([3.0, 1.0, 2.0], 50) == 2.0


def test_every_module_is_a_subject_or_serves_one() -> None:
    helpers = {
        *(
            "__main__",
            "agents",
            "api_server",
            "bare",
            "controller_memory",
            "cpu_clock",
            "document",
            "effort",
            "fake_fleet",
            "load",
            "machine",
            "measure",
            "plane",
        ),
        *("servers", "soak", "stage", "staged", "table", "task_load", "warm_pod"),
    }
    names = {path.stem for path in Path(__file__).parent.glob("*.py")}
    assert names - helpers - {Path(__file__).stem} == set(SUBJECTS)
