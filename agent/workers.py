"""The workers' side: which worker is registered for each slot, which step it is given, and what it reports.

Registrations are not journaled. A worker that is silent is not gone: its step ends only by its own report, or by proof
(see `recovery.py`).
"""

import asyncio
from binascii import a2b_base64
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime

from agent.errors import Refusal
from agent.nonces import Nonces
from agent.rules import tasks
from agent.rules.recovery import Dropped, Recovered, recover
from agent.rules.state import Decision, Record, SlotChanged, State, TaskAcked, TaskChanged, TaskEntry
from agent.service import Service
from agent.store.output import Outputs
from agent.wire import (
    MAX_OUTPUTS_BYTES,
    ErrorCode,
    ExitReport,
    RegisterRequest,
    SlotState,
    StartedReport,
    Step,
    TaskState,
    WorkAnswer,
    WorkerLink,
    is_older,
)

POLL_SECONDS = 20.0
"""How long a worker's poll is held."""

SILENT_SECONDS = 15.0
"""A worker that has no poll open and was not heard of for this long is shown as not connected."""

LOOK_SECONDS = 2.0
"""How often a held poll looks whether its worker is still there to be answered."""

REPEAT_SECONDS = 1.0
"""An answer is given again after this, because the first one may have been lost."""

SUPERSEDED_KEPT = 64
"""How many earlier instances of a slot are remembered, and told `superseded`. Older ones are told `unregistered`."""

NAMED_KEPT = 64
"""How many tasks of a slot's registrations that were ignored are named in the log."""

FORGET_REPEATS = 3
"""How many answers say that a directory can go. If all are lost, the answer to the next registration says it."""


@dataclass(slots=True)
class _Session:
    """One worker instance. `handed` is the last answer that it got, and when."""

    instance: str
    registered: bool = False
    polls: int = 0
    heard: float = 0.0
    handed: tuple[int, bool] | None = None
    handed_at: float = 0.0


@dataclass(slots=True)
class _Place:
    """One slot's worker, those before it, and what to tell it."""

    session: _Session | None = None
    superseded: deque[str] = field(default_factory=lambda: deque(maxlen=SUPERSEDED_KEPT))
    forget: dict[str, int] = field(default_factory=dict)
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    named: set[str] = field(default_factory=set)
    more_named: bool = False


class Workers:
    """Hands steps to workers and takes their reports. Without `nonces` what they write down is not compared."""

    def __init__(self, service: Service, outputs: Outputs, nonces: Nonces | None = None) -> None:
        self._service = service
        self._outputs = outputs
        self._nonces = nonces
        self._places = tuple(_Place() for _ in service.state.slots)
        service.on_publish(self._published)
        outputs.on_taken = service.counters.output

    async def register(self, slot: int, request: RegisterRequest, unusable: tuple[Dropped, ...] = ()) -> WorkAnswer:
        """A worker instance takes over the slot; `unusable` are tasks that it named amiss. Raises Refusal."""
        place = self._places[slot]
        session = place.session
        late = session is not None and is_older(request.instance, session.instance)
        if late or request.instance in place.superseded:
            raise Refusal(ErrorCode.SUPERSEDED, f"a newer worker has slot {slot}")
        if session is None or session.instance != request.instance:
            if session is not None:
                place.superseded.append(session.instance)
            session = place.session = _Session(request.instance)
            self._wake(place)
        # A copy of a registration that is already done may be older than what was handed over since.
        repeated = session.registered
        recovered = Recovered()

        def decide(state: State, now: datetime) -> Decision:
            nonlocal recovered
            believed = self._believed(state, request)
            recovered = recover(state, slot, believed, now, repeated=repeated, unusable=unusable)
            return Decision(recovered.records)

        await self._service.execute(decide)
        session.registered = True
        self._heard(session)
        self._say_dropped(slot, place, (*unusable, *recovered.dropped))
        return WorkAnswer(forget=recovered.forget, output=await self._held(request))

    def _say_dropped(self, slot: int, place: _Place, dropped: tuple[Dropped, ...]) -> None:
        """Name each of them once, and of very many only the first."""
        new = [each for each in dropped if each.task_id not in place.named]
        for each in new[: NAMED_KEPT - len(place.named)]:
            place.named.add(each.task_id)
            self._service.log.event("kept task ignored", slot=slot, task=each.task_id, reason=each.reason)
        if len(place.named) == NAMED_KEPT and not place.more_named:
            place.more_named = True
            self._service.log.event("kept tasks ignored: more are not named", slot=slot, tasks=len(dropped))

    async def _held(self, request: RegisterRequest) -> dict[str, int]:
        """How many bytes of output are here, by task and step. After a lost journal the output may be there or not."""
        held: dict[str, int] = {}
        for kept in request.tasks:
            assignment, task_id = kept.assignment, kept.assignment.task_id
            assigned = (Step.PLAN,) if assignment.step is Step.PLAN else tuple(Step)
            steps = [step for step in assigned if assignment.work.steps.get(step) is not None]
            for step in steps if task_id in self._service.state.tasks else ():
                with suppress(OSError):  # one that can't be read now is not "nothing"
                    held[f"{task_id}/{step}"], _ = await self._outputs.tail(task_id, step)
        return held

    async def poll(
        self, slot: int, instance: str, task_id: str | None, step: Step | None, *, listening: Callable[[], bool]
    ) -> WorkAnswer:
        """What the worker is to do, as soon as there is something. `task_id` and `step` are what it is running."""
        place = self._places[slot]
        session = self._session(slot, instance)
        session.polls += 1
        self._heard(session)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + POLL_SECONDS
        try:
            while True:
                self._session(slot, instance)
                wake = place.wake
                answer, ready_at = self._answer(slot, place, session, task_id, step)
                wait_seconds = min(deadline, ready_at) - loop.time()
                if not listening():
                    return WorkAnswer()
                if wait_seconds <= 0:
                    return self._hand_over(slot, place, session, answer)
                try:
                    async with asyncio.timeout(min(wait_seconds, LOOK_SECONDS)):
                        await wake.wait()
                except TimeoutError:
                    continue
        finally:
            session.polls -= 1
            if listening():
                self._heard(session)

    async def started(self, slot: int, report: StartedReport) -> None:
        """The worker is about to run its step's command. Raises Refusal."""
        self._heard(self._session(slot, report.instance))
        self._check(self._task_of(slot, report.task_id), report)
        command = tasks.Started(slot=slot, report=report)
        await self._service.execute(lambda state, now: tasks.decide(state, command, now))

    async def exited(self, slot: int, report: ExitReport) -> None:
        """The worker's step ended. Raises Refusal."""
        self._heard(self._session(slot, report.instance))
        self._check(self._task_of(slot, report.task_id), report)
        if report.outputs is not None:
            await self._keep_outputs(report.task_id, report.outputs)
        tail = ""
        with suppress(OSError):
            # An end is not held up by a log that can't be read.
            _, tail = await self._outputs.tail(report.task_id, report.step)
        command = tasks.Exited(slot=slot, report=report, log_tail=tail)
        await self._service.execute(lambda state, now: tasks.decide(state, command, now))

    async def _keep_outputs(self, task_id: str, outputs: str) -> None:
        """The file that goes with an end is on the disk before the end is taken."""
        try:
            content = a2b_base64(outputs, strict_mode=True)
        except ValueError as error:
            raise Refusal(ErrorCode.INVALID, f"outputs: {error}") from error
        if len(content) > MAX_OUTPUTS_BYTES:
            raise Refusal(ErrorCode.INVALID, f"outputs: more than {MAX_OUTPUTS_BYTES} bytes")
        try:
            await self._outputs.put(task_id, content)
        except OSError as error:
            raise Refusal(ErrorCode.STORAGE, f"outputs: {error.strerror}") from error

    async def output(self, slot: int, *, instance: str, task_id: str, step: Step, offset: int, data: bytes) -> int:
        """The worker's step has written more; return how much of all is here. Raises Refusal."""
        self._heard(self._session(slot, instance))
        self._task_of(slot, task_id)
        return await self._outputs.append(task_id, step, offset, data)

    async def tidy_outputs(self) -> None:
        """Remove the output of tasks that the agent does not know.

        After a lost journal, wait until all workers have registered: the output of what they bring back is still here.
        """
        if not self._service.state.recovering:
            await self._outputs.forget_unknown(lambda task_id: task_id in self._service.state.tasks)

    def tick(self) -> None:
        """See which workers have fallen silent."""
        self._service.set_links(tuple(self._link(place) for place in self._places))

    def _session(self, slot: int, instance: str) -> _Session:
        place = self._places[slot]
        session = place.session
        if instance in place.superseded:
            raise Refusal(ErrorCode.SUPERSEDED, f"a newer worker has slot {slot}")
        if session is None or session.instance != instance or not session.registered:
            raise Refusal(ErrorCode.UNREGISTERED, "register first")
        return session

    def _task_of(self, slot: int, task_id: str) -> TaskEntry:
        task = self._service.state.tasks.get(task_id)
        if task is None or task.slot != slot:
            raise Refusal(ErrorCode.NOT_FOUND, f"slot {slot} has no task {task_id}")
        return task

    def _check(self, task: TaskEntry, report: StartedReport | ExitReport) -> None:
        # The fence is looked at by the rules.
        if self._nonces is not None and report.fence == task.fence_of(report.step):
            self._nonces.check(task, report)

    def _believed(self, state: State, request: RegisterRequest) -> RegisterRequest:
        if self._nonces is None:
            return request
        nonces = self._nonces
        kept = tuple(nonces.believed(state.tasks.get(task.assignment.task_id), task) for task in request.tasks)
        return replace(request, tasks=kept)

    def _heard(self, session: _Session) -> None:
        session.heard = asyncio.get_running_loop().time()
        self.tick()

    def _link(self, place: _Place) -> WorkerLink | None:
        session = place.session
        if session is None or not session.registered:
            return None
        silent = asyncio.get_running_loop().time() - session.heard
        return WorkerLink(instance=session.instance, connected=session.polls > 0 or silent < SILENT_SECONDS)

    def _answer(
        self, slot: int, place: _Place, session: _Session, task_id: str | None, step: Step | None
    ) -> tuple[WorkAnswer, float]:
        """The answer to a poll, and the loop's time from which on to send it: infinite if there is nothing in it."""
        state = self._service.state
        entry = state.slots[slot]
        task = state.tasks.get(entry.task_id) if entry.managed and entry.task_id is not None else None
        ready_at = float("-inf") if FORGET_REPEATS in place.forget.values() else float("inf")
        forget = tuple(place.forget)
        if task is None or entry.state is not SlotState.RUNNING:
            return WorkAnswer(forget=forget), ready_at
        named = task_id == task.task_id and step is task.step
        run = None
        if task.state is TaskState.WAITING and not named:
            run = tasks.assignment_of(state, task)
        if run is not None and self._nonces is not None:
            run = replace(run, nonce=self._nonces.of(task, task.step))
        cancel = task.cancel_requested and (named or run is not None)
        if run is None and not cancel:
            return WorkAnswer(forget=forget), ready_at
        again_at = session.handed_at + REPEAT_SECONDS if session.handed == (entry.fence, cancel) else float("-inf")
        return WorkAnswer(run=run, cancel=cancel, forget=forget), min(ready_at, again_at)

    def _hand_over(self, slot: int, place: _Place, session: _Session, answer: WorkAnswer) -> WorkAnswer:
        for task_id in answer.forget:
            place.forget[task_id] -= 1
            if place.forget[task_id] <= 0:
                del place.forget[task_id]
        if answer.run is not None or answer.cancel:
            session.handed = (self._service.state.slots[slot].fence, answer.cancel)
            session.handed_at = asyncio.get_running_loop().time()
        return answer

    def _published(self, state: State, records: list[Record]) -> None:
        del state
        for record in records:
            match record:
                case SlotChanged(entry=entry):
                    self._wake(self._places[entry.id])
                case TaskChanged(entry=task):
                    self._wake(self._places[task.slot])
                    self._outputs.nudge(task.task_id)
                case TaskAcked(task_id=task_id, slot=slot):
                    self._places[slot].forget[task_id] = FORGET_REPEATS
                    self._wake(self._places[slot])
                case _:
                    pass

    def _wake(self, place: _Place) -> None:
        place.wake.set()
        place.wake = asyncio.Event()
