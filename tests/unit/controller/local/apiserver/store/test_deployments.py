"""Deployments and ReplicaSets: how many Pods there are, which go first, whose they are."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from controller.local.apiserver.errors import ApiError
from controller.local.apiserver.store import patches
from controller.local.apiserver.store.admission_request import AdmissionRequest
from controller.local.apiserver.store.controllers.replicasets import DELETION_COST
from controller.local.apiserver.store.controllers.workloads import Workloads
from controller.local.apiserver.store.deletion import DeleteOptions
from controller.local.apiserver.store.store import Store
from controller.local.apiserver.store.versions import Record

Json = dict[str, Any]

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
LABELS = {"app": "d"}
SPEC: Json = {"containers": [{"name": "m", "image": "i:1"}]}
SECOND_OWNER = {"apiVersion": "v1", "kind": "Secret", "name": "stays"}


class Cluster:
    """A store with the controllers, stepped until nothing is left to do."""

    def __init__(self) -> None:
        self.store = Store()
        self.now = NOW
        self.store.bootstrap(NOW, random.Random(1))
        self.workloads = Workloads(self.store, random.Random(2))

    def settle(self, seconds: float = 0.0) -> None:
        self.now += timedelta(seconds=seconds)
        while self.store.collect(self.now) or self.workloads.sync(self.now):
            pass

    def create(self, key: str, name: str, **parts: Any) -> Record:
        document = {"metadata": {"name": name, **parts.pop("metadata", {})}, **parts}
        resource = self.store.registry.by_key(key)
        made = self.store.create(resource, "default", document, now=self.now, rng=random.Random(name)).record
        assert made is not None
        self.settle()
        return made

    def deployment(self, replicas: int, **spec: Any) -> Record:
        template = {"metadata": {"labels": LABELS}, "spec": SPEC}
        selector = {"matchLabels": LABELS}
        parts = {"replicas": replicas, "selector": selector, "template": template, **spec}
        return self.create("deployments.apps", "d", spec=parts)

    def all(self, key: str) -> list[Json]:
        return [record.body for record in self.store.versions.collection(key).current("default")]

    @property
    def pods(self) -> list[Json]:
        return self.all("pods")

    @property
    def names(self) -> set[str]:
        return {pod["metadata"]["name"] for pod in self.pods}

    def patch(self, key: str, name: str, patch: Json, subresource: str = "") -> None:
        resource = self.store.registry.by_key(key)
        self.store.patch(resource, "default", name, patches.MERGE, patch, subresource=subresource)
        self.settle()

    def spec(self, **spec: Any) -> None:
        self.patch("deployments.apps", "d", {"spec": spec})

    def status(self, key: str = "deployments.apps") -> Json:
        status: Json = self.all(key)[0]["status"]
        return status

    def run(self, *names: str) -> None:
        """These Pods, or all, run and are ready."""
        since = self.now.strftime("%Y-%m-%dT%H:%M:%SZ")
        ready = {"type": "Ready", "status": "True", "lastTransitionTime": since}
        for name in names or sorted(self.names):
            self.store.bind("default", name, f"node-{name}", now=self.now)
            self.patch("pods", name, {"status": {"phase": "Running", "conditions": [ready]}}, "status")

    def delete(self, key: str, name: str, propagation: str = "Background") -> None:
        options = DeleteOptions(propagation=propagation)
        self.store.delete(self.store.registry.by_key(key), "default", name, options, now=self.now)
        self.settle()

    def own(self, pod: str) -> None:
        """Give a Pod a second owner that stays."""
        secret = self.store.versions.get("secrets", ("default", "stays"))
        uid = secret.uid if secret is not None else self.create("secrets", "stays").uid
        found = next(entry for entry in self.pods if entry["metadata"]["name"] == pod)
        owners = [*found["metadata"]["ownerReferences"], {**SECOND_OWNER, "uid": uid}]
        self.patch("pods", pod, {"metadata": {"ownerReferences": owners}})


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


def owner(body: Json) -> Json:
    found: Json = next(entry for entry in body["metadata"]["ownerReferences"] if entry.get("controller"))
    return found


def test_pods_come_from_a_replica_set_that_the_deployment_owns(cluster: Cluster) -> None:
    made = cluster.deployment(2)
    (replica_set,) = cluster.all("replicasets.apps")
    digest = replica_set["metadata"]["labels"]["pod-template-hash"]
    assert replica_set["metadata"]["name"] == f"d-{digest}"
    assert owner(replica_set)["uid"] == made.uid
    assert len(cluster.pods) == 2
    for pod in cluster.pods:
        assert pod["metadata"]["labels"] == {**LABELS, "pod-template-hash": digest}
        assert owner(pod)["uid"] == replica_set["metadata"]["uid"]
        assert owner(pod)["blockOwnerDeletion"]
    cluster.run()
    status = cluster.status()
    assert (status["replicas"], status["readyReplicas"], status["updatedReplicas"]) == (2, 2, 2)
    assert {c["type"]: c["status"] for c in status["conditions"]} == {"Available": "True", "Progressing": "True"}


def test_the_pods_that_go_are_the_cheapest_of_those_that_are_ready(cluster: Cluster) -> None:
    cluster.deployment(3)
    cluster.run()
    cheap, dear, plain = sorted(cluster.names)
    cluster.patch("pods", cheap, {"metadata": {"annotations": {DELETION_COST: "-1"}}})
    cluster.patch("pods", dear, {"metadata": {"annotations": {DELETION_COST: "1"}}})
    cluster.spec(replicas=2)
    assert [p["metadata"]["name"] for p in cluster.pods if "deletionTimestamp" not in p["metadata"]] == [dear, plain]


def test_what_is_not_ready_goes_before_what_is_cheap(cluster: Cluster) -> None:
    cluster.deployment(2)
    cheap, young = sorted(cluster.names)
    cluster.run(cheap)
    cluster.patch("pods", cheap, {"metadata": {"annotations": {DELETION_COST: "-1"}}})
    cluster.spec(replicas=1)
    assert cluster.names == {cheap}, "the other was still pending"
    assert young


def test_an_ended_pod_and_one_on_its_way_out_are_replaced(cluster: Cluster) -> None:
    cluster.deployment(1)
    (failed,) = cluster.names
    cluster.patch("pods", failed, {"status": {"phase": "Failed"}}, "status")
    assert len(cluster.names - {failed}) == 1
    (second,) = cluster.names - {failed}
    cluster.run(second)
    cluster.delete("pods", second)
    assert len(cluster.names - {failed, second}) == 1
    assert cluster.status()["terminatingReplicas"] == 1


def test_orphans_that_match_are_adopted_and_others_let_go(cluster: Cluster) -> None:
    cluster.deployment(1)
    (first,) = cluster.names
    cluster.patch("pods", first, {"metadata": {"labels": {"app": "other"}}})
    assert len(cluster.names) == 2, "another takes its place"
    released = next(pod for pod in cluster.pods if pod["metadata"]["name"] == first)
    assert "ownerReferences" not in released["metadata"]
    cluster.patch("pods", first, {"metadata": {"labels": {"app": "d"}}})
    assert len(cluster.names) == 1, "adopted again, there is one too many"


def test_a_paused_one_makes_no_replica_set_but_scales_the_one_there_is(cluster: Cluster) -> None:
    cluster.deployment(2, paused=True)
    assert not cluster.pods
    cluster.spec(paused=None)
    assert len(cluster.pods) == 2
    cluster.spec(paused=True, replicas=3)
    assert len(cluster.pods) == 3
    other = {"spec": {"containers": [{"name": "m", "image": "i:2"}]}}
    cluster.spec(template=other)
    assert len(cluster.all("replicasets.apps")) == 1, "another template waits"


def test_a_rollout_keeps_its_bounds(cluster: Cluster) -> None:
    cluster.deployment(4, strategy={"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 1}})
    cluster.run()
    cluster.spec(template={"spec": {"containers": [{"name": "m", "image": "i:2"}]}})
    for _ in range(12):
        alive = [pod for pod in cluster.pods if "deletionTimestamp" not in pod["metadata"]]
        assert len(alive) <= 5
        new = [pod for pod in alive if pod["spec"]["containers"][0]["image"] == "i:2"]
        waiting = [pod["metadata"]["name"] for pod in new if pod["status"]["phase"] == "Pending"]
        assert sum(pod["status"]["phase"] == "Running" for pod in alive) >= 3
        if not waiting:
            break
        cluster.run(waiting[0])
    assert {pod["spec"]["containers"][0]["image"] for pod in alive} == {"i:2"}
    assert len(alive) == 4
    assert cluster.all("deployments.apps")[0]["metadata"]["annotations"]["deployment.kubernetes.io/revision"] == "2"


@pytest.mark.parametrize("key", ["deployments.apps", "replicasets.apps"])
@pytest.mark.parametrize("propagation", ["Foreground", "Background"])
def test_pods_with_another_owner_outlive_their_deployment(cluster: Cluster, key: str, propagation: str) -> None:
    cluster.deployment(2)
    kept, other = sorted(cluster.names)
    cluster.own(kept)
    cluster.spec(paused=True)  # it makes no ReplicaSet again
    cluster.delete(key, cluster.all(key)[0]["metadata"]["name"], propagation)
    assert cluster.names == {kept}
    assert other
    (pod,) = cluster.pods
    assert [entry["kind"] for entry in pod["metadata"]["ownerReferences"]] == ["Secret"]


def test_a_refused_deletion_is_tried_again_and_said(cluster: Cluster) -> None:
    cluster.deployment(2)

    def refuse(request: AdmissionRequest) -> tuple[str, ...]:
        if request.operation == "DELETE" and request.resource.key == "pods":
            raise ApiError(403, "Forbidden", f"held: {request.user.name}", {})
        return ()

    allow, cluster.store.admit = cluster.store.admit, refuse
    cluster.spec(replicas=1)
    assert len(cluster.pods) == 2
    (failure,) = (c for c in cluster.status()["conditions"] if c["type"] == "ReplicaFailure")
    assert failure["message"] == "held: system:serviceaccount:kube-system:replicaset-controller"
    due = cluster.workloads.next_try()
    assert due is not None
    cluster.settle(seconds=1)
    assert (cluster.workloads.next_try() or NOW) > due, "it waits longer"
    cluster.store.admit = allow
    cluster.settle(seconds=20)
    assert len(cluster.pods) == 1
    assert all(c["type"] != "ReplicaFailure" for c in cluster.status()["conditions"])
    assert cluster.workloads.next_try() is None


def test_a_selector_that_does_not_fit_is_refused_and_never_changes(cluster: Cluster) -> None:
    with pytest.raises(ApiError, match="does not match template"):
        cluster.deployment(1, selector={"matchLabels": {"app": "x"}})
    cluster.deployment(1)
    with pytest.raises(ApiError, match="immutable"):
        cluster.spec(
            selector={"matchLabels": {"app": "d", "pod": None, "x": "y"}}, template={"metadata": {"labels": {"x": "y"}}}
        )
