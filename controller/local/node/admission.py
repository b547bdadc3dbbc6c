"""Whether this node takes a Pod that was bound to it. A kubelet looks again at what the scheduler decided."""

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime

from controller.local.node.client import MERGE_PATCH, ApiClient, ApiRefusedError, ApiUnavailableError
from controller.local.node.events import EventRecorder
from controller.local.node.node_faults import NodeFaults, Refusal
from controller.local.node.pods.pod_spec import Json
from controller.local.node.pods.pod_status import TERMINAL_PHASES, timestamp
from controller.local.node.tasks import TaskSet

RETRY_SECONDS = 0.5
_log = logging.getLogger(__name__)


class Admission:
    """Refuses Pods by a switch, as a real kubelet does with OutOfcpu, NodeAffinity or UnexpectedAdmissionError."""

    def __init__(
        self, client: ApiClient, events: EventRecorder, faults: NodeFaults, *, now: Callable[[], datetime]
    ) -> None:
        self._client = client
        self._events = events
        self._faults = faults
        self._now = now
        self._told: set[str] = set()
        self._tasks = TaskSet(lambda: None)

    def refuses(self, pod: Json) -> bool:
        """Whether a Pod that does not run here yet never will: refused now or before, or ended elsewhere."""
        metadata = pod["metadata"]
        if metadata.get("deletionTimestamp"):
            return False
        if metadata["uid"] in self._told or (pod.get("status") or {}).get("phase") in TERMINAL_PHASES:
            return True
        refusal = self._faults.refusal(metadata["name"])
        if refusal is None:
            return False
        self._told.add(metadata["uid"])
        self._tasks.spawn(self._refuse(pod, refusal), f"refuse {metadata['name']}")
        return True

    async def close(self) -> None:
        """Stop writing refusals into Pods."""
        await self._tasks.close()

    async def _refuse(self, pod: Json, refusal: Refusal) -> None:
        """The Pod is Failed at once. Its containers have no status, as on a real node: none ever was."""
        metadata = pod["metadata"]
        status = {
            "phase": "Failed",
            "reason": refusal.reason,
            "message": f"Pod was rejected: {refusal.message}",
            "startTime": timestamp(self._now()),
        }
        path = f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}/status"
        body = {"metadata": {"uid": metadata["uid"]}, "status": status}
        self._events.pod(pod, refusal.reason, refusal.message, warning=True)
        while True:
            await self._faults.passable()
            try:
                await self._client.request("PATCH", path, body, content_type=MERGE_PATCH)
            except ApiRefusedError as error:
                if error.status in {404, 409}:  # gone or replaced
                    return
                _log.warning("Pod not refused: pod=%s error=%s", metadata["name"], error)
            except ApiUnavailableError as error:
                _log.warning("Pod not refused: pod=%s error=%s", metadata["name"], error)
            else:
                return
            await asyncio.sleep(RETRY_SECONDS)
