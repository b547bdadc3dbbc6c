"""What breaks in one pool's pass, or in what is done about it, ends nothing: on asyncio's loop and on uvloop."""

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop

from controller.act.work_queue import WorkQueue
from controller.passes.loop import Loop, Settings
from controller.world.index import Key

BROKEN: Key = ("ns", "broken")
FINE: Key = ("ns", "fine")
ON_BOTH = pytest.mark.parametrize("factory", [asyncio.new_event_loop, uvloop.new_event_loop])
Factory = Callable[[], asyncio.AbstractEventLoop]


class Part:
    """Stands for the world, its index and views, and the reconciler. Each call by its name may break."""

    def __init__(self, breaks: str) -> None:
        self.breaks = breaks
        self.passes: Counter[Key] = Counter()
        self.index = self.views = self

    def pool_keys(self) -> list[Key]:
        self.break_at("tick")
        return [BROKEN, FINE]

    def stale(self, key: Key) -> int:
        if key == BROKEN:
            self.break_at("stale")
        return 0

    def reconcile(self, key: Key) -> None:
        self.passes[key] += 1
        if key == BROKEN:
            self.break_at("reconcile")

    def observe(self, _seconds: float, *, broken: bool) -> None:
        del broken
        self.break_at("observe")

    def break_at(self, place: str) -> None:
        if self.breaks in {place, "all"}:
            raise RuntimeError(place)


class BrokenQueue(WorkQueue[Key]):
    """Can't be told of a later moment."""

    refused = 0

    def add_after(self, key: Key, delay_seconds: float) -> None:
        self.refused += 1
        raise RuntimeError(f"{key} in {delay_seconds} s")


def run(factory: Factory, main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main())


def a_loop(part: Any, queue: WorkQueue[Key], stopwatch: Callable[[], float]) -> Loop:
    settings = Settings(resync_seconds=0.01)
    return Loop(part, queue, part, observe=part.observe, settings=settings, stopwatch=stopwatch)


@ON_BOTH
@pytest.mark.parametrize("place", ["reconcile", "stale", "observe", "tick", "all"])
def test_the_other_pools_passes_go_on(factory: Factory, place: str) -> None:
    async def main() -> None:
        part, queue = Part(place), WorkQueue[Key]()
        running = asyncio.create_task(a_loop(part, queue, lambda: 0.0).run())
        async with asyncio.timeout(60):
            while part.passes[FINE] < 3:
                queue.add(BROKEN)
                queue.add(FINE)
                await asyncio.sleep(0)
        assert not running.done()
        running.cancel()
        await asyncio.wait({running})

    run(factory, main)


@ON_BOTH
def test_a_queue_that_can_not_be_told_of_a_later_moment_ends_nothing(factory: Factory) -> None:
    """A pool that rests is asked for again: that goes to the queue."""

    async def main() -> None:
        queue = BrokenQueue()
        part = Part("nothing")
        watch = iter(range(1_000_000))
        running = asyncio.create_task(a_loop(part, queue, lambda: float(next(watch))).run())
        async with asyncio.timeout(60):
            while not (part.passes[FINE] and part.passes[BROKEN] and queue.refused >= 3):
                queue.add(BROKEN)
                await asyncio.sleep(0)
        assert not running.done()
        running.cancel()
        await asyncio.wait({running})

    run(factory, main)
