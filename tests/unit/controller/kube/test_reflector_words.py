"""A watch on which nothing happens is no reason to warn; one that can't be opened is."""

import asyncio
import random

import pytest

from controller.errors import ApiUnavailable, Forbidden
from controller.kube.api import NODES, Resource
from controller.kube.cache import Cache
from controller.kube.reflector import Reflector
from tests.support import virtual_time
from tests.support.memory_api import MemoryApi


async def watch_for(api: MemoryApi, seconds: float) -> None:
    reflector = Reflector(api, Cache(NODES), random.Random(1))
    running = asyncio.create_task(reflector.run())
    await reflector.wait_synced()
    await asyncio.sleep(seconds)
    running.cancel()
    await asyncio.wait({running})


def test_watches_that_end_for_being_silent_are_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    api = MemoryApi()
    virtual_time.run(lambda: watch_for(api, 600))
    assert len([call for call in api.calls if call[0] == "watch"]) > 5
    assert not caplog.records


def test_a_watch_that_is_refused_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    async def no_watches(verb: str, resource: Resource, name: str) -> None:
        del resource, name
        if verb == "watch":
            raise ApiUnavailable("connection refused")

    api = MemoryApi()
    api.before = no_watches
    virtual_time.run(lambda: watch_for(api, 600))
    assert {record.message for record in caplog.records} == {"reading the API failed"}


def test_a_list_is_read_where_every_watch_is_refused() -> None:
    """A server put back to an older backup knows no version as new as the last one seen, and says so with a 504."""

    async def too_large(verb: str, resource: Resource, name: str) -> None:
        del resource, name
        if verb == "watch":
            raise ApiUnavailable("504 Timeout: Too large resource version", code=504)

    api = MemoryApi()
    api.before = too_large
    virtual_time.run(lambda: watch_for(api, 300))
    calls = [call[0] for call in api.calls]
    assert 2 < calls.count("list") < 20, "not at each failure, but not never"


def test_a_list_is_read_in_its_time_where_every_watch_ends_for_being_silent() -> None:
    api = MemoryApi()
    virtual_time.run(lambda: watch_for(api, 3 * 1800))
    assert [call[0] for call in api.calls].count("list") in {3, 4}


def test_a_step_that_breaks_is_said_once_and_begins_anew(caplog: pytest.LogCaptureFixture) -> None:
    left = 5

    async def breaks(verb: str, resource: Resource, name: str) -> None:
        nonlocal left
        del resource, name
        if verb == "list" and left:
            left -= 1
            raise RuntimeError("a mistake")

    api = MemoryApi()
    api.before = breaks
    virtual_time.run(lambda: watch_for(api, 60))
    assert left == 0
    assert [record.message for record in caplog.records] == ["reading the API broke"]


def test_what_may_be_done_without_counts_as_read_and_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    """And comes once it may be read; a refresh does not wait for it. What is needed is waited for."""
    refused = True

    async def forbidden(verb: str, resource: Resource, name: str) -> None:
        del verb, resource, name
        if refused:
            raise Forbidden(403, "Forbidden", "no right")

    async def main() -> None:
        nonlocal refused
        api = MemoryApi()
        api.put(NODES, {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}})
        api.before = forbidden
        needed, optional = (Reflector(api, Cache(NODES), random.Random(1), optional=flag) for flag in (False, True))
        running = [asyncio.create_task(reflector.run()) for reflector in (needed, optional)]
        await optional.wait_synced()
        await optional.refresh()
        assert optional.cache.synced
        assert list(optional.cache.items()) == []
        assert not needed.cache.synced
        refused = False
        await asyncio.sleep(120)
        assert len(list(optional.cache.items())) == 1
        for task in running:
            task.cancel()
        await asyncio.wait(running)

    virtual_time.run(main)
    assert [record.message for record in caplog.records].count("done without") == 1
