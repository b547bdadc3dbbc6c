"""What the demo takes down of what agents say."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from typing import Any, cast

import orjson

from agent.wire import WatchLine, WatchType, encode
from controller.demo.observe import Observer
from tests.support.agents import state

POD = {
    "metadata": {"name": "p-1", "namespace": "default", "uid": "u1", "resourceVersion": "1"},
    "status": {"podIP": "127.0.0.1"},
}


class Together:
    """A transport whose stream gives several lines at once, as they came, and then ends no more."""

    def __init__(self, *lines: WatchLine) -> None:
        self._lines = b"\n\n".join(orjson.dumps(encode(line)) for line in lines)
        self.given = asyncio.Event()

    async def stream(self, url: str, **_: Any) -> AsyncIterator[bytes]:
        assert url.endswith("/slots?watch=true")
        yield self._lines
        self.given.set()
        await asyncio.Event().wait()


async def test_lines_that_come_together_are_all_taken_down() -> None:
    first, second = state("u1", revision=1), state("u1", revision=2)
    together = Together(
        WatchLine(type=WatchType.STATE, revision=1, state=first),
        WatchLine(type=WatchType.HEARTBEAT, revision=1),
        WatchLine(type=WatchType.CHANGE, revision=2, state=second),
    )

    class Api:
        async def list_page(self, resource: Any, *_: Any, **__: Any) -> dict[str, Any]:
            return {"items": [POD] if resource.plural == "pods" else [], "metadata": {"resourceVersion": "1"}}

        async def watch(self, *_: Any, **__: Any) -> AsyncIterator[Any]:
            await asyncio.Event().wait()
            yield None

    observer = Observer(cast("Any", Api()), cast("Any", together), random.Random(1))
    running = asyncio.create_task(observer.run())
    waiting = asyncio.create_task(together.given.wait())
    await asyncio.wait({running, waiting}, timeout=30, return_when=asyncio.FIRST_COMPLETED)
    assert observer.histories["u1"].states == [first, second]
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
