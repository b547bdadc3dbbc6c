"""docs/performance.md: the parts of it that a run writes, between marks."""

import os
import re
import resource
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from tests.bench.machine import describe
from tests.bench.measure import Row
from tests.bench.table import markdown
from tests.support.repository import ROOT

DOCUMENT = ROOT / "docs" / "performance.md"
TABLE, SOAK = "bench", "bench-soak"


class Occasion:
    """When and where a run was, and what else the machine did meanwhile. Begins when it is made."""

    def __init__(self) -> None:
        self._machine = describe()
        self._began = time.monotonic()
        self._busy_seconds, self._own_seconds = _busy_seconds(), _own_seconds()

    def said(self) -> str:
        """A sentence for the head of the figures. To be called when all that was started has ended."""
        others = _busy_seconds() - self._busy_seconds - (_own_seconds() - self._own_seconds)
        share = max(0.0, others) / (time.monotonic() - self._began) / (os.cpu_count() or 1)
        return (
            f"{datetime.now(UTC).date()}: {self._machine}. "
            f"Other programs took {share:.0%} of the machine's CPU time while it was measured."
        )


def _busy_seconds() -> float:
    """CPU time of all programs, and what the host took away."""
    ticks = [int(field) for field in Path("/proc/stat").read_text().partition("\n")[0].split()[1:9]]
    user, nice, system, _idle, _waiting, irq, softirq, stolen = ticks
    return (user + nice + system + irq + softirq + stolen) / os.sysconf("SC_CLK_TCK")


def _own_seconds() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def table(rows: Sequence[Row], said: str) -> str:
    """What stands under "The last run"."""
    notes: dict[str, list[str]] = {}
    for row in rows:
        if row.note:
            notes.setdefault(row.note, []).append(row.figure)
    lines = [f"- {'; '.join(figures)}: {note}." for note, figures in notes.items()]
    return f"{said}\n\n{markdown(rows)}\n" + "\n".join(lines) + "\n"


def replace(mark: str, text: str, document: Path = DOCUMENT) -> None:
    """Put `text` between the lines `<!-- begin MARK: … -->` and `<!-- end MARK -->`."""
    before, _, after = _parts(mark, document)
    document.write_text(f"{before}\n{text}\n{after}")


def written(mark: str, document: Path = DOCUMENT) -> str:
    """What stands there."""
    return _parts(mark, document)[1]


def _parts(mark: str, document: Path) -> tuple[str, str, str]:
    found = re.fullmatch(
        rf"(.*<!-- begin {mark}:[^\n]*-->\n)(.*)(<!-- end {mark} -->\n.*)", document.read_text(), re.DOTALL
    )
    if found is None:
        raise ValueError(f"{document} has no marks for {mark}")
    return found[1], found[2], found[3]
