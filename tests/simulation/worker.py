"""A slot's worker: the protocol with its agent and the rules of its disk, with commands that only take time.

It keeps to what the real one does where the rest of the system can tell: a step is started at most once, marked on the
disk before; an instance that finds a start without an end reports it lost; what ended is reported until it is heard.
"""

import asyncio
import hashlib
import random
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol, TypeVar

from agent.desk import Desk
from agent.errors import Refusal
from agent.wire import (
    Assignment,
    ErrorCode,
    ExitReport,
    KeptTask,
    Outcome,
    RegisterRequest,
    StartedReport,
    Step,
    WorkAnswer,
)
from controller.errors import AgentUnreachable

T = TypeVar("T")
RETRY_SECONDS = 1.0


class Line(Protocol):
    """The way to the agent beside it."""

    async def call(self, ask: Callable[[Desk], Coroutine[Any, Any, T]], timeout_seconds: float) -> T:
        """Ask the desk of whatever agent runs now. Raises AgentUnreachable, Refusal."""
        ...


class Commands(Protocol):
    """What steps do."""

    def begins(self, assignment: Assignment) -> None:
        """A command is about to run."""
        ...

    def seconds(self, assignment: Assignment) -> float:
        """How long it takes."""
        ...

    def outcome(self, assignment: Assignment) -> Outcome:
        """How it ends by itself."""
        ...


@dataclass
class Kept:
    """A task's directory: the last step, whether it was started, and how it ended."""

    assignment: Assignment
    started: bool = False
    exit: ExitReport | None = None


class SimWorker:
    """One instance. `disk` outlives it."""

    def __init__(
        self,
        slot: int,
        disk: dict[str, Kept],
        line: Line,
        commands: Commands,
        *,
        now: Callable[[], datetime],
        rng: random.Random,
    ) -> None:
        self.instance = f"{rng.getrandbits(64):016x}"
        self.running: Assignment | None = None
        self.stopping = False
        self._slot = slot
        self._disk = disk
        self._line = line
        self._commands = commands
        self._now = now
        self._rng = rng
        self._cancelled = asyncio.Event()
        self._going: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Until it is superseded, or cancelled: a container that is killed takes its command along."""
        try:
            while True:
                try:
                    await self._serve()
                except Refusal as refusal:
                    if refusal.code is ErrorCode.SUPERSEDED:
                        return
                    await asyncio.sleep(RETRY_SECONDS)
                except AgentUnreachable:
                    await asyncio.sleep(RETRY_SECONDS * self._rng.uniform(0.2, 1.0))
        finally:
            if self._going is not None:
                self._going.cancel()

    async def _serve(self) -> None:
        """Register, then poll until that fails."""
        kept = tuple(
            KeptTask(assignment=entry.assignment, started=entry.started, exit=entry.exit)
            for entry in self._disk.values()
        )
        request = RegisterRequest(instance=self.instance, tasks=kept)
        self._obey(await self._line.call(lambda desk: desk.register(self._slot, request), 10.0))
        self._report_leftovers()
        while True:
            now = self.running
            task_id, step = (now.task_id, now.step) if now else (None, None)
            self._obey(
                await self._line.call(
                    lambda desk, task_id=task_id, step=step: desk.poll(  # type: ignore[misc]
                        self._slot, self.instance, task_id, step, listening=lambda: True
                    ),
                    30.0,
                )
            )

    def _obey(self, answer: WorkAnswer) -> None:
        for task_id in answer.forget:
            if self.running is None or self.running.task_id != task_id:
                self._disk.pop(task_id, None)
        run = answer.run
        if run is not None and self.running is None and not self.stopping:
            self._begin(run, cancelled=answer.cancel)
        elif answer.cancel and self.running is not None and (run is None or run.fence == self.running.fence):
            self._cancelled.set()

    def _begin(self, assignment: Assignment, *, cancelled: bool) -> None:
        known = self._disk.get(assignment.task_id)
        if known is not None and known.assignment.step is assignment.step and (known.started or known.exit):
            return  # it was started before; its end is reported, or will be
        kept = self._disk[assignment.task_id] = Kept(assignment)
        if cancelled:
            kept.started = True
            kept.exit = self._exit(assignment, Outcome.CANCELLED, reason="cancelled before it started")
            self._start(self._report(kept))
            return
        kept.started = True
        self.running = assignment
        self._cancelled.clear()
        self._commands.begins(assignment)
        self._start(self._execute(kept))

    def _report_leftovers(self) -> None:
        """What an earlier instance started and did not see end: with it, its processes went."""
        for kept in self._disk.values():
            if kept.started and kept.exit is None and kept.assignment is not self.running:
                kept.exit = self._exit(kept.assignment, Outcome.LOST, reason="its worker was killed")
        ended = [kept for kept in self._disk.values() if kept.exit is not None]
        if ended and self.running is None and (self._going is None or self._going.done()):
            self._start(self._report(*ended))

    def _start(self, coroutine: Coroutine[Any, Any, None]) -> None:
        before = self._going

        async def after() -> None:
            if before is not None and not before.done():
                await asyncio.wait({before})
            await coroutine

        self._going = asyncio.get_running_loop().create_task(after())

    async def _execute(self, kept: Kept) -> None:
        assignment = kept.assignment
        start = self._now()
        report = StartedReport(
            instance=self.instance,
            task_id=assignment.task_id,
            step=assignment.step,
            fence=assignment.fence,
            start_time=start,
        )
        telling = asyncio.get_running_loop().create_task(self._tell(lambda desk: desk.started(self._slot, report)))
        try:
            outcome = self._commands.outcome(assignment)
            try:
                async with asyncio.timeout(self._commands.seconds(assignment)):
                    await self._cancelled.wait()
                outcome = Outcome.CANCELLED
            except TimeoutError:
                pass
            kept.exit = self._exit(assignment, outcome, start=start)
            self.running = None
            await self._report(kept)
        finally:
            telling.cancel()

    def _exit(
        self, assignment: Assignment, outcome: Outcome, *, start: datetime | None = None, reason: str | None = None
    ) -> ExitReport:
        digest = None
        if outcome is Outcome.SUCCEEDED and assignment.step is Step.PLAN and assignment.work.steps.apply is not None:
            digest = f"sha256:{hashlib.sha256(assignment.task_id.encode()).hexdigest()}"
        return ExitReport(
            instance=self.instance,
            task_id=assignment.task_id,
            step=assignment.step,
            fence=assignment.fence,
            outcome=outcome,
            start_time=start,
            end_time=self._now(),
            exit_code={Outcome.SUCCEEDED: 0, Outcome.FAILED: 1}.get(outcome),
            reason=reason,
            plan_digest=digest,
        )

    async def _report(self, *ended: Kept) -> None:
        for kept in ended:
            report = kept.exit
            assert report is not None
            mine = ExitReport(**{**_fields(report), "instance": self.instance})
            await self._tell(lambda desk, mine=mine: desk.exited(self._slot, mine))  # type: ignore[misc]

    async def _tell(self, ask: Callable[[Desk], Coroutine[Any, Any, None]]) -> None:
        """Until it is heard, or not wanted any more."""
        while True:
            try:
                await self._line.call(ask, 10.0)
            except AgentUnreachable:
                pass
            except Refusal as refusal:
                if refusal.code not in {ErrorCode.STORAGE, ErrorCode.UNREGISTERED, ErrorCode.NOT_READY}:
                    return
            else:
                return
            await asyncio.sleep(RETRY_SECONDS * self._rng.uniform(0.5, 1.0))


def _fields(report: ExitReport) -> dict[str, Any]:
    return {name: getattr(report, name) for name in report.__dataclass_fields__}
