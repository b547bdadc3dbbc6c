"""A slot's container: the worker's own core and wire, over a disk in memory and commands that only take time.

What is simulated is what `agent.worker.ports` names, and the sockets. A command outlives its worker's death for a
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

from agent.wire import Assignment, Step
from agent.worker.client import CALL_TIMEOUT_SECONDS, POLL_TIMEOUT_SECONDS, RefusedError, _compose, _understand
from agent.worker.core import Worker
from agent.worker.errors import LinkError
from agent.worker.ports import Answer, Call, Channel, Ended, Launch, Request
from controller.errors import AgentUnreachable
from tests.simulation.agent import FakeRequest
from tests.support.worker_world import MemoryDisk

GRACE_SECONDS = 60.0
_SIGTERM, _SIGKILL = 15, 9


class Commands(Protocol):
    """What steps do."""

    def begins(self, assignment: Assignment, plan_digest: str) -> None:
        """A command is about to run, with the plan of this digest in its directory."""
        ...

    def seconds(self, assignment: Assignment) -> float:
        """How long it takes."""
        ...

    def exit_code(self, assignment: Assignment) -> int:
        """What it ends with by itself."""
        ...

    def minds_no_sigterm(self) -> bool:
        """Whether the next one to begin goes on until SIGKILL."""
        ...


class SlotDisk(MemoryDisk):
    """A slot's volume. It outlives the worker; `command` is what runs in the container and holds the step's lock."""

    def __init__(self) -> None:
        super().__init__()
        self.command: Command | None = None
        self.edited: set[str] = set()
        """Ids of tasks whose plan somebody has changed since it was made."""

    @property
    def running(self) -> Assignment | None:
        """What runs now."""
        return self.command.assignment if self.command is not None else None

    def plan_digest(self, assignment: Assignment) -> str:
        """Another one for each attempt, as its plan is another."""
        plan = f"{assignment.task_id} {assignment.task_id in self.edited}"
        return f"sha256:{hashlib.sha256(plan.encode()).hexdigest()}"

    def outputs(self, assignment: Assignment) -> str:
        """The file that the task hands over: it tells by whom it was written."""
        return b2a_base64(assignment.task_id.encode(), newline=False).decode()

    def reclaim(self, task_id: str, step: Step) -> bool:
        """Kill what an earlier worker left of the step; it takes a moment."""
        left = self.command
        if left is None or (left.assignment.task_id, left.assignment.step) != (task_id, step):
            return True
        left.kill()
        return False


class Command:
    """The processes of a step."""

    def __init__(self, assignment: Assignment, disk: SlotDisk, commands: Commands, rng: random.Random) -> None:
        self.assignment = assignment
        self.ended: Callable[[Ended], None] | None = None
        """Told of the end; None if no worker is there to hear it."""
        self._disk = disk
        self._commands = commands
        self._rng = rng
        self._signal: int | None = None
        self._signalled = asyncio.Event()
        self._stubborn = commands.minds_no_sigterm()
        self.task = asyncio.get_running_loop().create_task(self._run())

    def terminate(self) -> None:
        """SIGTERM."""
        if not self._stubborn:
            self._end_by(_SIGTERM)

    def kill(self) -> None:
        """SIGKILL."""
        self._end_by(_SIGKILL)

    def vanish(self) -> None:
        """The container is gone, at once."""
        self.ended = None
        self._disk.command = None
        self.task.cancel()

    def _end_by(self, number: int) -> None:
        self._signal = number
        self._signalled.set()

    async def _run(self) -> None:
        entry = self._disk.entries[self.assignment.task_id, self.assignment.step]
        entry.log += b"begun\n"
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._commands.seconds(self.assignment)):
                await self._signalled.wait()
                await asyncio.sleep(self._rng.uniform(0.0, 0.5))
        entry.log += b"done\n"
        self._disk.command = None
        if self.ended is not None:
            exit_code = None if self._signal else self._commands.exit_code(self.assignment)
            self.ended(Ended(exit_code=exit_code, signal=self._signal, output_bytes=len(entry.log)))


class SimWorker:
    """One instance: `agent.worker.core.Worker`, and what `agent.worker.loop` does around it."""

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
        self.core = Worker(
            instance=f"{rng.getrandbits(64):016x}",
            grace_seconds=GRACE_SECONDS,
            disk=disk,
            runner=self,
            clock=self,
            jitter=lambda seconds: rng.uniform(seconds / 2, seconds),
            log=_unheard,
        )

    def stop(self) -> None:
        """SIGTERM."""
        self.core.stop()
        self._woken.set()

    def pause(self) -> None:
        """SIGSTOP, of the worker alone: its command goes on."""
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
                self._disk.command.ended = None

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

    # --- agent.worker.ports.Clock -------------------------------------------------------------------------------------

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    def now(self) -> datetime:
        return self._now()

    # --- agent.worker.ports.Runner ------------------------------------------------------------------------------------

    def start(self, launch: Launch) -> None:
        assignment = self._disk.entries[launch.task_id, launch.step].assignment
        self._commands.begins(assignment, self._disk.plan_digest(assignment))
        self._disk.command = Command(assignment, self._disk, self._commands, self._rng)
        self._disk.command.ended = self._ended
        self._begun()

    def interrupt(self, signal_name: str) -> None:
        del signal_name
        if self._disk.command is not None:
            self._disk.command.terminate()

    def terminate(self) -> None:
        if self._disk.command is not None:
            self._disk.command.terminate()

    def kill(self) -> None:
        if self._disk.command is not None:
            self._disk.command.kill()

    def _ended(self, ended: Ended) -> None:
        async def tell() -> None:
            await self._going_on.wait()
            self.core.ended(ended)
            self.core.tick()  # the plan's digest is there at once
            self._woken.set()

        task = asyncio.get_running_loop().create_task(tell())
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)


def _unheard(event: str, **about: Any) -> None:
    """`agent.worker.ports.Log` for nobody."""
    del event, about


def _as_arrived(content: bytes) -> FakeRequest:
    """A request as the agent's server reads it."""
    head, _, body = content.partition(b"\r\n\r\n")
    first, *lines = head.decode("ascii").split("\r\n")
    method, target, _ = first.split(" ")
    headers = dict(line.split(": ", 1) for line in lines)
    return FakeRequest(method, target, headers, body if method == "POST" else None)
