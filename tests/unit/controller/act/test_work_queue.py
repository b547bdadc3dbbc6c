"""A key waits at most once, and no wake-up is lost."""

import asyncio
import random

import pytest
import uvloop

from controller.act.work_queue import WorkQueue
from tests.support import virtual_time


def test_a_key_waits_once_and_in_order() -> None:
    async def main() -> None:
        queue: WorkQueue[str] = WorkQueue()
        for key in "abca":
            queue.add(key)
        assert [await queue.get() for _ in range(3)] == ["a", "b", "c"]

    virtual_time.run(main)


def test_a_key_that_is_added_while_it_is_processed_is_processed_again() -> None:
    """T21: what changed during a pass wakes the next one."""

    async def main() -> None:
        queue: WorkQueue[str] = WorkQueue()
        queue.add("a")
        assert await queue.get() == "a"
        queue.add("a")
        assert await queue.get() == "a"

    virtual_time.run(main)


def test_the_earliest_moment_counts() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        queue: WorkQueue[str] = WorkQueue()
        start = loop.time()
        queue.add_after("a", 30)
        queue.add_after("a", 5)
        queue.add_after("a", 10)
        assert await queue.get() == "a"
        assert loop.time() - start == 5
        queue.close()

    virtual_time.run(main)


def test_a_timer_stays_when_the_key_is_processed_before() -> None:
    """What is due later is not done by looking now."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        queue: WorkQueue[str] = WorkQueue()
        start = loop.time()
        queue.add_after("a", 5)
        queue.add("a")
        assert await queue.get() == "a"
        assert loop.time() == start
        assert await queue.get() == "a"
        assert loop.time() - start == 5

    virtual_time.run(main)


def test_no_wakeup_is_lost_over_random_adds() -> None:
    """T21: each key is processed at or after the last moment at which it was asked for."""

    async def main() -> None:
        rng = random.Random(1)
        loop = asyncio.get_running_loop()
        queue: WorkQueue[int] = WorkQueue()
        asked: dict[int, float] = {}
        seen: dict[int, float] = {}

        async def ask() -> None:
            for _ in range(500):
                key, delay = rng.randrange(5), rng.choice([0.0, 0.0, 0.5, 3.0])
                asked[key] = max(asked.get(key, 0.0), loop.time())
                if delay:
                    queue.add_after(key, delay)
                else:
                    queue.add(key)
                await asyncio.sleep(rng.choice([0.0, 0.1, 1.0]))

        async def work() -> None:
            while True:
                key = await queue.get()
                seen[key] = loop.time()
                await asyncio.sleep(rng.choice([0.0, 0.2]))

        worker = asyncio.create_task(work())
        await ask()
        await asyncio.sleep(10)
        worker.cancel()
        await asyncio.gather(worker, return_exceptions=True)
        assert all(seen[key] >= moment for key, moment in asked.items())

    virtual_time.run(main)


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_delays_too_short_for_a_timer_are_delays_as_any_other(new_loop: type[asyncio.AbstractEventLoop]) -> None:
    """N1: uvloop's timers have whole milliseconds, and what rounds to none is a plain handle without a moment."""

    async def main() -> None:
        queue: WorkQueue[str] = WorkQueue()
        for delay in (0.0004, 0.0003, 0.0005, 0.0, -1.0, 1e-9):
            queue.add_after("a", delay)
        queue.add_after("b", 30)
        queue.add_after("b", 0.0001)
        async with asyncio.timeout(5):
            assert {await queue.get(), await queue.get()} == {"a", "b"}
        queue.add_after("c", 0.0001)
        queue.close()
        await asyncio.sleep(0)
        assert not queue._ready, "a closed queue adds nothing"

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(main())


@pytest.mark.parametrize("delay", [-1.0, 0.0, 0.0004])
def test_a_key_does_not_come_back_without_a_pause(delay: float) -> None:
    """What is due in a fraction of a millisecond was looked at again and again until then."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        queue: WorkQueue[str] = WorkQueue()
        start = loop.time()
        queue.add_after("a", delay)
        await queue.get()
        assert loop.time() - start > 0.0009

    virtual_time.run(main)
