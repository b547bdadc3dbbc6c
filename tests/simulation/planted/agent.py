"""Mistakes of the agent."""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from unittest.mock import patch

from agent import service
from agent.addressee import Addressee
from agent.clock import AgentClock
from agent.rules import recovery, slots, state, tasks
from agent.rules.state import Decision, Event, PhaseChanged, Record, SlotChanged, State
from agent.service import Service
from agent.store import journal, journal_format
from agent.store.journal_format import Replay, encode_records
from agent.wire import Phase, RegisterRequest, SlotState
from agent.workers import Workers
from tests.simulation.agent import AgentHome
from tests.simulation.planted.registry import Plant, bug


def _unjournaled(leave_out: Callable[[Record], bool]) -> Plant:
    encode = encode_records

    def some(records: list[Record]) -> bytes:
        return encode([record for record in records if not leave_out(record)])

    return patch.object(service, "encode_records", some)


@bug("drain not journaled")
def _() -> Plant:
    return _unjournaled(lambda record: isinstance(record, PhaseChanged) and record.phase is Phase.DRAINED)


@bug("reservation not journaled", theme="approvals", seed=2)
def _() -> Plant:
    return _unjournaled(lambda record: isinstance(record, SlotChanged) and record.event is Event.PLANNED)


@bug("answer before the journal", seed=2)
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


@bug("drain forgets to close admission", seed=1)
def _() -> Plant:
    original = slots._refuse_acquire

    def refuse(state: State, command: Any) -> None:
        original(replace(state, phase=Phase.OPEN), command)

    return patch.object(slots, "_refuse_acquire", refuse)


def _decide(command: type, decide: Callable[[Any, Any, Any], Decision]) -> Plant:
    table = slots._DECIDE if command in slots._DECIDE else tasks._DECIDE
    return patch.dict(table, {command: decide})


@bug("ended tasks not in the way of a drain", theme="Pods that come and go", seed=0)
def _() -> Plant:
    def drain(state: State, command: Any, now: Any) -> Decision:
        held = {task_id: task for task_id, task in state.tasks.items() if task_id not in state.ended}
        return slots._drain(replace(state, tasks=held), command, now)

    return _decide(slots.Drain, drain)


@bug("drain granted while recovering", theme="approvals", seed=11)
def _() -> Plant:
    return _decide(slots.Drain, lambda state, command, now: slots._drain(replace(state, recovering=()), command, now))


@bug("the drain in force is confirmed whatever is held", theme="agents that forget", seed=4)
def _() -> Plant:
    def drain(state: State, command: Any, now: Any) -> Decision:
        if state.phase is Phase.DRAINED and state.drain_id == command.drain_id:
            return Decision()
        return slots._drain(state, command, now)

    return _decide(slots.Drain, drain)


@bug("logs are removed after a lost journal", theme="agents that forget", seed=1)
def _() -> Plant:
    async def tidy(self: Workers) -> None:
        await self._outputs.forget_unknown(lambda task_id: task_id in self._service.state.tasks)

    return patch.object(Workers, "tidy_outputs", tidy)


@bug("limits go by the wall clock", theme="limits and clocks")
def _() -> Plant:
    return patch.object(AgentClock, "now", lambda self: self._wall())


@bug("a lost journal taken for a new Pod's", theme="approvals", seed=15)
def _() -> Plant:
    return patch.object(AgentHome, "used", property(lambda _: False, lambda _self, _value: None))


@bug("release between plan and approval")
def _() -> Plant:
    original = tasks._reserve

    def reserve(state: State, task: Any, now: Any, digest: str, ttl_seconds: int) -> tuple[Record, ...]:
        released = slots.transition(state, state.slots[task.slot], Event.FINISH, now)
        return (released, *original(state, task, now, digest, ttl_seconds)[1:])

    return patch.object(tasks, "_reserve", reserve)


@bug("the limit goes on after the approval", seed=3)
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


@bug("stamp not checked", seed=4)
def _() -> Plant:
    return patch.object(Addressee, "_check_stamp", lambda _self, _stamp: None)


@bug("incarnation not checked", theme="agents and workers that restart", seed=8)
def _() -> Plant:
    original = Addressee.check_address
    return patch.object(
        Addressee, "check_address", lambda self, write: original(self, replace(write, incarnation=None))
    )


@bug("pod_uid not checked", theme="addresses that are used again", seed=20)
def _() -> Plant:
    original = Addressee.check_address

    def check(self: Addressee, write: Any) -> None:
        meant = write.pod_uid in {None, self.facts.pod_uid}
        original(self, write if meant else replace(write, pod_uid=None, incarnation=None))

    return patch.object(Addressee, "check_address", check)


@bug("acked ids forgotten")
def _() -> Plant:
    original = state._apply_acked
    return patch.dict(state._APPLY, {state.TaskAcked: lambda value, record: replace(original(value, record), acked=())})


@bug("acked ids not kept over a restart", theme="agents and workers that restart", seed=5)
def _() -> Plant:
    original = journal_format.replay

    def replay(data: bytes, empty: State) -> Replay:
        found = original(data, empty)
        return replace(found, state=replace(found.state, acked=()))

    return patch.object(journal, "replay", replay)


@bug("silence of a worker taken for the loss of its step", theme="approvals", seed=0)
def _() -> Plant:
    original = recovery._lose

    def lose(value: State, slot_id: int, request: RegisterRequest, _named: Any, now: Any) -> tuple[Record, ...]:
        return original(value, slot_id, RegisterRequest(instance=request.instance), (), now)

    return patch.object(recovery, "_lose", lose)
