"""Policies that hold a Pod back: each expression evaluates here as on a real API server, for each kind of user."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from typing import Any

import pytest

from controller.local.apiserver.access.authorization import Authorizer
from controller.local.apiserver.access.rbac import Rbac
from controller.local.apiserver.admission.policies import Policies
from controller.local.apiserver.errors import ApiError
from controller.local.apiserver.store.deletion import DeleteOptions
from controller.local.apiserver.store.outcomes import Outcome, WriteOptions
from controller.local.apiserver.store.patches import MERGE
from controller.local.apiserver.store.store import Store
from controller.local.apiserver.store.users import User

Json = dict[str, Any]

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
CONTROLLER = User("system:serviceaccount:podslots-system:podslots-controller")
BEN = User("ben", ("system:authenticated",))
ANNA = User("anna", ("system:authenticated",))
KUBELET = User("system:node:n", ("system:nodes",))
_CTRL = f"request.userInfo.username == '{CONTROLLER.name}'"
_ACTIVE = {
    "matchExpressions": [
        {"key": "podslots.dev/pool", "operator": "Exists"},
        {"key": "podslots.dev/state", "operator": "In", "values": ["active"]},
    ]
}


def _glass(name: str) -> str:
    return f"'podslots.dev/break-glass' in {name}.metadata.?annotations.orValue({{}})"


_MAY_BREAK = (
    "authorizer.group('podslots.dev').resource('pods').subresource('break-glass').namespace(request.namespace)"
    ".name(request.name).check('update').allowed()"
)


class Cluster:
    """A store with policies before it."""

    def __init__(self) -> None:
        self.rng = random.Random(1)
        self.store = Store()
        self.store.bootstrap(NOW, self.rng)
        self.store.admit = Policies(self.store, Authorizer(Rbac(self.store), frozenset(), enforce=True)).admit

    def create(self, key: str, name: str, *, user: User = CONTROLLER, **parts: Any) -> Outcome:
        resource = self.store.registry.by_key(key)
        document = {**parts, "metadata": {"name": name, **parts.pop("metadata", {})}}
        home = "default" if resource.namespaced else ""
        options = WriteOptions(user=user)
        return self.store.create(resource, home, document, now=NOW, rng=self.rng, options=options)

    def pod(self, name: str = "a", state: str = "active", **spec: Any) -> None:
        labels = {"podslots.dev/pool": "p", "podslots.dev/state": state}
        spec = {"containers": [{"name": "m", "image": "i"}], **spec}
        self.create("pods", name, metadata={"labels": labels}, spec=spec)

    def policy(self, name: str, rule: Json, *validations: Json, binding: Json | None = None, **spec: Any) -> None:
        match = {"resourceRules": [{"apiVersions": ["v1"], "apiGroups": [""], **rule}], **spec.pop("match", {})}
        group = "admissionregistration.k8s.io"
        self.create(
            f"validatingadmissionpolicies.{group}",
            name,
            spec={"matchConstraints": match, "validations": list(validations), **spec},
        )
        bound = {"policyName": name, "validationActions": ["Deny"], **(binding or {})}
        self.create(f"validatingadmissionpolicybindings.{group}", name, spec=bound)

    def grant(self, user: User, *rules: Json) -> None:
        group = "rbac.authorization.k8s.io"
        self.create(f"roles.{group}", user.name, rules=list(rules))
        reference = {"kind": "Role", "name": user.name}
        subjects = [{"kind": "User", "name": user.name}]
        self.create(f"rolebindings.{group}", user.name, roleRef=reference, subjects=subjects)

    def patch(self, patch: Json, *, user: User, name: str = "a", subresource: str = "") -> Outcome:
        return self.store.patch(
            self.store.registry.by_key("pods"), "default", name, MERGE, patch,
            subresource=subresource, options=WriteOptions(user=user),
        )  # fmt: skip

    def delete(self, name: str = "a", *, key: str = "pods", user: User = BEN, **options: Any) -> Outcome:
        resource = self.store.registry.by_key(key)
        home = "default" if resource.namespaced else ""
        return self.store.delete(resource, home, name, DeleteOptions(user=user, **options), now=NOW)

    def settle(self) -> None:
        while self.store.collect(NOW):
            pass

    def has(self, key: str, name: str, namespace: str = "default") -> bool:
        return self.store.versions.get(key, (namespace, name)) is not None


def refused(code: int = 403) -> Any:
    return pytest.raises(ApiError, check=lambda error: error.code == code)


def hold_deletes(cluster: Cluster) -> None:
    cluster.policy(
        "delete",
        {"operations": ["DELETE"], "resources": ["pods"]},
        {
            "expression": f"has(oldObject.metadata.deletionTimestamp) || {_glass('oldObject')}",
            "reason": "Forbidden",
            "messageExpression": "'Pod ' + oldObject.metadata.name + ' is active'",
        },
        match={"objectSelector": _ACTIVE},
    )


def test_an_active_pod_is_kept_from_everyone_until_its_label_changes() -> None:
    cluster = Cluster()
    cluster.pod(nodeName="n")
    hold_deletes(cluster)
    for options in ({}, {"grace_seconds": 0}, {"dry_run": True}):
        with refused():
            cluster.delete(**options)
    cluster.patch({"metadata": {"labels": {"podslots.dev/state": "draining"}}}, user=CONTROLLER)
    cluster.delete()
    cluster.delete(user=KUBELET, grace_seconds=0)
    assert not cluster.has("pods", "a")


def test_the_garbage_collector_is_refused_and_comes_back() -> None:
    cluster = Cluster()
    owner = cluster.create("configmaps", "owner").record
    assert owner is not None
    cluster.pod()
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner.uid}
    cluster.patch({"metadata": {"ownerReferences": [reference]}}, user=CONTROLLER)
    hold_deletes(cluster)
    cluster.delete("owner", key="configmaps")
    cluster.settle()
    assert cluster.has("pods", "a")
    cluster.delete("delete", key="validatingadmissionpolicies.admissionregistration.k8s.io")
    cluster.store.garbage.retry()
    cluster.settle()
    assert not cluster.has("pods", "a")


def test_a_namespace_whose_pods_are_kept_loses_everything_else() -> None:
    """As the real namespace controller does, which is why namespaces need a policy of their own."""
    cluster = Cluster()
    cluster.create("namespaces", "team")
    options = WriteOptions(user=CONTROLLER)
    labels = {"podslots.dev/pool": "p", "podslots.dev/state": "active"}
    body = {"metadata": {"name": "a", "labels": labels}, "spec": {"containers": [{"name": "m", "image": "i"}]}}
    for key, document in (("pods", body), ("secrets", {"metadata": {"name": "s"}})):
        resource = cluster.store.registry.by_key(key)
        cluster.store.create(resource, "team", document, now=NOW, rng=cluster.rng, options=options)
    hold_deletes(cluster)
    cluster.delete("team", key="namespaces")
    cluster.settle()
    assert cluster.has("pods", "a", "team")
    assert not cluster.has("secrets", "s", "team")
    home = cluster.store.versions.get("namespaces", ("", "team"))
    assert home is not None
    conditions = {c["type"]: c["status"] for c in home.body["status"]["conditions"]}
    assert conditions["NamespaceDeletionContentFailure"] == conditions["NamespaceContentRemaining"] == "True"


_WITH_ACTIVE_PODS = {"paramRef": {"selector": _ACTIVE, "parameterNotFoundAction": "Allow"}}


def test_a_namespace_with_active_pods_is_not_deleted() -> None:
    cluster = Cluster()
    cluster.policy(
        "namespace",
        {"operations": ["DELETE"], "resources": ["namespaces"]},
        {
            "expression": f"has(params.metadata.deletionTimestamp) || {_glass('params')}",
            "reason": "Forbidden",
        },
        paramKind={"apiVersion": "v1", "kind": "Pod"},
        binding=_WITH_ACTIVE_PODS,
    )
    cluster.create("namespaces", "empty")
    cluster.delete("empty", key="namespaces")
    cluster.create("namespaces", "team")
    labels = {"podslots.dev/pool": "p", "podslots.dev/state": "active"}
    body = {"metadata": {"name": "a", "labels": labels}, "spec": {"containers": [{"name": "m", "image": "i"}]}}
    pods = cluster.store.registry.by_key("pods")
    cluster.store.create(pods, "team", body, now=NOW, rng=cluster.rng)
    with refused():
        cluster.delete("team", key="namespaces")


def test_an_eviction_of_a_pending_active_pod_is_refused_and_of_a_running_one_left_to_the_budget() -> None:
    cluster = Cluster()
    cluster.policy(
        "eviction",
        {"operations": ["CREATE"], "resources": ["pods/eviction"]},
        {
            "expression": (
                "params.metadata.name != request.name || params.status.?phase.orValue('') == 'Running' || "
                f"has(params.metadata.deletionTimestamp) || {_glass('params')}"
            ),
            "reason": "Forbidden",
        },
        paramKind={"apiVersion": "v1", "kind": "Pod"},
        binding=_WITH_ACTIVE_PODS,
    )
    cluster.pod("pending")
    cluster.pod("running")
    cluster.patch({"status": {"phase": "Running"}}, user=KUBELET, name="running", subresource="status")
    with refused():
        cluster.store.evict("default", "pending", {}, DeleteOptions(user=BEN), now=NOW)
    cluster.store.evict("default", "running", {}, DeleteOptions(user=BEN), now=NOW)
    assert not cluster.has("pods", "running")


def _guard_updates(cluster: Cluster) -> None:
    labels = "['podslots.dev/pool', 'podslots.dev/state'].all(k, variables.old[?k] == variables.new[?k])"
    unchanged = (
        "oldObject.metadata.?annotations['podslots.dev/break-glass'] == "
        "object.metadata.?annotations['podslots.dev/break-glass']"
    )
    cluster.policy(
        "update",
        {"operations": ["UPDATE"], "resources": ["pods", "pods/status", "pods/ephemeralcontainers", "pods/resize"]},
        {"expression": labels, "reason": "Forbidden"},
        {"expression": "variables.old[?'podslots.dev/state'].orValue('') != 'active' || object.spec == oldObject.spec"},
        {"expression": f"{unchanged} || {_MAY_BREAK}", "reason": "Forbidden"},
        match={"objectSelector": {"matchExpressions": [{"key": "podslots.dev/pool", "operator": "Exists"}]}},
        matchConditions=[{"name": "not-the-controller", "expression": f"!({_CTRL})"}],
        variables=[
            {"name": "old", "expression": "oldObject.metadata.?labels.orValue({})"},
            {"name": "new", "expression": "object.metadata.?labels.orValue({})"},
        ],
    )


@pytest.mark.parametrize("subresource", ["", "status"])
def test_only_the_controller_changes_the_labels_through_whatever_door(subresource: str) -> None:
    cluster = Cluster()
    cluster.pod()
    _guard_updates(cluster)
    for labels in ({"podslots.dev/state": "draining"}, {"podslots.dev/pool": None}):
        with refused():
            cluster.patch({"metadata": {"labels": labels}}, user=BEN, subresource=subresource)
    cluster.patch({"metadata": {"labels": {"mine": "1"}}}, user=BEN, subresource=subresource)
    cluster.patch({"metadata": {"labels": {"podslots.dev/state": "draining"}}}, user=CONTROLLER)


def test_the_spec_of_an_active_pod_is_frozen() -> None:
    cluster = Cluster()
    cluster.pod()
    _guard_updates(cluster)
    with refused(422):
        cluster.patch({"spec": {"containers": [{"name": "m", "image": "other"}]}}, user=BEN)


def test_breaking_the_glass_takes_a_right() -> None:
    cluster = Cluster()
    cluster.pod()
    hold_deletes(cluster)
    _guard_updates(cluster)
    cluster.grant(ANNA, {"verbs": ["update"], "apiGroups": ["podslots.dev"], "resources": ["pods/break-glass"]})
    broken = {"metadata": {"annotations": {"podslots.dev/break-glass": "why"}}}
    with refused():
        cluster.patch(broken, user=BEN)
    cluster.patch(broken, user=ANNA)
    cluster.delete(user=BEN)


def test_only_a_node_or_the_controller_ends_an_active_pod() -> None:
    cluster = Cluster()
    cluster.pod()
    changes = (
        "object.status.?phase.orValue('') in ['Failed', 'Succeeded'] && object.status.?phase != oldObject.status.?phase"
    )
    cluster.policy(
        "terminal",
        {"operations": ["UPDATE"], "resources": ["pods/status"]},
        {"expression": f"'system:nodes' in request.userInfo.?groups.orValue([]) || {_CTRL}", "reason": "Forbidden"},
        match={"objectSelector": _ACTIVE},
        matchConditions=[{"name": "ends", "expression": changes}],
    )
    with refused():
        cluster.patch({"status": {"phase": "Failed"}}, user=BEN, subresource="status")
    cluster.patch({"status": {"phase": "Running"}}, user=BEN, subresource="status")
    cluster.patch({"status": {"phase": "Failed"}}, user=KUBELET, subresource="status")


def test_a_budget_is_changed_by_the_controller_alone_but_goes_with_its_namespace() -> None:
    cluster = Cluster()
    same = (
        "request.operation == 'UPDATE' && object.spec == oldObject.spec && "
        "object.metadata.?labels == oldObject.metadata.?labels"
    )
    cluster.policy(
        "budget",
        {"operations": ["UPDATE", "DELETE"], "apiGroups": ["policy"], "resources": ["poddisruptionbudgets"]},
        {
            "expression": f"{_CTRL} || has(namespaceObject.metadata.deletionTimestamp) || ({same})",
            "reason": "Forbidden",
        },
    )
    key = "poddisruptionbudgets.policy"
    cluster.create(key, "b", spec={"minAvailable": 2147483647, "selector": {}})
    with refused():
        cluster.delete("b", key=key)
    cluster.delete("b", key=key, user=CONTROLLER)
    cluster.create(key, "b", spec={"minAvailable": 1, "selector": {}})
    with refused():
        cluster.store.patch(
            cluster.store.registry.by_key(key), "default", "b", MERGE, {"spec": {"minAvailable": 0}},
            options=WriteOptions(user=BEN),
        )  # fmt: skip


def test_an_expression_that_errs_refuses_unless_failures_are_ignored() -> None:
    for action, expected in (("Fail", 422), ("Ignore", None)):
        cluster = Cluster()
        cluster.pod()
        broken = {"expression": "oldObject.metadata.nothing.here == 'x'"}
        cluster.policy("broken", {"operations": ["DELETE"], "resources": ["pods"]}, broken, failurePolicy=action)
        if expected:
            with refused(expected):
                cluster.delete()
        else:
            cluster.delete()
