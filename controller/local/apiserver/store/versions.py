"""Stored objects under one rising version counter, with a bounded history of what changed.

The history serves watches from a past version, and lists at one: the state at version V is today's with the changes
after V undone, so no snapshot is ever copied. Bodies are never changed in place; a new version is a new dict that may
share parts with the old one.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import orjson

Json = dict[str, Any]
# Namespace and name: etcd's order of keys, which is the order of lists.
Key = tuple[str, str]


class ChangeType(StrEnum):
    """What a watch calls a change."""

    ADDED = "ADDED"
    MODIFIED = "MODIFIED"
    DELETED = "DELETED"


@dataclass(slots=True, eq=False)
class Record:
    """One version of one object. `body` has no `kind` and `apiVersion`: the resource knows them."""

    resource: str
    version: int
    body: Json
    _encoded: bytes | None = field(default=None, repr=False)

    @property
    def namespace(self) -> str:
        """Empty for what has none."""
        namespace: str = self.body["metadata"].get("namespace", "")
        return namespace

    @property
    def name(self) -> str:
        """The object's name."""
        name: str = self.body["metadata"]["name"]
        return name

    @property
    def uid(self) -> str:
        """The object's identity."""
        uid: str = self.body["metadata"]["uid"]
        return uid

    @property
    def key(self) -> Key:
        """Its place in its collection."""
        return self.namespace, self.name

    def encoded(self) -> bytes:
        """The body as JSON, encoded once however many lists and watches carry it."""
        if self._encoded is None:
            self._encoded = orjson.dumps(self.body)
        return self._encoded


@dataclass(frozen=True, slots=True, eq=False)
class Change:
    """A step from one version of an object to the next."""

    version: int
    type: ChangeType
    record: Record
    previous: Record | None = None


class HistoryExpiredError(LookupError):
    """The version is older than what is kept."""

    def __init__(self, floor: int) -> None:
        super().__init__(f"oldest version kept is {floor}")
        self.floor = floor


class Collection:
    """The objects of one resource, in order, and their recent changes."""

    def __init__(self, floor: int, history_limit: int) -> None:
        self.records: dict[Key, Record] = {}
        self.keys: list[Key] = []
        self.changes: list[Change] = []
        self.floor = floor
        self._history_limit = history_limit

    def apply(self, change: Change) -> None:
        """Takes a change in."""
        key = change.record.key
        if change.type is ChangeType.DELETED:
            del self.records[key]
            del self.keys[bisect_left(self.keys, key)]
        else:
            if key not in self.records:
                insort(self.keys, key)
            self.records[key] = change.record
        self.changes.append(change)
        # Cut in halves, so that the cost of moving the list is spread over many changes.
        if len(self.changes) > 2 * self._history_limit:
            dropped = len(self.changes) - self._history_limit
            self.floor = self.changes[dropped - 1].version
            del self.changes[:dropped]

    def restore(self, record: Record) -> None:
        """Takes in an object from before the history began."""
        insort(self.keys, record.key)
        self.records[record.key] = record

    def changes_after(self, version: int, until: int | None = None) -> list[Change]:
        """The changes with `version` < v ≤ `until`. Raises HistoryExpiredError if some are gone."""
        if version < self.floor:
            raise HistoryExpiredError(self.floor)
        first = bisect_right(self.changes, version, key=_version_of)
        last = len(self.changes) if until is None else bisect_right(self.changes, until, key=_version_of)
        return self.changes[first:last]

    def forget_history(self, floor: int) -> None:
        """Drops the history up to now, as a compaction does."""
        self.changes.clear()
        self.floor = floor

    def keys_in(self, namespace: str, after: Key | None = None) -> list[Key]:
        """The keys of a namespace, or of all with `""`, behind `after`."""
        first = 0 if not namespace else bisect_left(self.keys, (namespace, ""))
        last = len(self.keys) if not namespace else bisect_left(self.keys, (namespace + "\0", ""))
        if after is not None:
            first = max(first, bisect_right(self.keys, after))
        return self.keys[first:last]

    def current(self, namespace: str, after: Key | None = None) -> Iterator[Record]:
        """The objects as they are now, in order."""
        records = self.records
        return (records[key] for key in self.keys_in(namespace, after))

    def at(self, version: int, namespace: str, after: Key | None = None) -> Iterable[Record]:
        """The objects as they were at a past version, in order. Raises HistoryExpiredError."""
        undone: dict[Key, Record | None] = {}
        for change in reversed(self.changes_after(version)):
            undone[change.record.key] = change.previous
        if not undone:
            return self.current(namespace, after)
        keys = set(self.keys_in(namespace, after))
        keys.update(
            key
            for key, was in undone.items()
            if was is not None and (not namespace or key[0] == namespace) and (after is None or key > after)
        )
        found = ((undone[key] if key in undone else self.records[key]) for key in sorted(keys))
        return [record for record in found if record is not None]


def _version_of(change: Change) -> int:
    return change.version


class Versions:
    """All collections under one counter, with the indices by identity and by owner."""

    def __init__(self, *, history_limit: int = 8192) -> None:
        self.current = 0
        self._start = 0
        self._history_limit = history_limit
        self._collections: dict[str, Collection] = {}
        self._by_uid: dict[str, Record] = {}
        self._dependents: dict[str, set[tuple[str, Key]]] = {}

    def collection(self, resource: str) -> Collection:
        """The objects of a resource, made on first use."""
        found = self._collections.get(resource)
        if found is None:
            # One made late has seen all of its (no) changes since the store began.
            found = self._collections[resource] = Collection(self._start, self._history_limit)
        return found

    def get(self, resource: str, key: Key) -> Record | None:
        """The object as it is now."""
        return self.collection(resource).records.get(key)

    def by_uid(self, uid: str) -> Record | None:
        """The living object of this identity."""
        return self._by_uid.get(uid)

    def dependents(self, owner_uid: str) -> list[Record]:
        """The objects that name this owner."""
        found = (self.get(resource, key) for resource, key in sorted(self._dependents.get(owner_uid, ())))
        return [record for record in found if record is not None]

    def put(self, resource: str, body: Json) -> Change:
        """Stores a new version of an object; the body's resourceVersion is set here."""
        self.current += 1
        body["metadata"]["resourceVersion"] = str(self.current)
        record = Record(resource, self.current, body)
        collection = self.collection(resource)
        previous = collection.records.get(record.key)
        kind = ChangeType.ADDED if previous is None else ChangeType.MODIFIED
        change = Change(self.current, kind, record, previous)
        self._index(previous, record)
        collection.apply(change)
        return change

    def remove(self, record: Record, last_body: Json | None = None) -> Change:
        """Takes an object away; its last state carries the version of the removal."""
        self.current += 1
        body = dict(last_body if last_body is not None else record.body)
        body["metadata"] = {**body["metadata"], "resourceVersion": str(self.current)}
        gone = Record(record.resource, self.current, body)
        change = Change(self.current, ChangeType.DELETED, gone, record)
        self._index(record, None)
        self.collection(record.resource).apply(change)
        return change

    def restore(self, version: int, bodies: Iterable[tuple[str, int, Json]]) -> None:
        """Begins from stored objects: (resource, version, body). The history starts here."""
        self.current = self._start = version
        for collection in self._collections.values():
            collection.forget_history(version)
        for resource, object_version, body in bodies:
            record = Record(resource, object_version, body)
            self.collection(resource).restore(record)
            self._index(None, record)

    def compact(self) -> None:
        """Forgets all history, so that every older version is expired."""
        self._start = self.current
        for collection in self._collections.values():
            collection.forget_history(self.current)

    def resources(self) -> list[str]:
        """The resources that have a collection."""
        return list(self._collections)

    def _index(self, previous: Record | None, record: Record | None) -> None:
        if previous is not None:
            if record is None:
                self._by_uid.pop(previous.uid, None)
            place = (previous.resource, previous.key)
            for reference in previous.body["metadata"].get("ownerReferences", ()):
                siblings = self._dependents.get(reference["uid"])
                if siblings is not None:
                    siblings.discard(place)
                    if not siblings:
                        del self._dependents[reference["uid"]]
        if record is not None:
            self._by_uid[record.uid] = record
            place = (record.resource, record.key)
            for reference in record.body["metadata"].get("ownerReferences", ()):
                self._dependents.setdefault(reference["uid"], set()).add(place)
