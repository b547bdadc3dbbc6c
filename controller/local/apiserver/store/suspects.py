"""Which objects the collectors have to look at: those whose place in the world may have changed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from controller.local.apiserver.store.versions import Change, ChangeType, Key, Record, Versions

ORPHAN = "orphan"
FOREGROUND = "foregroundDeletion"
BUDGETS = "poddisruptionbudgets.policy"
POLICIES = "validatingadmissionpolicies.admissionregistration.k8s.io"
DEPLOYMENTS = "deployments.apps"
REPLICASETS = "replicasets.apps"
CRDS = "customresourcedefinitions.apiextensions.k8s.io"


def _counts_otherwise(change: Change) -> bool:
    """Whether a budget may count the Pod otherwise now: most changes of a Pod are none of its business."""
    before = change.previous
    return before is None or change.type is ChangeType.DELETED or _counted(change.record) != _counted(before)


def _counted(pod: Record) -> tuple[object, ...]:
    metadata = pod.body["metadata"]
    conditions = (pod.body.get("status") or {}).get("conditions") or ()
    ready = next((c.get("status") for c in conditions if c["type"] == "Ready"), None)
    return metadata.get("labels"), "deletionTimestamp" in metadata, ready


def _replaces_otherwise(change: Change) -> bool:
    """Whether a ReplicaSet may count the Pod otherwise now."""
    before = change.previous
    return before is None or change.type is ChangeType.DELETED or _replicated(change.record) != _replicated(before)


def _replicated(pod: Record) -> tuple[object, ...]:
    phase = (pod.body.get("status") or {}).get("phase")
    return *_counted(pod), pod.body["metadata"].get("ownerReferences"), phase


@dataclass
class Suspects:
    """The objects whose place in the world may have changed: to be looked at by `collect`."""

    places: dict[tuple[str, Key], None] = field(default_factory=dict)
    # Namespaces and definitions that wait to become empty.
    emptying: dict[tuple[str, Key], None] = field(default_factory=dict)
    # Those whose deletion a policy has refused.
    refused: dict[tuple[str, Key], None] = field(default_factory=dict)
    # Admission policies whose status may not tell of their newest generation.
    policies: dict[str, None] = field(default_factory=dict)
    # Namespaces whose disruption budgets may count otherwise now.
    budgets: dict[str, None] = field(default_factory=dict)
    # Namespaces whose Deployments and ReplicaSets may have something to do. No collector's: see `Workloads`.
    workloads: dict[str, None] = field(default_factory=dict)

    def add(self, record: Record) -> None:
        """Has this object looked at."""
        self.places[record.resource, record.key] = None

    def noticed(self, change: Change) -> None:
        """Takes note of a change."""
        record = change.record
        metadata = record.body["metadata"]
        place = (record.resource, record.key)
        if record.resource == BUDGETS or (record.resource == "pods" and _counts_otherwise(change)):
            self.budgets[record.namespace] = None
        if record.resource in (DEPLOYMENTS, REPLICASETS) or (record.resource == "pods" and _replaces_otherwise(change)):
            self.workloads[record.namespace] = None
        if record.resource == POLICIES:
            self.policies[record.name] = None
        if change.type is ChangeType.DELETED:
            self.places.pop(place, None)
            self.emptying.pop(place, None)
            return
        if "deletionTimestamp" in metadata and record.resource in ("namespaces", CRDS):
            self.emptying[place] = None
        collected = not {ORPHAN, FOREGROUND}.isdisjoint(metadata.get("finalizers", ()))
        if metadata.get("ownerReferences") or ("deletionTimestamp" in metadata and collected):
            self.places[place] = None

    def retry(self, budgeted: Iterable[str] = ()) -> None:
        """Has those looked at again whose deletion was refused, and these namespaces' budgets, whose time may be up."""
        self.places.update(self.refused)
        self.refused.clear()
        self.budgets.update(dict.fromkeys(budgeted))

    def suspect_all(self, versions: Versions) -> None:
        """After a restart nothing is remembered, so everything is looked at once."""
        for resource in versions.resources():
            for record in versions.collection(resource).current(""):
                self.noticed(Change(record.version, ChangeType.ADDED, record))

    def __bool__(self) -> bool:
        return bool(self.places or self.emptying or self.budgets or self.policies)
