"""Kubernetes Events of the kubelet and scheduler. Best effort: what cannot be written is dropped."""

import asyncio
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from controller.local.node.client import MERGE_PATCH, ApiClient, ApiRefusedError, ApiUnavailableError
from controller.local.node.pods.pod_spec import Json
from controller.local.node.pods.pod_status import timestamp

QUEUE_LIMIT = 1000
REMEMBERED_LIMIT = 4096  # events that a repetition still counts up
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Event:
    """What makes two events the same one, counted."""

    kind: str
    namespace: str
    name: str
    uid: str
    field_path: str
    event_type: str
    reason: str
    message: str


@dataclass(frozen=True)
class _Written:
    name: str
    count: int


class EventRecorder:
    """Writes events in order, from one task. A repeated event raises the first one's count."""

    def __init__(
        self, client: ApiClient, component: str, host: str, *, now: Callable[[], datetime], rng: random.Random
    ) -> None:
        self._client = client
        self._source = {"component": component, "host": host}
        self._now = now
        self._rng = rng
        self._queue: asyncio.Queue[_Event] = asyncio.Queue(QUEUE_LIMIT)
        self._written: dict[_Event, _Written] = {}

    def pod(self, pod: Json, reason: str, message: str, *, container: str = "", warning: bool = False) -> None:
        """Note an event of a Pod, or of one of its containers."""
        metadata = pod["metadata"]
        path = f"spec.containers{{{container}}}" if container else ""
        kind = "Warning" if warning else "Normal"
        event = _Event(
            "Pod", metadata["namespace"], metadata["name"], metadata["uid"], path, kind, reason, message[:1024]
        )
        try:
            self._queue.put_nowait(event)
        except asyncio.QueueFull:
            _log.warning("event dropped: reason=%s pod=%s", reason, metadata["name"])

    async def run(self) -> None:
        """Write what is noted. Ends only by cancellation."""
        while True:
            event = await self._queue.get()
            try:
                await self._write(event)
            except (ApiRefusedError, ApiUnavailableError) as error:
                _log.warning("event not written: reason=%s pod=%s error=%s", event.reason, event.name, error)
                self._written.pop(event, None)

    async def _write(self, event: _Event) -> None:
        at = timestamp(self._now())
        path = f"/api/v1/namespaces/{event.namespace}/events"
        written = self._written.get(event)
        if written is not None:
            written = replace(written, count=written.count + 1)
            body: dict[str, Any] = {"count": written.count, "lastTimestamp": at}
            await self._client.request("PATCH", f"{path}/{written.name}", body, content_type=MERGE_PATCH)
        else:
            written = _Written(f"{event.name}.{self._rng.getrandbits(64):016x}", 1)
            await self._client.request("POST", path, self._document(event, written.name, at))
            if len(self._written) >= REMEMBERED_LIMIT:
                self._written.clear()
        self._written[event] = written

    def _document(self, event: _Event, name: str, at: str) -> dict[str, Any]:
        involved = {
            "kind": event.kind,
            "apiVersion": "v1",
            "namespace": event.namespace,
            "name": event.name,
            "uid": event.uid,
        }
        if event.field_path:
            involved["fieldPath"] = event.field_path
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": event.namespace},
            "involvedObject": involved,
            "type": event.event_type,
            "reason": event.reason,
            "message": event.message,
            "source": self._source,
            "reportingComponent": self._source["component"],
            "reportingInstance": self._source["host"],
            "firstTimestamp": at,
            "lastTimestamp": at,
            "count": 1,
        }
