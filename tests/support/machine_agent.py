"""An agent without a loop, a disk or workers: its real state machine behind a `Transport`.

Each request takes effect in one instant and is answered in the same one, so that a test decides what comes between
two of them. Workers are the test's: `finish_plan` and the like report for them.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import orjson

from agent.codec import decode, encode
from agent.errors import Refusal
from agent.rules import slots, tasks
from agent.rules.slots import Acquire, Drain, Open
from agent.rules.state import State, apply, initial_state
from agent.rules.tasks import Ack, Approve, Cancel, Exited, Started
from agent.wire import (
    AckRequest,
    AcquireRequest,
    AgentState,
    ApproveRequest,
    CancelRequest,
    DrainRequest,
    Empty,
    ErrorCode,
    ExitReport,
    Outcome,
    Phase,
    PhaseAnswer,
    Slot,
    SlotState,
    Stamp,
    StartedReport,
    Step,
    StepResult,
    Task,
    WorkerLink,
    Write,
)
from controller.agents.client import AgentClient, Stamps
from controller.errors import AgentUnreachable
from controller.objects.pool import DEFAULT_LAYOUT, Layout

MOMENT = datetime(2026, 3, 1, 12, tzinfo=UTC)
DIGEST = "sha256:" + "a" * 64
PAGE_BYTES = 64
"""Of output that is read: so little that a test needs few bytes for several pages."""

Hook = Callable[[str], Awaitable[None]]
"""`hook(path)`: may pause, or raise AgentUnreachable."""


class GuardedStamps(Stamps):
    """Stamps that ask first whether this replica leads, as those of a real one do by its term."""

    def __init__(self, stamps: Stamps, may_write: Callable[[], None]) -> None:
        self._stamps, self._may_write = stamps, may_write

    def next(self) -> Stamp:
        self._may_write()
        return self._stamps.next()


class MachineAgent:
    """One agent. `before` and `after` are called around each request's effect."""

    def __init__(self, pod: str = "p", *, layout: Layout = DEFAULT_LAYOUT, incarnation: str = "i") -> None:
        self.pod = pod
        self.incarnation = incarnation
        self.now = MOMENT
        self.state: State = initial_state(layout, drain_id="born", lost=False, now=MOMENT)
        self.revision = 1
        self.requests: list[tuple[str, Any]] = []
        self.applies: list[str] = []
        """Task ids whose apply was let go, once for each time."""
        self.before: Hook = _nothing
        self.after: Hook = _nothing
        self.outputs: dict[tuple[str, Step], tuple[bytes, bytes, int]] = {}
        """What was printed, of a task's step: the beginning that is kept, the end that is kept, and how much in all."""
        self.handed_over: dict[str, bytes] = {}
        self._stamp = (0, 0)

    @property
    def uid(self) -> str:
        return f"uid-{self.pod}"

    @property
    def held(self) -> dict[str, SlotState]:
        """What each task is doing here."""
        return {slot.task_id: slot.state for slot in self.state.slots if slot.task_id is not None}

    @property
    def may_be_deleted(self) -> bool:
        """Drained, with nothing held and every result acknowledged."""
        return self.state.phase is Phase.DRAINED and not self.held and not self.state.ended

    def view(self) -> AgentState:
        """What `GET /slots` says."""
        return AgentState(
            version="1",
            pod=self.pod,
            pod_uid=self.uid,
            pool="pool",
            incarnation=self.incarnation,
            phase=self.state.phase,
            drain_id=self.state.drain_id,
            revision=self.revision,
            tokens=("t",),
            slots=tuple(
                Slot(
                    id=slot.id,
                    accepts=accepts,
                    state=slot.state,
                    fence=slot.fence,
                    since=slot.since,
                    task_id=slot.task_id,
                    task_type=slot.task_type,
                    step=slot.step,
                    origin=slot.origin,
                    expires_at=slot.expires_at,
                    worker=WorkerLink(instance="w", connected=True),
                )
                for slot, accepts in zip(self.state.slots, self.state.layout, strict=True)
            ),
            ended=self.state.ended,
        )

    def client(self, *, term: int = 1, stamps: Stamps | None = None) -> AgentClient:
        """A replica's own client."""
        stamps = stamps or Stamps(lambda: term)
        return AgentClient(self, f"http://{self.pod}:8721", self.uid, token=lambda: "t", stamps=stamps)

    def restart(self, incarnation: str, *, lost: bool = False) -> None:
        """A new process, from its journal or after the loss of it."""
        self.incarnation, self.revision, self._stamp = incarnation, 1, (0, 0)
        if lost:
            self.state = initial_state(self.state.layout, drain_id=f"born-{incarnation}", lost=True, now=self.now)

    def execute(self, command: Any) -> Any:
        """Decide and apply. Raises Refusal."""
        module: Any = slots if isinstance(command, slots.Command) else tasks
        decision = module.decide(self.state, command, self.now)
        for record in decision.records:
            self.state = apply(self.state, record)
            self.revision += 1
        return decision.answer

    # --- what a worker reports ----------------------------------------------------------------------------------------

    def start(self, task_id: str) -> None:
        """The current step's command is about to run."""
        entry = self.state.tasks[task_id]
        report = StartedReport(
            instance="w", task_id=task_id, step=entry.step, fence=entry.step_fence or 0, start_time=self.now
        )
        self.execute(Started(slot=entry.slot, report=report))

    def finish(
        self,
        task_id: str,
        outcome: Outcome = Outcome.SUCCEEDED,
        digest: str | None = DIGEST,
        *,
        changed: bool | None = None,
    ) -> None:
        """The current step ended; `changed` is what its exit code says."""
        entry = self.state.tasks[task_id]
        report = ExitReport(
            instance="w",
            task_id=task_id,
            step=entry.step,
            fence=entry.step_fence or 0,
            outcome=outcome,
            end_time=self.now,
            exit_code=0 if outcome is Outcome.SUCCEEDED else 1,
            changed=changed,
            plan_digest=digest if outcome is Outcome.SUCCEEDED and entry.step is Step.PLAN else None,
        )
        self.execute(Exited(slot=entry.slot, report=report))

    # --- Transport ----------------------------------------------------------------------------------------------------

    async def request(
        self, method: str, url: str, *, headers: dict[str, str], body: bytes | None, timeout_seconds: float
    ) -> tuple[int, bytes]:
        del headers, timeout_seconds
        path = "/" + url.partition("://")[2].partition("/")[2]
        await self.before(path)
        answer = self.deliver(method, path, body)
        await self.after(path)
        return answer

    def deliver(self, method: str, path: str, body: bytes | None) -> tuple[int, bytes]:
        """A request arrives: its effect and its answer."""
        self.requests.append((path, orjson.loads(body) if body else None))
        try:
            if "/log?" in path:
                return 200, self._log(path)
            if path.endswith("/outputs"):
                return 200, self.handed_over[path.split("/")[2]]
            return 200, orjson.dumps(encode(self._answer(method, path, body)))
        except Refusal as refusal:
            return refusal.status, orjson.dumps(encode(refusal.body()))

    async def stream(self, url: str, *, headers: dict[str, str], idle_timeout_seconds: float) -> AsyncIterator[bytes]:
        del url, headers
        await asyncio.sleep(idle_timeout_seconds)
        raise AgentUnreachable("no streams here")
        yield b""

    def _answer(self, method: str, path: str, body: bytes | None) -> Any:
        _, first, *rest = path.split("/")
        match method, first, rest:
            case "GET", "slots", []:
                return self.view()
            case "GET", "tasks", [task_id]:
                return self._task(task_id)
            case "POST", "slots", ["acquire"]:
                asked = self._checked(AcquireRequest, body)
                return self.execute(Acquire(task_id=asked.task_id, task_type=asked.task_type, work=asked.work))
            case "POST", ("open" | "drain"), []:
                drain_id = self._checked(DrainRequest, body).drain_id
                self.execute(Open(drain_id=drain_id) if first == "open" else Drain(drain_id=drain_id))
                return PhaseAnswer(phase=self.state.phase, drain_id=self.state.drain_id, revision=self.revision)
            case "POST", "tasks", [task_id, "approve"]:
                approval = self._checked(ApproveRequest, body)
                before = self.held.get(task_id)
                self.execute(Approve(task_id=task_id, plan_digest=approval.plan_digest, attempt=approval.attempt))
                if before is SlotState.RESERVED:
                    self.applies.append(task_id)
                return self._task(task_id)
            case "POST", "tasks", [task_id, "cancel"]:
                self._checked(CancelRequest, body)
                self.execute(Cancel(task_id=task_id))
                return self._task(task_id)
            case "POST", "tasks", [task_id, "ack"]:
                self._checked(AckRequest, body)
                self.execute(Ack(task_id=task_id))
                return Empty()
        raise Refusal(ErrorCode.NOT_FOUND, path)

    def _checked(self, kind: Any, body: bytes | None) -> Any:
        """As `Service.check` does, in the same order."""
        message = decode(kind, orjson.loads(body or b"{}"), strict=True)
        assert isinstance(message, Write)
        if message.pod_uid not in (None, self.uid):
            raise Refusal(ErrorCode.WRONG_POD, "another Pod")
        if message.incarnation not in (None, self.incarnation):
            raise Refusal(ErrorCode.RESTARTED, "restarted")
        if message.stamp is not None:
            pair = (message.stamp.term, message.stamp.counter)
            if pair <= self._stamp:
                raise Refusal(ErrorCode.STALE, f"{pair} is not above {self._stamp}")
            self._stamp = pair
        return message

    def _task(self, task_id: str) -> Task:
        entry = tasks.find_task(self.state, task_id)
        slot = self.state.slots[entry.slot]
        return Task(
            task_id=task_id,
            task_type=entry.task_type,
            name=entry.name,
            attempt=entry.attempt,
            slot=entry.slot,
            state=entry.state,
            step=entry.step,
            plan=self._result(task_id, Step.PLAN, entry.plan),
            apply=self._result(task_id, Step.APPLY, entry.apply),
            outcome=entry.outcome,
            reason=entry.reason,
            plan_digest=entry.plan_digest,
            cancel_requested=entry.cancel_requested,
            expires_at=slot.expires_at if slot.task_id == task_id else None,
            has_outputs=task_id in self.handed_over,
        )

    def _result(self, task_id: str, step: Step, result: StepResult | None) -> StepResult | None:
        """A step's result with its output, as `http.streams.task_answer` adds it."""
        if result is None:
            return None
        kept, end, size = self.outputs.get((task_id, step), (b"", b"", 0))
        tail = (kept + end)[-PAGE_BYTES:].decode("utf-8", "replace")
        return replace(result, log_bytes=size, log_tail=tail, log_kept_bytes=len(kept), log_end_bytes=len(end))

    def _log(self, path: str) -> bytes:
        """A part of a step's output."""
        task_id = path.split("/")[2]
        tasks.find_task(self.state, task_id)
        query = dict(pair.split("=") for pair in path.partition("?")[2].split("&"))
        kept, end, _ = self.outputs.get((task_id, Step(query["step"])), (b"", b"", 0))
        start = int(query.get("offset", 0))
        return end if query["part"] == "end" else kept[start : start + PAGE_BYTES]


async def _nothing(path: str) -> None:
    del path
