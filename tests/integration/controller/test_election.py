"""Elections through the embedded API server."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime

from controller.kube.access import KubeSettings
from controller.kube.api import LEASES
from controller.kube.client import KubeClient, connect
from controller.leader.election import Election
from controller.leader.lease import LeaseSettings
from controller.local.apiserver.faults import FaultRule
from controller.local.apiserver.server import ApiServer
from tests.support.api_client import TOKEN, make_server, until

QUICK = LeaseSettings(lease_duration_seconds=1.5, renew_deadline_seconds=1.0, retry_seconds=0.2)


def now() -> datetime:
    return datetime.now(UTC)


class Replica:
    def __init__(self, client: KubeClient, name: str) -> None:
        self.client = client
        self.election = Election(client, "default", name, now=now, rng=random.Random(name), settings=QUICK)
        self.task = asyncio.create_task(self.election.run())

    async def leads(self) -> bool:
        return self.election.may_act()

    async def crash(self) -> None:
        self.task.cancel()
        await asyncio.wait([self.task])


@asynccontextmanager
async def replicas(*names: str) -> AsyncIterator[tuple[ApiServer, list[Replica]]]:
    server = make_server()
    await server.start()
    async with AsyncExitStack() as stack:
        stack.push_async_callback(server.stop)
        started = []
        for name in names:
            client = await stack.enter_async_context(connect(KubeSettings(server=server.url, token=TOKEN), now))
            started.append(Replica(client, name))
            stack.push_async_callback(started[-1].crash)
        yield server, started


async def test_a_stopped_leader_hands_over_and_a_crashed_one_is_replaced() -> None:
    """T22: with a higher term each time."""
    async with replicas("one", "two") as (_, (one, two)):

        async def somebody() -> bool:
            return await one.leads() or await two.leads()

        await until(somebody)
        leader, other = (one, two) if await one.leads() else (two, one)
        first = leader.election.term()
        await leader.crash()
        await leader.election.release()
        await until(other.leads)
        second = other.election.term()
        third = Replica(leader.client, "three")
        await other.crash()
        await until(third.leads)
        assert first < second < third.election.term()
        await third.crash()


async def test_a_leader_without_the_api_stops_acting_and_leads_again_in_a_new_term() -> None:
    async with replicas("one") as (server, (one,)):
        await until(one.leads)
        term = one.election.term()
        server.faults.add(FaultRule(resource="leases", status=503))

        async def stopped() -> bool:
            return not await one.leads()

        await until(stopped)
        server.faults.clear()
        await until(one.leads)
        assert one.election.term() > term


async def test_the_lease_reads_as_kubernetes_tools_expect() -> None:
    async with replicas("one") as (_, (one,)):
        await until(one.leads)
        lease = await one.client.get(LEASES, "default", "podslots-controller")
        assert lease["spec"]["holderIdentity"] == "one"
        assert lease["spec"]["leaseDurationSeconds"] >= 1
        assert lease["spec"]["acquireTime"].endswith("Z")
        await one.crash()
        await one.election.release()
        released = await one.client.get(LEASES, "default", "podslots-controller")
        assert not released["spec"].get("holderIdentity")
