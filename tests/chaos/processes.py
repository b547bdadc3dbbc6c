"""The agents and workers of one embedded cluster, found as processes of this machine, and signals to them."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

STATE_DIR = b"PODSLOTS_STATE_DIR="
PROGRAMS = {b"serve": "agent", b"work": "worker"}
"""What `slot-agent` is told to be."""


@dataclass(frozen=True)
class Process:
    """One process; with its start time its pid means no other. `program`: agent, worker, or empty for the rest.

    `state` is an agent's state folder.
    """

    pid: int
    ticks: int
    program: str
    state: Path | None = None

    def send(self, number: signal.Signals) -> bool:
        """Send a signal; False if it is gone."""
        if start_ticks(self.pid) != self.ticks:
            return False
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)
            return True
        return False

    def age_seconds(self) -> float:
        """For how long it has been there."""
        return time.clock_gettime(time.CLOCK_BOOTTIME) - self.ticks / os.sysconf("SC_CLK_TCK")


def start_ticks(pid: int) -> int | None:
    """When a process started; None if there is no such process, or only a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return None
    return None if fields[0] == b"Z" else int(fields[19])


def of_cluster(state: Path) -> Iterator[Process]:
    """All that runs in the containers of the cluster with this state folder: its paths are in their environment."""
    mark = f"{state}/node/pods/".encode()
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            environ = (folder / "environ").read_bytes()
            command = (folder / "cmdline").read_bytes().rstrip(b"\0").split(b"\0")
        except OSError:
            continue
        ticks = start_ticks(int(folder.name))
        if mark in environ and ticks is not None:
            _, _, named = environ.partition(STATE_DIR)
            path = Path(os.fsdecode(named.partition(b"\0")[0])) if named else None
            yield Process(int(folder.name), ticks, PROGRAMS.get(command[-1], ""), path)
