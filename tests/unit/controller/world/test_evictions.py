"""Evictions are followed where the API server has them, and nothing else is asked of one that hasn't."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from controller import names
from controller.errors import ApiUnavailable, Forbidden, NotFound
from controller.kube.api import EVICTIONS, Object, Resource
from controller.world.evictions import AGAIN_SECONDS, LOOK_SECONDS, Evictions
from tests.support import virtual_time
from tests.support.memory_api import MemoryApi

KEY = ("ns", "pool")


class Site:
    """An API server, and who follows its Evictions."""

    def __init__(self) -> None:
        self.api = MemoryApi()
        self.refusal: Exception | None = None
        self.told: list[str] = []
        self.api.before = self._before
        self.evictions = Evictions(self.api, random.Random(1), namespace=None, on_change=self.told.append)

    async def _before(self, verb: str, resource: Resource, name: str) -> None:
        del verb, name
        if resource == EVICTIONS and self.refusal is not None:
            raise self.refusal

    def put(self, state: str = "Active", name: str = "e") -> None:
        self.api.put(EVICTIONS, an_eviction(state, name))

    @property
    def requests(self) -> int:
        return len(self.api.calls)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.evictions.run())
        await self.evictions.looked.wait()
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def an_eviction(state: str, name: str = "e") -> Object:
    return {
        "metadata": {"namespace": "ns", "name": name, "uid": f"uid-{name}"},
        "spec": {"target": {"pod": {"name": "p", "uid": "uid-p"}}},
        "status": {"targetResponders": [{"name": names.EVICTION_RESPONDER, "priority": 10_000, "state": state}]},
    }


async def until(condition: Callable[[], bool]) -> None:
    """By a clock that is as fast as the code."""
    for _ in range(600):
        if condition():
            return
        await asyncio.sleep(0.1)
    raise AssertionError("not within a minute")


REFUSALS = {
    "it has none": NotFound(404, "NotFound", "the server could not find the requested resource"),
    "they may not be read": Forbidden(403, "Forbidden", "evictions.lifecycle.k8s.io is forbidden"),
}


@pytest.mark.parametrize("refusal", REFUSALS.values(), ids=REFUSALS.keys())
def test_a_server_without_them_is_asked_every_ten_minutes_and_no_more(refusal: Exception) -> None:
    async def main() -> None:
        site = Site()
        site.refusal = refusal
        async with site.running():
            assert not site.evictions.answering
            await asyncio.sleep(2.5 * LOOK_SECONDS)
            assert site.requests == 3
            site.refusal = None
            site.put()
            await asyncio.sleep(LOOK_SECONDS)
            assert site.evictions.answering
            assert site.evictions.asks_for("uid-p")

    virtual_time.run(main)


def test_a_server_that_is_out_of_reach_is_asked_again_soon() -> None:
    async def main() -> None:
        site = Site()
        site.refusal = ApiUnavailable("gone")
        async with site.running():
            assert not site.evictions.answering
            site.refusal = None
            await asyncio.sleep(AGAIN_SECONDS + 1)
            assert site.evictions.answering

    virtual_time.run(main)


def test_one_that_serves_them_no_more_is_left_alone_and_nothing_is_asked_for() -> None:
    async def main() -> None:
        site = Site()
        site.put()
        async with site.running():
            assert site.evictions.answering
            assert site.evictions.asks_for("uid-p")
            site.refusal = REFUSALS["it has none"]
            site.api.drop_watches()
            await asyncio.sleep(LOOK_SECONDS + 1)
            assert not site.evictions.answering
            assert not site.evictions.asks_for("uid-p")
            before = site.requests
            await asyncio.sleep(LOOK_SECONDS)
            assert site.requests == before + 1

    virtual_time.run(main)


def test_a_pod_is_asked_for_while_it_is_our_turn() -> None:
    async def main() -> None:
        site = Site()
        async with site.running():
            site.put("Inactive")
            await until(lambda: bool(site.told))
            assert not site.evictions.asks_for("uid-p")
            site.put("Active")
            await until(lambda: site.evictions.asks_for("uid-p"))
            site.put("Canceled")
            await until(lambda: not site.evictions.asks_for("uid-p"))
            assert set(site.told) == {"uid-p"}

    virtual_time.run(main)


def test_its_pool_is_known_after_the_pod_is_gone_and_until_the_eviction_is() -> None:
    async def main() -> None:
        site = Site()
        site.put()
        async with site.running():
            evictions = site.evictions
            assert evictions.of_pool(KEY, {"uid-x": None}) == []
            assert [found.name for found in evictions.of_pool(KEY, {"uid-p": None})] == ["e"]
            assert [found.name for found in evictions.of_pool(KEY, {})] == ["e"]
            assert evictions.of_pool(("ns", "other"), {}) == []
            assert evictions.pool_of("uid-p") == KEY
            site.api.remove(EVICTIONS, "ns", "e")
            await until(lambda: evictions.pool_of("uid-p") is None)
            assert evictions.of_pool(KEY, {}) == []

    virtual_time.run(main)
