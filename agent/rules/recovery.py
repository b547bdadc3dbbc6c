"""What a worker's registration proves, and how a lost journal is rebuilt from what the workers keep. Pure.

Silence proves nothing. A repeated message of an instance that is already registered proves nothing either. A lost step
is proved if a *different* instance than the one that started it registers and does not have the step's directory any
more: a lock gives the slot's directory to one instance at a time. If the new instance has the directory of a step that
started and has no exit, the worker reports that step itself. A directory that it can't read proves nothing. A damaged
record ends a running step, because no process of it is left. It does not end a reservation, because all that an apply
needs comes with its assignment.

Where there are no workers, the program that holds the slots is believed instead: its next call on a slot tells what it
has.

A fence above any that this agent gave out proves that the journal has lost records. The agent then believes what the
worker keeps of that task.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from agent.errors import Refusal
from agent.rules import slots
from agent.rules.slots import DEFAULT_TTL_SECONDS, Hold, hold_answer, transition
from agent.rules.state import (
    Call,
    Decision,
    Event,
    Record,
    SlotRecovered,
    State,
    TaskChanged,
    TaskEntry,
    WorkGiven,
    apply,
)
from agent.rules.tasks import Exited, decide, lose_task, reason_of
from agent.wire import (
    NO_CHANGES,
    ErrorCode,
    ExitReport,
    KeptTask,
    Origin,
    Outcome,
    RegisterRequest,
    SlotState,
    Step,
    StepResult,
    TaskState,
)

MAX_FENCE_JUMP = 1 << 20
"""How far above the agent's own a worker's fence may be: what a disk lost without the journal being damaged."""

MAX_LOST_FENCE = 1 << 43
"""The same after a lost journal, which began at the clock's milliseconds: those of the year 2248."""

MAX_KEPT_TASKS = 128
"""Of one slot. A worker keeps the task that runs and those that ended and are not acknowledged: a few."""


@dataclass(frozen=True, slots=True)
class Dropped:
    """A task of a registration that is ignored, and why.

    The agent concludes nothing about it, not even that it is gone. `may_run`: it may be a running step that this
    version of the agent can't parse.
    """

    task_id: str
    reason: str
    may_run: bool = False


@dataclass(frozen=True, slots=True)
class Recovered:
    """Records to journal, the ids of directories that the worker can remove, and what was not looked at."""

    records: tuple[Record, ...] = ()
    forget: tuple[str, ...] = ()
    dropped: tuple[Dropped, ...] = ()


def recover(
    state: State,
    slot_id: int,
    request: RegisterRequest,
    now: datetime,
    *,
    repeated: bool,
    unusable: tuple[Dropped, ...] = (),
) -> Recovered:
    """Compare what the agent knows of a slot with what its worker keeps.

    `repeated`: this instance is the one registered already, so the request may be a delayed copy of an earlier one
    and its silence about a task proves nothing. `unusable` are tasks that it named, and that could not be read.

    Tasks that no worker of this agent can have are dropped, and the others are used. So a bad record, or records that a
    task invented, do not lock the worker out.
    """
    kept, dropped = _plausible(state, slot_id, request)
    request = replace(request, tasks=tuple(kept.values()))
    named = {each.task_id for each in (*unusable, *dropped)}
    newest = max((task.assignment.fence for task in request.tasks), default=0)
    records: list[Record] = []
    forget: list[str] = []
    for task_id, task in kept.items():
        if _is_unknown(state, slot_id, task):
            if not _must_adopt(state, task):
                forget.append(task_id)
                continue
            changes = _adopt(state, slot_id, task, now, is_newest=task.assignment.fence == newest)
        else:
            changes = _take_exit(state, slot_id, task, now)
        state = _apply_all(state, changes)
        records += changes
    if not repeated:
        changes = _lose(state, slot_id, request, named, now)
        state = _apply_all(state, changes)
        records += changes
    if slot_id in state.recovering and not request.unread and not any(each.may_run for each in unusable):
        records.append(SlotRecovered(slot=slot_id))
    return Recovered(tuple(records), tuple(forget), dropped)


def _plausible(state: State, slot_id: int, request: RegisterRequest) -> tuple[dict[str, KeptTask], tuple[Dropped, ...]]:
    """The tasks that a worker can have, by id, and the others.

    Invented tasks must not use up the fences or the agent's memory. Where there are too many, those that the agent
    knows come first, then those that may still run, then the newest.
    """
    known = {task_id for task_id, task in state.tasks.items() if task.slot == slot_id}
    tasks, dropped = {kept.assignment.task_id: kept for kept in request.tasks}, []
    for task_id, kept in list(tasks.items()):
        if kept.assignment.fence > _highest_fence(state, slot_id):
            dropped.append(Dropped(task_id, f"its fence {kept.assignment.fence} {ABOVE_ALL}"))
            del tasks[task_id]
    if (surplus := len(known | tasks.keys()) - MAX_KEPT_TASKS) > 0:
        unknown = [kept for task_id, kept in tasks.items() if task_id not in known]
        unknown.sort(key=lambda kept: (kept.exit is None, kept.assignment.fence), reverse=True)
        for kept in unknown[max(0, len(unknown) - surplus) :]:
            task_id = kept.assignment.task_id
            dropped.append(Dropped(task_id, f"a slot keeps no more than {MAX_KEPT_TASKS}"))
            del tasks[task_id]
    return tasks, tuple(dropped)


ABOVE_ALL = "is above all that can have been given out"


def _highest_fence(state: State, slot_id: int) -> int:
    """The highest that a worker or holder of the slot can have been given."""
    limit = state.fence + MAX_FENCE_JUMP
    return max(limit, MAX_LOST_FENCE) if slot_id in state.recovering else limit


def vouch(state: State, command: Hold, now: datetime) -> Decision:
    """A local holder's call, where there are no workers. After a lost journal the agent believes it.

    A release says that the slot is free, a reserve or resume that the task has it. Raises Refusal.
    """
    if command.slot not in state.recovering:
        return slots.decide(state, command, now)
    if command.fence > _highest_fence(state, command.slot):
        raise Refusal(ErrorCode.INVALID, f"fence: {command.fence} {ABOVE_ALL}")
    slot, known = state.slots[command.slot], SlotRecovered(slot=command.slot)
    if command.call is Event.RELEASE:
        return Decision((known,), hold_answer(slot))
    if any(other.task_id == command.task_id for other in state.slots):
        raise Refusal(ErrorCode.ILLEGAL, f"task {command.task_id} holds another slot")
    reserves = command.call is Event.RESERVE
    changed = transition(
        replace(state, fence=max(state.fence, command.fence)),
        slot,
        Event.ADOPT_RESERVED if reserves else Event.ADOPT_RUNNING,
        now,
        before=Call(call=command.call, task_id=command.task_id, fence=command.fence),
        task_id=command.task_id,
        task_type=state.layout[slot.id][0],
        origin=Origin.LOCAL,
        acquire_fence=command.fence,
        expires_at=now + timedelta(seconds=command.ttl_seconds or DEFAULT_TTL_SECONDS) if reserves else None,
    )
    return Decision((changed, known), hold_answer(changed.entry))


def _is_unknown(state: State, slot_id: int, kept: KeptTask) -> bool:
    task = state.tasks.get(kept.assignment.task_id)
    return task is None or task.slot != slot_id


def _must_adopt(state: State, kept: KeptTask) -> bool:
    """Whether an unknown task is one that the agent forgot, and not one that it was told to forget."""
    task_id = kept.assignment.task_id
    if task_id in state.acked or task_id in state.tasks:
        return False
    return bool(state.recovering) or kept.assignment.fence > state.fence


def _take_exit(state: State, slot_id: int, kept: KeptTask, now: datetime) -> tuple[Record, ...]:
    """The end of a known task's step, should the report of it have been lost."""
    report = kept.exit
    task = state.tasks[kept.assignment.task_id]
    if report is None or task.fence_of(report.step) != report.fence or report.outcome is Outcome.EXPIRED:
        return ()
    return decide(state, Exited(slot=slot_id, report=report), now).records


def _lose(
    state: State, slot_id: int, request: RegisterRequest, named: Collection[str], now: datetime
) -> tuple[Record, ...]:
    slot = state.slots[slot_id]
    task = state.tasks.get(slot.task_id) if slot.task_id is not None else None
    known = {*(kept.assignment.task_id for kept in request.tasks), *request.unread, *named}
    if task is None or task.task_id in known or task.started_by == request.instance:
        return ()
    if task.task_id in request.damaged:
        reason = "its worker ended while it ran, and the record of it is damaged"
        return lose_task(state, task, now, reason) if task.state is TaskState.RUNNING else ()
    if task.state is TaskState.RUNNING:
        return lose_task(state, task, now, "its worker was replaced by one without its directory")
    if task.state is TaskState.RESERVED:
        return lose_task(state, task, now, "its plan's directory is gone")
    if task.step is Step.APPLY and task.plan_digest is not None:
        # Approved, and not started: without the directory there is nothing left that could be applied.
        return lose_task(state, task, now, "its plan's directory is gone")
    return ()


def _adopt(state: State, slot_id: int, kept: KeptTask, now: datetime, *, is_newest: bool) -> tuple[Record, ...]:
    """The records that make a forgotten task known again, as far as its worker got.

    Only the newest task of a slot can still hold it: the slot was given to it because the others were over. A plan of
    one of those looks as if it waited for its approval all the same; how its reservation ended is lost.
    """
    assignment, report = kept.assignment, kept.exit
    state = replace(state, fence=max(state.fence, assignment.fence))
    is_plan = assignment.step is Step.PLAN
    task = TaskEntry(
        task_id=assignment.task_id,
        task_type=assignment.task_type,
        name=assignment.work.name,
        attempt=assignment.work.attempt,
        slot=slot_id,
        state=TaskState.WAITING,
        step=assignment.step,
        plan_fence=assignment.fence if is_plan else None,
        apply_fence=None if is_plan else assignment.fence,
        plan_digest=assignment.plan_digest,
        nonce=assignment.nonce,
    )
    if report is not None:
        task = _with_exit(task, report)
        if not _awaits_approval(kept, report):
            ended = replace(task, state=TaskState.ENDED, outcome=report.outcome, reason=_reason(kept, report))
            return (TaskChanged(entry=ended),)
        if not is_newest:
            reason = "its reservation was over; how it ended was lost with the journal"
            return (TaskChanged(entry=replace(task, state=TaskState.ENDED, outcome=Outcome.LOST, reason=reason)),)
        task = replace(task, state=TaskState.RESERVED, plan_digest=report.plan_digest)
    slot = state.slots[slot_id]
    if slot.state is not SlotState.IDLE:
        return ()
    event = Event.ADOPT_RUNNING if report is None else Event.ADOPT_RESERVED
    expires_at = None if report is None else now + timedelta(seconds=assignment.work.reservation_ttl_seconds)
    changed = transition(
        state,
        slot,
        event,
        now,
        task_id=task.task_id,
        task_type=task.task_type,
        step=task.step,
        origin=Origin.CONTROLLER,
        managed=True,
        acquire_fence=assignment.fence,
        expires_at=expires_at,
    )
    if report is None and kept.started:
        task = replace(task, state=TaskState.RUNNING)
    return (changed, WorkGiven(task_id=task.task_id, work=assignment.work), TaskChanged(entry=task))


def _reason(kept: KeptTask, report: ExitReport) -> str | None:
    succeeded = report.outcome is Outcome.SUCCEEDED and kept.assignment.work.steps.apply is not None
    return NO_CHANGES if succeeded and report.step is Step.PLAN and report.changed is False else reason_of(report)


def _awaits_approval(kept: KeptTask, report: ExitReport) -> bool:
    return (
        kept.assignment.step is Step.PLAN
        and report.outcome is Outcome.SUCCEEDED
        and report.plan_digest is not None
        and kept.assignment.work.steps.apply is not None
        and report.changed is not False
    )


def _with_exit(task: TaskEntry, report: ExitReport) -> TaskEntry:
    result = StepResult(
        start_time=report.start_time,
        end_time=report.end_time,
        outcome=report.outcome,
        exit_code=report.exit_code,
        reason=reason_of(report),
        log_bytes=report.log_bytes,
        changed=report.changed,
    )
    return replace(task, plan=result) if report.step is Step.PLAN else replace(task, apply=result)


def _apply_all(state: State, records: tuple[Record, ...]) -> State:
    for record in records:
        state = apply(state, record)
    return state
