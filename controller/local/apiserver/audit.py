"""The audit log: one JSON line a request, shaped like an audit.k8s.io/v1 Event, written before the answer is sent.

A write has a line of stage RequestReceived as well, from before it takes effect: the server can be killed in between.
Like the real one's it tells no outcome; unlike that it has the request's object, as no other line may come.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import orjson

from controller.local.apiserver.requests import RequestInfo

Json = dict[str, Any]

WRITES = frozenset({"create", "update", "patch", "delete", "deletecollection"})
_REDACTED = "REDACTED"


class AuditSink(Protocol):
    """Where lines go."""

    def write(self, line: bytes) -> None:
        """Takes a line; it survives a kill of the process once this returns."""


class FileAudit:
    """Appends to a file; each line is one write(2), so a killed process loses none it had written."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def write(self, line: bytes) -> None:
        """Appends the line."""
        os.write(self._descriptor, line)

    def close(self) -> None:
        """Closes the file."""
        os.close(self._descriptor)


@dataclass(slots=True)
class AuditEntry:
    """What is known of one request while it is handled."""

    audit_id: str
    info: RequestInfo
    uri: str
    user: str
    user_agent: str
    source: str
    received: datetime
    # Whom the user stands in for.
    impersonated: str = ""
    code: int = 0
    # The object as it was when the request was done with it.
    uid: str = ""
    version: str = ""
    name: str = ""
    body: Any = None
    annotations: dict[str, str] = field(default_factory=dict)

    def line(self, now: datetime, *, complete: bool = True) -> bytes:
        """The entry as one JSON line, of a request that is carried out now or is `complete`."""
        event: Json = {
            "kind": "Event",
            "apiVersion": "audit.k8s.io/v1",
            "level": "Request" if self.info.verb in WRITES else "Metadata",
            "auditID": self.audit_id,
            "stage": "ResponseComplete" if complete else "RequestReceived",
            "requestURI": self.uri,
            "verb": self.info.verb,
            "user": {"username": self.user},
            "sourceIPs": [self.source],
            "userAgent": self.user_agent,
        }
        if self.impersonated:
            event["impersonatedUser"] = {"username": self.impersonated}
        if self.info.is_resource:
            event["objectRef"] = self._object_ref()
        if complete:
            event["responseStatus"] = {"code": self.code}
        if self.info.verb in WRITES and self.body is not None:
            event["requestObject"] = redact(self.info.plural, self.body)
        event["requestReceivedTimestamp"] = _micro(self.received)
        event["stageTimestamp"] = _micro(now)
        event["annotations"] = self.annotations
        return orjson.dumps(event) + b"\n"

    def _object_ref(self) -> Json:
        info = self.info
        reference = {
            "resource": info.plural,
            "namespace": info.namespace or (info.name if info.plural == "namespaces" else ""),
            "name": info.name or self.name,
            "uid": self.uid,
            "apiGroup": info.group,
            "apiVersion": info.version,
            "resourceVersion": self.version,
            "subresource": info.subresource,
        }
        return {key: value for key, value in reference.items() if value}


def redact(plural: str, body: Any) -> Any:
    """A request body without the contents of Secrets."""
    if plural != "secrets":
        return body
    if isinstance(body, list):  # a JSON patch: any of its values may be secret
        return [
            {**step, "value": _REDACTED} if isinstance(step, Mapping) and "value" in step else step for step in body
        ]
    if not isinstance(body, Mapping):
        return _REDACTED
    hidden = {}
    for part in ("data", "stringData"):
        if part in body:
            value = body[part]
            hidden[part] = dict.fromkeys(value, _REDACTED) if isinstance(value, Mapping) else _REDACTED
    cleaned = {**body, **hidden}
    annotations = (cleaned.get("metadata") or {}).get("annotations") or {}
    if "kubectl.kubernetes.io/last-applied-configuration" in annotations:
        annotations = {**annotations, "kubectl.kubernetes.io/last-applied-configuration": _REDACTED}
        cleaned["metadata"] = {**cleaned["metadata"], "annotations": annotations}
    return cleaned


def _micro(time: datetime) -> str:
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
