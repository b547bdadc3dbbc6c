"""What a PodDisruptionBudget says, and when it is counted anew."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from controller.local.apiserver.errors import ApiError
from controller.local.apiserver.store.deletion import DeleteOptions
from controller.local.apiserver.store.patches import MERGE
from controller.local.apiserver.store.store import Store

Json = dict[str, Any]

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


class Cluster:
    """A store with Pods under a budget."""

    def __init__(self, **spec: Any) -> None:
        self.store = Store()
        self.store.bootstrap(NOW, random.Random(1))
        self.create("poddisruptionbudgets.policy", "b", spec={"selector": {"matchLabels": {"app": "x"}}, **spec})

    def create(self, key: str, name: str, **parts: Any) -> None:
        document = {"metadata": {"name": name, **parts.pop("metadata", {})}, **parts}
        self.store.create(self.store.registry.by_key(key), "default", document, now=NOW, rng=random.Random(name))

    def pods(self, *names: str, ready: bool = True) -> None:
        for name in names:
            spec = {"containers": [{"name": "m", "image": "i"}], "nodeName": "n"}
            self.create("pods", name, metadata={"labels": {"app": "x"}}, spec=spec)
            self.report(name, ready=ready)

    def report(self, name: str, *, ready: bool) -> None:
        conditions = [{"type": "Ready", "status": "True" if ready else "False"}]
        status = {"status": {"phase": "Running", "conditions": conditions}}
        pods = self.store.registry.by_key("pods")
        self.store.patch(pods, "default", name, MERGE, status, subresource="status")

    def status(self, now: datetime = NOW) -> Json:
        while self.store.collect(now):
            pass
        record = self.store.versions.get("poddisruptionbudgets.policy", ("default", "b"))
        assert record is not None
        status: Json = record.body["status"]
        return status

    def evict(self, name: str) -> None:
        self.store.evict("default", name, {}, DeleteOptions(), now=NOW)


@pytest.mark.parametrize(
    ("spec", "desired", "allowed"),
    [
        ({"minAvailable": 2}, 2, 1),
        ({"minAvailable": "50%"}, 2, 1),
        ({"maxUnavailable": 1}, 2, 1),
        ({"maxUnavailable": "100%"}, 0, 3),
        ({"minAvailable": 2147483647}, 2147483647, 0),
    ],
)
def test_bounds_are_numbers_or_shares_rounded_up(spec: Json, desired: int, allowed: int) -> None:
    cluster = Cluster(**spec)
    cluster.pods("a", "b", "c")
    status = cluster.status()
    assert (status["desiredHealthy"], status["disruptionsAllowed"], status["currentHealthy"]) == (desired, allowed, 3)


def test_an_eviction_takes_from_the_budget_at_once_and_is_given_back_if_the_pod_stays() -> None:
    cluster = Cluster(minAvailable=1)
    cluster.pods("a", "b")
    assert cluster.status()["disruptionsAllowed"] == 1
    with pytest.raises(ApiError):
        cluster.store.evict("default", "a", {}, DeleteOptions(uid="another"), now=NOW)
    assert cluster.status()["disruptionsAllowed"] == 0
    cluster.store.garbage.retry({"default"})
    assert cluster.status(NOW + timedelta(minutes=3))["disruptionsAllowed"] == 1


def test_a_change_that_no_budget_counts_has_none_counted_anew() -> None:
    cluster = Cluster(minAvailable=1)
    cluster.pods("a")
    cluster.status()
    pods = cluster.store.registry.by_key("pods")
    cluster.store.patch(pods, "default", "a", MERGE, {"metadata": {"annotations": {"k": "v"}}})
    assert not cluster.store.garbage
    cluster.report("a", ready=False)
    assert cluster.store.garbage
    assert cluster.status()["currentHealthy"] == 0


def test_a_pod_that_is_not_ready_goes_once_the_budget_is_met() -> None:
    cluster = Cluster(minAvailable=1)
    cluster.pods("a")
    cluster.pods("sick", ready=False)
    cluster.status()
    cluster.evict("sick")
    cluster.report("a", ready=False)
    cluster.status()
    cluster.pods("sick2", ready=False)
    cluster.status()
    with pytest.raises(ApiError, match="would violate"):
        cluster.evict("sick2")
