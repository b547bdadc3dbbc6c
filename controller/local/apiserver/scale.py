"""The scale subresource: a small window on two numbers and a selector, of custom resources at configured paths."""

from __future__ import annotations

import random
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from controller.local.apiserver.errors import (
    Target,
    bad_request,
    internal_error,
    invalid,
    invalid_value,
    no_such_resource,
    undecodable_patch,
)
from controller.local.apiserver.requests import RequestInfo
from controller.local.apiserver.schema.typed import DecodeError
from controller.local.apiserver.store.creation import name_mismatch
from controller.local.apiserver.store.registry import Resource
from controller.local.apiserver.store.selectors import selector_text
from controller.local.apiserver.store.store import Outcome, Store, WriteOptions
from controller.local.apiserver.store.updates import patch_function
from controller.local.apiserver.store.versions import Record

Json = dict[str, Any]

_METADATA = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")


def read_scale(resource: Resource, record: Record) -> Json:
    """The Scale of an object. Raises InternalError if the object says no number, as the real server does."""
    path = _paths(resource)["specReplicasPath"]
    if _read(record.body, path) is None:
        raise internal_error(f'the spec replicas field "{path}" does not exist')
    return _scale(resource, record)


def _scale(resource: Resource, record: Record) -> Json:
    paths = _paths(resource)
    spec, status = {}, {"replicas": _read(record.body, paths["statusReplicasPath"]) or 0}
    replicas = _read(record.body, paths["specReplicasPath"])
    if replicas:
        spec["replicas"] = replicas
    selector = _read(record.body, paths["labelSelectorPath"]) if paths.get("labelSelectorPath") else None
    if isinstance(selector, dict):
        selector = selector_text(selector)
    if selector:
        status["selector"] = selector
    metadata = record.body["metadata"]
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {name: metadata[name] for name in _METADATA if name in metadata},
        "spec": spec,
        "status": status,
    }


def put_scale(
    store: Store,
    resource: Resource,
    info: RequestInfo,
    document: Any,
    *,
    now: datetime,
    rng: random.Random,
    options: WriteOptions,
) -> Outcome:
    """A PUT of a Scale."""
    record = store.get(resource, info.namespace, info.name)
    named = ((document.get("metadata") or {}) if isinstance(document, dict) else {}).get("name", info.name)
    if named != info.name:
        raise name_mismatch(named, info.name)
    try:
        body = _changed(resource, record, document)
    except DecodeError as error:
        raise bad_request(f'Scale in version "v1" cannot be handled as a Scale: {error}') from error
    return store.update(resource, info.namespace, info.name, body, now=now, rng=rng, options=options)


def patch_scale(
    store: Store,
    resource: Resource,
    info: RequestInfo,
    patch: Any,
    *,
    content_type: str,
    now: datetime,
    rng: random.Random,
    options: WriteOptions,
) -> Outcome:
    """A PATCH of a Scale, in one of the formats that its resource takes."""
    record = store.get(resource, info.namespace, info.name)
    patched = patch_function(resource, content_type)(_scale(resource, record), patch)
    try:
        body = _changed(resource, record, patched)
    except DecodeError as error:
        raise undecodable_patch(patched, str(error)) from error
    return store.update(resource, info.namespace, info.name, body, now=now, rng=rng, options=options)


def _changed(resource: Resource, record: Record, scale: Any) -> Json:
    """The object with the replicas that a Scale asks for. Raises DecodeError and Invalid."""
    if not isinstance(scale, dict) or not isinstance(scale.get("spec") or {}, dict):
        raise DecodeError("wrong object passed to Scale update")
    path = _paths(resource)["specReplicasPath"]
    replicas = (scale.get("spec") or {}).get("replicas")
    if replicas is None:
        if _read(record.body, path) is None:
            raise bad_request(f'the spec replicas field "{path}" cannot be empty')
        replicas = 0
    if not isinstance(replicas, int) or isinstance(replicas, bool):
        kind = "string" if isinstance(replicas, str) else type(replicas).__name__
        raise DecodeError(f"json: cannot unmarshal {kind} into Go struct field ScaleSpec.spec.replicas of type int32")
    if replicas < 0 and resource.custom is None:
        target = Target("autoscaling", "Scale", "Scale", record.name)
        raise invalid(target, [invalid_value("spec.replicas", str(replicas), "must be greater than or equal to 0")])
    if replicas < 0:
        raise invalid(
            resource.target(record.name), [invalid_value(path, str(replicas), "should be a non-negative integer")]
        )
    body = _write(record.body, path.split(".")[1:], replicas)
    version = (scale.get("metadata") or {}).get("resourceVersion") or record.body["metadata"]["resourceVersion"]
    return {
        "kind": resource.kind,
        "apiVersion": resource.api_version,
        **body,
        "metadata": {**body["metadata"], "resourceVersion": version},
    }


_BUILTIN_PATHS = {
    "specReplicasPath": ".spec.replicas",
    "statusReplicasPath": ".status.replicas",
    "labelSelectorPath": ".spec.selector",
}


def _paths(resource: Resource) -> Mapping[str, str]:
    if resource.custom is None and "scale" in resource.subresources:
        return _BUILTIN_PATHS
    if resource.custom is None or resource.custom.scale is None:
        raise no_such_resource()
    return resource.custom.scale


def _read(body: Any, path: str) -> Any:
    for step in path.split(".")[1:]:
        body = body.get(step) if isinstance(body, dict) else None
    return body


def _write(body: Json, steps: list[str], value: int) -> Json:
    if len(steps) == 1:
        return {**body, steps[0]: value}
    return {**body, steps[0]: _write(body.get(steps[0]) or {}, steps[1:], value)}
