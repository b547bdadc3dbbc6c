"""lockKeys: a Lease for each, named after it, holding the UID of the task that has it. Creating it is the lock."""

from collections.abc import Iterable, Mapping

from controller import names
from controller.errors import AlreadyExists, NotFound
from controller.kube.api import LEASES, Api, Object
from controller.kube.cache import Cache
from controller.objects.task import Task


class Locks:
    """Takes and releases lockKeys."""

    def __init__(self, api: Api, cache: Cache) -> None:
        self._api = api
        self.cache = cache

    def holders(self, namespace: str, keys: Iterable[str]) -> Mapping[str, str]:
        """UID of the holder by lockKey, of those that are held, as last seen. The Lease's name is what holds."""
        return {key: holder for key in keys if (holder := self.holder(namespace, key)) is not None}

    def held_by(self, namespace: str, uid: str) -> tuple[str, ...]:
        """The lockKeys that a task has, as last seen."""
        notes = [
            lease["metadata"].get("annotations") or {} for lease in self.cache.items(namespace) if _holder(lease) == uid
        ]
        return tuple(given[names.LOCK_KEY] for given in notes if names.LOCK_KEY in given)

    def holder(self, namespace: str, key: str) -> str | None:
        """UID of the task that has a lockKey, as last seen; None if it is free."""
        lease = self.cache.get(namespace, names.lock_lease(key))
        return _holder(lease) if lease is not None else None

    def holder_name(self, namespace: str, key: str) -> str | None:
        """Name of the task that has a lockKey, as last seen; None if it is free."""
        lease = self.cache.get(namespace, names.lock_lease(key))
        if lease is None:
            return None
        return (lease["metadata"].get("annotations") or {}).get(names.LOCK_TASK) or _holder(lease)

    async def take(self, task: Task) -> bool:
        """Take the task's lockKey; True if it has none, needs none, or holds it."""
        key = task.spec.lock_key
        if not key or not task.may_change:
            return True
        lease = {
            "apiVersion": LEASES.api_version,
            "kind": LEASES.kind,
            "metadata": {
                "name": names.lock_lease(key),
                "namespace": task.namespace,
                "labels": {names.LOCK_LABEL: "true"},
                "annotations": {names.LOCK_KEY: key, names.LOCK_TASK: task.name},
            },
            "spec": {"holderIdentity": task.uid},
        }
        try:
            held = await self._api.create(LEASES, task.namespace, lease)
        except AlreadyExists:
            held = await self._api.get(LEASES, task.namespace, names.lock_lease(key))
            if held["metadata"].get("deletionTimestamp"):
                return False  # it may be gone while the task runs
            if _holder(held) is None or not _is_lock(held):
                held = await self._take_over(held, lease)
        self.cache.note(held)
        return _holder(held) == task.uid

    async def _take_over(self, left: Object, lease: Object) -> Object:
        """Have a Lease that locks nothing yet. Exactly this version: another task may be taking it.

        It names no holder, as released ones elsewhere do; that takes the right to unlock as well. Or it has not our
        label: a stranger made it. No policy keeps strangers from deleting it, while the task that it names runs. Of
        what they gave it an owner would take it away with itself, and a finalizer would keep it when it is released.
        """
        metadata = left["metadata"]
        strange = {"ownerReferences": None, "finalizers": None}
        patch = {
            "metadata": {**lease["metadata"], **strange, "resourceVersion": metadata["resourceVersion"]},
            "spec": lease["spec"],
        }
        return await self._api.patch(LEASES, metadata["namespace"], metadata["name"], patch)

    async def release(self, namespace: str, lock_key: str | None, task_uid: str) -> None:
        """Release a task's lockKey, if it is still the holder."""
        if not lock_key:
            return
        name = names.lock_lease(lock_key)
        try:
            held = await self._api.get(LEASES, namespace, name)
        except NotFound:
            if (known := self.cache.get(namespace, name)) is not None:
                self.cache.note_gone(namespace, name, known["metadata"]["uid"])
            return
        if _holder(held) != task_uid:
            self.cache.note(held)
            return
        metadata = held["metadata"]
        answer = await self._api.delete(
            LEASES,
            namespace,
            metadata["name"],
            uid=metadata["uid"],
            resource_version=metadata["resourceVersion"],
        )
        self.cache.note_deleted(namespace, metadata["name"], answer)


def _is_lock(lease: Object) -> bool:
    """Whether it has our label. Watches and policies know a lock by that."""
    return names.LOCK_LABEL in (lease["metadata"].get("labels") or {})


def _holder(lease: Object) -> str | None:
    """UID of the task that a Lease names; None if it names none."""
    return (lease.get("spec") or {}).get("holderIdentity") or None
