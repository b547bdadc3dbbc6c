"""Carries out requests for resources: reads the body and the query, asks the store, words the answer."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson

from controller.local.apiserver import lists
from controller.local.apiserver.bodies import parse_body, parse_patch, repeated_fields
from controller.local.apiserver.errors import ApiError, bad_request, method_not_allowed, no_such_resource
from controller.local.apiserver.negotiation import Form, Shape, negotiate
from controller.local.apiserver.parameters import delete_options, write_options
from controller.local.apiserver.requests import RequestInfo
from controller.local.apiserver.scale import patch_scale, put_scale, read_scale
from controller.local.apiserver.store import patches, selectors
from controller.local.apiserver.store.registry import Resource
from controller.local.apiserver.store.store import Outcome, Store
from controller.local.apiserver.store.users import User
from controller.local.apiserver.store.versions import Change, Record
from controller.local.apiserver.tables.table import included, table

Json = dict[str, Any]


# What a kubelet of a cluster does for people; here a container is a process of this machine.
_STREAMED = {
    "exec": "`kubectl exec`: a container is a process of this machine, its folder is in the state folder",
    "attach": "`kubectl attach`: see `kubectl logs -f`",
    "portforward": "`kubectl port-forward`: a Pod's address can be reached from this machine as it is",
    "ephemeralcontainers": "`kubectl debug`: a container is a process of this machine",
}
_NO_SERVICES = "the local cluster has no Services: a Pod's address can be reached from this machine as it is"


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
            if resource.key == "pods" and info.subresource in _STREAMED:
                raise bad_request(f"the local cluster has no {_STREAMED[info.subresource]}")
            raise no_such_resource()
        if resource.namespaced and not info.namespace and (info.name or info.verb == "create"):
            if info.verb == "create" and not info.name:
                raise method_not_allowed(resource.target(), "create")
            raise no_such_resource()
        return resource

    def handle(
        self,
        info: RequestInfo,
        query: Mapping[str, str],
        *,
        content_type: str,
        accept: str,
        raw: bytes,
        user: User,
    ) -> tuple[Reply, Any]:
        """The answer to anything but a stream, and the parsed body for the audit log."""
        if info.plural == "bindings" and info.verb == "create" and not info.name:
            return self._bind_by_body(info, raw)
        resource = self.resource(info)
        verb = info.verb
        if info.subresource == "eviction" and verb != "create":
            text = "the server does not allow this method on the requested resource"
            raise ApiError(405, "MethodNotAllowed", text, {})
        if verb not in resource.verbs and not info.subresource:
            if resource.key == "services":
                raise ApiError(405, "MethodNotAllowed", _NO_SERVICES, {})
            raise method_not_allowed(resource.target(), verb)
        form = negotiate(accept, custom=resource.custom is not None)
        if verb == "get":
            return self._get(resource, info, query, form), None
        if verb == "list":
            return self._list(resource, info, query, form), None
        if verb == "create":
            return self._create(resource, info, query, content_type, raw, user=user)
        if verb in ("update", "patch"):
            return self._change(resource, info, query, content_type, raw, user=user)
        if verb in ("delete", "deletecollection"):
            return self._delete(resource, info, query, content_type, raw, user=user)
        raise method_not_allowed(resource.target(), verb)

    # --- reads --------------------------------------------------------------------------------------------

    def _get(self, resource: Resource, info: RequestInfo, query: Mapping[str, str], form: Form) -> Reply:
        record = self._store.get(resource, info.namespace, info.name)
        if info.subresource == "scale":
            scale = read_scale(resource, record)
            if form.shape is Shape.TABLE:
                metadata = {"resourceVersion": scale["metadata"]["resourceVersion"]}
                shown = Record(resource.key, record.version, scale)
                return Reply(200, self._table(resource, [shown], metadata, query, form), record=record)
            return Reply(200, orjson.dumps(scale), record=record)
        if info.subresource not in ("", "status"):
            raise method_not_allowed(resource.target(), info.verb)
        if form.shape is Shape.METADATA:
            return Reply(200, orjson.dumps(lists.partial_metadata(record, form.api_version)), record=record)
        if form.shape is Shape.TABLE:
            metadata = {"resourceVersion": record.body["metadata"]["resourceVersion"]}
            return Reply(200, self._table(resource, [record], metadata, query, form), record=record)
        return Reply(200, lists.encode_object(resource, record), record=record)

    def _list(self, resource: Resource, info: RequestInfo, query: Mapping[str, str], form: Form) -> Reply:
        page = lists.read(self._store, resource, info.namespace, lists.ListRequest.parse(resource, query))
        if form.shape is Shape.METADATA:
            return Reply(200, lists.encode_metadata_list(page, form.api_version))
        if form.shape is Shape.TABLE:
            return Reply(200, self._table(resource, page.records, lists.list_metadata(page), query, form))
        return Reply(200, lists.encode_list(resource, page))

    def _table(
        self,
        resource: Resource,
        records: list[Record],
        metadata: Mapping[str, Any],
        query: Mapping[str, str],
        form: Form,
    ) -> bytes:
        document = table(
            resource, records, metadata, api_version=form.api_version, include=included(query), now=self._now()
        )
        return orjson.dumps(document)

    # --- writes -------------------------------------------------------------------------------------------

    def _create(
        self,
        resource: Resource,
        info: RequestInfo,
        query: Mapping[str, str],
        content_type: str,
        raw: bytes,
        *,
        user: User,
    ) -> tuple[Reply, Any]:
        document = parse_body(raw, content_type, resource.kind, custom=resource.custom is not None)
        if info.subresource == "binding":
            return self._bind(info, document), document
        if info.subresource == "eviction":
            return self._evict(info, document, query, user), document
        if info.name:
            raise method_not_allowed(resource.target(), "create")
        options = write_options("create", query, user)
        if options.field_validation == "Strict" and (repeated := repeated_fields(raw, content_type)):
            texts = ", ".join(f'duplicate field "{path}"' for path in repeated)
            raise self._store.strategy(resource).undecodable(f"strict decoding error: {texts}")
        outcome = self._store.create(
            resource, info.namespace, document, now=self._now(), rng=self._rng, options=options
        )
        return self._reply(resource, outcome), document

    def _change(
        self,
        resource: Resource,
        info: RequestInfo,
        query: Mapping[str, str],
        content_type: str,
        raw: bytes,
        *,
        user: User,
    ) -> tuple[Reply, Any]:
        if not info.name:
            raise method_not_allowed(resource.target(), info.verb)
        options = write_options(info.verb, query, user, applies=content_type == patches.APPLY)
        if info.verb == "patch":
            document = parse_patch(raw, content_type)
            if info.subresource == "scale":
                outcome = patch_scale(
                    self._store, resource, info, document,
                    content_type=content_type, now=self._now(), rng=self._rng, options=options,
                )  # fmt: skip
                return self._scale_reply(resource, outcome), document
            outcome = self._store.patch(
                resource, info.namespace, info.name, content_type, document,
                subresource=info.subresource, options=options,
            )  # fmt: skip
            return self._reply(resource, outcome), document
        document = parse_body(raw, content_type, resource.kind, custom=resource.custom is not None)
        if info.subresource == "scale":
            outcome = put_scale(self._store, resource, info, document, now=self._now(), rng=self._rng, options=options)
            return self._scale_reply(resource, outcome), document
        outcome = self._store.update(
            resource, info.namespace, info.name, document,
            now=self._now(), rng=self._rng, subresource=info.subresource, options=options,
        )  # fmt: skip
        return self._reply(resource, outcome), document

    def _delete(
        self,
        resource: Resource,
        info: RequestInfo,
        query: Mapping[str, str],
        content_type: str,
        raw: bytes,
        *,
        user: User,
    ) -> tuple[Reply, Any]:
        if info.subresource:
            raise method_not_allowed(resource.target(), info.verb)
        document = parse_body(raw, content_type, "DeleteOptions") if raw.strip() else None
        options = delete_options(document, query, user)
        if info.verb == "delete":
            record = self._store.get(resource, info.namespace, info.name)
            outcome = self._store.delete(resource, info.namespace, info.name, options, now=self._now())
            reply = self._reply(resource, outcome)
            return Reply(reply.code, reply.body, reply.changes, reply.warnings, reply.record or record), document
        selector = selectors.parse(resource, query.get("labelSelector", ""), query.get("fieldSelector", ""))
        version = self._store.versions.current
        records, changes = self._store.delete_collection(resource, info.namespace, selector, options, now=self._now())
        return Reply(200, lists.encode_list(resource, lists.Page(version, records)), changes), document

    def _evict(self, info: RequestInfo, document: Any, query: Mapping[str, str], user: User) -> Reply:
        asked = document.get("deleteOptions") if isinstance(document, dict) else None
        options = delete_options(asked, query, user)
        outcome = self._store.evict(info.namespace, info.name, document, options, now=self._now())
        return Reply(outcome.code, orjson.dumps(outcome.status), outcome.changes)

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
