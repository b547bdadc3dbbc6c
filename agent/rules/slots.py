"""The slots' state machine: which event may turn which state into which, and what each command comes to.

`decide(state, command, now)` is pure: it returns the records to journal and the answer, or raises `Refusal` and
changes nothing. The commands on tasks with work are in `tasks.py`, what a worker says when it registers in
`recovery.py`; all of them move slots through `transition` here, and so through the one table.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from agent.errors import Refusal
from agent.rules.state import (
    Call,
    Decision,
    Event,
    PhaseChanged,
    SlotChanged,
    SlotEntry,
    State,
    TaskChanged,
    TaskEntry,
    WorkGiven,
)
from agent.wire import (
    AcquireAnswer,
    ErrorCode,
    HoldAnswer,
    Origin,
    Phase,
    SlotState,
    Step,
    TaskState,
    Work,
)

DEFAULT_TTL_SECONDS = 86400
"""The default limit of a reservation. Without a limit, a reservation would keep its Pod for ever."""

IDLE, RUNNING, RESERVED = SlotState.IDLE, SlotState.RUNNING, SlotState.RESERVED

TRANSITIONS: dict[tuple[SlotState, Event], SlotState] = {
    (IDLE, Event.ACQUIRE): RUNNING,
    (IDLE, Event.ADOPT_RUNNING): RUNNING,
    (IDLE, Event.ADOPT_RESERVED): RESERVED,
    (RUNNING, Event.RESERVE): RESERVED,
    (RUNNING, Event.PLANNED): RESERVED,
    (RUNNING, Event.RELEASE): IDLE,
    (RUNNING, Event.FINISH): IDLE,
    (RUNNING, Event.LOSE): IDLE,
    (RESERVED, Event.RESUME): RUNNING,
    (RESERVED, Event.APPROVE): RUNNING,
    (RESERVED, Event.RELEASE): IDLE,
    (RESERVED, Event.CANCEL): IDLE,
    (RESERVED, Event.EXPIRE): IDLE,
    (RESERVED, Event.LOSE): IDLE,
}


def transition(
    state: State,
    slot: SlotEntry,
    event: Event,
    now: datetime,
    *,
    before: Call | None = None,
    **changes: Any,
) -> SlotChanged:
    """The record of `event` on `slot`, with the next fence. When a slot becomes idle, all that it held is cleared.

    Raises Refusal illegal_transition for a pair that the table does not have.
    """
    target = TRANSITIONS.get((slot.state, event))
    if target is None:
        raise Refusal(ErrorCode.ILLEGAL, f"{event} is not possible: slot {slot.id} is {slot.state}")
    fence = state.fence + 1
    if target is IDLE:
        return SlotChanged(event=event, entry=SlotEntry(id=slot.id, fence=fence, since=now, before=before))
    if target is RUNNING:
        changes["expires_at"] = None
    if slot.state is IDLE:
        entry = SlotEntry(id=slot.id, state=target, fence=fence, since=now, before=before, **changes)
    else:
        entry = replace(slot, state=target, fence=fence, since=now, before=before, **changes)
    return SlotChanged(event=event, entry=entry)


# --- commands -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Acquire:
    """Give the task a slot, or say again which one it has."""

    task_id: str
    task_type: str
    work: Work | None = None
    origin: Origin = Origin.CONTROLLER


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """A holder's own reserve, resume or release."""

    call: Event
    slot: int
    task_id: str
    fence: int
    origin: Origin = Origin.CONTROLLER
    ttl_seconds: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Drain:
    """Take no new work, if nothing is held."""

    drain_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Open:
    """Take back exactly this drain."""

    drain_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpireHolds:
    """End the holders' reservations that are past their limit."""


Command = Acquire | Hold | Drain | Open | ExpireHolds


def decide(state: State, command: Command, now: datetime) -> Decision:
    """What one of this module's commands comes to. Raises Refusal."""
    return _DECIDE[type(command)](state, command, now)


def _acquire(state: State, command: Acquire, now: datetime) -> Decision:
    held = state.held_by(command.task_id)
    if held is not None:
        if held.origin is not command.origin:
            raise Refusal(ErrorCode.FORBIDDEN, f"task {command.task_id} is held by origin {held.origin}")
        return Decision(answer=AcquireAnswer(slot=held.id, fence=held.acquire_fence))
    _refuse_acquire(state, command)
    slot = _choose(state, command.task_type)
    steps = command.work.steps if command.work else None
    step = None if steps is None else Step.PLAN if steps.plan is not None else Step.APPLY
    fence = state.fence + 1
    changed = transition(
        state,
        slot,
        Event.ACQUIRE,
        now,
        task_id=command.task_id,
        task_type=command.task_type,
        step=step,
        origin=command.origin,
        managed=command.work is not None,
        acquire_fence=fence,
    )
    answer = AcquireAnswer(slot=slot.id, fence=fence)
    if command.work is None or step is None:
        return Decision((changed,), answer)
    task = TaskEntry(
        task_id=command.task_id,
        task_type=command.task_type,
        name=command.work.name,
        attempt=command.work.attempt,
        slot=slot.id,
        state=TaskState.WAITING,
        step=step,
        plan_fence=fence if step is Step.PLAN else None,
        apply_fence=fence if step is Step.APPLY else None,
    )
    given = WorkGiven(task_id=command.task_id, work=command.work)
    return Decision((changed, given, TaskChanged(entry=task)), answer)


def _refuse_acquire(state: State, command: Acquire) -> None:
    task_id = command.task_id
    if task_id in state.tasks:
        raise Refusal(ErrorCode.ILLEGAL, f"task {task_id} has ended here and waits for its ack")
    if task_id in state.acked:
        raise Refusal(ErrorCode.ILLEGAL, f"task {task_id} is over here: it was released, or acknowledged")
    if state.recovering:
        # First: the refusals below say that the task is not here, and a worker may be running it.
        raise Refusal(ErrorCode.NOT_READY, f"a journal was lost; waiting for the workers of slots {_list(state)}")
    if state.closing:
        raise Refusal(ErrorCode.CLOSING, "the Pod is being stopped")
    if state.phase is not Phase.OPEN:
        raise Refusal(ErrorCode.DRAINED, f"the agent is drained, by {state.drain_id}")


def _choose(state: State, task_type: str) -> SlotEntry:
    """The most restricted idle slot that accepts the type; so slot 0 stays free for what only it can take."""
    accepting = [slot for slot in state.slots if task_type in state.layout[slot.id]]
    if not accepting:
        raise Refusal(ErrorCode.UNKNOWN_TASK_TYPE, f"no slot accepts task type {task_type!r}")
    idle = [slot for slot in accepting if slot.state is IDLE]
    if not idle:
        raise Refusal(ErrorCode.NO_FREE_SLOT, f"every slot that accepts {task_type!r} is held")
    return min(idle, key=lambda slot: len(state.layout[slot.id]))


def _hold(state: State, command: Hold, now: datetime) -> Decision:
    if not 0 <= command.slot < len(state.slots):
        raise Refusal(ErrorCode.NOT_FOUND, f"there is no slot {command.slot}")
    slot = state.slots[command.slot]
    # Checked first: after a release the slot holds nothing any more, and its repetition is still answered.
    call = Call(call=command.call, task_id=command.task_id, fence=command.fence)
    if slot.before == call:
        return Decision(answer=hold_answer(slot))
    if slot.managed:
        raise Refusal(ErrorCode.MANAGED, f"slot {slot.id} runs work; use the task's approve and cancel")
    if slot.task_id != command.task_id or slot.fence != command.fence:
        raise Refusal(ErrorCode.FENCED, f"slot {slot.id} is not held by {command.task_id} with fence {command.fence}")
    if slot.origin is not command.origin:
        raise Refusal(ErrorCode.FORBIDDEN, f"slot {slot.id} is held by origin {slot.origin}")
    changes: dict[str, Any] = {}
    if command.call is Event.RESERVE:
        changes["expires_at"] = now + timedelta(seconds=command.ttl_seconds or DEFAULT_TTL_SECONDS)
    elif command.call is Event.RESUME and slot.expires_at is not None and now >= slot.expires_at:
        raise Refusal(ErrorCode.ILLEGAL, f"the reservation of slot {slot.id} has expired")
    changed = transition(state, slot, command.call, now, before=call, **changes)
    return Decision((changed,), hold_answer(changed.entry))


def hold_answer(slot: SlotEntry) -> HoldAnswer:
    """What a holder is told of its slot."""
    return HoldAnswer(slot=slot.id, fence=slot.fence, state=slot.state, expires_at=slot.expires_at)


def _drain(state: State, command: Drain, now: datetime) -> Decision:
    del now
    # What is held comes first, for the drain in force too: a drained agent can hold a task again, adopted from a worker
    # after a lost journal.
    if state.recovering:
        message = f"recovering from a lost journal; waiting for the workers of slots {_list(state)}"
        raise Refusal(ErrorCode.BUSY, message, slots=state.recovering, tasks=state.ended)
    held = tuple(slot.id for slot in state.slots if slot.state is not IDLE)
    tasks = tuple(slot.task_id for slot in state.slots if slot.task_id is not None) + state.ended
    if held or tasks:
        raise Refusal(ErrorCode.BUSY, _in_the_way(len(held), len(state.ended)), slots=held, tasks=tasks)
    if state.phase is Phase.DRAINED and state.drain_id == command.drain_id:
        return Decision()
    return Decision((PhaseChanged(phase=Phase.DRAINED, drain_id=command.drain_id, opened_id=None),))


def _in_the_way(held: int, ended: int) -> str:
    """Why a drain is refused, in words. Not both numbers are zero."""
    parts = []
    if held:
        parts.append("1 slot is held" if held == 1 else f"{held} slots are held")
    if ended:
        parts.append("1 ended task waits for its ack" if ended == 1 else f"{ended} ended tasks wait for their ack")
    return " and ".join(parts)


def _open(state: State, command: Open, now: datetime) -> Decision:
    del now
    if state.phase is Phase.OPEN and state.opened_id == command.drain_id:
        return Decision()
    if state.phase is not Phase.DRAINED or state.drain_id != command.drain_id:
        raise Refusal(ErrorCode.DRAIN_MISMATCH, f"drain {command.drain_id} is not the one in force")
    return Decision((PhaseChanged(phase=Phase.OPEN, drain_id=None, opened_id=command.drain_id),))


def _expire(state: State, command: ExpireHolds, now: datetime) -> Decision:
    del command
    records: list[SlotChanged] = []
    for slot in state.slots:
        if not slot.managed and slot.expires_at is not None and now >= slot.expires_at:
            numbered = replace(state, fence=state.fence + len(records))
            records.append(transition(numbered, slot, Event.EXPIRE, now))
    return Decision(tuple(records))


def _list(state: State) -> str:
    return ", ".join(str(slot) for slot in state.recovering)


_DECIDE: dict[type[Any], Callable[[State, Any, datetime], Decision]] = {
    Acquire: _acquire,
    Hold: _hold,
    Drain: _drain,
    Open: _open,
    ExpireHolds: _expire,
}
