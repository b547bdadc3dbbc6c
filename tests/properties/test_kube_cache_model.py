"""Whatever order events, lists and own writes' answers come in, a cache ends equal to the server."""

import asyncio
import contextlib
import random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from controller.errors import ApiError, ApiUnavailable
from controller.kube.api import PODS, Resource
from controller.kube.cache import Cache
from controller.kube.reflector import Reflector, ReflectorSettings
from controller.names import POOL_LABEL
from tests.support import virtual_time
from tests.support.cache_lists import apply_list
from tests.support.memory_api import Change, MemoryApi

Object = dict[str, Any]
NAMES = ("a", "b", "c")


class Server:
    """A history of one resource, and every list that could have been read of it."""

    def __init__(self) -> None:
        self.api = MemoryApi()
        self.snapshots: list[tuple[int, list[Object]]] = []
        self.snap()

    def snap(self) -> None:
        self.snapshots.append((self.api.version, list(self.api.all(PODS).values())))

    def write(self, name: str, pool: str) -> None:
        labels = {POOL_LABEL: pool} if pool else {}
        before = self.api.all(PODS).get(("ns", name))
        metadata = {"name": name, "namespace": "ns", "labels": labels}
        if before is not None:
            metadata["uid"] = before["metadata"]["uid"]
        self.api.put(PODS, {"metadata": metadata})
        self.snap()

    def remove(self, name: str) -> None:
        if ("ns", name) in self.api.all(PODS):
            self.api.remove(PODS, "ns", name)
            self.snap()


def content(objects: Any) -> dict[str, Object]:
    return {obj["metadata"]["name"]: obj for obj in objects}


def deliver(cache: Cache, change: Change) -> None:
    if change.type == "DELETED":
        cache.apply_deleted(change.object)
    else:
        cache.note(change.object)


operations = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.sampled_from(NAMES), st.sampled_from(("p", "q", ""))),
        st.tuples(st.just("remove"), st.sampled_from(NAMES), st.just("")),
    ),
    min_size=1,
    max_size=25,
)


@settings(max_examples=300, deadline=None)
@given(operations, st.data())
def test_a_cache_equals_the_server_after_any_mess_and_one_list_with_its_watch(ops: Any, data: st.DataObject) -> None:
    """A3, T7: late, repeated and missing events, stale lists and answers of writes in any order do no lasting harm."""
    server = Server()
    server.write("a", "p")
    for kind, name, pool in ops:
        server.write(name, pool) if kind == "write" else server.remove(name)
    cache = Cache(PODS)
    mirror: dict[str, Object] = {}

    def follow(old: Object | None, new: Object | None) -> None:
        if new is not None:
            before = mirror.get(new["metadata"]["name"])
            assert before == old
            mirror[new["metadata"]["name"]] = new
        else:
            assert old is not None
            assert mirror.pop(old["metadata"]["name"])["metadata"]["uid"] == old["metadata"]["uid"]

    cache.subscribe(follow)
    history = server.api.history
    for change in data.draw(st.lists(st.sampled_from(history), max_size=20)):
        if data.draw(st.booleans()):
            deliver(cache, change)
        else:
            version, objects = data.draw(st.sampled_from(server.snapshots))
            apply_list(cache, objects, str(version))
    # A list that is read now is consistent, and its watch replays what came after it.
    newest_seen = max((int(o["metadata"]["resourceVersion"]) for o in cache.items()), default=0)
    possible = [snapshot for snapshot in server.snapshots if snapshot[0] >= newest_seen]
    version, objects = data.draw(st.sampled_from(possible))
    apply_list(cache, objects, str(version))
    for change in history:
        if change.version > version:
            deliver(cache, change)
    expected = content(server.api.all(PODS).values())
    assert content(cache.items()) == expected
    assert mirror == expected


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from(("", POOL_LABEL)))
def test_a_reflector_converges_through_drops_expiry_and_outages(seed: int, selector: str) -> None:
    """R4, rule 6: watch drops, 410s in lists and watches, lost answers of own writes, and outages."""
    virtual_time.run(lambda: converge(random.Random(seed), selector))


async def converge(rng: random.Random, selector: str) -> None:
    api = MemoryApi()
    cache = Cache(PODS)
    trouble = True

    async def fault(verb: str, resource: Resource, name: str) -> None:
        del resource, name
        await asyncio.sleep(rng.random() * 0.3)
        if trouble and verb != "event" and rng.random() < 0.2:
            raise rng.choice((ApiUnavailable("cut"), ApiError.of(429, "TooManyRequests", "", 1.0)))
        if trouble and verb == "event" and rng.random() < 0.05:
            raise ApiUnavailable("cut")

    api.before = api.after = fault
    reflector = Reflector(
        api, cache, random.Random(1), label_selector=selector, settings=ReflectorSettings(page_limit=2)
    )
    running = asyncio.create_task(reflector.run())
    sizes: list[int] = []
    for _ in range(60):
        await asyncio.sleep(rng.random() * 2)
        name = rng.choice("abcdefgh")
        labels = {POOL_LABEL: rng.choice("pq")} if rng.random() < 0.7 else {}
        with contextlib.suppress(ApiError, ApiUnavailable):
            match rng.randrange(8):
                case 0 | 1 | 2:
                    cache.note(await api.create(PODS, "ns", {"metadata": {"name": name, "labels": labels}}))
                case 3 | 4:
                    patch = {
                        "metadata": {"labels": {POOL_LABEL: None, **labels}, "annotations": {"n": str(rng.random())}}
                    }
                    cache.note(await api.patch(PODS, "ns", name, patch))
                case 5:
                    cache.note_deleted("ns", name, await api.delete(PODS, "ns", name))
                case 6:
                    api.compact()
                case _:
                    api.drop_watches()
        sizes.append(len(cache))
    trouble = False
    if selector:  # our own answers may be of objects that the selector does not know
        await wait_for(lambda: matching(content(cache.items()), selector) == wanted(api, selector))
    else:
        await wait_for(lambda: content(cache.items()) == wanted(api, selector))
    running.cancel()
    await asyncio.wait([running])


def matching(objects: dict[str, Object], selector: str) -> dict[str, Object]:
    return {n: o for n, o in objects.items() if not selector or selector in o["metadata"].get("labels", {})}


def wanted(api: MemoryApi, selector: str) -> dict[str, Object]:
    return matching(content(api.all(PODS).values()), selector)


async def wait_for(condition: Any, seconds: float = 300.0) -> None:
    deadline = asyncio.get_running_loop().time() + seconds
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, "never equal"
        await asyncio.sleep(0.5)


def test_a_failing_relist_never_empties_the_cache() -> None:
    """Rule 5, R3: an empty list after an error is no news."""

    async def main() -> None:
        api = MemoryApi()
        for name in NAMES:
            api.put(PODS, {"metadata": {"name": name, "namespace": "ns"}})
        cache = Cache(PODS)
        reflector = Reflector(api, cache, random.Random(1), settings=ReflectorSettings(page_limit=1))
        running = asyncio.create_task(reflector.run())
        await reflector.wait_synced()
        pages = 0

        async def fail_second_page(verb: str, resource: Resource, name: str) -> None:
            nonlocal pages
            del resource, name
            if verb == "list":
                pages += 1
                if pages % 2 == 0:
                    raise ApiUnavailable("cut in the middle")

        api.before = fail_second_page
        api.version += 1  # by a write of another kind
        api.compact()
        for _ in range(100):
            await asyncio.sleep(1)
            assert len(cache) == len(NAMES)
        assert pages > 2
        api.objects.clear()
        api.version += 1
        api.compact()
        await wait_for(lambda: len(cache) == 0)  # an empty list that was read to its end is news
        running.cancel()
        await asyncio.wait([running])

    virtual_time.run(main)


def test_empty_streams_and_repeated_expiry_back_off() -> None:
    """A server whose watches end at once, or are always too old, is not hammered."""

    async def main() -> None:
        for fault in ("empty", "gone"):
            api = MemoryApi()
            api.before = expire if fault == "gone" else drop(api)
            reflector = Reflector(api, Cache(PODS), random.Random(1))
            running = asyncio.create_task(reflector.run())
            await asyncio.sleep(600)
            assert 20 < len(api.calls) < 150
            running.cancel()
            await asyncio.wait([running])

    async def expire(verb: str, resource: Resource, name: str) -> None:
        del resource, name
        if verb == "watch":
            raise ApiError.of(410, "Expired", "too old")

    def drop(api: MemoryApi) -> Any:
        async def end(verb: str, resource: Resource, name: str) -> None:
            del resource, name
            if verb == "watch":
                asyncio.get_running_loop().call_later(0.01, api.drop_watches)

        return end

    virtual_time.run(main)


def test_a_silent_server_is_not_listed_again_and_contact_is_told() -> None:
    """An idle timeout opens the watch again from where it was."""

    async def main() -> None:
        api = MemoryApi()
        cache = Cache(PODS)
        reflector = Reflector(api, cache, random.Random(1))
        running = asyncio.create_task(reflector.run())
        await asyncio.sleep(1000)
        assert api.calls.count(("list", "")) == 1
        assert api.calls.count(("watch", "")) < 20
        running.cancel()
        await asyncio.wait([running])

    virtual_time.run(main)


def test_a_refresh_returns_when_the_cache_has_what_was_written_before() -> None:
    """A3, T22: a new leader does not make what the old one has made just now. Whatever the watch and the API do."""

    async def main() -> None:
        api = MemoryApi()
        cache = Cache(PODS)
        reflector = Reflector(api, cache, random.Random(1))
        running = asyncio.create_task(reflector.run())
        await reflector.wait_synced()
        lists = 0

        async def stumble(verb: str, resource: Resource, name: str) -> None:
            nonlocal lists
            del resource, name
            if verb == "watch":
                await asyncio.sleep(10**6)  # it is open, and says nothing
            if verb == "list":
                lists += 1
                await asyncio.sleep(1)
                if lists % 3 == 0:
                    raise ApiUnavailable("cut off")

        api.drop_watches()
        api.before = stumble
        await asyncio.sleep(100)
        for number in range(10):
            api.put(PODS, {"metadata": {"name": f"late-{number}", "namespace": "ns"}})
            await asyncio.gather(reflector.refresh(), reflector.refresh())
            assert len(cache) == number + 1
        running.cancel()
        await asyncio.wait([running])

    virtual_time.run(main)
