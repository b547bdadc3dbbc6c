"""Bugs, planted on purpose: each takes one protection away. A simulation that does not find them proves little.

Each is a context manager that patches what runs and puts it back. None is more than what a hurried change could do.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

from agent import journal, recovery, service, slots, state, tasks
from agent import wire as agent_wire
from agent.journal import encode_records
from agent.service import Service
from agent.state import Decision, Event, PhaseChanged, Record, SlotChanged, State
from agent.wire import Phase, SlotState
from controller import dispatcher, election, lease, observe, progress, world
from controller import fleet as fleets
from controller.agent_client import AgentClient
from controller.dispatcher import Dispatcher
from controller.errors import AgentRefused, AgentUnreachable, ApiUnavailable, NotFound
from controller.kube import watch
from controller.kube.api import PODS, SLOTTASKS
from controller.locks import Locks
from controller.pods import Pods
from controller.progress import Whereabouts
from controller.task import Task, TaskPhase
from controller.view import PodState
from tests.simulation.agent import AgentHome
from tests.simulation.faults import leases_fail
from tests.simulation.replica import clock_of_process
from tests.simulation.themes import BY_NAME, Theme
from tests.simulation.worker import SlotDisk
from tests.support.worker_world import MemoryDisk

Plant = contextlib.AbstractContextManager[Any]


@dataclass(frozen=True)
class Bug:
    """`make` plants it. It is looked for in histories about its theme; None: in all kinds.

    `seed` is where it was seen last: a good place to look first, until a change moves it.
    """

    make: Callable[[], Plant]
    theme: Theme | None
    seed: int


BUGS: dict[str, Bug] = {}


def _bug(text: str, *, theme: str | None = None, seed: int = 0) -> Callable[[Callable[[], Plant]], Callable[[], Plant]]:
    def add(make: Callable[[], Plant]) -> Callable[[], Plant]:
        BUGS[text] = Bug(make, None if theme is None else BY_NAME[theme], seed)
        return make

    return add


@contextlib.contextmanager
def plant(bug: str | None) -> Iterator[None]:
    """Let the named bug be there for a while; None: none."""
    if bug is None:
        yield
        return
    with BUGS[bug].make():
        yield


# --- the agent --------------------------------------------------------------------------------------------------------


def _unjournaled(leave_out: Callable[[Record], bool]) -> Plant:
    encode = encode_records

    def some(records: list[Record]) -> bytes:
        return encode([record for record in records if not leave_out(record)])

    return patch.object(service, "encode_records", some)


@_bug("drain not journaled")
def _() -> Plant:
    return _unjournaled(lambda record: isinstance(record, PhaseChanged) and record.phase is Phase.DRAINED)


@_bug("reservation not journaled", theme="approvals", seed=3)
def _() -> Plant:
    return _unjournaled(lambda record: isinstance(record, SlotChanged) and record.event is Event.PLANNED)


@_bug("answer before the journal", seed=2)
def _() -> Plant:
    original = Service.execute

    async def execute(self: Service, decide: Any) -> Any:
        said: list[Any] = []

        def remember(state: State, now: Any) -> Decision:
            decision: Decision = decide(state, now)
            said.append(decision.answer)
            return decision

        writing = asyncio.get_running_loop().create_task(original(self, remember))
        writing.add_done_callback(lambda done: done.cancelled() or done.exception())
        await asyncio.sleep(0)
        return said[0] if said and not (writing.done() and writing.exception()) else await writing

    return patch.object(Service, "execute", execute)


@_bug("drain forgets to close admission")
def _() -> Plant:
    original = slots._refuse_acquire

    def refuse(state: State, command: Any) -> None:
        original(replace(state, phase=Phase.OPEN), command)

    return patch.object(slots, "_refuse_acquire", refuse)


def _decide(command: type, decide: Callable[[Any, Any, Any], Decision]) -> Plant:
    table = slots._DECIDE if command in slots._DECIDE else tasks._DECIDE
    return patch.dict(table, {command: decide})


@_bug("ended tasks not in the way of a drain", theme="agents and workers that restart", seed=7)
def _() -> Plant:
    def drain(state: State, command: Any, now: Any) -> Decision:
        held = {task_id: task for task_id, task in state.tasks.items() if task_id not in state.ended}
        return slots._drain(replace(state, tasks=held), command, now)

    return _decide(slots.Drain, drain)


@_bug("drain granted while recovering", theme="approvals")
def _() -> Plant:
    return _decide(slots.Drain, lambda state, command, now: slots._drain(replace(state, recovering=()), command, now))


@_bug("a lost journal taken for a new Pod's", theme="approvals", seed=7)
def _() -> Plant:
    return patch.object(AgentHome, "used", property(lambda _: False, lambda _self, _value: None))


@_bug("release between plan and approval")
def _() -> Plant:
    original = tasks._reserve

    def reserve(state: State, task: Any, now: Any, digest: str, ttl_seconds: int) -> tuple[Record, ...]:
        released = slots.transition(state, state.slots[task.slot], Event.FINISH, now)
        return (released, *original(state, task, now, digest, ttl_seconds)[1:])

    return patch.object(tasks, "_reserve", reserve)


@_bug("the limit goes on after the approval")
def _() -> Plant:
    original = slots.transition

    def transition(state: State, slot: Any, event: Event, now: Any, **changes: Any) -> SlotChanged:
        record = original(state, slot, event, now, **changes)
        if event is Event.APPROVE:
            return replace(record, entry=replace(record.entry, expires_at=slot.expires_at))
        return record

    stack = contextlib.ExitStack()
    stack.enter_context(patch.object(tasks, "transition", transition))
    stack.enter_context(patch.dict(slots.TRANSITIONS, {(SlotState.RUNNING, Event.EXPIRE): SlotState.IDLE}))
    return stack


@_bug("stamp not checked")
def _() -> Plant:
    return patch.object(Service, "_check_stamp", lambda _self, _stamp: None)


@_bug("incarnation not checked", theme="agents and workers that restart", seed=3)
def _() -> Plant:
    original = Service.check_address
    return patch.object(Service, "check_address", lambda self, write: original(self, replace(write, incarnation=None)))


@_bug("pod_uid not checked", theme="Pods that come and go", seed=42)
def _() -> Plant:
    original = Service.check_address

    def check(self: Service, write: Any) -> None:
        meant = write.pod_uid in {None, self.facts.pod_uid}
        original(self, write if meant else replace(write, pod_uid=None, incarnation=None))

    return patch.object(Service, "check_address", check)


@_bug("acked ids forgotten")
def _() -> Plant:
    original = state._apply_acked
    return patch.dict(state._APPLY, {state.TaskAcked: lambda value, record: replace(original(value, record), acked=())})


@_bug("acked ids not kept over a restart", theme="agents and workers that restart", seed=4)
def _() -> Plant:
    original = journal.replay

    def replay(data: bytes, empty: State) -> journal.Replay:
        found = original(data, empty)
        return replace(found, state=replace(found.state, acked=()))

    return patch.object(journal, "replay", replay)


@_bug("silence of a worker taken for the loss of its step", theme="approvals", seed=8)
def _() -> Plant:
    original = recovery._lose

    def lose(value: State, slot_id: int, instance: str, kept: Any, now: Any) -> tuple[Record, ...]:
        del kept
        return original(value, slot_id, instance, {}, now)

    return patch.object(recovery, "_lose", lose)


# --- the worker -------------------------------------------------------------------------------------------------------


@_bug("started marker after exec", theme="agents and workers that restart")
def _() -> Plant:
    original = SlotDisk.claim

    def claim(self: SlotDisk, task_id: str, step: Any, **about: Any) -> bool:
        claimed = original(self, task_id, step, **about)
        if claimed:
            entry = self.entries[task_id, step]
            entry.started = False
            asyncio.get_running_loop().call_later(1.0, setattr, entry, "started", True)
        return claimed

    return patch.object(SlotDisk, "claim", claim)


@_bug("the plan is not hashed again before it is applied", theme="approvals", seed=2)
def _() -> Plant:
    return patch.object(SlotDisk, "prepare", MemoryDisk.prepare)


@_bug("a step's lock not looked at", theme="agents and workers that restart", seed=50)
def _() -> Plant:
    return patch.object(SlotDisk, "reclaim", lambda _self, _task_id, _step: True)


# --- the controller: Pods ---------------------------------------------------------------------------------------------


async def _grant(pods: Pods, pod: Any, agent: AgentClient, drain_id: str) -> bool:
    pods._may_write()
    try:
        await agent.drain(pod.agent.incarnation, drain_id)
    except AgentRefused as refusal:
        if refusal.code != agent_wire.ErrorCode.BUSY:
            raise
        return False
    return True


@_bug("Pod deleted without asking its agent")
def _() -> Plant:
    async def drain_and_delete(self: Pods, pod: Any, namespace: str, agent: AgentClient) -> bool:
        del agent
        live = await self._read(pod.name, pod.uid, namespace)
        if live is None or live["metadata"].get("deletionTimestamp"):
            return False
        await self._delete(live)
        return True

    return patch.object(Pods, "drain_and_delete", drain_and_delete)


@_bug("delete without preconditions", theme="Pods that come and go", seed=30)
def _() -> Plant:
    async def delete(self: Pods, pod: Any, *, grace_period_seconds: int | None = None) -> None:
        metadata = pod["metadata"]
        self._may_write()
        with contextlib.suppress(NotFound):
            await self._api.delete(
                PODS, metadata["namespace"], metadata["name"], grace_period_seconds=grace_period_seconds
            )

    return patch.object(Pods, "_delete", delete)


@_bug("resourceVersion read after the agent was asked", theme="leaders that never stop")
def _() -> Plant:
    async def drain_and_delete(self: Pods, pod: Any, namespace: str, agent: AgentClient) -> bool:
        drain_id = self._new_drain_id()
        if pod.agent is None or not await _grant(self, pod, agent, drain_id):
            return False
        live = await self._read(pod.name, pod.uid, namespace)
        if live is None or live["metadata"].get("deletionTimestamp"):
            return False
        version = live["metadata"]["resourceVersion"]
        await self._delete(await self._label(pod, namespace, PodState.DRAINING, drain_id, resource_version=version))
        return True

    return patch.object(Pods, "drain_and_delete", drain_and_delete)


@_bug("undo without a new annotation")
def _() -> Plant:
    original = Pods._label

    async def label(self: Pods, pod: Any, namespace: str, to: PodState, drain_id: str, **options: Any) -> Any:
        if to is PodState.ACTIVE:
            body = {"metadata": {"uid": pod.uid, "labels": {"podslots.dev/state": to.value}}}
            self._may_write()
            patched = await self._api.patch(PODS, namespace, pod.name, body)
            self._cache.note(patched)
            return patched
        return await original(self, pod, namespace, to, drain_id, **options)

    return patch.object(Pods, "_label", label)


@_bug("open although the Pod is being deleted", theme="Pods that come and go", seed=11)
def _() -> Plant:
    original = Pods._label

    async def label(self: Pods, pod: Any, namespace: str, to: PodState, drain_id: str, **options: Any) -> Any:
        patched = await original(self, pod, namespace, to, drain_id, **options)
        if to is not PodState.ACTIVE:
            return patched
        kept = {name: value for name, value in patched["metadata"].items() if name != "deletionTimestamp"}
        return {**patched, "metadata": kept}

    return patch.object(Pods, "_label", label)


@_bug("phase Failed taken for death", seed=1)
def _() -> Plant:
    def proof(pod: Any, node: Any) -> str | None:
        del node
        return "failed" if (pod.get("status") or {}).get("phase") in {"Failed", "Succeeded"} else None

    stack = contextlib.ExitStack()
    stack.enter_context(patch.object(world, "death_proof", proof))
    stack.enter_context(patch.object(observe, "death_proof", proof))
    return stack


@_bug("empty list after an error trusted", theme="leaders that come back", seed=7)
def _() -> Plant:
    original = watch.Reflector._list

    async def trusting(self: watch.Reflector) -> None:
        try:
            await original(self)
        except ApiUnavailable:
            self.cache.apply_list([], str(10**15))
            raise

    return patch.object(watch.Reflector, "_list", trusting)


# --- the controller: tasks --------------------------------------------------------------------------------------------


@_bug("silence taken for death", seed=1)
def _() -> Plant:
    def dead(self: Whereabouts) -> bool:
        return self.buried or (self.pod is not None and (self.pod.dead or not self.pod.connected))

    return patch.object(Whereabouts, "dead", property(dead))


@_bug("intent after acquire")
def _() -> Plant:
    async def assign(
        self: Dispatcher, task: Task, pod: Any, agent: AgentClient, *, reservation_ttl_seconds: int
    ) -> None:
        if pod.agent is None or not await self._locks.take(task):
            return
        attempt = max(1, task.status.attempt)
        numbered = replace(task, status=replace(task.status, attempt=attempt))
        self._may_write()
        answer = await agent.acquire(
            pod.agent.incarnation, numbered.task_id, task.spec.type, numbered.to_work(reservation_ttl_seconds)
        )
        step = agent_wire.Step.PLAN if task.spec.steps.plan else agent_wire.Step.APPLY
        await self._write(
            task,
            phase=TaskPhase.RUNNING,
            queued_reason=None,
            attempt=attempt,
            pod=pod.name,
            pod_uid=pod.uid,
            slot=answer.slot,
            step=step,
            started_at=self._now(),
        )

    return patch.object(Dispatcher, "assign", assign)


@_bug("retry on another agent", theme="one lock", seed=16)
def _() -> Plant:
    original = Dispatcher._acquire

    async def acquire(self: Dispatcher, task: Task, pod: Any, agent: AgentClient, **options: Any) -> None:
        try:
            await original(self, task, pod, agent, **options)
        except AgentUnreachable:
            await self._write(task, phase=TaskPhase.QUEUED, pod=None, pod_uid=None, step=None, slot=None)
            raise

    return patch.object(Dispatcher, "_acquire", acquire)


@_bug("ack before the status write")
def _() -> Plant:
    original = Dispatcher._ended

    async def follow(self: Dispatcher, task: Task, pod: Any, agent: AgentClient) -> None:
        known = await agent.task(task.task_id)
        if known.state is agent_wire.TaskState.ENDED:
            await self.ack(task.task_id, pod, agent)
            await original(self, task, known)
        else:
            await unchanged(self, task, pod, agent)

    unchanged = Dispatcher.follow
    return patch.object(Dispatcher, "follow", follow)


def _approved(same: Callable[[Any, Any], bool]) -> Plant:
    def approved(self: Task) -> bool:
        return self.spec.approval is not None and same(self.spec.approval, self.status)

    return patch.object(Task, "approved", property(approved))


@_bug("approval not bound to digest", theme="approvals")
def _() -> Plant:
    return _approved(lambda approval, status: bool(approval.attempt == status.attempt))


@_bug("approval not bound to attempt", theme="approvals")
def _() -> Plant:
    return _approved(lambda approval, status: bool(approval.plan_digest == status.plan_digest))


@_bug("approval taken from the step's end", theme="approvals", seed=35)
def _() -> Plant:
    """As if `approvalPolicy` were Auto once the agent has restarted."""
    original = progress._reserved

    def reserved(task: Task, pod: Any) -> Any:
        if pod.agent.warnings:
            return progress.Action(do=progress.Do.APPROVE)
        return original(task, pod)

    return patch.object(progress, "_reserved", reserved)


@_bug("final phase overwritten", theme="leaders that come back", seed=9)
def _() -> Plant:
    async def write(self: Dispatcher, task: Task, **changes: Any) -> Task:
        after = replace(task.status, observed_generation=task.generation, **changes).to_json()
        self._may_write()
        document = await self._api.patch(SLOTTASKS, task.namespace, task.name, {"status": after}, subresource="status")
        self._cache.note(document)
        return Task.parse(document)

    return patch.object(Dispatcher, "_write", write)


@_bug("apply tried again", theme="one lock", seed=3)
def _() -> Plant:
    def may_retry(task: Task) -> bool:
        return task.status.attempt < task.spec.plan_max_attempts

    stack = contextlib.ExitStack()
    stack.enter_context(patch.object(progress, "may_retry", may_retry))
    stack.enter_context(patch.object(dispatcher, "may_retry", may_retry))
    return stack


@_bug("lock released on Lost", theme="one lock", seed=7)
def _() -> Plant:
    return patch.object(progress, "keeps_lock", lambda _task: False)


@_bug("lock not looked at", seed=5)
def _() -> Plant:
    async def take(self: Locks, task: Task) -> bool:
        del self, task
        return True

    stack = contextlib.ExitStack()
    stack.enter_context(patch.object(Locks, "take", take))
    stack.enter_context(patch.object(world, "blocked", lambda _tasks, _locks: frozenset()))
    return stack


@_bug("lock's holder not looked at", seed=1)
def _() -> Plant:
    original = Locks.take

    async def take(self: Locks, task: Task) -> bool:
        await original(self, task)
        return True

    stack = contextlib.ExitStack()
    stack.enter_context(patch.object(Locks, "take", take))
    stack.enter_context(patch.object(world, "blocked", lambda _tasks, _locks: frozenset()))
    return stack


@_bug("a final task's result is not acknowledged")
def _() -> Plant:
    async def ack(self: Dispatcher, task_id: str, pod: Any, agent: AgentClient) -> None:
        del self, task_id, pod, agent

    return patch.object(Dispatcher, "ack", ack)


@_bug("a new leader trusts its watch", theme="leaders that take over", seed=23)
def _() -> Plant:
    async def refresh(self: watch.Reflector) -> None:
        del self

    return patch.object(watch.Reflector, "refresh", refresh)


# --- leadership -------------------------------------------------------------------------------------------------------


class _WallClockLoop:
    """A loop whose time is the wall clock of the process that asks."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def time(self) -> float:
        return self._loop.time() + self._off()

    def call_at(self, when: float, callback: Any, *args: Any) -> asyncio.TimerHandle:
        return self._loop.call_at(when - self._off(), callback, *args)

    @staticmethod
    def _off() -> float:
        replica = clock_of_process.get(None)
        return replica.clock_off_seconds if replica else 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)


@_bug("lease on the wall clock", theme="leaders that take over", seed=45)
def _() -> Plant:
    class Shim:
        def __getattr__(self, name: str) -> Any:
            return getattr(asyncio, name)

        @staticmethod
        def get_running_loop() -> Any:
            return _WallClockLoop(asyncio.get_running_loop())

    return patch.object(election, "asyncio", Shim())


_bug("a leader acts past its deadline", seed=1)(leases_fail)


@_bug("a lease taken without waiting", seed=1)
def _() -> Plant:
    return patch.object(lease, "is_free", lambda _standing, seen, now: now - seen.since > 2.0)


@_bug("a silent agent is never asked again", seed=1)
def _() -> Plant:
    async def run(self: Any) -> None:
        for _ in range(10**6):
            delay = await self._round()
            await asyncio.sleep(delay if self._failures <= 3 else 10**6)

    return patch.object(fleets._Follower, "run", run)
