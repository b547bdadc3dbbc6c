"""The Node object: registered and kept alive by its kubelet, called NotReady by the node controller."""

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from controller.local.node.client import MERGE_PATCH, ApiClient, ApiRefusedError, ApiUnavailableError
from controller.local.node.config import KubeletConfig
from controller.local.node.node_faults import NodeFaults
from controller.local.node.pods.pod_spec import Json
from controller.local.node.pods.pod_status import timestamp
from controller.local.node.scheduler import is_ready

NODE_LEASES = "kube-node-lease"
RETRY_SECONDS = 0.5
LOOK_SECONDS = 0.2  # costs nothing while the kubelet is well: it is in this process
UNREACHABLE = "node.kubernetes.io/unreachable"
_log = logging.getLogger(__name__)


class NodeAgent:
    """The kubelet's side: registers the Node and renews its Lease."""

    def __init__(
        self,
        client: ApiClient,
        config: KubeletConfig,
        faults: NodeFaults,
        *,
        node_ip: str,
        now: Callable[[], datetime],
    ) -> None:
        self.registered = asyncio.Event()
        self._client = client
        self._config = config
        self._faults = faults
        self._node_ip = node_ip
        self._now = now

    async def run(self) -> None:
        """Heartbeats until cancelled. An API server that is away is asked again soon."""
        while True:
            await self._faults.passable()
            pause = self._config.heartbeat_seconds
            try:
                await self._register()
                await self._renew()
                self.registered.set()
            except (ApiRefusedError, ApiUnavailableError) as error:
                _log.warning("heartbeat failed: error=%s", error)
                pause = RETRY_SECONDS
            self._faults.changed.clear()
            try:
                async with asyncio.timeout(pause):
                    await self._faults.changed.wait()  # thawed: be Ready again at once
            except TimeoutError:
                continue

    async def _register(self) -> None:
        """Make the Node, and its status Ready; a Node that is as it should be is left alone."""
        name = self._config.node_name
        path = f"/api/v1/nodes/{name}"
        try:
            node = await self._client.request("GET", path)
        except ApiRefusedError as error:
            if error.status != 404:  # noqa: PLR2004 - not found
                raise
            labels = {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux"}
            body = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}, "spec": {}}
            node = await self._client.request("POST", "/api/v1/nodes", body)
        addresses = [{"type": "InternalIP", "address": self._node_ip}, {"type": "Hostname", "address": name}]
        if not is_ready(node) or (node.get("status") or {}).get("addresses") != addresses:
            condition = ready_condition("True", "KubeletReady", "kubelet is posting ready status", self._now())
            status = {
                "conditions": [condition],
                "addresses": addresses,
                "capacity": dict(self._config.capacity),
                "allocatable": dict(self._config.capacity),
                "nodeInfo": {"kubeletVersion": "local", "operatingSystem": "linux"},
            }
            await self._client.request("PATCH", f"{path}/status", {"status": status}, content_type=MERGE_PATCH)
        taints = (node.get("spec") or {}).get("taints") or []
        kept = [taint for taint in taints if taint["key"] != UNREACHABLE]
        if kept != taints:
            await self._client.request("PATCH", path, {"spec": {"taints": kept}}, content_type=MERGE_PATCH)

    async def _renew(self) -> None:
        name = self._config.node_name
        collection = f"/apis/coordination.k8s.io/v1/namespaces/{NODE_LEASES}/leases"
        spec: dict[str, Any] = {
            "holderIdentity": name,
            "leaseDurationSeconds": int(self._config.node_grace_seconds) or 1,
            "renewTime": self._now().astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        }
        try:
            await self._client.request("PATCH", f"{collection}/{name}", {"spec": spec}, content_type=MERGE_PATCH)
        except ApiRefusedError as error:
            if error.status != 404:  # noqa: PLR2004 - not found
                raise
            body = {
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "metadata": {"name": name, "namespace": NODE_LEASES},
                "spec": spec,
            }
            await self._client.request("POST", collection, body)


class NodeController:
    """The cluster's side: a node whose Lease is old is unreachable, and its Pods are not ready."""

    def __init__(
        self, client: ApiClient, config: KubeletConfig, faults: NodeFaults, now: Callable[[], datetime]
    ) -> None:
        self._client = client
        self._config = config
        self._faults = faults
        self._now = now

    async def run(self) -> None:
        """Look every so often, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                await self._look()
            except (ApiRefusedError, ApiUnavailableError) as error:
                _log.warning("node not checked: error=%s", error)

    async def _look(self) -> None:
        name = self._config.node_name
        if not self._faults.lost:
            if not self._faults.frozen:
                return  # the kubelet is in this process: it renews, or the API server is away for us as well
            path = f"/apis/coordination.k8s.io/v1/namespaces/{NODE_LEASES}/leases/{name}"
            lease = await self._client.request("GET", path)
            renewed = datetime.fromisoformat(lease["spec"]["renewTime"])
            if self._now() - renewed < timedelta(seconds=self._config.node_grace_seconds):
                return
        node = await self._client.request("GET", f"/api/v1/nodes/{name}")
        if is_ready(node):
            await self._call_unreachable(node)

    async def _call_unreachable(self, node: Json) -> None:
        name, at = self._config.node_name, self._now()
        condition = ready_condition("Unknown", "NodeStatusUnknown", "Kubelet stopped posting node status.", at)
        path = f"/api/v1/nodes/{name}"
        await self._client.request(
            "PATCH", f"{path}/status", {"status": {"conditions": [condition]}}, content_type=MERGE_PATCH
        )
        taints = [taint for taint in (node["spec"] or {}).get("taints") or () if taint["key"] != UNREACHABLE]
        taints += [{"key": UNREACHABLE, "effect": effect} for effect in ("NoSchedule", "NoExecute")]
        await self._client.request("PATCH", path, {"spec": {"taints": taints}}, content_type=MERGE_PATCH)
        for pod in (await self._client.request("GET", "/api/v1/pods"))["items"]:
            if pod["spec"].get("nodeName") == name:
                await self._mark_not_ready(pod)

    async def _mark_not_ready(self, pod: Json) -> None:
        """Conditions are written as one list, so another's writing in between is read before it is written over."""
        metadata = pod["metadata"]
        path = f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}"
        while (changed := self._not_ready(pod)) is not None:
            known = {"uid": metadata["uid"], "resourceVersion": pod["metadata"]["resourceVersion"]}
            body = {"metadata": known, "status": {"conditions": changed}}
            try:
                await self._client.request("PATCH", f"{path}/status", body, content_type=MERGE_PATCH)
            except ApiRefusedError as error:
                if error.status not in {404, 409}:
                    raise
            else:
                return
            again = await self._found(path)
            if again is None or again["metadata"]["uid"] != metadata["uid"]:
                return
            pod = again

    async def _found(self, path: str) -> Json | None:
        try:
            return await self._client.request("GET", path)
        except ApiRefusedError as error:
            if error.status == 404:  # noqa: PLR2004 - not found
                return None
            raise

    def _not_ready(self, pod: Json) -> list[Json] | None:
        """The Pod's conditions with a Ready that is False; None if it is."""
        conditions: list[Json] = (pod.get("status") or {}).get("conditions") or []
        lost = {"status": "False", "reason": "NodeNotReady", "lastTransitionTime": timestamp(self._now())}
        if not any(c["type"] == "Ready" and c["status"] == "True" for c in conditions):
            return None
        return [{**c, **lost} if c["type"] == "Ready" else c for c in conditions]


def ready_condition(value: str, reason: str, message: str, at: datetime) -> dict[str, Any]:
    """A Node's Ready condition."""
    return {
        "type": "Ready",
        "status": value,
        "reason": reason,
        "message": message,
        "lastHeartbeatTime": timestamp(at),
        "lastTransitionTime": timestamp(at),
    }
