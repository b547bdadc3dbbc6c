"""What a user may do by roles and bindings."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from controller.local.apiserver import access
from controller.local.apiserver.access.rbac import Attributes, Rbac
from controller.local.apiserver.store.store import Store
from controller.local.apiserver.store.users import User

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
GROUP = "rbac.authorization.k8s.io"
BEN = User("ben", ("team", "system:authenticated"))
BOT = User("system:serviceaccount:default:bot", ("system:serviceaccounts",))
PODS = {"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}


def _cluster() -> tuple[Store, Any]:
    store = Store()
    rng = random.Random(1)
    store.bootstrap(NOW, rng)

    def create(plural: str, name: str, *, labels: dict[str, str] | None = None, **parts: Any) -> None:
        resource = store.registry.by_key(f"{plural}.{GROUP}")
        home = "default" if resource.namespaced else ""
        document = {"metadata": {"name": name, "labels": labels or {}}, **parts}
        store.create(resource, home, document, now=NOW, rng=rng)

    return store, create


def _bind(create: Any, kind: str, role: str, *subjects: dict[str, str], clusterwide: bool = False) -> None:
    plural = "clusterrolebindings" if clusterwide else "rolebindings"
    create(plural, role, roleRef={"kind": kind, "name": role}, subjects=list(subjects))


def test_a_role_counts_in_its_namespace_alone() -> None:
    store, create = _cluster()
    create("roles", "reader", rules=[PODS])
    _bind(create, "Role", "reader", {"kind": "User", "name": "ben"})
    rbac = Rbac(store)
    allowed = rbac.decide(BEN, Attributes("get", "", "pods", namespace="default"))
    assert allowed.reason == 'RBAC: allowed by RoleBinding "reader/default" of Role "reader" to User "ben"'
    for denied in (
        Attributes("get", "", "pods", namespace="kube-system"),
        Attributes("get", "", "pods"),
        Attributes("delete", "", "pods", namespace="default"),
        Attributes("get", "", "pods", "status", "default"),
        Attributes("get", "apps", "pods", namespace="default"),
    ):
        assert not rbac.decide(BEN, denied).allowed, denied


@pytest.mark.parametrize(
    ("subject", "user"),
    [
        ({"kind": "Group", "name": "team"}, BEN),
        ({"kind": "ServiceAccount", "name": "bot", "namespace": "default"}, BOT),
    ],
)
def test_groups_and_service_accounts_are_subjects(subject: dict[str, str], user: User) -> None:
    store, create = _cluster()
    create("clusterroles", "reader", rules=[PODS])
    _bind(create, "ClusterRole", "reader", subject, clusterwide=True)
    assert Rbac(store).decide(user, Attributes("get", "", "pods", namespace="default")).allowed
    assert Rbac(store).decide(user, Attributes("get", "", "pods")).allowed


def test_names_subresources_and_wildcards() -> None:
    store, create = _cluster()
    rules = [
        {"verbs": ["update"], "apiGroups": ["g"], "resources": ["tasks/approval"], "resourceNames": ["a"]},
        {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*/scale"]},
        {"verbs": ["get"], "nonResourceURLs": ["/metrics", "/logs/*"]},
    ]
    create("clusterroles", "mixed", rules=rules)
    _bind(create, "ClusterRole", "mixed", {"kind": "User", "name": "ben"}, clusterwide=True)
    rbac = Rbac(store)
    assert rbac.decide(BEN, Attributes("update", "g", "tasks", "approval", "default", "a")).allowed
    assert not rbac.decide(BEN, Attributes("update", "g", "tasks", "approval", "default", "b")).allowed
    assert not rbac.decide(BEN, Attributes("update", "g", "tasks", "", "default", "a")).allowed
    assert rbac.decide(BEN, Attributes("patch", "x", "anything", "scale", "default")).allowed
    assert rbac.decide(BEN, Attributes("get", path="/logs/a")).allowed
    assert not rbac.decide(BEN, Attributes("get", path="/metrics/a")).allowed


def test_an_aggregating_role_has_the_rules_of_those_it_selects() -> None:
    store, create = _cluster()
    create("clusterroles", "part", labels={"to": "view"}, rules=[PODS])
    selectors = [{"matchLabels": {"to": "view"}}]
    create("clusterroles", "view", aggregationRule={"clusterRoleSelectors": selectors})
    _bind(create, "ClusterRole", "view", {"kind": "User", "name": "ben"})
    assert Rbac(store).decide(BEN, Attributes("get", "", "pods", namespace="default")).allowed


def test_roles_that_aggregate_each_other_have_the_same_rules() -> None:
    store, create = _cluster()
    create("clusterroles", "part", labels={"to": "view"}, rules=[PODS])
    for name, other in (("view", "edit"), ("edit", "view")):
        rule = {"clusterRoleSelectors": [{"matchLabels": {"to": name}}]}
        create("clusterroles", name, labels={"to": other}, aggregationRule=rule)
    _bind(create, "ClusterRole", "edit", {"kind": "User", "name": "ben"})
    assert Rbac(store).decide(BEN, Attributes("get", "", "pods", namespace="default")).allowed


def test_who_may_view_sees_all_that_kubectl_get_all_asks_for() -> None:
    """Else it ends with Forbidden, which it does not in a cluster."""
    store, create = _cluster()
    for role in yaml.safe_load_all((Path(access.__file__).parent / "cluster_roles.yaml").read_text()):
        parts = {key: value for key, value in role.items() if key in {"rules", "aggregationRule"}}
        create("clusterroles", role["metadata"]["name"], labels=role["metadata"].get("labels"), **parts)
    _bind(create, "ClusterRole", "view", {"kind": "User", "name": "ben"})
    asked = [
        each
        for group, versions in store.registry.group_versions().items()
        for version in versions
        for each in store.registry.resources(group, version)
        if "all" in each.categories
    ]
    assert {each.plural for each in asked} >= {"pods", "services", "deployments"}
    rbac = Rbac(store)
    for each in asked:
        assert rbac.decide(BEN, Attributes("list", each.group, each.plural, namespace="default")).allowed, each.key
