"""What is kept of an object: there may be thousands, and most of what they say is never read."""

from functools import lru_cache
from sys import intern
from typing import Any

import orjson

from controller.kube.api import Object
from controller.names import AGENT_CONTAINER, TLS_SERVER_NAME, TLS_VOLUME

_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
_POD_SPEC_KEPT = ("nodeName", "terminationGracePeriodSeconds", "schedulingGates")
_CONTAINER_KEPT = ("name", "image", "restartPolicy")
_POD_STATUS_KEPT = ("phase", "reason", "message", "podIP")
_CONDITION_KEPT = ("type", "status", "reason", "message")
_CONTAINER_STATUS_KEPT = ("name", "state", "lastState", "containerID", "restartCount")
_EQUAL_METADATA = frozenset({"labels", "finalizers", "ownerReferences"})


def trim_metadata(obj: Object) -> Object:
    """`obj` without managedFields and kubectl's copy of it: each as large as the object, and never read here."""
    metadata: dict[str, Any] = obj["metadata"]
    annotations: dict[str, str] = metadata.get("annotations") or {}
    if "managedFields" not in metadata and _LAST_APPLIED not in annotations:
        return obj
    kept = {key: value for key, value in metadata.items() if key != "managedFields"}
    if annotations:
        kept["annotations"] = {key: value for key, value in annotations.items() if key != _LAST_APPLIED}
    return {**obj, "metadata": kept}


def trim_workload(obj: Object) -> Object:
    """A Deployment or ReplicaSet without its template."""
    spec = {key: value for key, value in (obj.get("spec") or {}).items() if key != "template"}
    return {**trim_metadata(obj), "spec": spec}


def trim_pod(obj: Object) -> Object:
    """A Pod with only the fields that are read here: there are thousands of Pods, each of about 60 KiB when parsed.

    Parts that are equal in many Pods are shared as one object. So such a Pod must never be changed or sent back with
    PUT.
    """
    obj = trim_metadata(obj)
    metadata = {name: _shared(value) if name in _EQUAL_METADATA else value for name, value in obj["metadata"].items()}
    if "namespace" in metadata:
        metadata["namespace"] = intern(metadata["namespace"])
    return {
        **obj,
        "metadata": metadata,
        "spec": _spec(obj.get("spec") or {}),
        "status": _status(obj.get("status") or {}),
    }


def _spec(spec: Object) -> Object:
    kept: Object = {key: spec[key] for key in _POD_SPEC_KEPT if key in spec}
    for field in ("initContainers", "containers"):
        if field in spec:
            kept[field] = [{key: item[key] for key in _CONTAINER_KEPT if key in item} for item in spec[field] or ()]
    if tls := [volume for volume in spec.get("volumes") or () if volume["name"] == TLS_VOLUME]:
        _keep_tls(kept, spec, tls)
    return {key: _shared(value) for key, value in kept.items()}


def _keep_tls(kept: dict[str, Any], spec: dict[str, Any], volumes: list[Any]) -> None:
    """What says how the Pod's agent is to be spoken to."""
    kept["volumes"] = volumes
    for item, original in zip(kept.get("initContainers", ()), spec.get("initContainers") or (), strict=True):
        if item["name"] == AGENT_CONTAINER:
            item["env"] = [entry for entry in original.get("env") or () if entry["name"] == TLS_SERVER_NAME]


def _status(status: Object) -> Object:
    kept: Object = {key: status[key] for key in _POD_STATUS_KEPT if key in status}
    for condition in status.get("conditions") or ():
        entry = {key: condition[key] for key in _CONDITION_KEPT if key in condition}
        kept.setdefault("conditions", []).append(entry)
    for field in ("initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses"):
        if field in status:
            kept[field] = [_container_status(entry) for entry in status[field] or ()]
    return {key: value if key == "podIP" else _shared(value) for key, value in kept.items()}


def _container_status(status: Object) -> Object:
    """Of a container that runs, nobody asks more than that; else it tells why it does not start, or how it ended."""
    if "running" in (status.get("state") or {}):
        return {"name": status["name"], "state": {"running": {}}}
    return {key: status[key] for key in _CONTAINER_STATUS_KEPT if key in status}


def _shared(value: Any) -> Any:
    """The one object for all values that are equal."""
    return _first(orjson.dumps(value))


@lru_cache(maxsize=4096)
def _first(document: bytes) -> Any:
    return orjson.loads(document)
