"""How fast the controller reads the state of all agents, beside a bare client that reads the same bytes."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import aiohttp

from controller.agents.client import AgentClient, Stamps, agent_url
from controller.agents.fleet import Fleet
from controller.agents.transport import http_transport
from tests.bench.agents import begin, fake_agents
from tests.bench.effort import Effort
from tests.bench.machine import Cores
from tests.bench.measure import Measure, Row, Sample, interleave

BAR = 1.5
SECONDS = 60.0
CONCURRENT = 100
"""Calls at once, as `http_transport` has it."""

TOKEN = "token-of-the-pool"


async def measure(effort: Effort, cores: Cores) -> AsyncIterator[Row]:
    uids = [f"uid-{number}" for number in range(effort.agents)]
    async with fake_agents(cores, effort.agents) as (addresses, process):
        await begin(process, uids)
        urls = dict(zip(uids, (agent_url(address) for address in addresses), strict=True))
        watched = await interleave(_following(urls), _bare_streams(urls), effort.rounds)
        polled = await interleave(*_polling(urls), effort.rounds)
    yield watched.row(
        "fleet",
        f"first state of {effort.agents} agents, streamed",
        "ms",
        reference_name="bare aiohttp client, the same bytes",
        bar=BAR,
        note="a connection each; the state is decoded, compared and followed",
    )
    yield polled.row(
        "fleet",
        f"state of {effort.agents} agents, read anew",
        "ms",
        reference_name="bare aiohttp client, the same bytes",
        bar=BAR,
        note=f"kept connections, {CONCURRENT} calls at once, every state changed",
    )


async def _timed(action: Callable[[], Awaitable[None]]) -> Sample:
    began, cpu = time.perf_counter(), time.process_time()
    async with asyncio.timeout(SECONDS):
        await action()
    return Sample(value=1e3 * (time.perf_counter() - began), cpu=time.process_time() - cpu)


def _following(urls: dict[str, str]) -> Measure:
    """A controller that starts: every agent is followed, until each one has been heard."""

    async def sample() -> Sample:
        heard: set[str] = set()
        all_heard = asyncio.Event()

        def changed(pod_uid: str) -> None:
            heard.add(pod_uid)
            if len(heard) == len(urls):
                all_heard.set()

        async with http_transport() as transport:
            fleet = Fleet(
                transport,
                tokens=lambda _namespace, _pool: TOKEN,
                stamps=Stamps(lambda: 1),
                rng=random.Random(1),
                on_change=changed,
            )
            async with fleet:

                async def follow() -> None:
                    for uid, url in urls.items():
                        fleet.add(uid, url, "default", "pool")
                    await all_heard.wait()

                return await _timed(follow)

    return sample


def _bare_streams(urls: dict[str, str]) -> Measure:
    async def sample() -> Sample:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            opened: list[aiohttp.ClientResponse] = []

            async def first_line(url: str) -> None:
                response = await session.get(f"{url}/slots?watch=true", headers={"Authorization": f"Bearer {TOKEN}"})
                opened.append(response)
                await response.content.readline()

            async def read_all() -> None:
                await asyncio.gather(*(first_line(url) for url in urls.values()))

            result = await _timed(read_all)
            for response in opened:
                response.close()
            return result

    return sample


def _polling(urls: dict[str, str]) -> tuple[Measure, Measure]:
    """Sessions are made at each sample, and a first read opens their connections."""

    async def ours() -> Sample:
        async with http_transport(max_requests=CONCURRENT) as transport:
            clients = [
                AgentClient(transport, url, uid, token=lambda: TOKEN, stamps=Stamps(lambda: 1), timeout_seconds=SECONDS)
                for uid, url in urls.items()
            ]

            async def read_all() -> None:
                await asyncio.gather(*(client.state() for client in clients))

            await read_all()
            return await _timed(read_all)

    async def bare() -> Sample:
        connector = aiohttp.TCPConnector(limit=CONCURRENT)
        async with aiohttp.ClientSession(connector=connector) as session:

            async def read(url: str) -> None:
                async with session.get(f"{url}/slots", headers={"Authorization": f"Bearer {TOKEN}"}) as response:
                    await response.read()

            async def read_all() -> None:
                await asyncio.gather(*(read(url) for url in urls.values()))

            await read_all()
            return await _timed(read_all)

    return ours, bare
