"""A cluster's taint manager: deletes a node's Pods that do not tolerate its NoExecute taints, or not that long."""

import asyncio
import logging
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta

from controller.local.node.client import MERGE_PATCH, ApiClient, ApiRefusedError, ApiUnavailableError, Reflector
from controller.local.node.events import EventRecorder
from controller.local.node.pods.pod_spec import Json
from controller.local.node.pods.pod_status import timestamp

LOOK_SECONDS = 0.2  # only the two caches are looked at
REASON = "TaintManagerEviction"
_log = logging.getLogger(__name__)


def tolerates(toleration: Json, taint: Json) -> bool:
    """Whether a toleration is for a taint: `Toleration.ToleratesTaint` of Kubernetes."""
    if toleration.get("effect") not in (None, "", taint["effect"]):
        return False
    if toleration.get("key") not in (None, "", taint["key"]):
        return False
    if toleration.get("operator") == "Exists":
        return True
    return bool(toleration.get("key")) and (toleration.get("value") or "") == (taint.get("value") or "")


def tolerated_seconds(tolerations: Iterable[Json], taints: Iterable[Json]) -> float | None:
    """How long a Pod bears these taints: 0 if one is not tolerated, else the least of the limits; None for ever."""
    least: float | None = None
    given = list(tolerations)
    for taint in taints:
        fitting = [toleration for toleration in given if tolerates(toleration, taint)]
        if not fitting:
            return 0.0
        limits = [max(0.0, t["tolerationSeconds"]) for t in fitting if t.get("tolerationSeconds") is not None]
        if limits:
            least = min(limits) if least is None else min(least, *limits)
    return least


class TaintEvictions:
    """Looks at the node's taints and at its Pods, and deletes those whose time is over."""

    def __init__(
        self, client: ApiClient, events: EventRecorder, pods: Reflector, *, now: Callable[[], datetime]
    ) -> None:
        self._client = client
        self._events = events
        self._pods = pods
        self._now = now
        self._since: datetime | None = None

    async def run(self, node: Callable[[], Json | None]) -> None:
        """Look every so often, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            found = node()
            taints = [t for t in ((found or {}).get("spec") or {}).get("taints") or () if t["effect"] == "NoExecute"]
            if found is None or not taints:
                self._since = None
                continue
            self._since = self._since or self._now()
            for pod in list(self._pods.objects.values()):
                if pod["spec"].get("nodeName") == found["metadata"]["name"]:
                    await self._look(pod, taints, self._since)

    async def _look(self, pod: Json, taints: list[Json], since: datetime) -> None:
        if pod["metadata"].get("deletionTimestamp"):
            return
        seconds = tolerated_seconds(pod["spec"].get("tolerations") or (), taints)
        if seconds is None or self._now() < since + timedelta(seconds=seconds):
            return
        try:
            await self._evict(pod)
        except (ApiRefusedError, ApiUnavailableError) as error:
            if not isinstance(error, ApiRefusedError) or error.status not in {404, 409}:
                _log.warning("Pod not evicted: pod=%s error=%s", pod["metadata"]["name"], error)

    async def _evict(self, pod: Json) -> None:
        """Say why in the Pod's status, where it stays, then delete it."""
        metadata = pod["metadata"]
        path = f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}"
        condition = {
            "type": "DisruptionTarget",
            "status": "True",
            "reason": "DeletionByTaintManager",
            "message": "Taint manager: deleting due to NoExecute taint",
            "lastTransitionTime": timestamp(self._now()),
        }
        others = [c for c in (pod.get("status") or {}).get("conditions") or () if c["type"] != condition["type"]]
        # Conditions are written as one list: a 409 says that another wrote them in between, and is tried again.
        known = {"uid": metadata["uid"], "resourceVersion": metadata["resourceVersion"]}
        body = {"metadata": known, "status": {"conditions": [*others, condition]}}
        await self._client.request("PATCH", f"{path}/status", body, content_type=MERGE_PATCH)
        options = {"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": metadata["uid"]}}
        await self._client.request("DELETE", path, options)
        self._events.pod(pod, REASON, f"Marking for deletion Pod {metadata['namespace']}/{metadata['name']}")
