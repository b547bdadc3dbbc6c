"""What the expressions of a policy can name: `object`, `oldObject`, `request`, `params`, `authorizer` and others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from celpy import celtypes

from controller.local.apiserver.access.authorization import Authorizer
from controller.local.apiserver.access.rbac import Attributes, Decision
from controller.local.apiserver.schema.cel import LazyMap, compile_rule, untyped_to_cel
from controller.local.apiserver.store.admission_request import AdmissionRequest
from controller.local.apiserver.store.registry import Resource
from controller.local.apiserver.store.users import User

Json = dict[str, Any]


def object_to_cel(resource: Resource, body: Json | None) -> Any:
    """An object as expressions see it: without its schema, as kube-apiserver gives it. Null where there is none."""
    if body is None:
        return None
    whole = {"kind": resource.kind, "apiVersion": resource.api_version, **body}
    return untyped_to_cel(whole)


class Bindings:
    """The variables of one request, each converted once and only if an expression names it."""

    def __init__(self, request: AdmissionRequest, namespace: Json | None, authorizer: Authorizer) -> None:
        self._request = request
        self._namespace = namespace
        self._authorizer = authorizer

    @cached_property
    def _common(self) -> dict[str, Any]:
        request = self._request
        return {
            "object": object_to_cel(request.resource, request.new),
            "oldObject": object_to_cel(request.resource, request.old),
            "request": untyped_to_cel(_request_document(request)),
            "namespaceObject": untyped_to_cel(self._namespace),
            "authorizer": _Authorizer(self._authorizer, request.user),
        }

    def with_params(self, params: Any, declared: list[Json]) -> Mapping[str, Any]:
        """All variables for one parameter object, those that the policy declares itself included."""
        found = {**self._common, "params": params}

        def compute(expression: str) -> Any:
            return lambda: compile_rule(expression).evaluate(found)

        found["variables"] = LazyMap({entry["name"]: compute(entry["expression"]) for entry in declared})
        return found


def _request_document(request: AdmissionRequest) -> Json:
    resource = request.resource
    kind = {"group": resource.group, "version": resource.version, "kind": resource.kind}
    if request.subresource == "eviction":
        kind = {"group": "policy", "version": "v1", "kind": "Eviction"}
    names = {"group": resource.group, "version": resource.version, "resource": resource.plural}
    user: Json = {"username": request.user.name, "uid": "", "groups": list(request.user.groups), "extra": {}}
    return {
        "kind": kind,
        "resource": names,
        "subResource": request.subresource,
        "requestKind": kind,
        "requestResource": names,
        "requestSubResource": request.subresource,
        "name": request.name,
        "namespace": request.namespace,
        "operation": request.operation,
        "userInfo": user,
        "dryRun": request.dry_run,
    }


@dataclass(frozen=True)
class _Authorizer:
    """`authorizer`, and each step of what it is asked: `.group(…).resource(…).check(…)`. Methods are CEL's, by name."""

    authorizer: Authorizer
    user: User
    wanted: Attributes = field(default_factory=lambda: Attributes(""))

    def _with(self, **parts: str) -> _Authorizer:
        return replace(self, wanted=replace(self.wanted, **parts))

    def cel_path(self, path: str) -> _Authorizer:
        return self._with(path=path)

    def cel_group(self, group: str) -> _Authorizer:
        return self._with(group=group)

    def cel_resource(self, resource: str) -> _Authorizer:
        return self._with(resource=resource)

    def cel_subresource(self, subresource: str) -> _Authorizer:
        return self._with(subresource=subresource)

    def cel_namespace(self, namespace: str) -> _Authorizer:
        return self._with(namespace=namespace)

    def cel_name(self, name: str) -> _Authorizer:
        return self._with(name=name)

    def cel_serviceAccount(self, namespace: str, name: str) -> _Authorizer:  # noqa: N802 - CEL's name
        return replace(self, user=User(f"system:serviceaccount:{namespace}:{name}"))

    def cel_check(self, verb: str) -> _Answer:
        return _Answer(self.authorizer.decide(self.user, replace(self.wanted, verb=verb)))


@dataclass(frozen=True)
class _Answer:
    decision: Decision

    def cel_allowed(self) -> Any:
        return celtypes.BoolType(self.decision.allowed)

    def cel_reason(self) -> Any:
        return celtypes.StringType(self.decision.reason)
