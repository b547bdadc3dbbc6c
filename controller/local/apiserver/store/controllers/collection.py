"""What the garbage collector and the namespace controller of a real cluster do, one settled step at a time."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from controller.local.apiserver.errors import ApiError
from controller.local.apiserver.store.budgets import current_status
from controller.local.apiserver.store.controllers.termination import delete_all, empty_namespace
from controller.local.apiserver.store.core import Core
from controller.local.apiserver.store.deletion import CRD_CLEANUP, DeleteOptions, delete, is_complete
from controller.local.apiserver.store.suspects import BUDGETS, FOREGROUND, ORPHAN, POLICIES
from controller.local.apiserver.store.users import GARBAGE_COLLECTOR
from controller.local.apiserver.store.versions import Change, Record

Json = dict[str, Any]


def collect(core: Core, now: datetime, limit: int) -> tuple[Change, ...]:
    """Looks at what was noticed since the last time; at most about `limit` changes."""
    changes: list[Change] = []
    places = core.garbage.places
    while places and len(changes) < limit:
        place = next(iter(places))
        del places[place]
        record = core.versions.get(*place)
        if record is not None:
            changes += _examine(core, record, now)
    for place in list(core.garbage.emptying):
        if len(changes) >= limit:
            break
        record = core.versions.get(*place)
        if record is not None:
            changes += _empty(core, record, now)
    while core.garbage.budgets and len(changes) < limit:
        changes += _count_budgets(core, core.garbage.budgets.popitem()[0], now)
    while core.garbage.policies and len(changes) < limit:
        changes += _observe_policy(core, core.garbage.policies.popitem()[0])
    return tuple(changes)


def _observe_policy(core: Core, name: str) -> list[Change]:
    """What the policy controller does, less its look at the types of expressions."""
    policy = core.versions.get(POLICIES, ("", name))
    if policy is None:
        return []
    status: Json = policy.body.get("status") or {}
    seen = {"observedGeneration": policy.body["metadata"]["generation"], "typeChecking": {}}
    if status.get("observedGeneration") == seen["observedGeneration"]:
        return []
    return [core.put(core.registry.by_key(POLICIES), {**policy.body, "status": {**status, **seen}})]


def _count_budgets(core: Core, namespace: str, now: datetime) -> list[Change]:
    """What the disruption controller does."""
    budgets = list(core.versions.collection(BUDGETS).current(namespace))
    if not budgets:
        return []
    pods = list(core.versions.collection("pods").current(namespace))
    changes = []
    for budget in budgets:
        status = current_status(budget, pods, now)
        if status != budget.body.get("status"):
            changes.append(core.put(core.registry.by_key(BUDGETS), {**budget.body, "status": status}))
    core.garbage.budgets.pop(namespace, None)  # noticed by these very writes
    return changes


def _examine(core: Core, record: Record, now: datetime) -> list[Change]:
    metadata = record.body["metadata"]
    finalizers = metadata.get("finalizers", ())
    if "deletionTimestamp" in metadata:
        if ORPHAN in finalizers:
            return _orphan_dependents(core, record)
        if FOREGROUND in finalizers:
            return _delete_dependents_first(core, record, now)
        return []
    references = metadata.get("ownerReferences", ())
    if not references:
        return []
    alive = [reference for reference in references if _owner_lives(core, record, reference)]
    waiting = [reference for reference in alive if _waits_for_dependents(core, reference["uid"])]
    solid = [reference for reference in alive if reference not in waiting]
    # `attemptToDeleteItem` of the real collector: one owner that stays is enough to leave the object alone.
    if solid:
        return [] if len(solid) == len(references) else [_set_metadata(core, record, ownerReferences=solid)]
    propagation = "Foreground" if waiting and core.versions.dependents(record.uid) else "Background"
    options = DeleteOptions(uid=record.uid, propagation=propagation, user=GARBAGE_COLLECTOR)
    return _try_delete(core, record, options, now)


def _try_delete(core: Core, record: Record, options: DeleteOptions, now: datetime) -> list[Change]:
    """A deletion that policies may refuse; it is tried again once the object or its owners change, and now and then."""
    try:
        return list(delete(core, record, options, now).changes)
    except ApiError:
        core.garbage.refused[record.resource, record.key] = None
        return []


def _owner_lives(core: Core, record: Record, reference: Json) -> bool:
    resource = core.registry.by_kind(reference["apiVersion"], reference["kind"])
    if resource is None:
        return True  # of a kind not served here: nothing proves its absence
    owner = core.versions.by_uid(reference["uid"])
    if owner is None or owner.resource != resource.key or owner.name != reference["name"]:
        return False
    return not resource.namespaced or owner.namespace == record.namespace


def _waits_for_dependents(core: Core, uid: str) -> bool:
    owner = core.versions.by_uid(uid)
    if owner is None:
        return False
    metadata = owner.body["metadata"]
    return "deletionTimestamp" in metadata and FOREGROUND in metadata.get("finalizers", ())


def _orphan_dependents(core: Core, owner: Record) -> list[Change]:
    changes = []
    for dependent in core.versions.dependents(owner.uid):
        references = dependent.body["metadata"].get("ownerReferences", ())
        kept = [reference for reference in references if reference["uid"] != owner.uid]
        changes.append(_set_metadata(core, dependent, ownerReferences=kept))
    return [*changes, _drop_finalizer(core, owner, ORPHAN)]


def _delete_dependents_first(core: Core, owner: Record, now: datetime) -> list[Change]:
    changes: list[Change] = []
    for dependent in core.versions.dependents(owner.uid):
        if "deletionTimestamp" not in dependent.body["metadata"]:
            changes += _examine(core, dependent, now)
    blocking = any(
        reference["uid"] == owner.uid and reference.get("blockOwnerDeletion")
        for dependent in core.versions.dependents(owner.uid)
        for reference in dependent.body["metadata"]["ownerReferences"]
    )
    current = core.versions.by_uid(owner.uid)
    if current is not None and not blocking:
        changes.append(_drop_finalizer(core, current, FOREGROUND))
    return changes


def _set_metadata(core: Core, record: Record, **parts: list[Any]) -> Change:
    metadata = dict(record.body["metadata"])
    for name, value in parts.items():
        if value:
            metadata[name] = value
        else:
            metadata.pop(name, None)
    body = {**record.body, "metadata": metadata}
    if is_complete(metadata):
        return core.remove(record, body)
    return core.put(core.registry.by_key(record.resource), body)


def _drop_finalizer(core: Core, record: Record, finalizer: str) -> Change:
    kept = [found for found in record.body["metadata"].get("finalizers", ()) if found != finalizer]
    return _set_metadata(core, record, finalizers=kept)


def _empty(core: Core, record: Record, now: datetime) -> list[Change]:
    if record.resource == "namespaces":
        return empty_namespace(core, record, now)
    held = list(core.versions.collection(record.name).current(""))
    changes, _ = delete_all(core, held, now)
    gone = all(core.versions.by_uid(item.uid) is None for item in held)
    if gone and CRD_CLEANUP in record.body["metadata"].get("finalizers", ()):
        changes.append(_drop_finalizer(core, record, CRD_CLEANUP))
    return changes
