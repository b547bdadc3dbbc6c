"""Carries out requests for resources: reads the body and the query, asks the store, words the answer."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson
import yaml

from controller.local.apiserver import lists, requests
from controller.local.apiserver.errors import (
    ApiError,
    bad_request,
    invalid,
    method_not_allowed,
    no_such_resource,
    unsupported_value,
)
from controller.local.apiserver.requests import RequestInfo
from controller.local.apiserver.scale import read_scale, write_scale
from controller.local.apiserver.store import deletion, patches, selectors
from controller.local.apiserver.store.registry import Resource
from controller.local.apiserver.store.store import Outcome, Store, WriteOptions
from controller.local.apiserver.store.versions import Change, Record

Json = dict[str, Any]

_TABLE_OR_PARTIAL = "as="
_PROPAGATION = ("Background", "Foreground", "Orphan")


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer ready to be sent, and what must be durable before."""

    code: int
    body: bytes
    changes: tuple[Change, ...] = ()
    warnings: tuple[str, ...] = ()
    # The object the request was about, for the audit log.
    record: Record | None = None
    name: str = ""


class ResourceApi:
    """The verbs of resources over a store, watch and log excepted: those are streams."""

    def __init__(self, store: Store, now: Callable[[], datetime], rng: random.Random) -> None:
        self._store = store
        self._now = now
        self._rng = rng

    def resource(self, info: RequestInfo) -> Resource:
        """The resource of a request. Raises NotFound."""
        resource = self._store.registry.find(info.group, info.version, info.plural)
        if resource is None or (bool(info.namespace) and not resource.namespaced):
            raise no_such_resource()
        if info.subresource and info.subresource not in resource.subresources:
            raise no_such_resource()
        if resource.namespaced and not info.namespace and (info.name or info.verb == "create"):
            if info.verb == "create" and not info.name:
                raise method_not_allowed(resource.target(), "create")
            raise no_such_resource()
        return resource

    def handle(
        self, info: RequestInfo, query: Mapping[str, str], content_type: str, accept: str, raw: bytes
    ) -> tuple[Reply, Any]:
        """The answer to anything but a stream, and the parsed body for the audit log."""
        if info.plural == "bindings" and info.verb == "create" and not info.name:
            return self._bind_by_body(info, raw)
        resource = self.resource(info)
        verb = info.verb
        if verb not in resource.verbs and not info.subresource:
            raise method_not_allowed(resource.target(), verb)
        if verb == "get":
            return self._get(resource, info, accept), None
        if verb == "list":
            return self._list(resource, info, query, accept), None
        if verb == "create":
            return self._create(resource, info, query, content_type, raw)
        if verb in ("update", "patch"):
            return self._change(resource, info, query, content_type, raw)
        if verb in ("delete", "deletecollection"):
            return self._delete(resource, info, query, content_type, raw)
        raise method_not_allowed(resource.target(), verb)

    # --- reads --------------------------------------------------------------------------------------------

    def _get(self, resource: Resource, info: RequestInfo, accept: str) -> Reply:
        record = self._store.get(resource, info.namespace, info.name)
        if info.subresource == "scale":
            return Reply(200, orjson.dumps(read_scale(resource, record)), record=record)
        if info.subresource not in ("", "status"):
            raise method_not_allowed(resource.target(), info.verb)
        if "as=PartialObjectMetadata" in accept:
            return Reply(200, orjson.dumps(lists.partial_metadata(record)), record=record)
        return Reply(200, lists.encode_object(resource, record), record=record)

    def _list(self, resource: Resource, info: RequestInfo, query: Mapping[str, str], accept: str) -> Reply:
        page = lists.read(self._store, resource, info.namespace, lists.ListRequest.parse(resource, query))
        if "as=PartialObjectMetadataList" in accept:
            return Reply(200, lists.encode_metadata_list(page))
        return Reply(200, lists.encode_list(resource, page))

    # --- writes -------------------------------------------------------------------------------------------

    def _create(
        self, resource: Resource, info: RequestInfo, query: Mapping[str, str], content_type: str, raw: bytes
    ) -> tuple[Reply, Any]:
        document = parse_body(raw, content_type, resource.kind)
        if info.subresource == "binding":
            return self._bind(info, document), document
        if info.name:
            raise method_not_allowed(resource.target(), "create")
        outcome = self._store.create(
            resource, info.namespace, document, now=self._now(), rng=self._rng, options=_write_options(resource, query)
        )
        return self._reply(resource, outcome), document

    def _change(
        self, resource: Resource, info: RequestInfo, query: Mapping[str, str], content_type: str, raw: bytes
    ) -> tuple[Reply, Any]:
        if not info.name:
            raise method_not_allowed(resource.target(), info.verb)
        options = _write_options(resource, query)
        if info.verb == "patch":
            document = _parse_patch(raw, content_type)
            if info.subresource == "scale":
                outcome = write_scale(
                    self._store,
                    resource,
                    info,
                    change=lambda scale: patches.merge(scale, document),
                    now=self._now(),
                    rng=self._rng,
                )
                return self._scale_reply(resource, outcome), document
            outcome = self._store.patch(
                resource, info.namespace, info.name, content_type, document,
                subresource=info.subresource, options=options,
            )  # fmt: skip
            return self._reply(resource, outcome), document
        document = parse_body(raw, content_type, resource.kind)
        if info.subresource == "scale":
            outcome = write_scale(
                self._store, resource, info, change=lambda _: document, now=self._now(), rng=self._rng
            )
            return self._scale_reply(resource, outcome), document
        outcome = self._store.update(
            resource, info.namespace, info.name, document,
            now=self._now(), rng=self._rng, subresource=info.subresource, options=options,
        )  # fmt: skip
        return self._reply(resource, outcome), document

    def _delete(
        self, resource: Resource, info: RequestInfo, query: Mapping[str, str], content_type: str, raw: bytes
    ) -> tuple[Reply, Any]:
        if info.subresource:
            raise method_not_allowed(resource.target(), info.verb)
        document = parse_body(raw, content_type, "DeleteOptions") if raw.strip() else None
        options = _delete_options(resource, document, query)
        if info.verb == "delete":
            record = self._store.get(resource, info.namespace, info.name)
            outcome = self._store.delete(resource, info.namespace, info.name, options, now=self._now())
            reply = self._reply(resource, outcome)
            return Reply(reply.code, reply.body, reply.changes, reply.warnings, reply.record or record), document
        selector = selectors.parse(resource, query.get("labelSelector", ""), query.get("fieldSelector", ""))
        version = self._store.versions.current
        records, changes = self._store.delete_collection(resource, info.namespace, selector, options, now=self._now())
        return Reply(200, lists.encode_list(resource, lists.Page(version, records)), changes), document

    def _bind(self, info: RequestInfo, document: Any, name: str = "") -> Reply:
        target = document.get("target") if isinstance(document, dict) else None
        node = target.get("name", "") if isinstance(target, dict) else ""
        outcome = self._store.bind(info.namespace, info.name or name, node, now=self._now())
        return Reply(outcome.code, orjson.dumps(outcome.status), outcome.changes, record=outcome.changes[-1].record)

    def _bind_by_body(self, info: RequestInfo, raw: bytes) -> tuple[Reply, Any]:
        document = parse_body(raw, "application/json", "Binding")
        metadata = document.get("metadata") if isinstance(document, dict) else None
        name = metadata.get("name", "") if isinstance(metadata, dict) else ""
        return self._bind(info, document, name), document

    def _reply(self, resource: Resource, outcome: Outcome) -> Reply:
        if outcome.record is None:
            return Reply(outcome.code, orjson.dumps(outcome.status), outcome.changes, outcome.warnings)
        body = lists.encode_object(resource, outcome.record)
        return Reply(outcome.code, body, outcome.changes, outcome.warnings, outcome.record, outcome.record.name)

    def _scale_reply(self, resource: Resource, outcome: Outcome) -> Reply:
        if outcome.record is None:  # pragma: no cover - an update always has one
            return self._reply(resource, outcome)
        body = orjson.dumps(read_scale(resource, outcome.record))
        return Reply(200, body, outcome.changes, outcome.warnings, outcome.record)


# --- bodies and parameters --------------------------------------------------------------------------------


def parse_body(raw: bytes, content_type: str, kind: str) -> Any:
    """A request's document. Raises BadRequest and UnsupportedMediaType."""
    if content_type in ("application/yaml", "text/yaml"):
        try:
            return yaml.safe_load(raw)
        except yaml.YAMLError as error:
            raise bad_request(f"error converting YAML to JSON: {error}") from error
    if content_type not in ("", "application/json", "application/octet-stream"):
        raise ApiError(415, "UnsupportedMediaType", "415: Unsupported Media Type", {})
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        shown = raw.decode(errors="replace")
        raise bad_request(
            f"the object provided is unrecognized (must be of type {kind}): couldn't get version/kind; "
            f"json parse error: {error} ({shown})"
        ) from error


def _parse_patch(raw: bytes, content_type: str) -> Any:
    if content_type not in (patches.JSON, patches.MERGE, patches.STRATEGIC, patches.APPLY):
        return None  # refused by the store, which knows the resource
    if content_type == patches.APPLY:
        return {}
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise bad_request(f"error decoding patch: {error}") from error


def _write_options(resource: Resource, query: Mapping[str, str]) -> WriteOptions:
    validation = query.get("fieldValidation", "") or "Warn"
    if validation not in ("Ignore", "Warn", "Strict"):
        cause = unsupported_value("fieldValidation", f'"{validation}"', ('"Ignore"', '"Strict"', '"Warn"', '""'))
        raise invalid(resource.target(), [cause])
    return WriteOptions(
        _dry_run(resource, query.getall("dryRun", []) if hasattr(query, "getall") else query.get("dryRun")), validation
    )


def _dry_run(resource: Resource, value: Any) -> bool:
    given = [value] if isinstance(value, str) else list(value or ())
    given = [part for part in given if part]
    if any(part != "All" for part in given):
        raise invalid(resource.target(), [unsupported_value("dryRun", orjson.dumps(given).decode(), ('"All"',))])
    return bool(given)


def _delete_options(resource: Resource, document: Any, query: Mapping[str, str]) -> deletion.DeleteOptions:
    body = document if document is not None else {}
    if not isinstance(body, dict):
        raise bad_request("couldn't get version/kind; json parse error: not an object")
    preconditions = body.get("preconditions") or {}
    grace = body.get("gracePeriodSeconds")
    if grace is None:
        grace = requests.integer(query, "gracePeriodSeconds")
    propagation = body.get("propagationPolicy") or query.get("propagationPolicy", "")
    orphan = body.get("orphanDependents")
    if orphan is None and query.get("orphanDependents"):
        orphan = requests.is_true(query["orphanDependents"])
    if not propagation and orphan is not None:
        propagation = "Orphan" if orphan else "Background"
    if propagation and propagation not in _PROPAGATION:
        cause = unsupported_value("propagationPolicy", f'"{propagation}"', [f'"{policy}"' for policy in _PROPAGATION])
        raise invalid(resource.target(), [cause])
    if grace is not None and (not isinstance(grace, int) or isinstance(grace, bool)):
        raise bad_request("json: cannot unmarshal into Go struct field DeleteOptions.gracePeriodSeconds of type int64")
    return deletion.DeleteOptions(
        uid=preconditions.get("uid"),
        resource_version=preconditions.get("resourceVersion"),
        grace_seconds=grace,
        propagation=propagation,
        dry_run=_dry_run(resource, body.get("dryRun") or query.get("dryRun")),
    )
