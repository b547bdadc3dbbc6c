"""Deletion: grace, finalizers, and the collectors that follow — owners' dependents, namespaces, definitions.

`delete` follows `Store.Delete` of k8s.io/apiserver's generic registry; `collect` does what the garbage collector and
the namespace controller of a real cluster do a little later, one settled step at a time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from controller.local.errors import conflict, forbidden
from controller.local.outcomes import Outcome, stamp
from controller.local.versions import Change, ChangeType, Key, Record, Versions

if TYPE_CHECKING:
    from controller.local.store import Store
Json = dict[str, Any]

ORPHAN = "orphan"
FOREGROUND = "foregroundDeletion"
CRD_CLEANUP = "customresourcecleanup.apiextensions.k8s.io"
_IMMORTAL_NAMESPACES = frozenset({"default", "kube-system", "kube-public"})
CRDS = "customresourcedefinitions.apiextensions.k8s.io"


@dataclass(frozen=True, slots=True)
class DeleteOptions:
    """`DeleteOptions`, parsed. `propagation` is empty where the request leaves it to the server."""

    uid: str | None = None
    resource_version: str | None = None
    grace_seconds: int | None = None
    propagation: str = ""
    dry_run: bool = False


DEFAULT = DeleteOptions()
_BACKGROUND = DeleteOptions(propagation="Background")


def is_complete(metadata: Json) -> bool:
    """True once nothing holds a deleted object any more."""
    return (
        "deletionTimestamp" in metadata
        and not metadata.get("finalizers")
        and not metadata.get("deletionGracePeriodSeconds")
    )


def delete(store: Store, record: Record, options: DeleteOptions, now: datetime) -> Outcome:
    """Deletes an object, or marks it so."""
    resource = store.registry.by_key(record.resource)
    _check_preconditions(store, record, options)
    if record.resource == "namespaces":
        return _terminate_namespace(store, record, options, now)
    metadata = dict(record.body["metadata"])
    graceful, pending = _begin(store, record, metadata, options, now)
    if pending:
        return Outcome(200, record)
    _set_collection_finalizers(metadata, options)
    if record.resource == CRDS and "deletionTimestamp" not in record.body["metadata"]:
        metadata["finalizers"] = [*metadata.get("finalizers", ()), CRD_CLEANUP]
    held = bool(metadata.get("finalizers"))
    if held and not graceful:
        _mark_deleted(metadata, now)
    body = {**record.body, "metadata": metadata}
    changes: list[Change] = []
    current = record
    if (held or graceful) and body != record.body:
        if options.dry_run:
            current = Record(record.resource, record.version, body)
        else:
            changes.append(store.put(store.registry.by_key(record.resource), body))
            current = changes[-1].record
    if held or (graceful and metadata["deletionGracePeriodSeconds"] > 0):
        return Outcome(200, current, tuple(changes))
    if options.dry_run:
        answered = current
    else:
        changes.append(store.remove(current))
        answered = changes[-1].record
    if resource.returns_deleted:
        return Outcome(200, answered, tuple(changes))
    details = {"name": record.name, "group": resource.group, "kind": resource.plural, "uid": record.uid}
    status: Json = {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "details": {key: value for key, value in details.items() if value},
    }
    return Outcome(200, None, tuple(changes), (), status)


def _check_preconditions(store: Store, record: Record, options: DeleteOptions) -> None:
    resource = store.registry.by_key(record.resource)
    metadata = record.body["metadata"]
    if options.uid is not None and options.uid != record.uid:
        text = (
            f"the UID in the precondition ({options.uid}) does not match the UID in record ({record.uid}). "
            "The object might have been deleted and then recreated"
        )
    elif options.resource_version is not None and options.resource_version != metadata["resourceVersion"]:
        text = (
            f"the ResourceVersion in the precondition ({options.resource_version}) does not match the "
            f"ResourceVersion in record ({metadata['resourceVersion']}). The object might have been modified"
        )
    else:
        return
    target = resource.target(record.name)
    raise conflict(target, text, subject=target.qualified_kind, kind=resource.kind)


def _begin(store: Store, record: Record, metadata: Json, options: DeleteOptions, now: datetime) -> tuple[bool, bool]:
    """`rest.BeforeDelete`: sets deletion time and grace; (graceful, already pending)."""
    old_grace = metadata.get("deletionGracePeriodSeconds")
    if "deletionTimestamp" in metadata:
        if not old_grace:
            return False, False
        if options.grace_seconds is None or options.grace_seconds >= old_grace:
            return False, True
        began = datetime.fromisoformat(metadata["deletionTimestamp"]) - timedelta(seconds=old_grace)
        _set_deletion(metadata, began, options.grace_seconds)
        return True, False
    grace = store.strategy(store.registry.by_key(record.resource)).grace_seconds(record.body, options.grace_seconds)
    if grace is None:
        return False, False
    _set_deletion(metadata, now, grace)
    if "generation" in metadata:
        metadata["generation"] += 1
    return True, False


def _set_deletion(metadata: Json, began: datetime, grace_seconds: int) -> None:
    metadata["deletionTimestamp"] = stamp(began + timedelta(seconds=grace_seconds))
    metadata["deletionGracePeriodSeconds"] = grace_seconds


def _mark_deleted(metadata: Json, now: datetime) -> None:
    if "deletionTimestamp" not in metadata:
        _set_deletion(metadata, now, 0)
        if "generation" in metadata:
            metadata["generation"] += 1
    metadata.setdefault("deletionGracePeriodSeconds", 0)


def _set_collection_finalizers(metadata: Json, options: DeleteOptions) -> None:
    if not options.propagation:
        return
    wanted = {"Orphan": ORPHAN, "Foreground": FOREGROUND}.get(options.propagation)
    finalizers = [f for f in metadata.get("finalizers", ()) if f not in (ORPHAN, FOREGROUND) or f == wanted]
    if wanted and wanted not in finalizers:
        finalizers.append(wanted)
    if finalizers:
        metadata["finalizers"] = finalizers
    else:
        metadata.pop("finalizers", None)


def _terminate_namespace(store: Store, record: Record, options: DeleteOptions, now: datetime) -> Outcome:
    if record.name in _IMMORTAL_NAMESPACES:
        raise forbidden(store.registry.by_key("namespaces").target(record.name), "this namespace may not be deleted")
    metadata = dict(record.body["metadata"])
    if "deletionTimestamp" in metadata:
        return Outcome(200, record)
    _set_deletion(metadata, now, 0)
    metadata.pop("deletionGracePeriodSeconds")
    status = {**record.body["status"], "phase": "Terminating"}
    body = {**record.body, "metadata": metadata, "status": status}
    if options.dry_run:
        return Outcome(200, Record(record.resource, record.version, body))
    change = store.put(store.registry.by_key(record.resource), body)
    return Outcome(200, change.record, (change,))


# --- collectors -------------------------------------------------------------------------------------------


@dataclass
class Suspects:
    """The objects whose place in the world may have changed: to be looked at by `collect`."""

    places: dict[tuple[str, Key], None] = field(default_factory=dict)
    # Namespaces and definitions that wait to become empty.
    emptying: dict[tuple[str, Key], None] = field(default_factory=dict)

    def add(self, record: Record) -> None:
        """Has this object looked at."""
        self.places[record.resource, record.key] = None

    def noticed(self, change: Change) -> None:
        """Takes note of a change."""
        record = change.record
        metadata = record.body["metadata"]
        place = (record.resource, record.key)
        if change.type is ChangeType.DELETED:
            self.places.pop(place, None)
            self.emptying.pop(place, None)
            return
        if "deletionTimestamp" in metadata and record.resource in ("namespaces", CRDS):
            self.emptying[place] = None
        collected = not {ORPHAN, FOREGROUND}.isdisjoint(metadata.get("finalizers", ()))
        if metadata.get("ownerReferences") or ("deletionTimestamp" in metadata and collected):
            self.places[place] = None

    def suspect_all(self, versions: Versions) -> None:
        """After a restart nothing is remembered, so everything is looked at once."""
        for resource in versions.resources():
            for record in versions.collection(resource).current(""):
                self.noticed(Change(record.version, ChangeType.ADDED, record))

    def __bool__(self) -> bool:
        return bool(self.places or self.emptying)


def collect(store: Store, now: datetime, limit: int) -> tuple[Change, ...]:
    """Looks at what was noticed since the last time; at most about `limit` changes."""
    changes: list[Change] = []
    places = store.garbage.places
    while places and len(changes) < limit:
        place = next(iter(places))
        del places[place]
        record = store.versions.get(*place)
        if record is not None:
            changes += _examine(store, record, now)
    for place in list(store.garbage.emptying):
        if len(changes) >= limit:
            break
        record = store.versions.get(*place)
        if record is not None:
            changes += _empty(store, record, now)
    return tuple(changes)


def _examine(store: Store, record: Record, now: datetime) -> list[Change]:
    metadata = record.body["metadata"]
    finalizers = metadata.get("finalizers", ())
    if "deletionTimestamp" in metadata:
        if ORPHAN in finalizers:
            return _orphan_dependents(store, record)
        if FOREGROUND in finalizers:
            return _delete_dependents_first(store, record, now)
        return []
    references = metadata.get("ownerReferences", ())
    alive = [reference for reference in references if _owner_lives(store, record, reference)]
    if len(alive) == len(references):
        waiting = [r for r in references if _waits_for_dependents(store, r["uid"])]
        if waiting and len(waiting) == len(references):
            return list(delete(store, record, _foreground_for(store, record), now).changes)
        return []
    if not alive:
        return list(delete(store, record, DeleteOptions(uid=record.uid, propagation="Background"), now).changes)
    return [_set_metadata(store, record, ownerReferences=alive)]


def _owner_lives(store: Store, record: Record, reference: Json) -> bool:
    resource = store.registry.by_kind(reference["apiVersion"], reference["kind"])
    if resource is None:
        return True  # of a kind not served here: nothing proves its absence
    owner = store.versions.by_uid(reference["uid"])
    if owner is None or owner.resource != resource.key or owner.name != reference["name"]:
        return False
    return not resource.namespaced or owner.namespace == record.namespace


def _waits_for_dependents(store: Store, uid: str) -> bool:
    owner = store.versions.by_uid(uid)
    if owner is None:
        return False
    metadata = owner.body["metadata"]
    return "deletionTimestamp" in metadata and FOREGROUND in metadata.get("finalizers", ())


def _foreground_for(store: Store, record: Record) -> DeleteOptions:
    """A dependent that has dependents of its own goes in the same manner."""
    propagation = "Foreground" if store.versions.dependents(record.uid) else "Background"
    return DeleteOptions(uid=record.uid, propagation=propagation)


def _orphan_dependents(store: Store, owner: Record) -> list[Change]:
    changes = []
    for dependent in store.versions.dependents(owner.uid):
        references = dependent.body["metadata"].get("ownerReferences", ())
        kept = [reference for reference in references if reference["uid"] != owner.uid]
        changes.append(_set_metadata(store, dependent, ownerReferences=kept))
    return [*changes, _drop_finalizer(store, owner, ORPHAN)]


def _delete_dependents_first(store: Store, owner: Record, now: datetime) -> list[Change]:
    changes: list[Change] = []
    for dependent in store.versions.dependents(owner.uid):
        if "deletionTimestamp" not in dependent.body["metadata"]:
            changes += _examine(store, dependent, now)
    blocking = any(
        reference["uid"] == owner.uid and reference.get("blockOwnerDeletion")
        for dependent in store.versions.dependents(owner.uid)
        for reference in dependent.body["metadata"]["ownerReferences"]
    )
    current = store.versions.by_uid(owner.uid)
    if current is not None and not blocking:
        changes.append(_drop_finalizer(store, current, FOREGROUND))
    return changes


def _set_metadata(store: Store, record: Record, **parts: list[Any]) -> Change:
    metadata = dict(record.body["metadata"])
    for name, value in parts.items():
        if value:
            metadata[name] = value
        else:
            metadata.pop(name, None)
    body = {**record.body, "metadata": metadata}
    if is_complete(metadata):
        return store.remove(record, body)
    return store.put(store.registry.by_key(record.resource), body)


def _drop_finalizer(store: Store, record: Record, finalizer: str) -> Change:
    kept = [found for found in record.body["metadata"].get("finalizers", ()) if found != finalizer]
    return _set_metadata(store, record, finalizers=kept)


def _empty(store: Store, record: Record, now: datetime) -> list[Change]:
    """Deletes what a namespace or a definition holds, then lets it go."""
    changes: list[Change] = []
    if record.resource == "namespaces":
        held = [
            item
            for resource in store.versions.resources()
            for item in store.versions.collection(resource).current(record.name)
        ]
    else:
        held = list(store.versions.collection(record.name).current(""))
    for item in held:
        if "deletionTimestamp" not in item.body["metadata"]:
            changes += delete(store, item, _BACKGROUND, now).changes
    if any(store.versions.by_uid(item.uid) is not None for item in held):
        return changes
    if record.resource == "namespaces":
        if not record.body["metadata"].get("finalizers"):
            changes.append(store.remove(record))
    elif CRD_CLEANUP in record.body["metadata"].get("finalizers", ()):
        changes.append(_drop_finalizer(store, record, CRD_CLEANUP))
    return changes
