"""What the ReplicaSet controller does: as many Pods as are asked for, of those that its selector finds.

After k8s.io/kubernetes/pkg/controller/replicaset and `controller_utils.ActivePodsWithRanks`. Left out: its Events, and
`minReadySeconds` (a Pod that is ready is available).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from controller.local.apiserver.errors import ApiError
from controller.local.apiserver.store import creation, patches, updates
from controller.local.apiserver.store.budgets import is_ready
from controller.local.apiserver.store.core import Core
from controller.local.apiserver.store.deletion import DeleteOptions, delete
from controller.local.apiserver.store.outcomes import WriteOptions, stamp
from controller.local.apiserver.store.selectors import label_selector
from controller.local.apiserver.store.suspects import REPLICASETS
from controller.local.apiserver.store.users import REPLICASET_CONTROLLER
from controller.local.apiserver.store.versions import Change, Record

Json = dict[str, Any]

DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"
_TERMINAL = ("Failed", "Succeeded")
_PHASES = {"Pending": 0, "Unknown": 1, "Running": 2}
_BY = WriteOptions(user=REPLICASET_CONTROLLER)


def controller_of(record: Record) -> Json | None:
    """The reference to the owner that manages an object."""
    references: list[Json] = record.body["metadata"].get("ownerReferences") or []
    return next((reference for reference in references if reference.get("controller")), None)


def owner_reference(kind: str, owner: Record) -> Json:
    """The reference by which an object names what manages it."""
    return {
        "apiVersion": "apps/v1",
        "kind": kind,
        "name": owner.name,
        "uid": owner.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }


def claim(
    core: Core, owner: Record, kind: str, found: Sequence[Record], by: WriteOptions
) -> tuple[list[Record], list[Change]]:
    """Those of `found` that `owner` manages.

    What its selector finds and nobody manages is adopted, what it no longer finds is let go. One that is being deleted
    adopts nothing.
    """
    test = label_selector(owner.body["spec"].get("selector") or {})
    going = "deletionTimestamp" in owner.body["metadata"]
    claimed: list[Record] = []
    changes: list[Change] = []
    for record in found:
        metadata = record.body["metadata"]
        manager, matches = controller_of(record), test(metadata.get("labels") or {})
        references = metadata.get("ownerReferences") or []
        if manager is not None and manager["uid"] == owner.uid:
            if matches:
                claimed.append(record)
            elif not going:
                kept = [reference for reference in references if reference["uid"] != owner.uid]
                changes += _own(core, record, kept, by)
        elif manager is None and matches and not going and "deletionTimestamp" not in metadata:
            adopted = _own(core, record, [*references, owner_reference(kind, owner)], by)
            changes += adopted
            claimed += [change.record for change in adopted]
    return claimed, changes


def _own(core: Core, record: Record, references: list[Json], by: WriteOptions) -> list[Change]:
    guard = {"uid": record.uid, "resourceVersion": record.body["metadata"]["resourceVersion"]}
    return write(core, record, {"metadata": {**guard, "ownerReferences": references}}, by)


def write(core: Core, record: Record, patch: Json, by: WriteOptions, *, subresource: str = "") -> list[Change]:
    """A merge patch of an object, as one of a cluster's controllers."""
    outcome = updates.patch(
        core,
        core.registry.by_key(record.resource),
        record.namespace,
        record.name,
        content_type=patches.MERGE,
        patch=patch,
        subresource=subresource,
        options=by,
    )
    return list(outcome.changes)


def is_active(pod: Record) -> bool:
    """Whether a Pod counts as a replica."""
    phase = (pod.body.get("status") or {}).get("phase")
    return phase not in _TERMINAL and "deletionTimestamp" not in pod.body["metadata"]


def victims(pods: Sequence[Record], count: int, now: datetime) -> list[Record]:
    """The Pods that go first: unassigned, pending, not ready, cheap to lose, many on a node, late, often restarted."""
    if count >= len(pods):
        return list(pods)
    per_node: dict[str, int] = {}
    for pod in pods:
        node = pod.body["spec"].get("nodeName") or ""
        per_node[node] = per_node.get(node, 0) + 1

    def rank(pod: Record) -> tuple[Any, ...]:
        node, status = pod.body["spec"].get("nodeName") or "", pod.body.get("status") or {}
        ready = is_ready(pod)
        restarts = max((entry.get("restartCount", 0) for entry in status.get("containerStatuses") or ()), default=0)
        return (
            bool(node),
            _PHASES.get(status.get("phase", ""), 1),
            ready,
            _cost(pod),
            -per_node[node],
            _since(_ready_since(pod), now) if ready else 0.0,
            -restarts,
            _since(pod.body["metadata"]["creationTimestamp"], now),
        )

    return sorted(pods, key=rank)[:count]


def _cost(pod: Record) -> int:
    text = (pod.body["metadata"].get("annotations") or {}).get(DELETION_COST, "0")
    try:
        return int(text)
    except ValueError:
        return 0


def _ready_since(pod: Record) -> str:
    conditions = (pod.body.get("status") or {}).get("conditions") or ()
    found = next((c.get("lastTransitionTime") for c in conditions if c["type"] == "Ready"), None)
    return str(found or pod.body["metadata"]["creationTimestamp"])


def _since(text: str, now: datetime) -> float:
    return (now - datetime.fromisoformat(text)).total_seconds()


class ReplicaSets:
    """The controller. It keeps nothing but its randomness."""

    def __init__(self, core: Core, rng: random.Random) -> None:
        self._core = core
        self._rng = rng

    def sync(self, replica_set: Record, now: datetime) -> tuple[list[Change], bool]:
        """One step of one ReplicaSet; whether it is to be tried again, because something was refused."""
        core = self._core
        pods = [pod for pod in core.versions.collection("pods").current(replica_set.namespace) if is_active(pod)]
        owned, changes = claim(core, replica_set, "ReplicaSet", pods, _BY)
        problem: tuple[str, str] | None = None
        if "deletionTimestamp" not in replica_set.body["metadata"]:
            missing = replica_set.body["spec"]["replicas"] - len(owned)
            more, problem = self._manage(replica_set, owned, missing, now)
            changes += more
        owned = [pod for old in owned if (pod := core.versions.by_uid(old.uid)) is not None and is_active(pod)]
        made = [c.record for c in changes if c.record.resource == "pods" and c.previous is None]
        changes += self._tell(replica_set, [*owned, *made], problem, now)
        return changes, problem is not None

    def _manage(
        self, replica_set: Record, owned: list[Record], missing: int, now: datetime
    ) -> tuple[list[Change], tuple[str, str] | None]:
        changes: list[Change] = []
        try:
            for _ in range(missing):
                changes += self._create(replica_set, now)
        except ApiError as error:
            return changes, ("FailedCreate", error.message)
        problem = None
        for pod in victims(owned, -missing, now) if missing < 0 else ():
            try:
                options = DeleteOptions(user=REPLICASET_CONTROLLER)
                changes += delete(self._core, pod, options, now).changes
            except ApiError as error:
                problem = ("FailedDelete", error.message)
        return changes, problem

    def _create(self, replica_set: Record, now: datetime) -> list[Change]:
        template = replica_set.body["spec"]["template"]
        given = template["metadata"]
        metadata = {name: given[name] for name in ("labels", "annotations", "finalizers") if given.get(name)}
        metadata["generateName"] = f"{replica_set.name}-"
        metadata["ownerReferences"] = [owner_reference("ReplicaSet", replica_set)]
        document = {"kind": "Pod", "apiVersion": "v1", "metadata": metadata, "spec": template["spec"]}
        core = self._core
        outcome = creation.create(
            core,
            core.registry.by_key("pods"),
            replica_set.namespace,
            document,
            now=now,
            rng=self._rng,
            options=_BY,
        )
        return list(outcome.changes)

    def _tell(
        self, replica_set: Record, pods: list[Record], problem: tuple[str, str] | None, now: datetime
    ) -> list[Change]:
        current = self._core.versions.by_uid(replica_set.uid)
        if current is None or current.resource != REPLICASETS:
            return []
        wanted = current.body["spec"]["template"]["metadata"].get("labels") or {}
        ready = sum(is_ready(pod) for pod in pods)
        labelled = sum((pod.body["metadata"].get("labels") or {}).items() >= wanted.items() for pod in pods)
        counts = {"fullyLabeledReplicas": labelled, "readyReplicas": ready, "availableReplicas": ready}
        status: Json = {"replicas": len(pods), **{name: count for name, count in counts.items() if count}}
        status["terminatingReplicas"] = self._terminating(current)
        status["observedGeneration"] = current.body["metadata"]["generation"]
        old = current.body.get("status") or {}
        if problem is not None:
            reason, message = problem
            known = next(iter(old.get("conditions") or ()), None)
            if known is not None and known["reason"] == reason:
                status["conditions"] = [{**known, "message": message}]
            else:
                condition = {"type": "ReplicaFailure", "status": "True", "lastTransitionTime": stamp(now)}
                status["conditions"] = [{**condition, "reason": reason, "message": message}]
        return tell(self._core, current, status, _BY)

    def _terminating(self, replica_set: Record) -> int:
        """Its Pods that are being deleted and have not ended."""
        dependents = self._core.versions.dependents(replica_set.uid)
        return sum(
            record.resource == "pods"
            and "deletionTimestamp" in record.body["metadata"]
            and (record.body.get("status") or {}).get("phase") not in _TERMINAL
            for record in dependents
        )


def tell(core: Core, record: Record, status: Json, by: WriteOptions) -> list[Change]:
    """Write a status that says something new."""
    old = record.body.get("status") or {}
    if old == status:
        return []
    return write(
        core, record, {"status": {**dict.fromkeys(old.keys() - status.keys()), **status}}, by, subresource="status"
    )
