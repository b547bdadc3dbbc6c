"""Writes of a SlotTask: its status, its finalizers, and what Events say of it.

Each carries the version that it was decided on, and goes into the cache with its answer.
"""

import logging
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Any

from controller.act.events import EventRecorder
from controller.decide.tasks.task_figures import event_of, reason_of
from controller.kube.api import SLOTTASKS, Api, Object
from controller.kube.cache import Cache
from controller.objects.conditions import Condition, put
from controller.objects.ended_task import EndedTask
from controller.objects.task import Task

log = logging.getLogger(__name__)


Written = Callable[[Task, Task], None]
"""Told of each write of a status that took effect: the task before, and after it."""


class TaskWriter:
    """Writes what was decided about tasks."""

    def __init__(
        self, api: Api, cache: Cache, events: EventRecorder, *, now: Callable[[], datetime], written: Written
    ) -> None:
        self._api = api
        self._cache = cache
        self._events = events
        self._now = now
        self._written = written

    async def patch_finalizers(self, task: Task | EndedTask, finalizers: list[str]) -> Object:
        """Write these finalizers on exactly this version of the task. Returns the object."""
        body = {"metadata": {"resourceVersion": task.resource_version, "finalizers": finalizers}}
        document = await self._api.patch(SLOTTASKS, task.namespace, task.name, body)
        self._cache.note(document)
        return document

    async def write(self, task: Task, **changes: Any) -> Task:
        """PATCH the status of exactly this version of the task, unless it says all of it already."""
        before = task.status.to_json()
        after = replace(task.status, observed_generation=task.generation, **changes).to_json()
        status = {name: after.get(name) for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
        if status and task.status.observed_generation is None:
            status |= after  # the first write: what is only the default until now, as the phase, is to be read too
        if not status:
            return task
        body = {"metadata": {"resourceVersion": task.resource_version}, "status": _cleared(before, status)}
        document = await self._api.patch(SLOTTASKS, task.namespace, task.name, body, subresource="status")
        self._cache.note(document)
        written = Task.parse(document)
        if (event := event_of(task, written)) is not None:
            log.info("task", extra={"event": event.value, **_transition(task, written)})
        self._written(task, written)
        return written

    def condition(self, task: Task, kind: str, status: bool, reason: str, message: str) -> tuple[Condition, ...]:
        """The conditions of the task with this one among them."""
        return put(task.status.conditions, made(task, kind, status, reason, message), self._now())

    def step(self, task: Task, reason: str, message: str, *, at_once: bool = False) -> None:
        """An Event of the normal course."""
        self._events.step(_reference(task), reason, message, at_once=at_once)

    def warn(self, task: Task, reason: str, message: str) -> None:
        """An Event of something that went wrong."""
        self._events.event(_reference(task), reason, message, warning=True)


def made(task: Task, kind: str, status: bool, reason: str, message: str) -> Condition:
    """A condition about the spec that the task has now."""
    return Condition(type=kind, status=str(status), reason=reason, message=message, observed_generation=task.generation)


def _reference(task: Task) -> Object:
    return {
        "apiVersion": SLOTTASKS.api_version,
        "kind": SLOTTASKS.kind,
        "namespace": task.namespace,
        "name": task.name,
        "uid": task.uid,
        "resourceVersion": task.resource_version,
    }


def _transition(before: Task, after: Task) -> dict[str, Any]:
    """What is logged of it. One that goes back to the queue leaves the Pod and the slot that it had."""
    where = before.status if after.queued else after.status
    return {
        "pool": f"{after.namespace}/{after.spec.pool}",
        "pod": where.pod,
        "slot": where.slot,
        "task": f"{after.namespace}/{after.name}",
        "attempt": where.attempt,
        "from": before.status.phase.value,
        "to": after.status.phase.value,
        "reason": reason_of(before, after),
    }


def _cleared(before: Object, changed: Object) -> Object:
    """`changed` as a merge patch: fields within a step that are gone are set to null, as merging would keep them."""
    steps = changed.get("steps")
    if not steps or "steps" not in before:
        return changed
    cleared = {name: {**dict.fromkeys(before["steps"].get(name, ())), **result} for name, result in steps.items()}
    return {**changed, "steps": {**dict.fromkeys(before["steps"]), **cleared}}
