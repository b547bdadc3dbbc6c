"""Which policies are about a request: rules of resources and operations, and selectors of namespace and object."""

from __future__ import annotations

from typing import Any

from controller.local.apiserver.store.admission_request import AdmissionRequest
from controller.local.apiserver.store.selectors import label_selector

Json = dict[str, Any]


def matches(constraints: Json, request: AdmissionRequest, namespace: Json | None) -> bool:
    """Whether `matchConstraints`, or a binding's `matchResources`, include the request."""
    rules = constraints.get("resourceRules")
    if rules and not any(_rule_matches(rule, request) for rule in rules):
        return False
    if any(_rule_matches(rule, request) for rule in constraints.get("excludeResourceRules") or ()):
        return False
    return _namespace_matches(constraints, request, namespace) and _object_matches(constraints, request)


def _rule_matches(rule: Json, request: AdmissionRequest) -> bool:
    resource = request.resource
    names = rule.get("resourceNames")
    scope = rule.get("scope", "*")
    return (
        _listed(rule.get("operations"), request.operation)
        and _listed(rule.get("apiGroups"), resource.group)
        and _listed(rule.get("apiVersions"), resource.version)
        and any(_resource_matches(pattern, request) for pattern in rule.get("resources") or ())
        and (not names or request.name in names)
        and scope in ("*", "Namespaced" if resource.namespaced else "Cluster")
    )


def _listed(listed: Any, wanted: str) -> bool:
    return "*" in (listed or ()) or wanted in (listed or ())


def _resource_matches(pattern: str, request: AdmissionRequest) -> bool:
    plural, _, subresource = pattern.partition("/")
    return plural in ("*", request.resource.plural) and (
        subresource == request.subresource or (subresource == "*" and "/" in pattern)
    )


def _namespace_matches(constraints: Json, request: AdmissionRequest, namespace: Json | None) -> bool:
    selector = constraints.get("namespaceSelector")
    if not selector:
        return True
    if request.resource.key == "namespaces":
        bodies = [body for body in (request.new, request.old) if body is not None]
        return label_selector(selector)(_labels(bodies[0]) if bodies else {})
    if not request.resource.namespaced:
        return True
    return namespace is not None and label_selector(selector)(_labels(namespace))


def _object_matches(constraints: Json, request: AdmissionRequest) -> bool:
    """The new object or the old one: a change of labels hides nothing."""
    selector = constraints.get("objectSelector")
    if not selector:
        return True
    test = label_selector(selector)
    return any(test(_labels(body)) for body in (request.new, request.old) if body is not None)


def _labels(body: Json) -> Json:
    return body["metadata"].get("labels") or {}
