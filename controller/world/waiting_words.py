"""Messages for people about what a task waits for."""

from agent.wire import format_time
from controller.decide.problem import Problem
from controller.decide.scaling.size import Reason, SizeDecision
from controller.objects.task import Task, TaskPhase
from controller.world.index import Index, key_of_task


def lock_word(index: Index, task: Task, *, is_next: bool) -> str:
    """The message of a task that waits for its lockKey. Only the next one names the holder, which may change."""
    before = _holder(index, task) if is_next else "other tasks are ahead in the queue"
    return f"for lockKey {task.spec.lock_key}, {before}"


def pause_word(task: Task) -> str:
    """The message of a task that is tried again after its plan failed."""
    moment = task.status.not_before
    return f"for its next attempt, not before {format_time(moment)}" if moment is not None else "for its next attempt"


def slot_word(decision: SizeDecision, problem: Problem | None) -> str:
    """What a task waits for that waits for a slot. What changes from moment to moment is said on the pool."""
    if problem is not None:
        return f"for a slot: {problem.reason}: {problem.message}"
    if decision.limit is not None and decision.limit.reason is Reason.FROZEN:
        return f"for a slot: {decision.limit.message}"
    limit = _LIMITS.get(decision.limit.reason if decision.limit else decision.reason)
    return f"for a slot: {limit}" if limit else "for a slot"


_LIMITS = {
    Reason.AT_MAXIMUM: "the pool is at its maxReplicas",
    Reason.SCALE_UP_LIMITED: "the pool grows no faster than its behavior.scaleUp says",
    Reason.SCALE_UP_STABILIZED: "the pool grows no faster than its behavior.scaleUp says",
    Reason.PAUSED: "the pool's autoscaling is paused",
    Reason.FIXED_SIZE: "the pool has a fixed size",
    Reason.POOL_DELETED: "the pool is being deleted",
}


def _holder(index: Index, task: Task) -> str:
    """The holder of the lockKey that `task` waits for. Only a person may release that of a lost apply."""
    name = index.locks.holder_name(task.namespace, task.spec.lock_key or "")
    if name is None:
        return "another task is ahead in the queue"
    held = index.tasks.get(task.namespace, name)
    if held is None:
        return _unknown(name, task)
    ended = index.ended_task(key_of_task(held), held["metadata"]["uid"])
    return _unknown(name, task) if ended is not None and ended.phase is TaskPhase.LOST else f"held by {name}"


def _unknown(name: str, task: Task) -> str:
    return f"held for {name}, whose end is not known: podslots unlock {task.spec.lock_key}"
