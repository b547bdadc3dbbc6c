"""What a task waits for, in words for people."""

from controller.objects.task import Task, TaskPhase
from controller.world.index import Index, key_of_task


def lock_holder(index: Index, task: Task) -> str:
    """Who has the lockKey that `task` waits for. Only a person may let go of a lost apply's."""
    name = index.locks.holder_name(task.namespace, task.spec.lock_key or "")
    if name is None:
        return "another task is ahead in the queue"
    held = index.tasks.get(task.namespace, name)
    if held is None:
        return _unknown(name, task)
    ended = index.ended(key_of_task(held)).get(held["metadata"]["uid"])
    return _unknown(name, task) if ended is not None and ended.phase is TaskPhase.LOST else f"held by {name}"


def _unknown(name: str, task: Task) -> str:
    return f"held for {name}, whose end is not known: podslots unlock {task.spec.lock_key}"
