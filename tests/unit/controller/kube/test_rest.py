"""Long work lets the loop run in between, on asyncio's loop and on that of production."""

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any

import uvloop

from controller.kube.api import SLOTTASKS
from controller.kube.cache import Cache
from controller.kube.reflector import Reflector
from controller.kube.rest import SLICE_SECONDS, Rest


def test_it_pauses_when_a_slice_of_time_is_over() -> None:
    async def main() -> None:
        turns = 0

        async def others() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        beside = asyncio.create_task(others())
        watch = iter(number * SLICE_SECONDS for number in range(1000))
        rest = Rest(lambda: next(watch))
        for _ in range(100):
            await rest()
        beside.cancel()
        assert turns >= 40

    for factory in (asyncio.new_event_loop, uvloop.new_event_loop):
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(main())


class OnePage:
    """An API with one long list."""

    async def list_page(self, *_: Any, **__: Any) -> Any:
        metadata = {"namespace": "ns", "resourceVersion": "1"}
        items = [{"metadata": metadata | {"name": f"t{number}", "uid": f"u{number}"}} for number in range(300)]
        return {"metadata": {"resourceVersion": "2"}, "items": items}

    async def watch(self, *_: Any, **__: Any) -> AsyncIterator[Any]:
        await asyncio.Event().wait()
        yield {}


def test_a_long_list_holds_the_loop_for_a_slice_at_a_time() -> None:
    async def main() -> None:
        api: Any = OnePage()
        cache = Cache(SLOTTASKS)
        watch = iter(number * SLICE_SECONDS for number in range(10_000))
        reflector = Reflector(api, cache, random.Random(1), stopwatch=lambda: next(watch))
        listing = asyncio.create_task(reflector.step())
        seen: set[int] = set()
        while not listing.done():
            seen.add(len(cache))
            await asyncio.sleep(0)
        assert cache.synced
        assert len(seen) > 50, "others saw it grow"

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


def test_what_a_list_lacks_is_looked_for_and_taken_out_in_small_steps() -> None:
    cache = Cache(SLOTTASKS)
    metadata = {"namespace": "ns", "resourceVersion": "1"}
    uids = {f"u{number}" for number in range(3000)}
    for uid in sorted(uids):
        cache.note({"metadata": metadata | {"name": uid, "uid": uid}})
    assert sum(1 for _ in cache.end_list(uids, "2")) >= 10, "nothing is gone, and that takes its time too"
    sizes = {len(cache) for _ in cache.end_list(set(), "2")}
    assert len(sizes) == 3000, "one at a time"


def test_pages_are_said_to_be_kept_in_the_first_list_only() -> None:
    """What is frozen once is never looked at again: that is for what is there to stay."""

    async def main() -> None:
        api: Any = OnePage()
        kept: list[int] = []
        cache = Cache(SLOTTASKS)
        reflector = Reflector(api, cache, random.Random(1), page_kept=lambda: kept.append(len(cache)))
        listing = asyncio.create_task(reflector.run())
        await reflector.wait_synced()
        await reflector.refresh()
        assert kept == [300]
        listing.cancel()
        await asyncio.wait({listing})

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
