"""What is said on tasks that can't be assigned, or not yet."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from agent import wire
from controller.act.events import EventRecorder
from controller.act.locks import Locks
from controller.act.task_writer import TaskWriter
from controller.decide.tasks.task_actions import ACCEPTED, ASSIGNED, MOST_WORD
from controller.decide.tasks.task_messages import CANCELLED, end_message
from controller.kube.api import SLOTTASKS, Api, Object
from controller.kube.cache import Cache
from controller.objects.task import Task, TaskPhase


class TaskWords:
    """Says it in their status, and as Events."""

    def __init__(
        self,
        api: Api,
        cache: Cache,
        locks: Locks,
        events: EventRecorder,
        writer: TaskWriter,
        *,
        now: Callable[[], datetime],
    ) -> None:
        self._api = api
        self._cache = cache
        self._locks = locks
        self._events = events
        self._writer = writer
        self._now = now

    async def say_not_accepted(self, task: Task, reason: str, message: str) -> None:
        """Say on a queued task why it can't be assigned."""
        await self._writer.write(
            task,
            conditions=self._writer.condition(task, ACCEPTED, False, reason, message),
            phase=TaskPhase.QUEUED,
            queued_reason=message[:MOST_WORD],
        )
        self._writer.warn(task, reason, message)

    async def say_unreadable(self, obj: Object, problem: str) -> None:
        """Say on a SlotTask that can't be read why, and end it if that is all that is asked of it.

        Such a task was never given to an agent, unless somebody changed it later: then it is settled on its Pod. If it
        was not, its lockKey is released: the write changed its version, so an earlier assignment fails.
        """
        metadata, spec, status = obj["metadata"], obj.get("spec"), obj.get("status")
        given = [entry for entry in (status or {}).get("conditions") or () if isinstance(entry, dict)]
        now = wire.format_time(self._now())
        said = {
            "type": ACCEPTED,
            "status": "False",
            "reason": "InvalidSpec",
            "message": problem,
            "lastTransitionTime": now,
        }
        conditions = [*(entry for entry in given if entry.get("type") != ACCEPTED), said]
        patch: dict[str, Any] = {
            "conditions": conditions,
            "observedGeneration": metadata.get("generation", 0),
        }
        unwanted = "deletionTimestamp" in metadata or (isinstance(spec, dict) and spec.get("cancel") is True)
        if not (status or {}).get("podUID"):
            patch["phase"] = (TaskPhase.CANCELLED if unwanted else TaskPhase.QUEUED).value
            patch["queuedReason"] = None if unwanted else problem[:MOST_WORD]
            if unwanted:
                patch |= {"reason": "Cancelled", "message": problem, "finishTime": now}
                message = end_message(TaskPhase.CANCELLED, "Cancelled", problem, None)
                end = {"type": CANCELLED, "status": "True", "reason": "Cancelled", "message": message}
                conditions.append({**end, "lastTransitionTime": now})
        body = {"metadata": {"resourceVersion": metadata["resourceVersion"]}, "status": patch}
        document = await self._api.patch(SLOTTASKS, metadata["namespace"], metadata["name"], body, subresource="status")
        self._cache.note(document)
        if not (status or {}).get("podUID"):
            for key in self._locks.held_by(metadata["namespace"], metadata["uid"]):
                await self._locks.release(metadata["namespace"], key, metadata["uid"])
        self._events.event(obj, "InvalidSpec", problem, warning=True)

    async def give_up_lock(self, task: Task) -> None:
        """Let the next task of its lockKey go before a queued one that can't run.

        The write before it moves the version, so an assignment from before that comes too late.
        """
        key = task.spec.lock_key
        message = f"The lockKey {key} goes to the next task: this one can't run. As of version {task.resource_version}."
        conditions = self._writer.condition(task, ASSIGNED, False, "LockGivenUp", message)
        await self._writer.write(task, conditions=conditions)
        await self._locks.release(task.namespace, key, task.uid)

    async def say_waiting(self, task: Task, reason: str) -> None:
        """Say on a queued task what it waits for."""
        await self._writer.write(task, phase=TaskPhase.QUEUED, queued_reason=reason)

    async def say_accepted(self, task: Task) -> None:
        """Take back what `say_not_accepted` said."""
        conditions = self._writer.condition(task, ACCEPTED, True, "Accepted", "")
        await self._writer.write(task, conditions=conditions, queued_reason=None)
