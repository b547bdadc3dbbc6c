"""Updates: PUT, PATCH and binding, with optimistic concurrency and the rules of what may change."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import datetime
from typing import Any

from controller.local.apiserver.errors import (
    bad_request,
    conflict,
    invalid,
    invalid_value,
    not_found,
    required,
    undecodable_patch,
    unsupported_media_type,
)
from controller.local.apiserver.store import deletion, patches, strategic_merge
from controller.local.apiserver.store.admission_request import UPDATE, AdmissionRequest
from controller.local.apiserver.store.core import Core
from controller.local.apiserver.store.creation import check_namespace, create, field_warnings, name_mismatch
from controller.local.apiserver.store.outcomes import DEFAULT_OPTIONS, Outcome, WriteOptions, stamp
from controller.local.apiserver.store.registry import Resource
from controller.local.apiserver.store.strategy import Decoded, validate_metadata, validate_metadata_update
from controller.local.apiserver.store.versions import Record

Json = dict[str, Any]

_NO_APPLY = "the local cluster has no server-side apply: use `kubectl apply` without --server-side"


def update(
    core: Core,
    resource: Resource,
    namespace: str,
    name: str,
    document: Any,
    *,
    now: datetime,
    rng: random.Random,
    subresource: str = "",
    options: WriteOptions = DEFAULT_OPTIONS,
) -> Outcome:
    """A PUT."""
    strategy = core.strategy(resource)
    decoded = strategy.decode_request(document)
    if decoded.body["metadata"].get("name", name) != name:
        raise name_mismatch(decoded.body["metadata"]["name"], name)
    if resource.namespaced:
        check_namespace(resource, namespace, decoded.body["metadata"])
    old = core.versions.get(resource.key, (namespace, name))
    if old is None:
        if not resource.create_on_update or subresource:
            raise not_found(resource.target(name))
        return create(core, resource, namespace, document, now=now, rng=rng, name=name, options=options)
    uid = decoded.body["metadata"].get("uid")
    if uid and uid != old.uid:
        text = f"Precondition failed: UID in precondition: {uid}, UID in object meta: {old.uid}"
        raise conflict(resource.target(name), text)
    warnings = field_warnings(decoded, options, strategy.undecodable)
    return _change(core, resource, old, decoded, warnings, subresource=subresource, options=options)


def patch(
    core: Core,
    resource: Resource,
    namespace: str,
    name: str,
    *,
    content_type: str,
    patch: Any,
    subresource: str = "",
    options: WriteOptions = DEFAULT_OPTIONS,
) -> Outcome:
    """A PATCH in one of the JSON formats."""
    strategy = core.strategy(resource)
    apply = patch_function(resource, content_type)
    old = core.get(resource, namespace, name)
    document = {"kind": resource.kind, "apiVersion": resource.api_version, **old.body}
    if not isinstance(patch, dict) and content_type != patches.JSON:
        raise bad_request("json: cannot unmarshal array into Go value of type map[string]interface {}")
    patched = apply(document, patch)
    decoded = strategy.decode_request(patched, patched=True, original=old.body)
    warnings = field_warnings(decoded, options, lambda why: undecodable_patch(patched, why))
    if not decoded.body["metadata"].get("name"):
        raise invalid(resource.target(name), [invalid_value("metadata.name", '""', "field is immutable")])
    return _change(core, resource, old, decoded, warnings, subresource=subresource, options=options)


def patch_function(resource: Resource, content_type: str) -> Callable[[Json, Any], Any]:
    """How a patch of this format is applied. Raises UnsupportedMediaType."""
    formats: dict[str, Callable[[Json, Any], Any]] = {
        patches.JSON: patches.json_patch,
        patches.MERGE: patches.merge,
    }
    if resource.custom is None:
        formats[patches.STRATEGIC] = lambda target, patch: strategic_merge.merge(target, patch, resource.kind)
    found = formats.get(content_type)
    if found is None:
        if content_type == patches.APPLY:
            raise unsupported_media_type(_NO_APPLY)
        known = ", ".join((*formats, patches.APPLY))
        if content_type == patches.STRATEGIC:
            raise unsupported_media_type(
                f"the body of the request was in an unknown format - accepted media types include: {known}"
            )
        raise unsupported_media_type("415: Unsupported Media Type", {})
    return found


def _change(
    core: Core,
    resource: Resource,
    old: Record,
    decoded: Decoded,
    warnings: tuple[str, ...],
    *,
    subresource: str,
    options: WriteOptions,
) -> Outcome:
    strategy = core.strategy(resource)
    target = resource.target(old.name)
    asked = decoded.body["metadata"]
    version = asked.get("resourceVersion", "")
    if not version and not resource.unconditional_update:
        cause = invalid_value("metadata.resourceVersion", "0", "must be specified for an update")
        raise invalid(target, [cause], kind=resource.plural)
    if version and version != old.body["metadata"]["resourceVersion"]:
        raise conflict(target)
    new = strategy.prepare_update(decoded.body, old.body, subresource)
    old_metadata = old.body["metadata"]
    causes = validate_metadata_update(new["metadata"], old_metadata)
    # The real server checks metadata in the generic registry and again in the kind's strategy.
    causes += causes
    metadata = new["metadata"] = _kept_metadata(new["metadata"], old_metadata)
    if metadata != old_metadata:
        causes += validate_metadata(metadata)
    causes += strategy.validate_update(new, old.body, subresource)
    if causes:
        raise invalid(target, causes)
    warnings += core.admit(
        AdmissionRequest(
            UPDATE, resource, old.namespace, old.name, new, old.body, options.user, subresource, options.dry_run
        )
    )
    if resource.has_generation and not subresource and strategy.spec_changed(new, old.body):
        metadata["generation"] = old_metadata.get("generation", 0) + 1
    if new == old.body:
        return Outcome(200, old, (), warnings)
    if deletion.is_complete(metadata):
        if options.dry_run:
            return Outcome(200, Record(resource.key, old.version, new), (), warnings)
        gone = core.remove(old, new)
        # Answered as it was asked for: with the version it had.
        return Outcome(200, Record(resource.key, old.version, new), (gone,), warnings)
    if options.dry_run:
        return Outcome(200, Record(resource.key, old.version, new), (), warnings)
    change = core.put(resource, new)
    return Outcome(200, change.record, (change,), warnings)


def bind(core: Core, namespace: str, name: str, node: str, *, now: datetime) -> Outcome:
    """Assigns a Pod to a node, as a scheduler does through `pods/binding`."""
    pods = core.registry.by_key("pods")
    old = core.get(pods, namespace, name)
    target = pods.target(name)
    if "deletionTimestamp" in old.body["metadata"]:
        raise conflict(target, f"pod {name} is being deleted, cannot be assigned to a host", subject="pods/binding")
    assigned = old.body["spec"].get("nodeName")
    if assigned:
        text = f'pod {name} is already assigned to node "{assigned}"'
        raise conflict(target, text, subject="pods/binding")
    if not node:
        raise invalid(target, [required("target.name")])
    status = dict(old.body["status"])
    scheduled = {"type": "PodScheduled", "status": "True", "lastProbeTime": None, "lastTransitionTime": stamp(now)}
    others = [c for c in status.get("conditions", ()) if c.get("type") != "PodScheduled"]
    status["conditions"] = [*others, scheduled]
    change = core.put(
        pods,
        {
            "metadata": dict(old.body["metadata"]),
            "spec": {**old.body["spec"], "nodeName": node},
            "status": status,
        },
    )
    body: Json = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}
    return Outcome(201, None, (change,), (), body)


def _kept_metadata(new: Json, old: Json) -> Json:
    """The metadata of an update with what only the server sets taken from the old version."""
    metadata = {key: value for key, value in new.items() if key not in ("selfLink", "managedFields")}
    for name in (
        "name", "namespace", "uid", "creationTimestamp", "generation", "resourceVersion",
        "deletionTimestamp", "deletionGracePeriodSeconds",
    ):  # fmt: skip
        if name in old:
            metadata[name] = old[name]
        else:
            metadata.pop(name, None)
    return metadata
