"""Two replicas never both act, whatever messages, clocks, processes and people do; and one does, once they behave."""

import asyncio
import itertools
import random
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from hypothesis import given, settings
from hypothesis import strategies as st

from controller.errors import ApiUnavailable, Conflict, NotLeader
from controller.kube.api import LEASES, Object, Resource
from controller.leader.election import Election
from controller.names import LEADER_LEASE
from tests.support import virtual_time
from tests.support.memory_api import MemoryApi

T = TypeVar("T")


class Network(MemoryApi):
    """One replica's way to the server. A message that was sent arrives, however late, if it is not lost.

    Giving up on an answer does not call the message back.
    """

    def __init__(self, server: MemoryApi, rng: random.Random) -> None:
        super().__init__()
        self._server = server
        self._rng = rng
        self.trouble = True
        self.cut = False
        self.messages: set[asyncio.Task[Any]] = set()

    async def get(self, resource: Resource, namespace: str | None, name: str) -> Object:
        return await self._send(lambda: self._server.get(resource, namespace, name))

    async def create(self, resource: Resource, namespace: str | None, body: Object) -> Object:
        return await self._send(lambda: self._server.create(resource, namespace, body))

    async def patch(
        self, resource: Resource, namespace: str | None, name: str, body: Object, *, subresource: str = ""
    ) -> Object:
        del subresource
        return await self._send(lambda: self._server.patch(resource, namespace, name, body))

    async def _send(self, call: Callable[[], Coroutine[Any, Any, T]]) -> T:
        task = asyncio.get_running_loop().create_task(self._deliver(call))
        self.messages.add(task)
        task.add_done_callback(self._arrived)
        return await asyncio.shield(task)

    def _arrived(self, task: asyncio.Task[Any]) -> None:
        self.messages.discard(task)
        if not task.cancelled():
            task.exception()

    async def _deliver(self, call: Callable[[], Coroutine[Any, Any, T]]) -> T:
        await asyncio.sleep(self._delay())
        if self.cut or (self.trouble and self._rng.random() < 0.1):
            await asyncio.sleep(self._delay())
            raise ApiUnavailable("lost on the way there")
        answer = await call()
        await asyncio.sleep(self._delay())
        if self.cut or (self.trouble and self._rng.random() < 0.1):
            raise ApiUnavailable("lost on the way back")
        return answer

    def _delay(self) -> float:
        """Mostly quick, sometimes longer than a Lease lasts."""
        if not self.trouble:
            return self._rng.uniform(0.01, 0.1)
        return self._rng.choice((0.01, 0.1, 0.5, 2.0, 5.0, 12.0, 40.0)) * self._rng.random() ** 3


class Replica:
    """A process and its election. Its wall clock is wrong by hours, or stands still."""

    def __init__(self, world: "World", number: int) -> None:
        rng = world.rng
        offset = timedelta(seconds=rng.uniform(-90000, 90000))
        rate = rng.choice((0.0, 0.5, 1.0, 2.0))
        self.network = Network(world.server, rng)
        self.election = Election(
            self.network,
            "ns",
            f"replica-{number}",
            now=lambda: world.wall(rate) + offset,
            rng=random.Random(rng.random()),
        )
        self.election.subscribe(lambda leading: world.note(self, leading=leading))
        self.task = asyncio.create_task(self.election.run())

    async def crash(self) -> None:
        """The process is gone. What it sent still arrives."""
        self.task.cancel()
        await asyncio.wait([self.task])

    async def stop(self) -> None:
        await self.crash()
        await self.election.release()


class World:
    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.server = MemoryApi()
        self.replicas: list[Replica] = []
        self.gone: list[Replica] = []
        self.numbers = itertools.count()
        self.terms: list[int] = []
        self.started = asyncio.get_running_loop().time()

    def wall(self, rate: float) -> datetime:
        passed = asyncio.get_running_loop().time() - self.started
        return datetime(2026, 3, 1, tzinfo=UTC) + timedelta(seconds=passed * rate)

    def start(self) -> Replica:
        replica = Replica(self, next(self.numbers))
        self.replicas.append(replica)
        return replica

    def replace(self, replica: Replica) -> None:
        self.replicas.remove(replica)
        self.gone.append(replica)
        self.start()

    def leaders(self) -> list[Replica]:
        return [replica for replica in self.replicas if replica.election.may_act()]

    def note(self, replica: Replica, *, leading: bool) -> None:
        self.check()
        if leading:
            term = replica.election.term()
            assert all(term > before for before in self.terms), f"{term} after {self.terms}"
            self.terms.append(term)

    def check(self) -> None:
        leaders = self.leaders()
        assert len(leaders) <= 1, [replica.election.identity for replica in leaders]

    async def one_leader(self, within: float) -> Replica:
        deadline = asyncio.get_running_loop().time() + within
        while not self.leaders():
            assert asyncio.get_running_loop().time() < deadline, "no leader"
            await asyncio.sleep(0.1)
        return self.leaders()[0]

    async def close(self) -> None:
        for replica in self.replicas:
            await replica.crash()
        for replica in self.replicas + self.gone:
            while replica.network.messages:
                await asyncio.wait(replica.network.messages)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32))
def test_never_two_leaders_and_terms_rise_under_any_trouble(seed: int) -> None:
    """T22, G1: delays, losses, partitions, crashes, wrong clocks, and a person who deletes the Lease."""
    virtual_time.run(lambda: trouble(seed))


async def trouble(seed: int) -> None:
    world = World(seed)
    for _ in range(3):
        world.start()
    check = asyncio.create_task(keep_checking(world))
    for _ in range(40):
        await asyncio.sleep(world.rng.choice((0.5, 3.0, 10.0, 20.0)) * world.rng.random())
        await world.rng.choice(ACCIDENTS)(world)
    for replica in world.replicas:
        replica.network.trouble = replica.network.cut = False
    await world.one_leader(within=120)
    await asyncio.sleep(60)
    leaders = world.leaders()
    await asyncio.sleep(60)
    assert len(leaders) == 1
    assert world.leaders() == leaders, "nobody changes what works"
    check.cancel()
    await asyncio.wait([check])
    assert check.cancelled() or check.exception() is None, check.exception()
    await world.close()


async def crash_one(world: World) -> None:
    replica = world.rng.choice(world.replicas)
    await replica.crash()
    world.replace(replica)


async def stop_one(world: World) -> None:
    replica = world.rng.choice(world.replicas)
    await replica.stop()
    world.replace(replica)


async def cut_or_mend_one(world: World) -> None:
    network = world.rng.choice(world.replicas).network
    network.cut = not network.cut


async def mend_all(world: World) -> None:
    for replica in world.replicas:
        replica.network.cut = False


async def delete_lease(world: World) -> None:
    if (LEASES, "ns", LEADER_LEASE) in world.server.objects:
        world.server.remove(LEASES, "ns", LEADER_LEASE)


async def edit_lease(world: World) -> None:
    if (LEASES, "ns", LEADER_LEASE) in world.server.objects:
        edit = {"metadata": {"annotations": {"edited": str(world.rng.random())}}}
        await world.server.patch(LEASES, "ns", LEADER_LEASE, edit)


ACCIDENTS = (crash_one, stop_one, cut_or_mend_one, cut_or_mend_one, mend_all, delete_lease, edit_lease)


async def keep_checking(world: World) -> None:
    while True:
        world.check()
        await asyncio.sleep(0.2)


def test_a_leader_that_is_cut_off_stops_acting_before_another_may_begin() -> None:
    """T22: and the other does begin."""

    async def main() -> None:
        world = World(1)
        first, second = world.start(), world.start()
        for replica in (first, second):
            replica.network.trouble = False
        leader = await world.one_leader(within=60)
        other = second if leader is first else first
        leader.network.cut = True
        cut_at = asyncio.get_running_loop().time()
        await leader.election.wait(leading=False)
        stopped = asyncio.get_running_loop().time() - cut_at
        await other.election.wait(leading=True)
        began = asyncio.get_running_loop().time() - cut_at
        assert 7 < stopped <= 10
        assert 4 < began - stopped < 10
        try:
            leader.election.term()
        except NotLeader:
            pass
        else:
            raise AssertionError("a term without leadership")
        await world.close()

    virtual_time.run(main)


def test_a_clean_stop_hands_over_at_once() -> None:
    async def main() -> None:
        world = World(2)
        first = world.start()
        first.network.trouble = False
        await first.election.wait(leading=True)
        second = world.start()
        second.network.trouble = False
        await asyncio.sleep(5)
        started = asyncio.get_running_loop().time()
        await first.stop()
        await second.election.wait(leading=True)
        assert asyncio.get_running_loop().time() - started < 3
        await world.close()

    virtual_time.run(main)


def test_a_short_outage_of_the_api_does_not_cost_the_leadership() -> None:
    async def main() -> None:
        world = World(3)
        replica = world.start()
        replica.network.trouble = False
        await replica.election.wait(leading=True)
        term = replica.election.term()
        for _ in range(10):
            replica.network.cut = True
            await asyncio.sleep(3)
            replica.network.cut = False
            await asyncio.sleep(5)
            assert replica.election.term() == term
        await world.close()

    virtual_time.run(main)


def test_a_leader_whose_lease_is_deleted_goes_on_in_its_term() -> None:
    """G1: a person who deletes the Lease stops nothing."""

    async def main() -> None:
        world = World(4)
        first, second = world.start(), world.start()
        for replica in (first, second):
            replica.network.trouble = False
        leader = await world.one_leader(within=60)
        for _ in range(20):
            world.server.remove(LEASES, "ns", LEADER_LEASE)
            for _ in range(30):
                world.check()
                await asyncio.sleep(0.3)
            await world.one_leader(within=60)
        assert len(world.terms) < 21, "at least sometimes it is the leader who makes it anew"
        assert leader in world.replicas
        await world.close()

    virtual_time.run(main)


def test_who_made_a_deleted_lease_anew_and_stops_at_once_does_not_say_that_nobody_acts() -> None:
    """T22, G1: the leader of before may still act, on the renewal that it sent before the Lease was deleted."""

    async def main() -> None:
        world = World(6)
        leader = world.start()
        leader.network.trouble = False
        await world.one_leader(within=60)
        leader.network.cut = True
        world.server.remove(LEASES, "ns", LEADER_LEASE)
        second = world.start()
        second.network.trouble = False
        await asyncio.sleep(5)
        assert (LEASES, "ns", LEADER_LEASE) in world.server.objects, "the second made it"
        assert leader.election.may_act()
        await second.stop()
        third = world.start()
        third.network.trouble = False
        await third.election.wait(leading=True)
        world.check()
        await world.close()

    virtual_time.run(main)


def test_a_write_of_the_lease_that_conflicts_is_read_again() -> None:
    async def main() -> None:
        world = World(5)
        replica = world.start()
        replica.network.trouble = False
        await replica.election.wait(leading=True)
        conflicts = 0

        async def conflict(verb: str, resource: Resource, name: str) -> None:
            nonlocal conflicts
            del resource, name
            if verb == "patch" and conflicts < 3:
                conflicts += 1
                raise Conflict(409, "Conflict", "")

        world.server.before = conflict
        await asyncio.sleep(60)
        assert conflicts == 3
        assert replica.election.may_act()
        assert len(world.terms) == 1
        await world.close()

    virtual_time.run(main)
