"""What happens to tasks with work: their steps' starts and ends, approval, cancel, expiry and acknowledgement.

Pure, like `slots.py`. Every slot transition here goes through the table there. The end of a plan and the reservation
for its apply are one decision, so there is no instant in which the slot is idle between them.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from agent.errors import Refusal
from agent.rules.slots import transition
from agent.rules.state import Decision, Event, Record, SlotEntry, State, TaskAcked, TaskChanged, TaskEntry
from agent.wire import (
    NO_CHANGES,
    Assignment,
    ErrorCode,
    ExitReport,
    Outcome,
    SlotState,
    StartedReport,
    Step,
    StepResult,
    TaskState,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """A worker is about to run the command of its slot's step."""

    slot: int
    report: StartedReport


@dataclass(frozen=True, slots=True, kw_only=True)
class Exited:
    """A worker's step ended. `log_tail` is the end of the output that the agent has."""

    slot: int
    report: ExitReport
    log_tail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Approve:
    """Let the apply run, if the approval names this plan."""

    task_id: str
    plan_digest: str
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancel:
    """End the task: a reservation at once, a step through its worker."""

    task_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ack:
    """The result is stored elsewhere; forget the task."""

    task_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpireTasks:
    """End the tasks whose reservation is past its limit."""


Command = Started | Exited | Approve | Cancel | Ack | ExpireTasks


def decide(state: State, command: Command, now: datetime) -> Decision:
    """What one of this module's commands comes to. Raises Refusal."""
    return _DECIDE[type(command)](state, command, now)


def assignment_of(state: State, task: TaskEntry) -> Assignment | None:
    """What the worker of the task's slot is to run; None once the task has ended."""
    fence, work = task.step_fence, state.works.get(task.task_id)
    if fence is None or work is None:
        return None
    return Assignment(
        task_id=task.task_id,
        task_type=task.task_type,
        step=task.step,
        fence=fence,
        work=work,
        plan_digest=task.plan_digest if task.step is Step.APPLY else None,
        nonce=task.nonce,
    )


def end_task(
    state: State, task: TaskEntry, event: Event, now: datetime, *, outcome: Outcome, reason: str | None
) -> tuple[Record, ...]:
    """The records of a held task's end: its slot falls idle, its result waits for the ack."""
    slot = _slot_of(state, task)
    ended = replace(task, state=TaskState.ENDED, outcome=outcome, reason=reason)
    return (transition(state, slot, event, now), TaskChanged(entry=ended))


def lose_task(state: State, task: TaskEntry, now: datetime, reason: str) -> tuple[Record, ...]:
    """The records of a task that is proved to be gone."""
    if task.state is not TaskState.RESERVED:
        known = task.result_of(task.step) or StepResult()
        result = replace(known, end_time=now, outcome=Outcome.LOST, reason=reason)
        task = _with_result(task, task.step, result)
    return end_task(state, task, Event.LOSE, now, outcome=Outcome.LOST, reason=reason)


# --- the worker's reports -------------------------------------------------------------------------------------------


def _started(state: State, command: Started, now: datetime) -> Decision:
    del now
    report = command.report
    task = _reported(state, command.slot, report.task_id, report.step, report.fence)
    # A repetition, or later than the report of the end: the task does not go back.
    if task.state is not TaskState.WAITING or report.step is not task.step:
        return Decision()
    result = StepResult(start_time=report.start_time)
    started = replace(task, state=TaskState.RUNNING, started_by=report.instance)
    return Decision((TaskChanged(entry=_with_result(started, task.step, result)),))


def _exited(state: State, command: Exited, now: datetime) -> Decision:
    report = command.report
    if report.outcome is Outcome.EXPIRED:
        raise Refusal(ErrorCode.INVALID, "a step can't expire")
    task = _reported(state, command.slot, report.task_id, report.step, report.fence)
    known = task.result_of(report.step)
    if task.state is TaskState.ENDED or report.step is not task.step or (known is not None and known.outcome):
        return Decision()
    result = StepResult(
        start_time=report.start_time or (known.start_time if known else None),
        end_time=report.end_time,
        outcome=report.outcome,
        exit_code=report.exit_code,
        reason=reason_of(report),
        log_bytes=report.log_bytes,
        log_tail=command.log_tail,
        changed=report.changed,
    )
    task = _with_result(task, report.step, result)
    outcome, reason = report.outcome, reason_of(report)
    if report.step is Step.PLAN and outcome is Outcome.SUCCEEDED:
        work = state.works[task.task_id]
        if task.cancel_requested:
            outcome, reason = Outcome.CANCELLED, "cancelled as its plan ended"
        elif work.steps.apply is not None and report.changed is False:
            reason = NO_CHANGES
        elif work.steps.apply is not None:
            if report.plan_digest is not None:
                return Decision(_reserve(state, task, now, report.plan_digest, work.reservation_ttl_seconds))
            outcome, reason = Outcome.FAILED, "the plan succeeded without a digest that could be approved"
    event = Event.LOSE if outcome is Outcome.LOST else Event.FINISH
    return Decision(end_task(state, task, event, now, outcome=outcome, reason=reason))


def reason_of(report: ExitReport) -> str | None:
    """The reason of a step's end. A step that was stopped, but ended with 0, may have done all of its work."""
    stopped = report.outcome in {Outcome.CANCELLED, Outcome.FAILED}
    if not stopped or report.exit_code != 0 or "exit code 0" in (report.reason or ""):
        return report.reason
    return f"{report.reason or report.outcome} (exit code 0)"


def _reserve(state: State, task: TaskEntry, now: datetime, digest: str, ttl_seconds: int) -> tuple[Record, ...]:
    slot = _slot_of(state, task)
    changed = transition(state, slot, Event.PLANNED, now, expires_at=now + timedelta(seconds=ttl_seconds))
    return (changed, TaskChanged(entry=replace(task, state=TaskState.RESERVED, plan_digest=digest)))


def _reported(state: State, slot: int, task_id: str, step: Step, fence: int) -> TaskEntry:
    """The task that a worker's report is about. Raises not_found, fenced."""
    task = state.tasks.get(task_id)
    if task is None or task.slot != slot:
        raise Refusal(ErrorCode.NOT_FOUND, f"slot {slot} has no task {task_id}")
    if task.fence_of(step) != fence:
        raise Refusal(ErrorCode.FENCED, f"fence {fence} is not that of the {step} of {task_id}")
    return task


# --- what the controller asks for -----------------------------------------------------------------------------------


def _approve(state: State, command: Approve, now: datetime) -> Decision:
    task = find_task(state, command.task_id)
    approved = task.plan_digest is not None and (
        command.plan_digest == task.plan_digest and command.attempt == task.attempt
    )
    if task.step is Step.APPLY and task.plan_digest is not None:
        if approved:
            return Decision()
        raise Refusal(ErrorCode.DIGEST_MISMATCH, "another plan or attempt has been approved")
    if task.state is not TaskState.RESERVED:
        raise Refusal(ErrorCode.ILLEGAL, f"task {task.task_id} is {task.state}, not reserved")
    if not approved:
        message = f"the plan is {task.plan_digest} of attempt {task.attempt}"
        raise Refusal(ErrorCode.DIGEST_MISMATCH, message)
    slot = _slot_of(state, task)
    if slot.expires_at is not None and now >= slot.expires_at:
        raise Refusal(ErrorCode.ILLEGAL, f"the reservation of task {task.task_id} has expired")
    changed = transition(state, slot, Event.APPROVE, now, step=Step.APPLY)
    entry = replace(
        task,
        state=TaskState.WAITING,
        step=Step.APPLY,
        apply_fence=changed.entry.fence,
        started_by=None,
        nonce=None,
    )
    return Decision((changed, TaskChanged(entry=entry)))


def _cancel(state: State, command: Cancel, now: datetime) -> Decision:
    task = find_task(state, command.task_id)
    if task.state is TaskState.ENDED or task.cancel_requested:
        return Decision()
    requested = replace(task, cancel_requested=True)
    if task.state is TaskState.RESERVED:
        reason = "cancelled while it waited for approval"
        return Decision(end_task(state, requested, Event.CANCEL, now, outcome=Outcome.CANCELLED, reason=reason))
    return Decision((TaskChanged(entry=requested),))


def _ack(state: State, command: Ack, now: datetime) -> Decision:
    del now
    task = state.tasks.get(command.task_id)
    if task is None:
        if state.held_by(command.task_id) is not None:
            raise Refusal(ErrorCode.ILLEGAL, f"task {command.task_id} holds a slot")
        return Decision()
    if task.state is not TaskState.ENDED:
        raise Refusal(ErrorCode.ILLEGAL, f"task {task.task_id} is {task.state}, not ended")
    return Decision((TaskAcked(task_id=task.task_id, slot=task.slot),))


def _expire(state: State, command: ExpireTasks, now: datetime) -> Decision:
    del command
    records: list[Record] = []
    for slot in state.slots:
        if slot.managed and slot.expires_at is not None and now >= slot.expires_at and slot.task_id is not None:
            numbered = replace(state, fence=state.fence + len(records))
            reason = "not approved before its reservation's limit"
            task = state.tasks[slot.task_id]
            records += end_task(numbered, task, Event.EXPIRE, now, outcome=Outcome.EXPIRED, reason=reason)
    return Decision(tuple(records))


def find_task(state: State, task_id: str) -> TaskEntry:
    """A task that is held, or ended and not acknowledged. Raises Refusal; not_found only if that is certain."""
    task = state.tasks.get(task_id)
    if task is None and state.recovering:
        raise Refusal(ErrorCode.NOT_READY, f"a journal was lost; whether there is a task {task_id} is not known yet")
    if task is None:
        raise Refusal(ErrorCode.NOT_FOUND, f"there is no task {task_id}")
    return task


def _slot_of(state: State, task: TaskEntry) -> SlotEntry:
    slot = state.slots[task.slot]
    if slot.task_id != task.task_id or slot.state is SlotState.IDLE:
        raise Refusal(ErrorCode.ILLEGAL, f"task {task.task_id} does not hold slot {task.slot}")
    return slot


def _with_result(task: TaskEntry, step: Step, result: StepResult) -> TaskEntry:
    return replace(task, plan=result) if step is Step.PLAN else replace(task, apply=result)


_DECIDE: dict[type[Any], Callable[[State, Any, datetime], Decision]] = {
    Started: _started,
    Exited: _exited,
    Approve: _approve,
    Cancel: _cancel,
    Ack: _ack,
    ExpireTasks: _expire,
}
