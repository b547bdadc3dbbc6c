"""What the kernel says about processes and this machine: CPU time, memory, descriptors; and who runs on which core."""

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

IN_MEMORY = Path("/dev/shm")  # noqa: S108 - a file system in memory is what is wanted


@dataclass(frozen=True, slots=True)
class Cores:
    """Where what is measured runs, and where the load comes from: never on the same core if there are two."""

    server: frozenset[int]
    client: frozenset[int]

    @property
    def apart(self) -> bool:
        return self.server.isdisjoint(self.client)


def cores() -> Cores:
    available = sorted(os.sched_getaffinity(0))
    if len(available) < 2:
        return Cores(frozenset(available), frozenset(available))
    return Cores(frozenset(available[:1]), frozenset(available[1:2]))


@contextmanager
def running_on(core: frozenset[int]) -> Iterator[None]:
    """Run this process, and what it starts, on these cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, core)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def cpu_seconds(pid: int) -> float:
    """CPU time that a process' threads have used, to the nanosecond where the kernel keeps it so."""
    total = 0
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):
            total += int((thread / "schedstat").read_text().split()[0])
    return total / 1e9


def rss_bytes(pid: int) -> int:
    """Resident memory, shared pages included."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise ProcessLookupError(pid)


def pss_bytes(pid: int) -> int:
    """Resident memory, a page that n processes share as one n-th of it."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise ProcessLookupError(pid)


def descriptors(pid: int) -> int:
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


def describe() -> str:
    """The machine in a line: figures mean nothing without it."""
    model = "unknown CPU"
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    load = os.getloadavg()[0]
    return (
        f"{len(os.sched_getaffinity(0))} cores of {model}, Linux {platform.release()}, "
        f"{platform.python_implementation()} {platform.python_version()}, load {load:.1f} at the start"
    )
