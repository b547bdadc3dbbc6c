"""Binds Pods to the one node, while it is ready and not cordoned."""

import logging
from collections.abc import Mapping
from typing import Any

from controller.local.node.client import MERGE_PATCH, ApiClient, ApiRefusedError, ApiUnavailableError, Key
from controller.local.node.events import EventRecorder
from controller.local.node.pods.pod_spec import Json
from controller.local.node.pods.pod_status import TERMINAL_PHASES

NAME = "default-scheduler"
_log = logging.getLogger(__name__)


def wants_node(pod: Json) -> bool:
    """Whether the Pod is for us to bind: unbound, alive, not gated, and asking for the default scheduler."""
    metadata, spec, shown = pod["metadata"], pod["spec"], pod.get("status") or {}
    return (
        not spec.get("nodeName")
        and not metadata.get("deletionTimestamp")
        and not spec.get("schedulingGates")
        and (spec.get("schedulerName") or NAME) == NAME
        and shown.get("phase") not in TERMINAL_PHASES
    )


def refusal(node: Json | None, pod: Json) -> str | None:
    """Why the node does not take the Pod, in the scheduler's words; None if it does."""
    reason = None
    if node is None:
        reason = "node(s) not found"
    elif (node["spec"] or {}).get("unschedulable") and not _tolerates(pod, "node.kubernetes.io/unschedulable"):
        reason = "node(s) were unschedulable"
    elif not is_ready(node):
        reason = "node(s) had untolerated taint {node.kubernetes.io/not-ready: }"
    else:
        labels = node["metadata"].get("labels") or {}
        selector = pod["spec"].get("nodeSelector") or {}
        if any(labels.get(key) != value for key, value in selector.items()):
            reason = "node(s) didn't match Pod's node affinity/selector"
    return None if reason is None else f"0/1 nodes are available: 1 {reason}."


def is_ready(node: Json) -> bool:
    """Whether the Node's Ready condition is True."""
    conditions = (node.get("status") or {}).get("conditions") or ()
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def _tolerates(pod: Json, taint: str) -> bool:
    return any(
        t.get("operator") == "Exists" and t.get("key") in {None, "", taint}
        for t in pod["spec"].get("tolerations") or ()
    )


class Scheduler:
    """Binds, or says why not."""

    def __init__(self, client: ApiClient, events: EventRecorder, node_name: str) -> None:
        self._client = client
        self._events = events
        self._node_name = node_name

    async def schedule(self, pods: Mapping[Key, Json], node: Json | None) -> bool:
        """Go through all Pods once; False if one has to be tried again although nothing changed."""
        settled = True
        for pod in list(pods.values()):
            if wants_node(pod):
                try:
                    await self._schedule_one(pod, refusal(node, pod))
                except ApiRefusedError as error:
                    if error.status not in {404, 409}:  # gone or bound by someone else: the watch will tell
                        settled = False
                        _log.warning("Pod not bound: pod=%s error=%s", pod["metadata"]["name"], error)
                except ApiUnavailableError as error:
                    settled = False
                    _log.warning("Pod not bound: pod=%s error=%s", pod["metadata"]["name"], error)
        return settled

    async def _schedule_one(self, pod: Json, refused: str | None) -> None:
        metadata = pod["metadata"]
        namespace, name = metadata["namespace"], metadata["name"]
        path = f"/api/v1/namespaces/{namespace}/pods/{name}"
        if refused is not None:
            await self._show_refusal(pod, path, refused)
            return
        body: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": name, "namespace": namespace, "uid": metadata["uid"]},
            "target": {"apiVersion": "v1", "kind": "Node", "name": self._node_name},
        }
        await self._client.request("POST", f"{path}/binding", body)
        self._events.pod(pod, "Scheduled", f"Successfully assigned {namespace}/{name} to {self._node_name}")

    async def _show_refusal(self, pod: Json, path: str, refused: str) -> None:
        conditions = (pod.get("status") or {}).get("conditions") or []
        if any(c["type"] == "PodScheduled" and c.get("message") == refused for c in conditions):
            return
        condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": refused}
        others = [c for c in conditions if c["type"] != "PodScheduled"]
        body = {"metadata": {"uid": pod["metadata"]["uid"]}, "status": {"conditions": [*others, condition]}}
        await self._client.request("PATCH", f"{path}/status", body, content_type=MERGE_PATCH)
        self._events.pod(pod, "FailedScheduling", refused, warning=True)
