"""A SlotTask that has ended: what its end still asks for, and no more. There may be a hundred thousand of them.

The cache keeps its object trimmed to what is read here.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from sys import intern
from typing import Any

from controller import names
from controller.objects.task import FINAL_PHASES, Task, TaskPhase
from controller.objects.times import time_or_none

Object = dict[str, Any]

_FINAL = frozenset(phase.value for phase in FINAL_PHASES)
_TTL_SECONDS = 86400


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedTask:
    """One of them. `keeps_lock`: nobody knows whether its apply still runs, so its lockKey stays held."""

    namespace: str
    name: str
    uid: str
    resource_version: str
    attempt: int
    phase: TaskPhase
    pod: str | None
    pod_uid: str | None
    lock_key: str | None
    keeps_lock: bool
    delete_at: datetime | None
    deleting: bool
    finalizers: tuple[str, ...]
    changed: bool | None = None

    @property
    def task_id(self) -> str:
        """What the agent knows its last attempt by."""
        return names.task_id(self.uid, self.attempt)

    @staticmethod
    def parse(document: Object) -> "EndedTask":
        """From a SlotTask object that has ended, trimmed or whole. What somebody else wrote amiss counts as absent."""
        metadata, spec, status = document["metadata"], document.get("spec") or {}, document["status"]
        phase = TaskPhase(status["phase"])
        apply_may_run = status.get("step") == "apply" or not (spec.get("steps") or {}).get("plan")
        ttl, finished = spec.get("ttlSecondsAfterFinished"), time_or_none(status.get("finishTime"))
        kept = timedelta(seconds=ttl if isinstance(ttl, int) else _TTL_SECONDS)
        attempt = status.get("attempt")
        return EndedTask(
            namespace=metadata["namespace"],
            name=metadata["name"],
            uid=metadata["uid"],
            resource_version=metadata["resourceVersion"],
            attempt=attempt if isinstance(attempt, int) else 0,
            phase=phase,
            pod=status.get("pod"),
            pod_uid=status.get("podUID"),
            lock_key=spec.get("lockKey"),
            keeps_lock=phase is TaskPhase.LOST and apply_may_run,
            delete_at=finished + kept if finished is not None else None,
            deleting="deletionTimestamp" in metadata,
            finalizers=tuple(metadata.get("finalizers") or ()),
            changed=status.get("changed"),
        )

    @staticmethod
    def of(task: Task) -> "EndedTask":
        """The same from a whole task."""
        status = task.status
        apply_may_run = status.step == "apply" or task.spec.steps.plan is None
        kept = timedelta(seconds=task.spec.ttl_seconds_after_finished)
        return EndedTask(
            namespace=task.namespace,
            name=task.name,
            uid=task.uid,
            resource_version=task.resource_version,
            attempt=status.attempt,
            phase=status.phase,
            pod=status.pod,
            pod_uid=status.pod_uid,
            lock_key=task.spec.lock_key,
            keeps_lock=status.phase is TaskPhase.LOST and apply_may_run,
            delete_at=status.finished_at + kept if status.finished_at is not None else None,
            deleting=task.deleting,
            finalizers=task.finalizers,
            changed=status.changed,
        )


def has_ended(document: Object) -> bool:
    """Whether a SlotTask object is of a task that has ended."""
    return (document.get("status") or {}).get("phase") in _FINAL


_METADATA = ("namespace", "name", "uid", "resourceVersion", "deletionTimestamp", "finalizers")
_SPEC = ("pool", "lockKey", "ttlSecondsAfterFinished")
_STATUS = ("phase", "step", "attempt", "pod", "podUID", "finishTime", "changed")


def trim_task(document: Object) -> Object:
    """A SlotTask object without what nobody reads any more, once it has ended. Never to be sent back with PUT.

    One that was lost stays whole: what it may have left running is told by its steps, and there are few.
    """
    if not has_ended(document) or document["status"]["phase"] == TaskPhase.LOST:
        return document
    metadata = _kept(document["metadata"], _METADATA)
    metadata["namespace"] = intern(metadata["namespace"])
    spec, status = _kept(document.get("spec") or {}, _SPEC), _kept(document["status"], _STATUS)
    if isinstance(spec.get("pool"), str):
        spec["pool"] = intern(spec["pool"])
    status["phase"] = intern(status["phase"])
    return {"metadata": metadata, "spec": spec, "status": status}


def _kept(fields: Object, names_kept: tuple[str, ...]) -> Object:
    return {name: fields[name] for name in names_kept if name in fields}
