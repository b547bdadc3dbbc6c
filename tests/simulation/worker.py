"""A slot's container: the worker's own core, course and wire, over a disk in memory and processes that only take time.

What is simulated is what `agent.worker.rules.ports` names, and the sockets. A command outlives its worker's death for a
moment now and then, and holds the step's lock as long.
"""

import asyncio
import contextlib
import hashlib
import random
from binascii import b2a_base64
from collections.abc import Callable, Coroutine
from datetime import datetime
from typing import Any, Protocol

from agent.wire import Assignment, ExitReport, Step
from agent.worker.errors import LinkError
from agent.worker.http.client import CALL_TIMEOUT_SECONDS, POLL_TIMEOUT_SECONDS, RefusedError, _compose, _understand
from agent.worker.rules.core import Worker
from agent.worker.rules.ports import Answer, Call, Channel, Ended, Launch, Request
from agent.worker.step.course import Course, Then
from controller.errors import AgentUnreachable
from tests.simulation.agent import FakeRequest
from tests.simulation.processes import Command, Doing, Process
from tests.simulation.stop_rules import Run, StopRules
from tests.support.worker_world import MemoryDisk

GRACE_SECONDS = 60.0


class Commands(Protocol):
    """What steps do."""

    def begins(self, assignment: Assignment, plan_digest: str) -> None:
        """A command is about to run, with the plan of this digest in its directory."""
        ...

    def doing(self, assignment: Assignment) -> Doing:
        """What its commands are."""
        ...

    def minds_no_sigterm(self) -> bool:
        """Whether the next one to begin goes on until SIGKILL."""
        ...

    @property
    def stops(self) -> StopRules:
        """Who watches how they are stopped."""
        ...


class SlotDisk(MemoryDisk):
    """A slot's volume. It outlives the worker; `command` is what runs in the container and holds the step's lock."""

    def __init__(self) -> None:
        super().__init__()
        self.command: Command | None = None
        self.running: Assignment | None = None
        """What `command` belongs to."""
        self.stored: Callable[[ExitReport], None] = lambda _report: None
        """Told of an end that is kept."""
        self.edited: set[str] = set()
        """Ids of tasks whose plan somebody has changed since it was made."""

    def begin(self, assignment: Assignment, command: Command) -> None:
        """The processes of a command are there."""
        self.command, self.running = command, assignment
        entry = self.entries[assignment.task_id, assignment.step]
        entry.log += b"begun\n"

        def heard(_process: Process) -> None:
            if self.command is command and not command.left:
                entry.log += b"done\n"
                self.clear()

        command.heard = heard

    def clear(self) -> None:
        """Nothing of it is there any more."""
        self.command = self.running = None

    def plan_digest(self, assignment: Assignment) -> str:
        """Another one for each attempt, as its plan is another."""
        plan = f"{assignment.task_id} {assignment.task_id in self.edited}"
        return f"sha256:{hashlib.sha256(plan.encode()).hexdigest()}"

    def outputs(self, assignment: Assignment) -> str:
        """The file that the task hands over: it tells by whom it was written."""
        return b2a_base64(assignment.task_id.encode(), newline=False).decode()

    def reclaim(self, task_id: str, step: Step) -> bool:
        """Kill what an earlier worker left of the step; it takes a moment."""
        left = self.running
        if self.command is None or left is None or (left.task_id, left.step) != (task_id, step):
            return True
        self.command.kill()
        return False

    def store_exit(self, exit_report: ExitReport) -> None:
        super().store_exit(exit_report)
        self.stored(exit_report)


class SimWorker:
    """One instance: `agent.worker.rules.core.Worker`, and what `agent.worker.loop` does around it."""

    def __init__(
        self,
        disk: SlotDisk,
        exchange: Callable[[FakeRequest, float], Coroutine[Any, Any, tuple[int, bytes]]],
        commands: Commands,
        *,
        begun: Callable[[], None],
        token: str,
        now: Callable[[], datetime],
        rng: random.Random,
    ) -> None:
        self._disk = disk
        self._exchange = exchange
        self._commands = commands
        self._begun = begun
        self._token = token
        self._now = now
        self._rng = rng
        self._woken = asyncio.Event()
        self._going_on = asyncio.Event()
        self._going_on.set()
        self._asking: set[asyncio.Task[None]] = set()
        self._launch: Launch | None = None
        self._command: Command | None = None
        self._course = Course(0)
        self.run_of_step: Run | None = None
        """The step that it runs, as the rules see it."""
        self.grace_seconds = GRACE_SECONDS
        self.stopped_at: float | None = None
        self.was_paused = False
        self.core = Worker(
            instance=f"{rng.getrandbits(64):016x}",
            grace_seconds=self.grace_seconds,
            disk=disk,
            runner=self,
            clock=self,
            jitter=lambda seconds: rng.uniform(seconds / 2, seconds),
            log=_unheard,
        )

    def stop(self) -> None:
        """SIGTERM."""
        self.stopped_at = self.monotonic() if self.stopped_at is None else self.stopped_at
        self.core.stop()
        self._woken.set()

    def pause(self) -> None:
        """SIGSTOP, of the worker alone: its command goes on."""
        self.was_paused = True
        self._going_on.clear()

    def go_on(self) -> None:
        """SIGCONT."""
        self._going_on.set()

    async def run(self) -> None:
        """Until it leaves, or is killed."""
        try:
            while True:
                await self._going_on.wait()
                self._woken.clear()
                self.core.tick()
                if self.core.exit_status is not None:
                    break
                for channel in Channel:
                    if request := self.core.next_request(channel):
                        self._send(channel, request)
                deadline = self.core.deadline()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(None if deadline is None else max(0.0, deadline - self.monotonic())):
                        await self._woken.wait()
        finally:
            for task in self._asking:
                task.cancel()
            if self._disk.command is not None:
                self._disk.command.changed = unwatched

    def _send(self, channel: Channel, request: Request) -> None:
        task = asyncio.get_running_loop().create_task(self._ask(channel, request))
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)

    async def _ask(self, channel: Channel, request: Request) -> None:
        answer: Answer | RefusedError | str
        fake = _as_arrived(_compose(request, "agent", self._token))
        try:
            polls = request.call is Call.POLL
            status, body = await self._exchange(fake, POLL_TIMEOUT_SECONDS if polls else CALL_TIMEOUT_SECONDS)
            answer = _understand(request.call, status, body)
        except RefusedError as refusal:
            answer = refusal
        except (AgentUnreachable, LinkError) as error:
            answer = str(error)
        finally:
            fake.transport = None
        await self._going_on.wait()
        if isinstance(answer, RefusedError):
            self.core.refused(channel, answer.status, answer.code)
        elif isinstance(answer, str):
            self.core.unanswered(channel, answer)
        else:
            self.core.answered(channel, answer)
        self._woken.set()

    # --- agent.worker.rules.ports.Clock ------------------------------------------------------------------------------

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    def now(self) -> datetime:
        return self._now()

    # --- agent.worker.rules.ports.Runner ------------------------------------------------------------------------------

    def start(self, launch: Launch) -> None:
        assignment = self._disk.entries[launch.task_id, launch.step].assignment
        self._commands.begins(assignment, self._disk.plan_digest(assignment))
        self._launch, self._course = launch, Course(len(launch.commands))
        self.run_of_step = self._commands.stops.begins(assignment, self)
        self._begin_command(assignment)
        self._begun()

    def _begin_command(self, assignment: Assignment) -> None:
        number = self._course.command
        if self.run_of_step is not None:
            self.run_of_step.command_begins(number)
        stubborn = self._commands.minds_no_sigterm()
        command = Command(self._commands.doing(assignment).programs[number], self._rng, stubborn=stubborn)
        self._disk.begin(assignment, command)
        command.changed = lambda process: self._changed(command, process)
        self._command = command

    def interrupt(self, signal_name: str) -> None:
        del signal_name
        if self.run_of_step is not None:
            self.run_of_step.interrupted()
        self._course.interrupt()
        if self._disk.command is not None and not self._course.first_ended:
            self._disk.command.interrupt()

    def terminate(self) -> None:
        if self.run_of_step is not None:
            self.run_of_step.terminated()
        if self._disk.command is not None:
            self._disk.command.terminate()

    def kill(self) -> None:
        if self.run_of_step is not None:
            self.run_of_step.killed()
        self._course.kill()
        if self._disk.command is not None:
            self._disk.command.kill()

    def _changed(self, command: Command, process: Process) -> None:
        """One of a command's processes has ended; the worker comes to see that unless it is paused."""
        if self.run_of_step is not None:
            self.run_of_step.process_ended(process, first=process is command.first)

        async def reap() -> None:
            await self._going_on.wait()
            if command is not self._command:
                return
            if process is command.first:
                self._course.ended(well=process.code == 0)
            self._go_on(command)

        task = asyncio.get_running_loop().create_task(reap())
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)

    def _go_on(self, command: Command) -> None:
        """As `agent.worker.step.step` does."""
        assert self._launch is not None
        key = self._launch.task_id, self._launch.step
        match self._course.then(alone=not command.left):
            case Then.CLEAR:
                command.kill()
            case Then.NEXT:
                self._course.begin_next()
                self._begin_command(self._disk.entries[key].assignment)
            case Then.END:
                self._command = None
                first, number = command.first, self._course.command
                written = len(self._disk.entries[key].log)
                ended = Ended(exit_code=first.code, signal=first.signal, output_bytes=written, command=number)
                if self.run_of_step is not None:
                    self.run_of_step.ended(ended)
                self.core.ended(ended)
                self.core.tick()  # the plan's digest is there at once
                self._woken.set()
            case Then.WAIT:
                pass


def unwatched(process: Process) -> None:
    """Nobody is there to see that it ended."""
    del process


def _unheard(event: str, **about: Any) -> None:
    """`agent.worker.rules.ports.Log` for nobody."""
    del event, about


def _as_arrived(content: bytes) -> FakeRequest:
    """A request as the agent's server reads it."""
    head, _, body = content.partition(b"\r\n\r\n")
    first, *lines = head.decode("ascii").split("\r\n")
    method, target, _ = first.split(" ")
    headers = dict(line.split(": ", 1) for line in lines)
    return FakeRequest(method, target, headers, body if method == "POST" else None)
