"""The worker's core in virtual time: its clock, disk and processes, in memory. No threads, no waiting."""

import dataclasses
from datetime import UTC, datetime, timedelta
from typing import Any

from agent.wire import Assignment, ExitReport, Step
from agent.worker.errors import StepRefusedError
from agent.worker.rules.core import Worker
from agent.worker.rules.ports import Ended, Launch, LaunchedCommand, StoredStep

EPOCH = datetime(2026, 3, 1, 12, tzinfo=UTC)


class VirtualClock:
    """Moves only when told."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def monotonic(self) -> float:
        return self.seconds

    def now(self) -> datetime:
        return EPOCH + timedelta(seconds=self.seconds)


@dataclasses.dataclass
class _Entry:
    assignment: Assignment
    started: bool = False
    start_time: datetime | None = None
    exit: ExitReport | None = None
    told: bool = False
    log: bytes = b""


class MemoryDisk:
    """A slot's folder that outlives its workers. `full`: every write fails. `remains`: what blocks a reclaim."""

    def __init__(self) -> None:
        self.entries: dict[tuple[str, Step], _Entry] = {}
        self.forgotten: list[str] = []
        self.full = False
        self.refusal: str | None = None
        self.remains: set[tuple[str, Step]] = set()
        self.unread: tuple[str, ...] = ()
        self.damaged: tuple[str, ...] = ()
        self.hashing: Assignment | None = None
        self.hashes = True
        """Whether a digest that was begun is ready at the next look."""

    def load(self) -> list[StoredStep]:
        last = {task_id: entry for (task_id, _), entry in sorted(self.entries.items(), key=lambda item: item[0][1])}
        last |= {task_id: entry for (task_id, step), entry in self.entries.items() if step is Step.APPLY}
        return [
            StoredStep(
                assignment=entry.assignment,
                started=entry.started,
                start_time=entry.start_time,
                exit=entry.exit,
                exit_told=entry.told,
            )
            for entry in last.values()
        ]

    def assign(self, assignment: Assignment) -> None:
        self._write()
        key = assignment.task_id, assignment.step
        if key in self.entries and self.entries[key].assignment.nonce == assignment.nonce:
            self.entries[key].assignment = assignment
        else:
            self.entries[key] = _Entry(assignment)

    def prepare(self, assignment: Assignment, run_id: str) -> Launch:
        if self.refusal:
            raise StepRefusedError(self.refusal)
        spec = assignment.work.steps.get(assignment.step)
        assert spec
        return Launch(
            task_id=assignment.task_id,
            step=assignment.step,
            name=assignment.work.name,
            run_id=run_id,
            commands=(
                *(LaunchedCommand(argv=before.command) for before in spec.before),
                LaunchedCommand(argv=spec.command),
            ),
            environment={},
        )

    def claim(self, assignment: Assignment, *, instance: str, run_id: str, start_time: datetime) -> bool:
        del instance, run_id
        self._write()
        entry = self.entries[assignment.task_id, assignment.step]
        if entry.started:
            return False
        entry.started, entry.start_time = True, start_time
        return True

    def reclaim(self, task_id: str, step: Step) -> bool:
        return (task_id, step) not in self.remains

    def stored_exit(self, task_id: str, step: Step) -> ExitReport | None:
        return self.entries[task_id, step].exit

    def store_exit(self, exit_report: ExitReport) -> None:
        self._write()
        self.entries[exit_report.task_id, exit_report.step].exit = exit_report

    def exit_told(self, task_id: str, step: Step) -> None:
        self.entries[task_id, step].told = True

    def plan_digest(self, assignment: Assignment) -> str:
        return f"sha256:{assignment.task_id}"

    def outputs(self, assignment: Assignment) -> str:
        raise StepRefusedError(f"there is no file {assignment.work.outputs_path!r} here")

    def check_plan_file(self, assignment: Assignment) -> None:
        del assignment

    def begin_digest(self, assignment: Assignment) -> None:
        self.hashing = assignment

    def digest(self) -> str | None:
        if self.hashing is None or not self.hashes:
            return None
        found, self.hashing = self.plan_digest(self.hashing), None
        return found

    def end_digest(self) -> None:
        self.hashing = None

    def log_bytes(self, task_id: str, step: Step) -> int:
        return len(self._log(task_id, step))

    def read_log(self, task_id: str, step: Step, offset: int, size: int) -> bytes:
        return self._log(task_id, step)[offset : offset + size]

    def forget(self, task_id: str) -> None:
        self.forgotten.append(task_id)
        self.entries = {key: entry for key, entry in self.entries.items() if key[0] != task_id}

    def _log(self, task_id: str, step: Step) -> bytes:
        """A step that never ran has none."""
        entry = self.entries.get((task_id, step))
        return entry.log if entry is not None else b""

    def _write(self) -> None:
        if self.full:
            raise OSError(28, "No space left on device")


class MemoryRunner:
    """Remembers every start. A test says when the command ends, by `Worker.ended`."""

    def __init__(self) -> None:
        self.starts: list[Launch] = []
        self.signals: list[str] = []
        self.refusal: str | None = None

    def start(self, launch: Launch) -> None:
        if self.refusal:
            raise StepRefusedError(self.refusal)
        self.starts.append(launch)

    def interrupt(self, signal_name: str) -> None:
        self.signals.append(signal_name)

    def terminate(self) -> None:
        self.signals.append("TERM")

    def kill(self) -> None:
        self.signals.append("KILL")


@dataclasses.dataclass
class WorkerWorld:
    """Everything around one worker."""

    clock: VirtualClock = dataclasses.field(default_factory=VirtualClock)
    disk: MemoryDisk = dataclasses.field(default_factory=MemoryDisk)
    runner: MemoryRunner = dataclasses.field(default_factory=MemoryRunner)
    log: list[tuple[str, dict[str, Any]]] = dataclasses.field(default_factory=list)

    def worker(self, instance: str = "w1", *, grace_seconds: float = 60.0) -> Worker:
        def log(event: str, **about: Any) -> None:
            self.log.append((event, about))

        return Worker(
            instance=instance,
            grace_seconds=grace_seconds,
            disk=self.disk,
            runner=self.runner,
            clock=self.clock,
            jitter=lambda seconds: seconds,
            log=log,
        )

    def ended(self, exit_code: int = 0, output_bytes: int = 0) -> Ended:
        return Ended(exit_code=exit_code, signal=None, output_bytes=output_bytes)
