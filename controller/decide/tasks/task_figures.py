"""What logs and metrics get from one write of a task's status. Pure.

The replica that made the write asks, after it took effect. Each write names the version that it was decided on, so only
one replica makes it, and no transition is logged or measured twice.
"""

from datetime import datetime
from enum import StrEnum

from agent.wire import Step
from controller.objects.conditions import find
from controller.objects.task import Task, TaskPhase
from metrics.figures import TaskFigures

RETRIED = "Retried"
"""The condition of a task that went back to the queue: since when it waits again."""


class TaskEvent(StrEnum):
    """What happened to a task, as logs name it."""

    DISPATCH = "dispatch"  # a Pod is chosen, and its agent is about to be asked
    RUN = "run"  # it has a slot, and its first step
    RESERVE = "reserve"  # its plan is done: the slot waits with it for an approval
    APPROVE = "approve"  # its apply may start
    RELEASE = "release"  # it has ended, and holds no slot any more
    REQUEUE = "requeue"  # it gave its slot back, or never got one


class ReservationEnd(StrEnum):
    """How a reservation ended."""

    APPROVED = "approved"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    LOST = "lost"


_EVENTS = {
    TaskPhase.QUEUED: TaskEvent.REQUEUE,
    TaskPhase.ASSIGNED: TaskEvent.DISPATCH,
    TaskPhase.RUNNING: TaskEvent.RUN,
    TaskPhase.AWAITING_APPROVAL: TaskEvent.RESERVE,
}
_RESERVATION_ENDS = {
    TaskPhase.RUNNING: ReservationEnd.APPROVED,
    TaskPhase.CANCELLED: ReservationEnd.CANCELLED,
    TaskPhase.EXPIRED: ReservationEnd.EXPIRED,
}
_WITHOUT_SLOT = (TaskPhase.QUEUED, TaskPhase.ASSIGNED)


def event_of(before: Task, after: Task) -> TaskEvent | None:
    """What a write that led from one to the other says; None if the phase is the same."""
    phase = after.status.phase
    if phase is before.status.phase:
        return None
    if before.status.phase is TaskPhase.AWAITING_APPROVAL and phase is TaskPhase.RUNNING:
        return TaskEvent.APPROVE
    return _EVENTS.get(phase, TaskEvent.RELEASE)


def reason_of(before: Task, after: Task) -> str:
    """Why: the reason of the end, or of the condition that changed with the phase; else the event's own word."""
    if after.final and after.status.reason:
        return after.status.reason
    known = set(before.status.conditions)
    news = [condition for condition in after.status.conditions if condition not in known]
    return news[-1].reason if news else _REASONS.get(after.status.phase, after.status.phase.value)


_REASONS = {
    TaskPhase.QUEUED: "NotTaken",
    TaskPhase.ASSIGNED: "SlotFree",
    TaskPhase.RUNNING: "SlotAcquired",
    TaskPhase.AWAITING_APPROVAL: "PlanDone",
}


def task_figures(before: Task, after: Task, now: datetime) -> TaskFigures:
    """What a write that led from one to the other is measured as; `now` is when it was made."""
    phases = (before.status.phase, after.status.phase)
    has_slot_now = phases[0] in _WITHOUT_SLOT and phases[1] not in _WITHOUT_SLOT and after.status.slot is not None
    reservation_ended = phases[0] is TaskPhase.AWAITING_APPROVAL and phases[1] is not TaskPhase.AWAITING_APPROVAL
    approved = reservation_ended and phases[1] is TaskPhase.RUNNING
    return TaskFigures(
        slot_wait_seconds=_seconds(queued_since(before), now) if has_slot_now else None,
        approval_wait_seconds=_seconds(reserved_since(before), now) if approved else None,
        steps=_steps_ended(before, after),
        ended=phases[1].value if after.final and not before.final else None,
        reservation_ended=_RESERVATION_ENDS.get(phases[1], ReservationEnd.LOST) if reservation_ended else None,
    )


def queued_since(task: Task) -> datetime:
    """Since when a task waits for a slot: since it was made, or went back to the queue and was to wait no longer."""
    status = task.status
    if status.not_before is None and not status.conditions:
        return task.created  # nearly all of them, and there may be many
    since = [task.created]
    retried = find(task.status.conditions, RETRIED)
    if retried is not None and retried.since is not None:
        since.append(retried.since)
    if task.status.not_before is not None:
        since.append(task.status.not_before)
    return max(since)


def reserved_since(task: Task) -> datetime | None:
    """Since when a task's plan waits for an approval."""
    return task.status.plan.end_time if task.status.plan is not None else None


def _steps_ended(before: Task, after: Task) -> dict[str, float]:
    """The durations of the steps that ended with this write."""
    known: dict[Step, datetime | None] = {step: result.end_time for step, result in before.status.results.items()}
    ended: dict[str, float] = {}
    for step, result in after.status.results.items():
        if result.start_time is not None and result.end_time is not None and known.get(step) != result.end_time:
            ended[step.value] = _seconds(result.start_time, result.end_time)
    return ended


def _seconds(since: datetime | None, until: datetime) -> float:
    """Never negative: the two may be of different clocks."""
    return max(0.0, (until - since).total_seconds()) if since is not None else 0.0
