"""`make bench`: every figure beside its reference, both measured in this run. `--help` says the rest."""

import argparse
import asyncio
import resource
import sys
from collections.abc import AsyncIterator, Callable

import uvloop
from rich.console import Console

from tests.bench import (
    commands,
    creates,
    decisions,
    dispatch,
    fairness,
    fleet,
    footprint,
    memory,
    page,
    passes,
    reads,
    simulator,
    starts,
    writes,
)
from tests.bench.document import TABLE, Occasion, replace, table
from tests.bench.effort import FULL, TINY, Effort
from tests.bench.machine import Cores, cores, describe, running_on
from tests.bench.measure import Row
from tests.bench.table import markdown, show

SUBJECTS: dict[str, Callable[[Effort, Cores], AsyncIterator[Row]]] = {
    "reads": reads.measure,
    "writes": writes.measure,
    "memory": memory.measure,
    "starts": starts.measure,
    "fleet": fleet.measure,
    "decisions": decisions.measure,
    "creates": creates.measure,
    "dispatch": dispatch.measure,
    "commands": commands.measure,
    "passes": passes.measure,
    "page": page.measure,
    "fairness": fairness.measure,
    "footprint": footprint.measure,
    "simulator": simulator.measure,
}

MAX_MEMORY_BYTES = 4 << 30


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench",
        description="The table goes to stderr, a JSON line for each figure to stdout.",
    )
    parser.add_argument("subjects", nargs="*", metavar="SUBJECT", help=f"of {', '.join(SUBJECTS)} (default: all)")
    parser.add_argument("--check", action="store_true", help="exit with status 1 if a bar is missed")
    parser.add_argument("--markdown", action="store_true", help="write the table to stdout as Markdown instead")
    parser.add_argument("--document", action="store_true", help="also put the table into docs/performance.md")
    parser.add_argument("--tiny", action="store_true", help="sizes that prove that it runs; the figures mean nothing")
    arguments = parser.parse_args()
    if unknown := set(arguments.subjects) - set(SUBJECTS):
        parser.error(f"no such subject: {', '.join(sorted(unknown))}")
    if arguments.document and (arguments.subjects or arguments.tiny):
        parser.error("docs/performance.md takes the whole of a full run")
    chosen = arguments.subjects or list(SUBJECTS)
    console = Console(stderr=True, width=None if sys.stderr.isatty() else 120)
    # A mistake in here, or in what it starts, ends with a MemoryError and not with the machine's memory.
    resource.setrlimit(resource.RLIMIT_DATA, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
    occasion = Occasion()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        rows = runner.run(run(chosen, TINY if arguments.tiny else FULL, console))
    show(rows, console)
    if arguments.document:
        replace(TABLE, table(rows, occasion.said()))
    if arguments.markdown:
        sys.stdout.write(markdown(rows))
    else:
        sys.stdout.writelines(row.to_json().decode() + "\n" for row in rows)
    return 1 if arguments.check and any(row.met is False for row in rows) else 0


async def run(chosen: list[str], effort: Effort, console: Console) -> list[Row]:
    """Measure, on the client's core; what is measured is put on the other one."""
    where = cores()
    console.print(f"{describe()}; client and server {'on a core each' if where.apart else 'share a core'}")
    rows: list[Row] = []
    with running_on(where.client):
        for name in chosen:
            console.print(f"measuring {name} …", style="dim")
            rows += [row async for row in SUBJECTS[name](effort, where)]
    return rows


if __name__ == "__main__":
    sys.exit(main())
