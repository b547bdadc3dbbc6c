"""What a task waits for, in words for people."""

from collections.abc import Iterable

from controller.objects.task import Task, TaskPhase
from controller.world.index import Index, key_of_task


def next_in_line(blocked: Iterable[Task]) -> frozenset[str]:
    """UIDs of the tasks that come next for each lockKey.

    Only they are told who has it: for all others that changes nothing, and each change would be a write for each.
    """
    first: dict[str, Task] = {}
    for task in blocked:
        key = task.spec.lock_key or ""
        if key not in first or task.order < first[key].order:
            first[key] = task
    return frozenset(task.uid for task in first.values())


def lock_holder(index: Index, task: Task, *, is_next: bool) -> str:
    """Who is before a task that waits for its lockKey. Only a person may let go of a lost apply's."""
    name = index.locks.holder_name(task.namespace, task.spec.lock_key or "")
    if name is None:
        return _AHEAD
    held = index.tasks.get(task.namespace, name)
    if held is None:
        return _unknown(name, task)
    ended = index.ended(key_of_task(held)).get(held["metadata"]["uid"])
    if ended is not None and ended.phase is TaskPhase.LOST:
        return _unknown(name, task)
    return f"held by {name}" if is_next else _AHEAD


_AHEAD = "another task is ahead in the queue"


def _unknown(name: str, task: Task) -> str:
    return f"held for {name}, whose end is not known: podslots unlock {task.spec.lock_key}"
