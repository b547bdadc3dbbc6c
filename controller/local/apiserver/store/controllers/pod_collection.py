"""Pod garbage collection: Pods whose node has gone, or is said to be out of service.

After k8s.io/kubernetes/pkg/controller/podgc. Nobody runs such a Pod's containers or can say how they ended: it is
marked Failed, which is no proof of their death, and then deleted.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from controller.local.apiserver.errors import ApiError
from controller.local.apiserver.store import patches, updates
from controller.local.apiserver.store.core import Core
from controller.local.apiserver.store.deletion import DeleteOptions, delete
from controller.local.apiserver.store.outcomes import WriteOptions, stamp
from controller.local.apiserver.store.users import POD_COLLECTOR
from controller.local.apiserver.store.versions import Change, Record

Json = dict[str, Any]

# A node's object may come back: its Pods are left alone for so long.
_QUARANTINE = timedelta(seconds=40)
_OUT_OF_SERVICE = "node.kubernetes.io/out-of-service"
_TERMINAL = ("Failed", "Succeeded")


class PodCollector:
    """Remembers since when nodes have been missing."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._missing: dict[str, datetime] = {}

    def collect(self, now: datetime) -> tuple[Change, ...]:
        """Deletes what is to go now. Called every now and then."""
        nodes = {node.name: node for node in self._core.versions.collection("nodes").current("")}
        for name in nodes:
            self._missing.pop(name, None)
        changes: list[Change] = []
        for pod, orphaned in list(self._doomed(nodes, now)):
            try:
                changes += self._end(pod, now, orphaned=orphaned)
            except ApiError:
                continue  # a policy holds it back; it is tried again
        return tuple(changes)

    def _doomed(self, nodes: dict[str, Record], now: datetime) -> Iterator[tuple[Record, bool]]:
        for pod in self._core.versions.collection("pods").current(""):
            name = pod.body["spec"].get("nodeName")
            if not name:
                continue
            node = nodes.get(name)
            if node is None:
                if now - self._missing.setdefault(name, now) >= _QUARANTINE:
                    yield pod, True
            elif "deletionTimestamp" in pod.body["metadata"] and _is_out_of_service(node):
                yield pod, False

    def _end(self, pod: Record, now: datetime, *, orphaned: bool) -> list[Change]:
        changes: list[Change] = []
        status = pod.body.get("status") or {}
        if status.get("phase") not in _TERMINAL:
            changes += self._fail(pod, status, now, orphaned=orphaned)
        current = self._core.versions.by_uid(pod.uid) or pod
        options = DeleteOptions(grace_seconds=0, user=POD_COLLECTOR)
        return [*changes, *delete(self._core, current, options, now).changes]

    def _fail(self, pod: Record, status: Json, now: datetime, *, orphaned: bool) -> tuple[Change, ...]:
        failed: Json = {"phase": "Failed"}
        if orphaned:
            condition = {
                "type": "DisruptionTarget",
                "status": "True",
                "lastTransitionTime": stamp(now),
                "reason": "DeletionByPodGC",
                "message": "PodGC: node no longer exists",
            }
            others = [c for c in status.get("conditions") or () if c["type"] != condition["type"]]
            failed["conditions"] = [*others, condition]
        return updates.patch(
            self._core,
            self._core.registry.by_key("pods"),
            pod.namespace,
            pod.name,
            content_type=patches.MERGE,
            patch={"status": failed},
            subresource="status",
            options=WriteOptions(user=POD_COLLECTOR),
        ).changes


def _is_out_of_service(node: Record) -> bool:
    taints = (node.body.get("spec") or {}).get("taints") or ()
    conditions = (node.body.get("status") or {}).get("conditions") or ()
    ready = any(c["type"] == "Ready" and c.get("status") == "True" for c in conditions)
    return not ready and any(taint["key"] == _OUT_OF_SERVICE for taint in taints)
