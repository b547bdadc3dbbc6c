"""How tasks become the list of plans that await approval, and the queue. Pure."""

import heapq
import shlex
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from controller.decide.tasks.task_actions import ACCEPTED, APPROVED
from controller.errors import InvalidObject
from controller.objects.conditions import find
from controller.objects.task import Task, TaskPhase
from controller.status_page.model import Listed, PlanSaid, WaitingSaid, short


def plans_said(tasks: Iterable[Task], most: int) -> Listed[PlanSaid]:
    """The plans that await an approval: those that expire first, at most so many."""
    waiting = [
        task
        for task in tasks
        if task.status.phase is TaskPhase.AWAITING_APPROVAL and not task.approved and not task.unwanted
    ]
    return Listed(total=len(waiting), items=tuple(map(_plan, heapq.nsmallest(most, waiting, key=_expiry))))


def _expiry(task: Task) -> tuple[float, str, str]:
    return _moment(task.status.expires_at), task.namespace, task.name


def _plan(task: Task) -> PlanSaid:
    status = task.status
    rejected = find(status.conditions, APPROVED)
    wrong = task.spec.approval is not None and rejected is not None and rejected.status == "False"
    return PlanSaid(
        namespace=task.namespace,
        name=task.name,
        pool=task.spec.pool,
        type=task.spec.type,
        pod=status.pod,
        slot=status.slot,
        attempt=status.attempt,
        plan_digest=status.plan_digest,
        changes=status.changed,
        since=status.plan.end_time if status.plan is not None else None,
        expires_at=status.expires_at,
        command=approve_command(task),
        problem=short(f"{rejected.reason}: {rejected.message}") if wrong and rejected is not None else None,
    )


def approve_command(task: Task) -> str:
    """What a person enters to be shown the plan, and asked whether to approve what was shown."""
    return shlex.join(["podslots", "-n", task.namespace, "approve", task.name])


def queue_said(
    tasks: Iterable[Task], unreadable: Iterable[tuple[Mapping[str, Any], InvalidObject]], most: int
) -> Listed[WaitingSaid]:
    """The tasks that are queued, as they are served, at most so many. Those that can't be read come first."""
    broken = [_unreadable(obj, problem) for obj, problem in unreadable]
    waiting = [task for task in tasks if task.queued]
    first = heapq.nsmallest(max(0, most - len(broken)), waiting, key=lambda task: task.order)
    return Listed(total=len(broken) + len(waiting), items=(*broken[:most], *map(_waiting, first)))


def _waiting(task: Task) -> WaitingSaid:
    refused = find(task.status.conditions, ACCEPTED)
    if refused is not None and refused.status != "False":
        refused = None
    word = f"{refused.reason}: {refused.message}" if refused is not None else task.status.queued_reason
    if task.unwanted:
        word = "for its end: it was cancelled" if task.spec.cancel else "for its end: it was deleted"
    return WaitingSaid(
        namespace=task.namespace,
        name=task.name,
        pool=task.spec.pool,
        type=task.spec.type,
        priority=task.spec.priority,
        lock_key=task.spec.lock_key,
        attempt=task.status.attempt,
        since=task.created,
        waits=short(word) if word else None,
        refused=refused is not None and not task.unwanted,
    )


def _unreadable(obj: Mapping[str, Any], problem: InvalidObject) -> WaitingSaid:
    metadata, spec = obj["metadata"], obj.get("spec")
    given = spec if isinstance(spec, dict) else {}
    return WaitingSaid(
        namespace=metadata["namespace"],
        name=metadata["name"],
        pool=short(str(given.get("pool", ""))),
        type=short(str(given.get("type", ""))),
        priority=0,
        lock_key=None,
        attempt=0,
        since=datetime.fromisoformat(metadata["creationTimestamp"]),
        waits=short(f"InvalidSpec: {problem}"),
        refused=True,
    )


def merged_plans(parts: Iterable[Listed[PlanSaid]], most: int) -> Listed[PlanSaid]:
    """The plans of all pools."""
    parts = list(parts)
    every = (plan for part in parts for plan in part.items)
    first = heapq.nsmallest(most, every, key=lambda plan: (_moment(plan.expires_at), plan.namespace, plan.name))
    return Listed(total=sum(part.total for part in parts), items=tuple(first))


def _moment(time: datetime | None) -> float:
    return time.timestamp() if time is not None else float("inf")


def merged_queue(parts: Iterable[Listed[WaitingSaid]], most: int) -> Listed[WaitingSaid]:
    """The queues of all pools."""
    parts = list(parts)
    every = (task for part in parts for task in part.items)
    first = heapq.nsmallest(most, every, key=lambda task: (-task.priority, task.since, task.namespace, task.name))
    return Listed(total=sum(part.total for part in parts), items=tuple(first))
