"""Pods whose node has gone, or is out of service."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any

from controller.local.apiserver.store.controllers.pod_collection import PodCollector
from controller.local.apiserver.store.deletion import DeleteOptions
from controller.local.apiserver.store.store import Store

Json = dict[str, Any]

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


class Cluster:
    """A store with Pods on nodes."""

    def __init__(self) -> None:
        self.store = Store()
        self.store.bootstrap(NOW, random.Random(1))
        self.collector = PodCollector(self.store)

    def create(self, key: str, name: str, namespace: str, **parts: Any) -> None:
        document = {"metadata": {"name": name, **parts.pop("metadata", {})}, **parts}
        resource = self.store.registry.by_key(key)
        self.store.create(resource, namespace, document, now=NOW, rng=random.Random(name))

    def pod(self, name: str, node: str, **metadata: Any) -> None:
        spec = {"containers": [{"name": "m", "image": "i"}], "nodeName": node}
        self.create("pods", name, "default", metadata=metadata, spec=spec)

    def get(self, name: str) -> Json | None:
        record = self.store.versions.get("pods", ("default", name))
        return None if record is None else record.body

    def after(self, seconds: float) -> None:
        self.collector.collect(NOW + timedelta(seconds=seconds))


def test_a_pod_of_a_node_that_has_gone_is_deleted_after_a_while() -> None:
    cluster = Cluster()
    cluster.create("nodes", "here", "")
    cluster.pod("safe", "here")
    cluster.pod("orphan", "gone")
    cluster.after(0)
    cluster.after(39)
    assert cluster.get("orphan") is not None
    cluster.after(41)
    assert cluster.get("orphan") is None
    assert cluster.get("safe") is not None


def test_a_node_that_comes_back_keeps_its_pods() -> None:
    cluster = Cluster()
    cluster.pod("a", "late")
    cluster.after(0)
    cluster.create("nodes", "late", "")
    cluster.after(60)
    assert cluster.get("a") is not None


def test_a_pod_with_a_finalizer_is_marked_failed_and_says_why() -> None:
    cluster = Cluster()
    cluster.pod("held", "gone", finalizers=["podslots.dev/ended"])
    cluster.after(0)
    cluster.after(41)
    pod = cluster.get("held")
    assert pod is not None
    assert pod["status"]["phase"] == "Failed"
    assert pod["status"]["conditions"][0]["reason"] == "DeletionByPodGC"
    assert "deletionTimestamp" in pod["metadata"]


def test_a_deleted_pod_leaves_a_node_that_is_out_of_service() -> None:
    cluster = Cluster()
    cluster.create(
        "nodes", "dead", "", spec={"taints": [{"key": "node.kubernetes.io/out-of-service", "effect": "NoExecute"}]}
    )
    cluster.pod("a", "dead")
    cluster.after(0)
    assert cluster.get("a") is not None
    pods = cluster.store.registry.by_key("pods")
    cluster.store.delete(pods, "default", "a", DeleteOptions(), now=NOW)
    cluster.after(0)
    assert cluster.get("a") is None
