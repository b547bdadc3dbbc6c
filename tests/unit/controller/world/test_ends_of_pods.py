"""A Pod that goes before it was opened has failed to start, unless it was taken away by this controller."""

import random
from datetime import UTC, datetime
from typing import Any

from prometheus_client import CollectorRegistry

from controller import names
from controller.app import Controller
from controller.config import Config
from controller.decide.view import PodOperation
from tests.support import virtual_time
from tests.support.agents import FakeNetwork
from tests.support.memory_api import MemoryApi

Object = dict[str, Any]


def metadata(name: str, version: int, **more: Any) -> Object:
    known = {"namespace": "ns", "name": name, "uid": f"uid-{name}", "resourceVersion": str(version)}
    return {**known, "creationTimestamp": "2026-03-01T10:00:00Z", **more}


def a_pod(version: int) -> Object:
    labels = {names.POOL_LABEL: "pool", names.STATE_LABEL: "starting"}
    return {"metadata": metadata("p", version, labels=labels), "spec": {}, "status": {"phase": "Pending"}}


def failed(*, taken: bool) -> bool:
    """Whether the end of a Pod counts as a failure. It is told a moment after the operation on it has ended."""

    async def main() -> bool:
        controller = Controller(
            Config.from_environ({}),
            MemoryApi(),
            FakeNetwork(),
            now=lambda: datetime(2026, 3, 1, 12, tzinfo=UTC),
            rng=random.Random(1),
            random_bytes=lambda count: b"0" * count,
            registry=CollectorRegistry(),
        )
        controller.caches.pools.note({"metadata": metadata("pool", 1), "spec": {}})
        controller.caches.pods.note(a_pod(2))
        if taken:
            controller.world.under_way.begin("uid-p", PodOperation.REMOVE)
            controller.world.under_way.end("uid-p")
        controller.caches.pods.apply_deleted(a_pod(3))
        return controller.world.start_failures.problem(("uid-pool", "")) is not None

    return virtual_time.run(main)


def test_a_starting_pod_that_somebody_deleted_has_failed_to_start() -> None:
    assert failed(taken=False)


def test_one_that_this_controller_deleted_has_not_however_late_its_end_is_told() -> None:
    """The API server answers a DELETE with the Pod: that it is gone, the watch tells."""
    assert not failed(taken=True)
