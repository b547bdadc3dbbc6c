"""Deletion: preconditions, grace and finalizers. Follows `Store.Delete` of k8s.io/apiserver's generic registry.

What happens later to dependents and to the contents of namespaces is in `controllers`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from controller.local.apiserver.errors import conflict, forbidden
from controller.local.apiserver.store.admission_request import DELETE, AdmissionRequest
from controller.local.apiserver.store.core import Core
from controller.local.apiserver.store.outcomes import Outcome, stamp
from controller.local.apiserver.store.suspects import CRDS, FOREGROUND, ORPHAN
from controller.local.apiserver.store.users import SYSTEM, User
from controller.local.apiserver.store.versions import Change, Record

Json = dict[str, Any]

CRD_CLEANUP = "customresourcecleanup.apiextensions.k8s.io"
_IMMORTAL_NAMESPACES = frozenset({"default", "kube-system", "kube-public"})


@dataclass(frozen=True, slots=True)
class DeleteOptions:
    """`DeleteOptions`, parsed. `propagation` is empty where the request leaves it to the server."""

    uid: str | None = None
    resource_version: str | None = None
    grace_seconds: int | None = None
    propagation: str = ""
    dry_run: bool = False
    user: User = SYSTEM
    # Policies are told of an eviction, not of the deletion that it comes to.
    evicts: bool = False
    # Policies are not told the name.
    of_collection: bool = False


DEFAULT = DeleteOptions()


def is_complete(metadata: Json) -> bool:
    """True once nothing holds a deleted object any more."""
    return (
        "deletionTimestamp" in metadata
        and not metadata.get("finalizers")
        and not metadata.get("deletionGracePeriodSeconds")
    )


def delete(core: Core, record: Record, options: DeleteOptions, now: datetime) -> Outcome:
    """Deletes an object, or marks it so."""
    resource = core.registry.by_key(record.resource)
    _check_preconditions(core, record, options)
    warnings = _ask_policies(core, record, options)
    if record.resource == "namespaces":
        return _terminate_namespace(core, record, options, now)
    metadata = dict(record.body["metadata"])
    graceful, pending = _begin(core, record, metadata, options, now)
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
            changes.append(core.put(core.registry.by_key(record.resource), body))
            current = changes[-1].record
    if held or (graceful and metadata["deletionGracePeriodSeconds"] > 0):
        return Outcome(200, current, tuple(changes), warnings)
    if options.dry_run:
        answered = current
    else:
        changes.append(core.remove(current))
        answered = changes[-1].record
    if resource.returns_deleted:
        return Outcome(200, answered, tuple(changes), warnings)
    details = {"name": record.name, "group": resource.group, "kind": resource.plural, "uid": record.uid}
    status: Json = {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "details": {key: value for key, value in details.items() if value},
    }
    return Outcome(200, None, tuple(changes), warnings, status)


def _ask_policies(core: Core, record: Record, options: DeleteOptions) -> tuple[str, ...]:
    if options.evicts:
        return ()
    return core.admit(
        AdmissionRequest(
            DELETE,
            core.registry.by_key(record.resource),
            record.namespace,
            "" if options.of_collection else record.name,
            None,
            record.body,
            options.user,
            dry_run=options.dry_run,
        )
    )


def _check_preconditions(core: Core, record: Record, options: DeleteOptions) -> None:
    resource = core.registry.by_key(record.resource)
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


def _begin(core: Core, record: Record, metadata: Json, options: DeleteOptions, now: datetime) -> tuple[bool, bool]:
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
    grace = core.strategy(core.registry.by_key(record.resource)).grace_seconds(record.body, options.grace_seconds)
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


def _terminate_namespace(core: Core, record: Record, options: DeleteOptions, now: datetime) -> Outcome:
    if record.name in _IMMORTAL_NAMESPACES:
        raise forbidden(core.registry.by_key("namespaces").target(record.name), "this namespace may not be deleted")
    metadata = dict(record.body["metadata"])
    if "deletionTimestamp" in metadata:
        return Outcome(200, record)
    _set_deletion(metadata, now, 0)
    metadata.pop("deletionGracePeriodSeconds")
    status = {**record.body["status"], "phase": "Terminating"}
    body = {**record.body, "metadata": metadata, "status": status}
    if options.dry_run:
        return Outcome(200, Record(record.resource, record.version, body))
    change = core.put(core.registry.by_key(record.resource), body)
    return Outcome(200, change.record, (change,))
