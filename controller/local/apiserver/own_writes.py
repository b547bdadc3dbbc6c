"""The writes of controllers that are part of the server here, as the audit log of a real one shows them: requests."""

from __future__ import annotations

from datetime import datetime

from controller.local.apiserver.audit import AuditEntry
from controller.local.apiserver.requests import RequestInfo
from controller.local.apiserver.store.registry import Resource
from controller.local.apiserver.store.users import DEPLOYMENT_CONTROLLER, REPLICASET_CONTROLLER
from controller.local.apiserver.store.versions import Change, ChangeType

_CODES = {"create": 201}


def audit_entry(change: Change, resource: Resource, now: datetime) -> AuditEntry:
    """The entry of a change by the controllers of Deployments and ReplicaSets."""
    record = change.record
    verb = _verb(change)
    root = f"apis/{resource.group}" if resource.group else "api"
    path = f"/{root}/{resource.version}/namespaces/{record.namespace}/{resource.plural}"
    name = "" if verb == "create" else record.name
    info = RequestInfo(
        verb, path, resource.group, resource.version, resource.plural, namespace=record.namespace, name=name
    )
    user = REPLICASET_CONTROLLER if resource.key == "pods" else DEPLOYMENT_CONTROLLER
    return AuditEntry(
        audit_id=f"{resource.plural}-{change.version}",
        info=info,
        uri=f"{path}/{name}" if name else path,
        user=user.name,
        user_agent="embedded",
        source="127.0.0.1",
        received=now,
        code=_CODES.get(verb, 200),
        uid=record.uid,
        version=record.body["metadata"].get("resourceVersion", ""),
        name=record.name,
        body={"kind": resource.kind, "apiVersion": resource.api_version, **record.body} if verb != "delete" else None,
    )


def _verb(change: Change) -> str:
    before = change.previous
    if before is None:
        return "create"
    goes = "deletionTimestamp" in change.record.body["metadata"]
    if change.type is ChangeType.DELETED or (goes and "deletionTimestamp" not in before.body["metadata"]):
        return "delete"
    return "patch"
