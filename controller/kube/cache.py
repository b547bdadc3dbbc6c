"""The last known state of one resource, kept by a `Reflector` and by the answers of the controller's own writes.

Versions decide, never the order of arrival: for each object the newest resourceVersion wins (compared as integers,
as Kubernetes promises for its storage), and of a deleted object only something newer than its deletion counts. So a
pass reads its own writes, an event that arrives twice does nothing, and a list older than a write does not undo it.
"""

import logging
from collections import OrderedDict
from collections.abc import Callable, Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from controller.kube.api import Object, Resource
from controller.kube.trimming import trim_metadata
from controller.names import POOL_LABEL

log = logging.getLogger(__name__)

Key = tuple[str, str]
"""Namespace (empty for cluster-scoped kinds) and name."""
Subscriber = Callable[[Object | None, Object | None], None]
Trim = Callable[[Object], Object]

_COMPARED_AT_ONCE = 256
"""Objects that are looked for in a list between two pauses: well under a millisecond."""

MAX_TOMBSTONES = 16_384
MAX_FINAL_OBJECTS = 512
"""Final objects are for proofs of death, looked at moments later; tombstones for as long as events may repeat."""


@dataclass(frozen=True, slots=True)
class Final:
    """What an object last was. `seen`: it is the one that the DELETED event carried.

    Otherwise the removal was only noticed, by a list or by a write's answer, and the object may have changed between.
    With a label selector, DELETED also comes for an object that only stopped matching. To be sure that it is gone, read
    it live.
    """

    object: Object
    seen: bool


class Cache:
    """Objects of one resource by namespace and name.

    The objects belong to the cache: readers must not change them.
    """

    def __init__(self, resource: Resource, trim: Trim = trim_metadata) -> None:
        self.resource = resource
        self.synced = False
        """Whether a complete list was ever read. It stays True through failures: old is not empty."""
        self._trim = trim
        self._objects: dict[Key, Object] = {}
        self._tombstones: OrderedDict[str, int] = OrderedDict()
        self._finals: OrderedDict[str, Final] = OrderedDict()
        self._subscribers: list[Subscriber] = []

    def __len__(self) -> int:
        return len(self._objects)

    def get(self, namespace: str | None, name: str) -> Object | None:
        """The object, if it is known."""
        return self._objects.get((namespace or "", name))

    def items(self, namespace: str | None = None) -> Iterator[Object]:
        """All objects, or those of one namespace."""
        for key, obj in self._objects.items():
            if namespace is None or key[0] == namespace:
                yield obj

    def final(self, uid: str) -> Final | None:
        """What a deleted object last was, if that was not long ago."""
        return self._finals.get(uid)

    def subscribe(self, subscriber: Subscriber) -> None:
        """Call `subscriber(old, new)` at every change, at once. `new` None: gone, and `old` is its final state."""
        self._subscribers.append(subscriber)

    def note(self, obj: Object) -> None:
        """Take in an object that a write or a live read answered with, or that an event carried."""
        key, uid = _key(obj), _uid(obj)
        version = version_of(obj)
        if version <= self._tombstones.get(uid, -1):
            return
        old = self._objects.get(key)
        if old is not None and version <= version_of(old):
            return
        obj = self._trim(obj)
        if old is not None and _uid(old) != uid:  # a new object has its name: its deletion was missed
            self._remove(key, old, version, seen=False)
            old = None
        self._objects[key] = obj
        self._tell(old, obj)

    def note_deleted(self, namespace: str | None, name: str, answer: Object) -> None:
        """Take in the answer of a DELETE: the object, if it lingers (grace period, finalizers), or a Status.

        An object that came back stays until its DELETED event: whether it was the last of it can't be told for sure.
        """
        if answer.get("kind") != "Status":
            if answer.get("metadata"):
                self.note(answer)
            return
        key = (namespace or "", name)
        old = self._objects.get(key)
        uid = (answer.get("details") or {}).get("uid")
        if old is not None and uid == _uid(old):
            self._remove(key, old, version_of(old), seen=False)

    def note_gone(self, namespace: str | None, name: str, uid: str) -> None:
        """Take in that a live read or a write found nothing, or another object, in this one's place."""
        key = (namespace or "", name)
        old = self._objects.get(key)
        if old is not None and _uid(old) == uid:
            self._remove(key, old, version_of(old), seen=False)

    def apply_deleted(self, obj: Object) -> None:
        """Take in a DELETED event. Its object's version is that of the deletion."""
        obj = self._trim(obj)
        key, uid, version = _key(obj), _uid(obj), version_of(obj)
        old = self._objects.get(key)
        if old is None or _uid(old) != uid:
            self._bury(uid, version, Final(obj, seen=True))
        elif version >= version_of(old):
            self._remove(key, obj, version, seen=True)
        # Else, under a selector: it stopped matching once, and something newer that matches is known already.

    def end_list(self, listed: AbstractSet[str], resource_version: str) -> Iterator[None]:
        """All pages of a list were noted: what it lacks is gone. In small steps, so that a caller may rest between."""
        version = int(resource_version)
        for number, key in enumerate(list(self._objects)):
            old = self._objects.get(key)
            if old is not None and _uid(old) not in listed and version_of(old) <= version:
                self._remove(key, old, version, seen=False)
                yield
            elif number % _COMPARED_AT_ONCE == 0:
                yield
        self.synced = True

    def _remove(self, key: Key, last: Object, version: int, *, seen: bool) -> None:
        known = self._objects[key]
        if _pool_key(known) != _pool_key(last):  # both pools are to hear of it: the one it was of, and the last one
            self._objects[key] = last
            self._tell(known, last)
        del self._objects[key]
        self._bury(_uid(last), version, Final(last, seen=seen))
        self._tell(last, None)

    def _bury(self, uid: str, version: int, final: Final) -> None:
        self._tombstones[uid] = max(version, self._tombstones.pop(uid, -1))
        if final.seen or uid not in self._finals:
            self._finals[uid] = final
        if len(self._tombstones) > MAX_TOMBSTONES:
            self._tombstones.popitem(last=False)
        if len(self._finals) > MAX_FINAL_OBJECTS:
            self._finals.popitem(last=False)

    def _tell(self, old: Object | None, new: Object | None) -> None:
        for subscriber in self._subscribers:
            try:
                subscriber(old, new)
            except Exception:
                log.exception("subscriber failed", extra={"kind": self.resource.kind})


def version_of(obj: Object) -> int:
    """The resourceVersion as a number: within one resource a later write has a higher one."""
    return int(obj["metadata"]["resourceVersion"])


def _key(obj: Object) -> Key:
    metadata = obj["metadata"]
    return metadata.get("namespace", ""), metadata["name"]


def _uid(obj: Object) -> str:
    uid: str = obj["metadata"]["uid"]
    return uid


def _pool_key(obj: Object) -> Key | None:
    metadata = obj["metadata"]
    pool = (metadata.get("labels") or {}).get(POOL_LABEL)
    return (metadata.get("namespace", ""), pool) if pool else None
