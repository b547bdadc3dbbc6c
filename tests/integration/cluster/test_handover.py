"""A leader that is told to stop hands over: the standby leads, and acts, at once. With the Lease as it is shipped."""

import asyncio
import signal
import time
from pathlib import Path

import pytest

from controller.config import Config
from controller.kube.api import LEASES, PODS
from controller.names import LEADER_LEASE
from tests.support.cluster import NAMESPACE, Child, Cluster, until

pytestmark = pytest.mark.long

BAR_SECONDS = 2.0
"""A standby looks twice a second, and takes two requests to lead: some 0.6 s."""


async def holder(cluster: Cluster) -> str:
    lease = await cluster.api.get(LEASES, NAMESPACE, LEADER_LEASE)
    return str(lease["spec"].get("holderIdentity") or "").partition("_")[0]


async def test_the_standby_leads_within_two_seconds_and_starts_what_waits(tmp_path: Path) -> None:
    lease_seconds = Config.from_environ({}).lease_seconds
    async with Cluster(tmp_path, lease_seconds=lease_seconds) as cluster:
        await until(lambda: "leadership" in cluster.controller.log.read_text(), "the first one leads")
        standby: Child = cluster.new_controller("standby")
        await standby.start()
        try:
            await until(lambda: _leads_after(standby, cluster), "the standby follows")
            await cluster.create_pool(replicas=1, autoscaling=None)
            await until(lambda: _opened(cluster), "a Pod serves")
            assert await holder(cluster) == "controller"
            began = time.monotonic()
            cluster.controller.send(signal.SIGTERM)
            while await holder(cluster) != "standby":
                assert time.monotonic() - began < 10 * BAR_SECONDS
                await asyncio.sleep(0.01)  # looking, not waiting for a time to pass
            seconds = time.monotonic() - began
            await cluster.create_task("after")
            await cluster.until_phase("after", "Succeeded")
            assert await cluster.controller.terminate() == 0
            assert seconds < BAR_SECONDS
        finally:
            await standby.terminate()


async def _opened(cluster: Cluster) -> bool:
    pods = (await cluster.api.list_page(PODS, NAMESPACE))["items"]
    return any(pod["metadata"]["labels"].get("podslots.dev/state") == "active" for pod in pods)


async def _leads_after(standby: Child, cluster: Cluster) -> bool:
    """Whether the standby reads the Lease that the other one holds: it has read everything by then."""
    asked = [entry for entry in cluster.audit() if entry["objectRef"].get("name") == LEADER_LEASE]
    return "serving" in standby.log.read_text() and len(asked) > 20
