"""Pools that scale by a real Prometheus, which scrapes their agents and the controller.

It is asked every 15 seconds, and an answer is good for 45: that is what makes this long.
"""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from controller.kube.api import EVENTS, SLOTPOOLS, Object
from metrics.queries import UTILIZATION
from tests.support.at_once import AT_ONCE
from tests.support.cluster import NAMESPACE, Cluster, until
from tests.support.prometheus import PROGRAM, WITHOUT, Prometheus

pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(600),
    pytest.mark.skipif(PROGRAM is None, reason=WITHOUT),
]


@pytest_asyncio.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    async with Cluster(tmp_path) as running:
        yield running
        await running.settle()
        running.check()


@pytest_asyncio.fixture
async def prometheus(cluster: Cluster, tmp_path: Path) -> AsyncIterator[Prometheus]:
    async with Prometheus(cluster, tmp_path / "prometheus") as server:
        yield server


def autoscaling(server: Prometheus, least: int, **signal: Any) -> dict[str, Any]:
    return {
        "minReplicas": least,
        "maxReplicas": 3,
        "minIdleSeconds": 1,
        "scaleUpUtilizationPercent": 60,
        "behavior": AT_ONCE,
        "signal": {"source": "Prometheus", "url": server.url, "windowSeconds": 15, **signal},
    }


async def pods_of(cluster: Cluster, pool: str) -> list[str]:
    found = [pod["metadata"] for pod in await cluster.pods()]
    return sorted(metadata["name"] for metadata in found if metadata["labels"]["podslots.dev/pool"] == pool)


async def until_pods(cluster: Cluster, pool: str, count: int) -> None:
    async def reached() -> bool:
        return len(await pods_of(cluster, pool)) == count

    await until(reached, f"pool {pool} has {count} Pods", seconds=150)


async def until_scaling(cluster: Cluster, pool: str, reason: str) -> None:
    """Wait for a reason of the condition ScalingActive."""
    seen: list[Object] = []

    async def reached() -> bool:
        status = (await cluster.api.get(SLOTPOOLS, NAMESPACE, pool)).get("status") or {}
        seen[:] = [entry for entry in status.get("conditions") or () if entry["type"] == "ScalingActive"]
        return bool(seen) and seen[0]["reason"] == reason

    await until(reached, lambda: f"{pool} is {reason}; it is {seen}", seconds=150)


def work(done: Path) -> str:
    """A step that runs until a file is there."""
    return f"until [ -e {done} ]; do sleep 0.2; done"


async def test_a_pool_scales_up_and_down_by_promql(cluster: Cluster, prometheus: Prometheus, tmp_path: Path) -> None:
    """One of three slots runs, which is 33 % by the agents' word. The query says three times as much."""
    await prometheus.start()
    query = f"clamp_max(3 * ({UTILIZATION}), 1)"
    await cluster.create_pool("promql", autoscaling=autoscaling(prometheus, 1, utilizationQuery=query))
    await until_scaling(cluster, "promql", "Autoscaling")
    assert len(await pods_of(cluster, "promql")) == 1
    done = tmp_path / "done"
    await cluster.create_task("t", pool="promql", plan=work(done))
    await until_pods(cluster, "promql", 2)
    events = (await cluster.api.list_page(EVENTS, NAMESPACE))["items"]
    assert "UtilizationAbove" in {event["reason"] for event in events}
    assert await cluster.phase("t") == "Running"
    done.touch()
    await cluster.until_phase("t", "Succeeded")
    await until_pods(cluster, "promql", 1)


async def test_without_prometheus_a_pool_holds_its_size_and_says_so(
    cluster: Cluster, prometheus: Prometheus, tmp_path: Path
) -> None:
    """K1: stopped, started again empty, cut off. A pool beside it goes by its agents meanwhile, and shrinks."""
    await prometheus.start()
    done = tmp_path / "done"
    for pool, signal in (("holds", {}), ("falls-back", {"fallback": "Agents"})):
        await cluster.create_pool(pool, autoscaling=autoscaling(prometheus, 0, **signal))
        for number in range(2):
            await cluster.create_task(f"{pool}-{number}", "apply", pool=pool, apply=work(done))
    for pool in ("holds", "falls-back"):
        await until_pods(cluster, pool, 2)
        await until_scaling(cluster, pool, "Autoscaling")
    held = await pods_of(cluster, "holds")

    await prometheus.stop()
    done.touch()
    await until_scaling(cluster, "holds", "SignalUnavailable")
    await until_scaling(cluster, "falls-back", "ByAgents")
    await until_pods(cluster, "falls-back", 0)
    assert await pods_of(cluster, "holds") == held

    await prometheus.start(blind=True)
    await until_scaling(cluster, "holds", "SignalEmpty")
    assert await pods_of(cluster, "holds") == held

    prometheus.pause()
    try:
        await until_scaling(cluster, "holds", "SignalUnavailable")
    finally:
        prometheus.go_on()
    assert await pods_of(cluster, "holds") == held

    await prometheus.stop()
    await prometheus.start()
    await until_pods(cluster, "holds", 0)
    await until_scaling(cluster, "holds", "Autoscaling")
