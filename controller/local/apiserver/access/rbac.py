"""What a user may do, by the RBAC objects of the cluster. After k8s.io/kubernetes/plugin/pkg/auth/authorizer/rbac.

`system:masters` may do everything, and what every cluster grants to all users is granted here without an object.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from controller.local.apiserver.store.core import Core
from controller.local.apiserver.store.selectors import label_selector
from controller.local.apiserver.store.users import AUTHENTICATED, MASTERS, User
from controller.local.apiserver.store.versions import Record

Json = dict[str, Any]

_GROUP = "rbac.authorization.k8s.io"
_SERVICE_ACCOUNT = "system:serviceaccount:"


@dataclass(frozen=True, slots=True)
class Attributes:
    """What is to be done: to a resource, or to a `path` that is none."""

    verb: str
    group: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    path: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether it is allowed, and by what."""

    allowed: bool
    reason: str = ""


DENIED = Decision(allowed=False)


def _discovery(*paths: str) -> Json:
    return {"verbs": ["get"], "nonResourceURLs": list(paths)}


# Role → what it grants to everybody who is known, as in every cluster.
_EVERYBODYS: dict[str, list[Json]] = {
    "system:basic-user": [
        {
            "verbs": ["create"],
            "apiGroups": ["authorization.k8s.io"],
            "resources": ["selfsubjectaccessreviews", "selfsubjectrulesreviews"],
        },
        {"verbs": ["create"], "apiGroups": ["authentication.k8s.io"], "resources": ["selfsubjectreviews"]},
    ],
    "system:public-info-viewer": [_discovery("/healthz", "/livez", "/readyz", "/version", "/version/")],
    "system:discovery": [
        _discovery(
            "/api", "/api/*", "/apis", "/apis/*", "/healthz", "/livez", "/openapi", "/openapi/*", "/readyz",
            "/version", "/version/",
        )
    ],
    "system:service-account-issuer-discovery": [_discovery("/.well-known", "/.well-known/*")],
}  # fmt: skip


class Rbac:
    """Answers from the roles and bindings as they are now."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def decide(self, user: User, wanted: Attributes) -> Decision:
        """Whether the user may."""
        if MASTERS in user.groups:
            return Decision(allowed=True)
        for rule, reason in self._rules(user, wanted.namespace):
            if _allows(rule, wanted):
                return Decision(allowed=True, reason=f"RBAC: allowed by {reason}")
        return DENIED

    def rules(self, user: User, namespace: str) -> list[Json]:
        """Every rule that is granted to the user in a namespace, those of all users first."""
        return [rule for rule, _ in self._rules(user, namespace)]

    def _rules(self, user: User, namespace: str) -> Iterator[tuple[Json, str]]:
        if AUTHENTICATED in user.groups:
            for name, rules in _EVERYBODYS.items():
                reason = f'ClusterRoleBinding "{name}" of ClusterRole "{name}" to Group "{AUTHENTICATED}"'
                yield from ((rule, reason) for rule in rules)
        yield from self._granted("clusterrolebindings", "", user)
        if namespace:
            yield from self._granted("rolebindings", namespace, user)

    def _granted(self, plural: str, namespace: str, user: User) -> Iterator[tuple[Json, str]]:
        for binding in self._core.versions.collection(f"{plural}.{_GROUP}").current(namespace):
            subject = next((s for s in binding.body.get("subjects") or () if _is_subject(s, user, namespace)), None)
            if subject is None:
                continue
            role = binding.body["roleRef"]
            where = f"/{namespace}" if namespace else ""
            who = f"{subject['name']}/{subject['namespace']}" if subject.get("namespace") else subject["name"]
            kind = "RoleBinding" if namespace else "ClusterRoleBinding"
            reason = f'{kind} "{binding.name}{where}" of {role["kind"]} "{role["name"]}" to {subject["kind"]} "{who}"'
            yield from ((rule, reason) for rule in self._role(role, namespace))

    def _role(self, reference: Json, namespace: str) -> list[Json]:
        clusterwide = reference["kind"] == "ClusterRole"
        if clusterwide and reference["name"] == "cluster-admin":
            everything = ["*"]
            return [
                {"verbs": everything, "apiGroups": everything, "resources": everything},
                {"verbs": everything, "nonResourceURLs": everything},
            ]
        plural = "clusterroles" if clusterwide else "roles"
        role = self._core.versions.get(f"{plural}.{_GROUP}", ("" if clusterwide else namespace, reference["name"]))
        return [] if role is None else self._with_aggregated(role)

    def _with_aggregated(self, role: Record, within: frozenset[str] = frozenset()) -> list[Json]:
        """A role's rules; an aggregating one has those of the roles that it selects, which may aggregate too."""
        selectors = (role.body.get("aggregationRule") or {}).get("clusterRoleSelectors") or ()
        rules: list[Json] = list(role.body.get("rules") or ())
        if selectors:
            within |= {role.name}
            tests = [label_selector(selector) for selector in selectors]
            for other in self._core.versions.collection(f"clusterroles.{_GROUP}").current(""):
                if other.name in within:
                    continue
                if any(test(other.body["metadata"].get("labels") or {}) for test in tests):
                    rules += self._with_aggregated(other, within)
        return rules


def _is_subject(subject: Json, user: User, namespace: str) -> bool:
    match subject["kind"]:
        case "User":
            return bool(user.name == subject["name"])
        case "Group":
            return subject["name"] in user.groups
        case "ServiceAccount":
            home = subject.get("namespace") or namespace
            return user.name == f"{_SERVICE_ACCOUNT}{home}:{subject['name']}"
        case _:
            return False


def _allows(rule: Json, wanted: Attributes) -> bool:
    if not _has(rule.get("verbs"), wanted.verb):
        return False
    if wanted.path:
        return any(_matches_path(pattern, wanted.path) for pattern in rule.get("nonResourceURLs") or ())
    resource = f"{wanted.resource}/{wanted.subresource}" if wanted.subresource else wanted.resource
    listed = rule.get("resources") or ()
    names = rule.get("resourceNames")
    return (
        _has(rule.get("apiGroups"), wanted.group)
        and (_has(listed, resource) or (bool(wanted.subresource) and f"*/{wanted.subresource}" in listed))
        and (not names or wanted.name in names)
    )


def _has(listed: Any, wanted: str) -> bool:
    return "*" in (listed or ()) or wanted in (listed or ())


def _matches_path(pattern: str, path: str) -> bool:
    return path.startswith(pattern[:-1]) if pattern.endswith("*") else path == pattern
