"""What the controller weighs with thousands of Pods, each with an agent that it follows."""

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import orjson

from controller.names import DRAIN_ID, STATE_LABEL, token_secret
from controller.objects.pool import PoolSpec
from controller.objects.template import TokenSecret, build_pod
from tests.bench.agents import begin, fake_agents
from tests.bench.effort import Effort
from tests.bench.machine import Cores, rss_bytes
from tests.bench.measure import Row
from tests.bench.plane import PODS, Api, Json, control_plane, pool, prepared_pool, until
from tests.bench.warm_pod import running_status

BAR_MIB = 200.0
MIB = 2**20
CONCURRENT = 16
CONNECTED = re.compile(r"^podslots_pool_agents_connected\{.*\} ([0-9.e+]+)$", re.MULTILINE)
SETTLE_SECONDS = 3.0
"""One round of heartbeats: every stream has been used again."""


async def measure(effort: Effort, cores: Cores) -> AsyncIterator[Row]:
    number = effort.cached_pods
    async with fake_agents(cores, number) as (addresses, process):

        async def prepare(api: Api) -> None:
            await begin(process, await _create_pods(api, addresses))

        async with control_plane(cores, prepare, lease_seconds=effort.lease_seconds) as plane:
            await prepared_pool(plane, number)
            async with aiohttp.ClientSession() as session:

                async def all_connected() -> bool:
                    async with session.get(f"{plane.metrics_url}/metrics") as response:
                        found = CONNECTED.search(await response.text())
                    return found is not None and float(found[1]) == number

                await until(all_connected, f"{number} agents are connected")
            await asyncio.sleep(SETTLE_SECONDS)
            weight = rss_bytes(plane.controller.pid)
    yield Row(
        subject="footprint",
        figure=f"controller RSS, {number} Pods",
        unit="MiB",
        value=weight / MIB,
        bar=BAR_MIB,
        note="every Pod's agent streamed",
    )


async def _create_pods(api: Api, addresses: list[str]) -> list[str]:
    """Active Pods that run, as the controller and a kubelet would have made them. Returns their UIDs."""
    owner = pool(0)
    owner["metadata"]["uid"] = "uid-of-the-pool"
    spec = PoolSpec.parse(owner)
    tokens = TokenSecret(name=token_secret("bench"), uid="uid-of-the-tokens")
    gate = asyncio.Semaphore(CONCURRENT)

    async def create(number: int, address: str) -> str:
        name = f"bench-{number}"
        body = build_pod(owner, spec, name=name, token_secret=tokens, agent_image="podslots/agent:bench")
        metadata: dict[str, Any] = body["metadata"]
        metadata["labels"][STATE_LABEL] = "active"
        metadata["annotations"][DRAIN_ID] = "opened"
        del metadata["ownerReferences"]  # of a pool that is yet to come
        async with gate:
            created: Json = await api.send("POST", PODS, orjson.dumps(body))
            await api.patch(f"{PODS}/{name}/status", {"status": running_status(created, address)})
        uid: str = created["metadata"]["uid"]
        return uid

    return list(await asyncio.gather(*(create(number, address) for number, address in enumerate(addresses))))
