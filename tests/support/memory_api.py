"""`controller.kube.api.Api` in memory: versions, preconditions, watches with a history, and faults on request.

Small on purpose: for tests of what reads and writes through `Api`. The embedded API server is the one that is held to
a real one's transcripts.
"""

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import orjson

from controller.errors import AlreadyExists, ApiUnavailable, Conflict, Gone, NotFound
from controller.kube.api import Object, Resource

Key = tuple[Resource, str, str]
Fault = Callable[[str, Resource, str], Awaitable[None]]
"""`fault(verb, resource, name)`: may sleep or raise."""


@dataclass(frozen=True, slots=True)
class Change:
    version: int
    resource: Resource
    type: str
    object: Object
    before: Object | None


class MemoryApi:
    def __init__(self, version: int = 100) -> None:
        self.version = version
        self.objects: dict[Key, Object] = {}
        self.history: list[Change] = []
        self.oldest = version
        self.before: Fault = _nothing
        self.after: Fault = _nothing
        self.calls: list[tuple[str, str]] = []
        self.bookmarks = False
        self.idle_timeout_seconds = 75.0
        self._watch_generation = 0

    # --- what happens on the server ---------------------------------------------------------------------------------

    def put(self, resource: Resource, obj: Object) -> Object:
        metadata = obj["metadata"]
        key = (resource, metadata.get("namespace", ""), metadata["name"])
        before = self.objects.get(key)
        self.version += 1
        stored = _copy(obj)
        stored["metadata"]["resourceVersion"] = str(self.version)
        stored["metadata"].setdefault("uid", before["metadata"]["uid"] if before else str(uuid.uuid4()))
        self.objects[key] = stored
        self._record(resource, "MODIFIED" if before else "ADDED", stored, before)
        return _copy(stored)

    def remove(self, resource: Resource, namespace: str, name: str) -> Object:
        before = self.objects.pop((resource, namespace, name))
        self.version += 1
        gone = _copy(before)
        gone["metadata"]["resourceVersion"] = str(self.version)
        self._record(resource, "DELETED", gone, before)
        return gone

    def compact(self) -> None:
        """Forget the history: watches from before are answered with 410."""
        self.oldest = self.version
        self.history.clear()

    def drop_watches(self) -> None:
        self._watch_generation += 1

    def all(self, resource: Resource) -> dict[tuple[str, str], Object]:
        return {(key[1], key[2]): obj for key, obj in self.objects.items() if key[0] == resource}

    def _record(self, resource: Resource, kind: str, obj: Object, before: Object | None) -> None:
        self.history.append(Change(self.version, resource, kind, obj, before))

    # --- Api --------------------------------------------------------------------------------------------------------

    async def get(self, resource: Resource, namespace: str | None, name: str) -> Object:
        await self._arrive("get", resource, name)
        answer = _copy(self._find(resource, namespace, name))
        await self.after("get", resource, name)
        return answer

    async def list_page(
        self,
        resource: Resource,
        namespace: str | None,
        *,
        label_selector: str = "",
        limit: int = 500,
        continue_token: str = "",
    ) -> Object:
        await self._arrive("list", resource, "")
        if continue_token:
            version, start, rest = orjson.loads(continue_token)
            if version < self.oldest:
                raise Gone(410, "Expired", "the continue token is too old")
        else:
            version, start = self.version, 0
            rest = [
                obj
                for obj in self.all(resource).values()
                if _in_namespace(obj, namespace) and _matches(obj, label_selector)
            ]
        page = rest[start : start + limit]
        metadata: dict[str, Any] = {"resourceVersion": str(version)}
        if start + limit < len(rest):
            metadata["continue"] = orjson.dumps([version, start + limit, rest]).decode()
        answer = _copy({"metadata": metadata, "items": page})
        await self.after("list", resource, "")
        return answer

    async def watch(
        self, resource: Resource, namespace: str | None, *, resource_version: str, label_selector: str = ""
    ) -> AsyncIterator[Object]:
        await self._arrive("watch", resource, "")
        generation = self._watch_generation
        position = int(resource_version)
        if position < self.oldest:
            raise Gone(410, "Expired", "too old resource version")
        quiet_since = asyncio.get_running_loop().time()
        while generation == self._watch_generation:
            if position < self.oldest:
                raise Gone(410, "Expired", "too old resource version")
            news = [change for change in self.history if change.version > position]
            for change in news:
                position = change.version
                if change.resource != resource or not _in_namespace(change.object, namespace):
                    continue
                event = _event(change, label_selector)
                if event is not None:
                    await self.after("event", resource, change.object["metadata"]["name"])
                    quiet_since = asyncio.get_running_loop().time()
                    yield _copy(event)
            if self.bookmarks and news:
                yield {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": str(position)}}}
            if asyncio.get_running_loop().time() - quiet_since > self.idle_timeout_seconds:
                raise ApiUnavailable("idle")
            await asyncio.sleep(0.1)

    async def create(self, resource: Resource, namespace: str | None, body: Object) -> Object:
        name = body["metadata"]["name"]
        await self._arrive("create", resource, name)
        if (resource, namespace or "", name) in self.objects:
            raise AlreadyExists(409, "AlreadyExists", f"{resource.plural} {name} already exists")
        obj = _copy(body)
        if namespace:
            obj["metadata"]["namespace"] = namespace
        obj["metadata"]["uid"] = str(uuid.uuid4())
        created = self.put(resource, obj)
        await self.after("create", resource, name)
        return created

    async def replace(
        self, resource: Resource, namespace: str | None, name: str, body: Object, *, subresource: str = ""
    ) -> Object:
        del subresource
        await self._arrive("replace", resource, name)
        before = self._find(resource, namespace, name)
        _check(before, None, body["metadata"].get("resourceVersion"))
        obj = _copy(body)
        obj["metadata"]["uid"] = before["metadata"]["uid"]
        replaced = self._store(resource, obj, before)
        await self.after("replace", resource, name)
        return replaced

    async def patch(
        self, resource: Resource, namespace: str | None, name: str, body: Object, *, subresource: str = ""
    ) -> Object:
        del subresource
        await self._arrive("patch", resource, name)
        before = self._find(resource, namespace, name)
        metadata = body.get("metadata") or {}
        _check(before, metadata.get("uid"), metadata.get("resourceVersion"))
        patched = self._store(resource, merge(before, body), before)
        await self.after("patch", resource, name)
        return patched

    async def delete(
        self,
        resource: Resource,
        namespace: str | None,
        name: str,
        *,
        uid: str | None = None,
        resource_version: str | None = None,
        grace_period_seconds: int | None = None,
    ) -> Object:
        del grace_period_seconds
        await self._arrive("delete", resource, name)
        before = self._find(resource, namespace, name)
        _check(before, uid, resource_version)
        if before["metadata"].get("finalizers"):
            marked = merge(before, {"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}})
            answer = self._store(resource, marked, before)
        else:
            self.remove(resource, namespace or "", name)
            answer = {
                "kind": "Status",
                "status": "Success",
                "details": {"name": name, "uid": before["metadata"]["uid"]},
            }
        await self.after("delete", resource, name)
        return answer

    async def _arrive(self, verb: str, resource: Resource, name: str) -> None:
        self.calls.append((verb, name))
        await self.before(verb, resource, name)

    def _find(self, resource: Resource, namespace: str | None, name: str) -> Object:
        found = self.objects.get((resource, namespace or "", name))
        if found is None:
            raise NotFound(404, "NotFound", f"{resource.plural} {name} not found")
        return found

    def _store(self, resource: Resource, obj: Object, before: Object) -> Object:
        obj["metadata"]["resourceVersion"] = before["metadata"]["resourceVersion"]
        if obj == before:
            return _copy(before)
        metadata = obj["metadata"]
        if metadata.get("deletionTimestamp") and not metadata.get("finalizers"):
            return self.remove(resource, metadata.get("namespace", ""), metadata["name"])
        return self.put(resource, obj)


async def _nothing(verb: str, resource: Resource, name: str) -> None:
    del verb, resource, name


def _copy(obj: Object) -> Object:
    copied: Object = orjson.loads(orjson.dumps(obj))
    return copied


def merge(target: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge(merged.get(key), value)
    return merged


def _check(obj: Object, uid: str | None, resource_version: str | None) -> None:
    metadata = obj["metadata"]
    if uid not in (None, metadata["uid"]) or resource_version not in (None, metadata["resourceVersion"]):
        raise Conflict(409, "Conflict", f"{metadata['name']}: the object has been modified")


def _in_namespace(obj: Object, namespace: str | None) -> bool:
    return namespace is None or obj["metadata"].get("namespace", "") == namespace


def _matches(obj: Object | None, selector: str) -> bool:
    """`key` or `key=value`."""
    if obj is None:
        return False
    if not selector:
        return True
    key, _, value = selector.partition("=")
    labels = obj["metadata"].get("labels") or {}
    return key in labels and (not value or labels[key] == value)


def _event(change: Change, selector: str) -> Object | None:
    """The event as a watch with this selector sees the change."""
    was, is_now = _matches(change.before, selector), _matches(change.object, selector)
    if change.type == "DELETED":
        return {"type": "DELETED", "object": change.object} if was else None
    if is_now:
        return {"type": "MODIFIED" if was else "ADDED", "object": change.object}
    return {"type": "DELETED", "object": change.object} if was else None
