"""lockKeys: a Lease for each, named after it, holding the UID of the task that has it. Creating it is the lock."""

from collections.abc import Mapping

from controller import names
from controller.errors import AlreadyExists, NotFound
from controller.kube.api import LEASES, Api
from controller.kube.cache import Cache
from controller.objects.task import Task


class Locks:
    """Takes and releases lockKeys."""

    def __init__(self, api: Api, cache: Cache) -> None:
        self._api = api
        self.cache = cache

    def holders(self, namespace: str) -> Mapping[str, str]:
        """UID of the holder by lockKey, as last seen."""
        return {
            lease["metadata"]["annotations"][names.LOCK_KEY]: lease["spec"].get("holderIdentity", "")
            for lease in self.cache.items(namespace)
            if names.LOCK_KEY in lease["metadata"].get("annotations", {})
        }

    def held_by(self, namespace: str, uid: str) -> tuple[str, ...]:
        """The lockKeys that a task has, as last seen."""
        return tuple(key for key, holder in self.holders(namespace).items() if holder == uid)

    def holder(self, namespace: str, key: str) -> str | None:
        """UID of the task that has a lockKey, as last seen; None if it is free."""
        lease = self.cache.get(namespace, names.lock_lease(key))
        return lease["spec"].get("holderIdentity") if lease is not None else None

    def holder_name(self, namespace: str, key: str) -> str | None:
        """Name of the task that has a lockKey, as last seen; None if it is free."""
        lease = self.cache.get(namespace, names.lock_lease(key))
        return None if lease is None else str((lease["metadata"].get("annotations") or {}).get(names.LOCK_TASK))

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
        self.cache.note(held)
        return bool(held["spec"].get("holderIdentity") == task.uid)

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
        if held["spec"].get("holderIdentity") != task_uid:
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
