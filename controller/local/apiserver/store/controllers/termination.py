"""What the namespace controller does with a namespace that is deleted, and how a definition takes its objects along.

A namespace's Pods go first; only once none is left is the rest deleted, and its conditions say what holds it.
"""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from typing import Any

from controller.local.apiserver.errors import ApiError
from controller.local.apiserver.store.core import Core
from controller.local.apiserver.store.deletion import DeleteOptions, delete
from controller.local.apiserver.store.outcomes import stamp
from controller.local.apiserver.store.users import NAMESPACE_CONTROLLER
from controller.local.apiserver.store.versions import Change, Record

Json = dict[str, Any]

_BACKGROUND = DeleteOptions(propagation="Background", user=NAMESPACE_CONTROLLER)


def empty_namespace(core: Core, record: Record, now: datetime) -> list[Change]:
    """The next step of a namespace's deletion: nothing to do but wait gives no change."""
    pods = list(core.versions.collection("pods").current(record.name))
    changes, refused = delete_all(core, pods, now)
    if any(core.versions.by_uid(pod.uid) is not None for pod in pods) and not refused:
        return [*changes, *_report(core, record, [], {}, now)]
    others = [
        item
        for resource in core.versions.resources()
        if resource != "pods"
        for item in core.versions.collection(resource).current(record.name)
    ]
    more, refused_too = delete_all(core, others, now)
    changes += more
    refused |= refused_too
    left = [item for item in (*pods, *others) if core.versions.by_uid(item.uid) is not None]
    if left:
        return [*changes, *_report(core, record, left, refused, now)]
    if not record.body["metadata"].get("finalizers"):
        changes.append(core.remove(core.versions.by_uid(record.uid) or record))
    return changes


def delete_all(core: Core, items: list[Record], now: datetime) -> tuple[list[Change], dict[str, str]]:
    """Deletes what isn't yet being deleted; what was refused, by name, and why."""
    changes: list[Change] = []
    refused: dict[str, str] = {}
    for item in items:
        if "deletionTimestamp" in item.body["metadata"]:
            continue
        try:
            changes += delete(core, item, _BACKGROUND, now).changes
        except ApiError as error:
            refused[item.name] = error.message
    return changes, refused


def _report(core: Core, record: Record, left: list[Record], refused: dict[str, str], now: datetime) -> list[Change]:
    """The conditions of a namespace that can't go yet."""
    current = core.versions.by_uid(record.uid) or record
    counted = Counter(item.resource for item in left)
    finalizers = Counter(f for item in left for f in item.body["metadata"].get("finalizers", ()))
    remaining = ", ".join(f"{kind} has {count} resource instances" for kind, count in sorted(counted.items()))
    holding = ", ".join(f"{name} in {count} resource instances" for name, count in sorted(finalizers.items()))
    failed = "; ".join(refused.values())
    wanted = [
        ("NamespaceDeletionDiscoveryFailure", "", "ResourcesDiscovered", "All resources successfully discovered"),
        (
            "NamespaceDeletionGroupVersionParsingFailure",
            "",
            "ParsedGroupVersions",
            "All legacy kube types successfully parsed",
        ),
        (
            "NamespaceDeletionContentFailure",
            failed and f"Failed to delete all resource types, {len(refused)} remaining: {failed}",
            "ContentDeletionFailed" if failed else "ContentDeleted",
            "All content successfully deleted, may be waiting on finalization",
        ),
        (
            "NamespaceContentRemaining",
            remaining and f"Some resources are remaining: {remaining}",
            "SomeResourcesRemain" if remaining else "ContentRemoved",
            "All content successfully removed",
        ),
        (
            "NamespaceFinalizersRemaining",
            holding and f"Some content in the namespace has finalizers remaining: {holding}",
            "SomeFinalizersRemain" if holding else "ContentHasNoFinalizers",
            "All content-preserving finalizers finished",
        ),
    ]
    status = current.body["status"]
    known = {condition["type"]: condition for condition in status.get("conditions") or ()}
    conditions = []
    for kind, trouble, reason, fine in wanted:
        value = "True" if trouble else "False"
        before = known.get(kind)
        since = before["lastTransitionTime"] if before and before["status"] == value else stamp(now)
        conditions.append(
            {
                "type": kind,
                "status": value,
                "lastTransitionTime": since,
                "reason": reason,
                "message": trouble or fine,
            }
        )
    if conditions == status.get("conditions"):
        return []
    body = {**current.body, "status": {**status, "conditions": conditions}}
    return [core.put(core.registry.by_key("namespaces"), body)]
