"""`make bench-soak`: an agent that runs tasks for minutes may neither grow nor lose descriptors.

Run as `python -m tests.bench.soak [--tasks 100000] [--seconds 600]`, whichever ends first.
"""

import argparse
import asyncio
import itertools
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import orjson
import uvloop

from tests.bench.document import SOAK, Occasion, replace
from tests.bench.load import Load
from tests.bench.machine import Cores, cores, describe, descriptors, rss_bytes, running_on
from tests.bench.measure import slope
from tests.bench.servers import agent
from tests.bench.task_load import SLOTS, Tasks

WARM_UP = 0.1
"""The share of the run that is left out: the last 1024 acknowledged ids, free lists and arenas fill up first."""

FLAT_BYTES = 3 << 20
"""How much more memory than at its start the end of the run may take. Python takes and returns memory by arenas of
1 MiB, and which of them empty is chance: two more or less are none. One object of 64 bytes that is kept for each of
100 000 tasks would be six."""

KIB = 1024


@dataclass(slots=True)
class Course:
    """What was seen after each step of so many tasks."""

    step: int
    tasks: int = 0
    seconds: float = 0.0
    rss: list[int] = field(default_factory=list)
    descriptors: list[int] = field(default_factory=list)

    def to_json(self) -> dict[str, object]:
        memory, open_files = _after_warm_up(self.rss), _after_warm_up(self.descriptors)
        tenth = max(1, len(memory) // 10)
        first, last = median(memory[:tenth]), median(memory[-tenth:])
        return {
            "subject": "soak",
            "tasks": self.tasks,
            "seconds": round(self.seconds, 1),
            "rss_first_tenth_kib": first / KIB,
            "rss_last_tenth_kib": last / KIB,
            "rss_growth_kib": (last - first) / KIB,
            "rss_slope_bytes_per_task": slope(memory) / self.step,
            "rss_by_tenths_kib": [round(median(memory[i * tenth : (i + 1) * tenth]) / KIB) for i in range(10)],
            "rss_highest_kib": max(self.rss) / KIB,
            "descriptors_first_tenth": median(open_files[:tenth]),
            "descriptors_last_tenth": median(open_files[-tenth:]),
            "met": last - first <= FLAT_BYTES and median(open_files[-tenth:]) <= median(open_files[:tenth]) + 1,
        }


def _after_warm_up(values: list[int]) -> list[int]:
    return values[int(len(values) * WARM_UP) :]


async def soak(tasks: int, seconds: float, where: Cores) -> Course:
    """Run tasks; look at the agent after every hundredth of them."""
    course = Course(step=max(1, tasks // 100))
    loop = asyncio.get_running_loop()
    async with agent(where) as (process, served):
        running = Tasks(process)
        names = iter(f"task-{number}.1" for number in itertools.count())
        began = loop.time()
        while course.tasks < tasks and loop.time() - began < seconds:
            load = Load()
            some: Iterator[str] = itertools.islice(names, course.step)
            await served.client.follow(load, [running.script(load, some) for _ in range(SLOTS)])
            course.tasks = running.done
            # Between steps no connection is open, so that every look sees the same.
            await asyncio.to_thread(process.state)
            course.rss.append(rss_bytes(served.pid))
            course.descriptors.append(descriptors(served.pid))
        course.seconds = loop.time() - began
    return course


def document(result: dict[str, Any], said: str) -> str:
    """What stands in docs/performance.md."""
    rows = {
        "tasks": f"{result['tasks']:,}".replace(",", " "),
        "time": f"{result['seconds']:.0f} s, {result['tasks'] / result['seconds']:.0f} tasks a second",
        "RSS, first and last tenth after the warm-up": (
            f"{result['rss_first_tenth_kib'] / KIB:.2f} and {result['rss_last_tenth_kib'] / KIB:.2f} MiB"
        ),
        "RSS, highest": f"{result['rss_highest_kib'] / KIB:.2f} MiB",
        "slope": f"{result['rss_slope_bytes_per_task']:.2f} bytes a task",
        "descriptors, first and last tenth": (
            f"{result['descriptors_first_tenth']:.0f} and {result['descriptors_last_tenth']:.0f}"
        ),
        "flat": "yes" if result["met"] else "**no**",
    }
    return f"{said}\n\n| | |\n| --- | --: |\n" + "".join(f"| {name} | {value} |\n" for name, value in rows.items())


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.soak", description=__doc__)
    parser.add_argument("--tasks", type=int, default=100_000, help="how many (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=600.0, help="at most so long (default: %(default)s)")
    parser.add_argument("--check", action="store_true", help="exit with status 1 if the agent grew")
    parser.add_argument("--document", action="store_true", help="also put the figures into docs/performance.md")
    arguments = parser.parse_args()
    where = cores()
    occasion = Occasion()
    sys.stderr.write(describe() + "\n")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner, running_on(where.client):
        result = runner.run(soak(arguments.tasks, arguments.seconds, where)).to_json()
    if arguments.document:
        replace(SOAK, document(result, occasion.said()))
    sys.stdout.write(orjson.dumps(result, option=orjson.OPT_INDENT_2).decode() + "\n")
    return 1 if arguments.check and not result["met"] else 0


if __name__ == "__main__":
    sys.exit(main())
