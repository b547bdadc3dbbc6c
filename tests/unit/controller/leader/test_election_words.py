"""What is said of a Lease that is not reached: at once, and then now and then, not at every try."""

import asyncio
import random
from datetime import UTC, datetime

import pytest

from controller.errors import ApiUnavailable
from controller.kube.api import Resource
from controller.leader.election import Election
from tests.support import virtual_time
from tests.support.memory_api import MemoryApi

OUTAGE_SECONDS = 100.0


def test_an_outage_is_said_once_and_then_every_half_minute(caplog: pytest.LogCaptureFixture) -> None:
    async def down(verb: str, resource: Resource, name: str) -> None:
        raise ApiUnavailable(f"{verb} {resource.plural}/{name}: connection refused")

    async def main() -> None:
        api = MemoryApi()
        election = Election(api, "ns", "one", now=lambda: datetime.now(UTC), rng=random.Random(1))
        standing = asyncio.create_task(election.run())
        await election.wait(leading=True)
        up, api.before = api.before, down
        await asyncio.sleep(OUTAGE_SECONDS)
        api.before = up
        await election.wait(leading=True)
        standing.cancel()
        await asyncio.wait({standing})

    with caplog.at_level("INFO", logger="controller.leader.election"):
        virtual_time.run(main)
    said = [record.message for record in caplog.records if record.message != "leadership"]
    assert said == ["lease not reached"] * 4 + ["lease reached again"]


def test_a_step_that_breaks_does_not_end_the_replica(caplog: pytest.LogCaptureFixture) -> None:
    async def breaks(verb: str, resource: Resource, name: str) -> None:
        raise RuntimeError(f"a mistake in {verb} {resource.plural}/{name}")

    async def main() -> None:
        api = MemoryApi()
        election = Election(api, "ns", "one", now=lambda: datetime.now(UTC), rng=random.Random(1))
        whole, api.before = api.before, breaks
        standing = asyncio.create_task(election.run())
        await asyncio.sleep(OUTAGE_SECONDS)
        api.before = whole
        await election.wait(leading=True)
        standing.cancel()
        await asyncio.wait({standing})

    virtual_time.run(main)
    assert [record.message for record in caplog.records].count("standing for election broke") == 1


def test_a_standby_knows_of_a_release_within_half_a_second() -> None:
    """However long the Lease is."""

    async def main() -> None:
        api, loop = MemoryApi(), asyncio.get_running_loop()
        first, second = (
            Election(api, "ns", name, now=lambda: datetime.now(UTC), rng=random.Random(1)) for name in ("one", "two")
        )
        standing = asyncio.create_task(first.run())
        await first.wait(leading=True)
        waiting = asyncio.create_task(second.run())
        for _ in range(20):
            await asyncio.sleep(1.7)
            standing.cancel()
            await asyncio.wait({standing})
            released = loop.time()
            await first.release()
            await second.wait(leading=True)
            assert loop.time() - released <= 0.6
            first, second, standing, waiting = second, first, waiting, asyncio.create_task(first.run())
        standing.cancel()
        waiting.cancel()
        await asyncio.wait({standing, waiting})

    virtual_time.run(main)
