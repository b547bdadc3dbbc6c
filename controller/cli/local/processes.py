"""The processes of `podslots local`: who they are, and whether they still run."""

import contextlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

from controller.errors import PodslotsError

RECORDS = "processes.json"
KUBECONFIG = Path("cluster") / "kubeconfig"
"""Where the cluster of a state folder writes the administrator's, each time it starts."""
READY = "ready.json"
"""What the cluster said as it was ready. It stays when the cluster is stopped."""


class StackError(PodslotsError):
    """A process did not start, or ended by itself. The text has the end of its log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A process that we started, now or in an earlier command."""

    name: str
    pid: int
    start_ticks: int

    @property
    def alive(self) -> bool:
        """Whether it still runs: this very process, not another one with its pid."""
        return start_ticks(self.pid) == self.start_ticks

    def send(self, number: int) -> None:
        """Send a signal, unless it is gone."""
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)


def recorded(folder: Path) -> list[Running]:
    """The processes that were started on a state folder and not stopped. Raises StackError."""
    try:
        records = json.loads((folder / RECORDS).read_text())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except (OSError, ValueError) as error:
        raise StackError(f"{folder / RECORDS} can't be read: {error}") from error
    return [Running(**record) for record in records]


def write_records(folder: Path, records: Sequence[Running]) -> None:
    """Note who was started on a state folder and not stopped. Raises StackError."""
    path, temporary = folder / RECORDS, folder / f"{RECORDS}.tmp"
    try:
        if not records:
            path.unlink(missing_ok=True)
            return
        temporary.write_text(json.dumps([asdict(record) for record in records]))
        temporary.rename(path)
    except OSError as error:
        raise StackError(f"{path} can't be written: {error.strerror}") from error


class Standing(StrEnum):
    """How the cluster of a state folder stands; the values are words for people."""

    NEVER_STARTED = "was never started"
    RUNS = "runs"
    STOPPED = "is stopped"
    KILLED = "was killed"


def standing(folder: Path) -> Standing:
    """Whether the cluster runs; if not, whether it was stopped or just ended. Raises StackError."""
    clusters = [process for process in recorded(folder) if process.name == "cluster"]
    if clusters:
        return Standing.RUNS if any(process.alive for process in clusters) else Standing.KILLED
    return Standing.STOPPED if (folder / KUBECONFIG).is_file() else Standing.NEVER_STARTED


def start_ticks(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; None if there is none, or only its remains."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return None
    return None if fields[0] == b"Z" else int(fields[19])
