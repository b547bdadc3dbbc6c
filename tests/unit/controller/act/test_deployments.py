"""The size of a Deployment is lowered by writes in an order that no other replica can get between.

No admission policy helps here: a ReplicaSet deletes whatever it has too many of, and may do so late. Every order of the
writes is tried, as for the deletes of the controller itself (`test_pods_delete`).
"""

from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

from agent.rules import slots
from agent.wire import Origin, Phase
from controller import names
from controller.act.deployments import Deployments
from controller.decide.view import DeploymentView, PodView
from controller.kube.api import DEPLOYMENTS, PODS, REPLICASETS, Object
from controller.kube.cache import Cache
from controller.objects.deployment import deployment_of
from tests.support.interleave import Scenario, explore, step
from tests.unit.controller.act.test_pods_delete import ERRORS, NS, WORK, Replica, Site

MANAGER = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "d-rs", "uid": "uid-rs", "controller": True}
SECRET = {"apiVersion": "v1", "kind": "Secret", "name": "s", "uid": "uid-s"}


class Managed(Site):
    """A site whose Pod is a ReplicaSet's, with the Deployment of that."""

    def __init__(self, *, state: str = "draining", opened: bool = False, replicas: int = 1) -> None:
        super().__init__(state=state, opened=opened)
        if not opened:
            self.agent.execute(slots.Drain(drain_id="d0"))
        pod = self.pod
        metadata = {**pod["metadata"], "labels": {**pod["metadata"]["labels"], names.DEPLOYMENT_LABEL: "d"}}
        metadata["annotations"] = {names.DRAIN_ID: "d0", names.OPENED: "2026-03-01T12:00:00Z"}
        metadata["ownerReferences"] = [MANAGER, SECRET]
        self.api.put(PODS, {**pod, "metadata": metadata})
        spec = {"replicas": replicas, "paused": True}
        self.api.put(DEPLOYMENTS, {"metadata": {"name": "d", "namespace": NS, "uid": "uid-d"}, "spec": spec})
        self.found = DeploymentView(
            name="d", uid="uid-d", template_hash="h", replicas=replicas, known=True, paused=True,
            replica_sets=(("uid-rs", "d-rs"),),
        )  # fmt: skip

    @property
    def replicas(self) -> int:
        size: int = self.api.objects[DEPLOYMENTS, NS, "d"]["spec"]["replicas"]
        return size

    def managed(self) -> PodView:
        return replace(self.view(), deployment="d", replica_set="uid-rs")

    def change(self, **metadata: Any) -> None:
        self.api.put(PODS, {**self.pod, "metadata": {**self.pod["metadata"], **metadata}})


class Hands(Replica):
    """One controller's hands."""

    def __init__(self, site: Managed, term: int) -> None:
        super().__init__(site, term)
        self.managed = site
        caches = Cache(DEPLOYMENTS), Cache(REPLICASETS)
        self.deployments = Deployments(site.api, *caches, pods=self.pods, rng=self.pods._rng)

    async def scale(self, replicas: int = 0) -> None:
        view = self.managed.managed()
        with suppress(*ERRORS):
            await self.deployments.scale(NS, self.managed.found, replicas, (view,), lambda _: self.client)

    async def take_back(self, *, needed: bool = False) -> None:
        await step()
        view = self.managed.managed()
        with suppress(*ERRORS):
            await self.deployments.take_back(NS, self.managed.found, view, self.client, needed=needed)
            assert view.agent
            await self.client.acquire(view.agent.incarnation, "task.1", "plan", WORK)

    async def drop(self) -> None:
        with suppress(*ERRORS):
            await self.deployments.drop(NS, self.managed.found)

    async def mark(self) -> None:
        with suppress(*ERRORS):
            await self.pods.mark(self.managed.managed(), NS, self.client)

    async def open(self) -> None:
        with suppress(*ERRORS):
            await self.pods.open(self.managed.managed(), NS, self.client)


def run(coroutine: Any) -> None:
    """Run one coroutine to its end."""
    with suppress(StopIteration):
        while True:
            coroutine.send(None)


@pytest.mark.parametrize("newer", ["scale", "take back"])
def test_a_size_that_is_lowered_against_a_drain_taken_back_in_every_order(newer: str) -> None:
    """T1, O1: a Pod that works is never told to go, whichever of two leaders is late."""
    ends = set()

    def make() -> Scenario:
        site = Managed()
        lowers, opens = Hands(site, 2 if newer == "scale" else 1), Hands(site, 1 if newer == "scale" else 2)

        def check() -> None:
            told_to_go = site.replicas < 1
            assert not (told_to_go and site.agent.view().phase is Phase.OPEN), "its ReplicaSet may delete it any time"
            ends.add((told_to_go, bool(site.agent.held)))

        return Scenario({"scale": lowers.scale(), "take back": opens.take_back()}, check)

    assert explore(make) > 100
    assert (True, False) in ends, "it is lowered in some order"
    assert newer == "scale" or (False, True) in ends, "and taken back in another"


def test_what_is_not_marked_or_does_not_confirm_keeps_its_place() -> None:
    """T1: the label alone is not enough."""
    active = Managed(state="active", opened=True)
    run(Hands(active, 1).scale())
    assert active.replicas == 1
    lying = Managed(opened=True)
    lying.agent.execute(slots.Acquire(task_id="t.1", task_type="plan", origin=Origin.CONTROLLER, work=WORK))
    run(Hands(lying, 1).scale())
    assert lying.replicas == 1
    assert lying.pod["metadata"]["labels"][names.STATE_LABEL] == "active", "it is held back from being deleted"
    unpaused = Managed()
    unpaused.api.put(DEPLOYMENTS, {**unpaused.api.objects[DEPLOYMENTS, NS, "d"], "spec": {"replicas": 1}})
    run(Hands(unpaused, 1).scale())
    assert unpaused.replicas == 1, "somebody has it roll out"


def test_a_size_that_somebody_has_lowered_is_raised_without_asking_anyone() -> None:
    site = Managed(state="active", opened=True, replicas=0)
    run(Hands(site, 1).scale(replicas=1))
    assert site.replicas == 1


def test_a_marked_pod_is_the_cheapest_and_has_let_go_of_the_finalizer() -> None:
    site = Managed(state="active", opened=True)
    site.change(finalizers=["kubelet", names.POD_FINALIZER])
    run(Hands(site, 1).mark())
    metadata = site.pod["metadata"]
    assert metadata["labels"][names.STATE_LABEL] == "draining"
    assert int(metadata["annotations"][names.DELETION_COST]) < 0
    assert metadata["finalizers"] == ["kubelet"]
    assert not site.deleted
    assert site.agent.view().phase is Phase.DRAINED


def test_a_pod_without_its_second_owner_is_never_opened() -> None:
    """N3: whatever the view said."""
    site = Managed(state="starting")
    site.change(ownerReferences=[MANAGER])
    run(Hands(site, 1).open())
    assert site.agent.view().phase is Phase.DRAINED
    assert site.pod["metadata"]["labels"][names.STATE_LABEL] == "starting"
    site.change(ownerReferences=[MANAGER, SECRET])
    run(Hands(site, 1).open())
    assert site.agent.view().phase is Phase.OPEN
    assert names.POD_FINALIZER in site.pod["metadata"]["finalizers"]
    assert int(site.pod["metadata"]["annotations"][names.DELETION_COST]) > 0


def put_set(site: Managed) -> None:
    labels = {names.DEPLOYMENT_LABEL: "d"}
    metadata = {"name": "d-rs", "namespace": NS, "uid": "uid-rs", "labels": labels, "ownerReferences": []}
    site.api.put(REPLICASETS, {"metadata": metadata})


def test_a_deployment_is_dropped_only_where_its_pods_outlive_it() -> None:
    """N3."""
    whole = Managed(state="active", opened=True)
    put_set(whole)
    run(Hands(whole, 1).drop())
    assert (DEPLOYMENTS, NS, "d") in whole.api.objects, "as it was made, and with a Pod"
    broken = Managed(state="active", opened=True)
    broken.change(ownerReferences=[MANAGER])
    run(Hands(broken, 1).drop())
    assert (DEPLOYMENTS, NS, "d") in broken.api.objects, "the Pod would go with it"
    broken.change(ownerReferences=[MANAGER, SECRET])
    run(Hands(broken, 1).drop())
    assert (DEPLOYMENTS, NS, "d") not in broken.api.objects


def test_a_deployment_whose_replica_set_was_only_not_seen_yet_stays() -> None:
    site = Managed(replicas=0)
    site.change(ownerReferences=[SECRET])
    put_set(site)
    site.found = replace(site.found, replica_sets=())
    run(Hands(site, 1).drop())
    assert (DEPLOYMENTS, NS, "d") in site.api.objects
    site.found = replace(site.found, replica_sets=(("uid-rs", "d-rs"),))
    run(Hands(site, 1).drop())
    assert (DEPLOYMENTS, NS, "d") not in site.api.objects, "nothing is left of it"


def test_a_replica_set_is_dropped_only_where_its_pods_outlive_it() -> None:
    site = Managed(state="active", opened=True)
    put_set(site)
    site.change(ownerReferences=[MANAGER])
    hands = Hands(site, 1)
    run(hands.deployments.drop_set(NS, "pool", "uid-rs", "d-rs"))
    assert (REPLICASETS, NS, "d-rs") in site.api.objects
    site.change(ownerReferences=[MANAGER, SECRET])
    run(hands.deployments.drop_set(NS, "pool", "uid-another", "d-rs"))
    assert (REPLICASETS, NS, "d-rs") in site.api.objects
    run(hands.deployments.drop_set(NS, "pool", "uid-rs", "d-rs"))
    assert (REPLICASETS, NS, "d-rs") not in site.api.objects


def test_its_selector_matches_no_pod_of_pods_mode() -> None:
    """A ReplicaSet adopts whatever matches and has no controller."""
    pod: Object = {
        "metadata": {
            "name": "pool-x",
            "labels": {names.POOL_LABEL: "pool", names.STATE_LABEL: "starting"},
            "annotations": {names.TEMPLATE_HASH: "h"},
        },
        "spec": {"containers": []},
    }
    made = deployment_of({"metadata": {"name": "pool", "namespace": NS, "uid": "u"}}, pod)
    ((label, value),) = made["spec"]["selector"]["matchLabels"].items()
    assert label not in pod["metadata"]["labels"]
    assert made["spec"]["template"]["metadata"]["labels"][label] == value == made["metadata"]["name"]
    assert made["spec"]["replicas"] == 0
    assert made["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
