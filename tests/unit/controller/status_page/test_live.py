"""What readers get: the newest of what changed, at most once a period, and never a growing heap."""

import asyncio
from contextlib import aclosing
from typing import Any

import orjson
import pytest

from controller.status_page.live import Live, Settings, TooManyReaders
from tests.support.status_site import Site

QUICK = Settings(period_seconds=0.01, beat_seconds=0.05)
ALWAYS = Settings(period_seconds=0.0)


def fields(event: bytes) -> tuple[str, str, dict[str, Any]]:
    """Kind, id and data of an event."""
    lines = dict(line.split(": ", 1) for line in event.decode().splitlines() if line)
    return lines["event"], lines["id"], orjson.loads(lines["data"])


async def next_status(events: Any) -> tuple[str, dict[str, Any]]:
    async with asyncio.timeout(20):
        async for event in events:
            if event.startswith(b"event: status"):
                _, version, data = fields(event)
                return version, data
    raise AssertionError("the stream has ended")


async def test_a_version_stays_while_nothing_changes() -> None:
    site = Site()
    site.add_pool()
    live = Live(site.controller, ALWAYS)
    first = await live.latest()
    assert (await live.latest()).version == first.version
    site.add_task("t")
    second = await live.latest()
    assert second.version != first.version
    changed = orjson.loads(second.body(live.now, first.number))
    assert set(changed) == {"version", "now", "pools", "queue"}  # the pool counts its tasks
    assert changed["queue"]["items"][0]["name"] == "t"


async def test_a_pools_revision_moves_with_its_pods_alone() -> None:
    site = Site()
    site.add_pool()
    site.add_pool("other")
    live = Live(site.controller, ALWAYS)

    async def revisions() -> list[int]:
        said = orjson.loads((await live.latest()).body(live.now))
        return [pool["revision"] for pool in said["pools"]["items"]]

    other, own = await revisions()
    site.add_pod("p")
    assert await revisions() == [other, own + 1]
    site.add_task("t")
    assert await revisions() == [other, own + 1]


async def test_a_task_of_a_pool_that_is_not_there_is_in_the_queue() -> None:
    site = Site()
    site.add_task("t")
    said = orjson.loads((await Live(site.controller).latest()).body(site.controller.world.views.now()))
    assert [task["name"] for task in said["queue"]["items"]] == ["t"]
    assert said["pools"]["items"][0]["problem"] == "there is no pool of this name"


async def test_a_pool_that_is_gone_is_said_no_more() -> None:
    site = Site()
    site.add_pool()
    live = Live(site.controller, ALWAYS)
    await live.latest()
    site.controller.caches.pools.note_gone("default", "pool", "uid-pool")
    assert orjson.loads((await live.latest()).body(live.now))["pools"] == {"total": 0, "items": []}


async def test_a_status_is_made_once_a_period_whoever_asks() -> None:
    site = Site()
    live = Live(site.controller, Settings(period_seconds=1e6))
    first = await live.latest()
    site.add_pool()
    assert await live.latest() is first


async def test_a_reader_gets_all_then_what_changed() -> None:
    site = Site()
    live = Live(site.controller, QUICK)
    async with aclosing(live.follow(None)) as events:
        version, everything = await next_status(events)
        assert set(everything) == {"version", "now", "replica", "pools", "plans", "queue", "decisions"}
        assert everything["version"] == version
        site.add_plan("network")
        _, changed = await next_status(events)
        assert set(changed) == {"version", "now", "pools", "plans"}


async def test_a_reader_that_comes_back_gets_what_it_missed() -> None:
    site = Site()
    live = Live(site.controller, ALWAYS)
    seen = (await live.latest()).version
    site.add_plan("network")
    async with aclosing(live.follow(seen)) as events:
        assert set((await next_status(events))[1]) == {"version", "now", "pools", "plans"}


@pytest.mark.parametrize("version", ["of-another-process.1", "x", "", "9", "é.1", f"{'9' * 400}"])
async def test_a_version_that_is_none_of_this_process_gets_everything(version: str) -> None:
    live = Live(Site().controller, QUICK)
    async with aclosing(live.follow(version)) as events:
        assert "replica" in (await next_status(events))[1]


async def test_a_slow_reader_gets_one_status_for_many_changes() -> None:
    """Nothing is queued for it: however long it takes, the next it gets is the newest."""
    site = Site()
    live = Live(site.controller, QUICK)
    async with aclosing(live.follow(None)) as slow, aclosing(live.follow(None)) as quick:
        await next_status(slow)
        await next_status(quick)
        for number in range(5):
            site.add_task(f"t{number}")
            newest, _ = await next_status(quick)
        version, said = await next_status(slow)
        assert version == newest
        assert said["queue"]["total"] == 5


async def test_a_quiet_stream_tells_the_time() -> None:
    live = Live(Site().controller, QUICK)
    async with aclosing(live.follow(None)) as events:
        await next_status(events)
        async with asyncio.timeout(20):
            kind, _, said = fields(await anext(events))
    assert (kind, said) == ("beat", {"now": "2026-01-31T12:00:00Z"})


async def test_nothing_is_made_once_the_last_reader_has_gone() -> None:
    live = Live(Site().controller, QUICK)
    async with aclosing(live.follow(None)) as events:
        await next_status(events)
        ticking = live._ticking
        assert ticking is not None
    with pytest.raises(asyncio.CancelledError):
        await ticking
    assert (live.readers, live._ticking) == (0, None)


async def test_there_are_only_so_many_readers() -> None:
    live = Live(Site().controller, Settings(most_readers=1))
    async with aclosing(live.follow(None)) as events:
        await anext(events)
        with pytest.raises(TooManyReaders):
            await anext(live.follow(None))


async def test_closing_ends_every_stream() -> None:
    live = Live(Site().controller, QUICK)
    events = live.follow(None)
    await next_status(events)
    live.close()
    async with asyncio.timeout(20):
        assert [event async for event in events if event.startswith(b"event: status")] == []
    assert live.readers == 0


async def test_what_breaks_in_making_a_status_ends_no_stream(caplog: pytest.LogCaptureFixture) -> None:
    site = Site()
    live = Live(site.controller, QUICK)
    async with aclosing(live.follow(None)) as events:
        await next_status(events)
        keys, live._keys = live._keys, lambda: 1 / 0  # type: ignore[method-assign, assignment, return-value]
        async with asyncio.timeout(20):
            while "could not be made" not in caplog.text:
                await anext(events)
        live._keys = keys  # type: ignore[method-assign]
        site.add_pool()
        assert (await next_status(events))[1]["pools"]["total"] == 1
