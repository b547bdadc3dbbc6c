"""What is known of agents, through everything that keeps them from saying it."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.wire import Phase
from controller.agents.client import AgentClient, Stamps
from controller.agents.fleet import LINES_PER_SECOND, Fleet
from controller.errors import AgentRefused, AgentUnreachable, NotLeader
from tests.support import virtual_time
from tests.support.agents import FakeAgent, FakeNetwork, state

URL = "http://10.0.0.1:8721"


class Scene:
    def __init__(self) -> None:
        self.network = FakeNetwork()
        self.agent = FakeAgent(state("u"))
        self.network.agents[URL] = self.agent
        self.told: list[tuple[str, float]] = []
        self.token = "secret"
        self.fleet = Fleet(
            self.network,
            tokens=lambda _namespace, _pool: self.token,
            stamps=Stamps(lambda: 7),
            rng=random.Random(1),
            on_change=lambda uid: self.told.append((uid, asyncio.get_running_loop().time())),
        )

    def connected(self) -> bool:
        report = self.fleet.report("u")
        return report is not None and report.connected

    def knows(self) -> bool:
        report = self.fleet.report("u")
        return report is not None and report.connected and report.state == self.agent.state

    async def until(self, condition: Callable[[], bool], within: float) -> float:
        loop = asyncio.get_running_loop()
        started = loop.time()
        while not condition():
            assert loop.time() - started < within, "it never came"
            await asyncio.sleep(0.05)
        return loop.time() - started


@contextlib.asynccontextmanager
async def following() -> AsyncIterator[Scene]:
    scene = Scene()
    async with scene.fleet as fleet:
        fleet.add("u", URL, "ns", "p")
        await scene.until(scene.knows, 2)
        yield scene


def play(script: Callable[[Scene], Awaitable[None]]) -> None:
    async def main() -> None:
        async with following() as scene:
            await script(scene)

    virtual_time.run(main)


def test_a_change_is_known_and_told_at_once() -> None:
    async def script(scene: Scene) -> None:
        told = len(scene.told)
        scene.agent.change(phase=Phase.DRAINED)
        await scene.until(scene.knows, 0.2)
        assert len(scene.told) == told + 1
        await asyncio.sleep(120)
        assert len(scene.told) == told + 1, "heartbeats change nothing"
        assert scene.network.streams_opened == 1

    play(script)


def test_a_lost_notification_is_made_good_by_the_next_heartbeat() -> None:
    """T21."""

    async def script(scene: Scene) -> None:
        scene.agent.lose_changes = 1
        scene.agent.change(phase=Phase.DRAINED)
        assert await scene.until(scene.knows, 10) <= 6

    play(script)


@pytest.mark.parametrize("kind", ["hole", "refuse"])
@pytest.mark.parametrize("seconds", [3.0, 60.0, 300.0, 86400.0])
def test_a_partition_of_any_length_heals_by_itself(kind: str, seconds: float) -> None:
    """T25."""

    async def script(scene: Scene) -> None:
        setattr(scene.agent, kind, True)
        if kind == "refuse":
            scene.agent.cut()
        await asyncio.sleep(seconds)
        scene.agent.change(phase=Phase.DRAINED)
        assert scene.connected() == (seconds < 5)
        setattr(scene.agent, kind, False)
        assert await scene.until(scene.knows, 30) <= 15

    play(script)


def test_a_lost_stream_is_told_as_a_lost_connection_after_two_heartbeats() -> None:
    async def script(scene: Scene) -> None:
        scene.agent.refuse = True
        scene.agent.cut()
        lost_at = asyncio.get_running_loop().time()
        told = len(scene.told)
        took = await scene.until(lambda: not scene.connected(), 11)
        assert 5 <= took <= 10.1
        assert scene.fleet.report("u") is not None, "what it held is still the least that it may hold"
        await scene.until(lambda: len(scene.told) > told, 0.2)
        assert scene.told[-1][1] - lost_at <= 10.1

    play(script)


def test_a_silent_stream_is_a_lost_connection() -> None:
    async def script(scene: Scene) -> None:
        scene.agent.hole = True
        assert await scene.until(lambda: not scene.connected(), 11) <= 10.1

    play(script)


def test_an_agent_behind_a_reused_address_is_not_taken_for_the_pods() -> None:
    """T20, D1: another Pod's idle slots say nothing about this one's."""

    async def script(scene: Scene) -> None:
        known = scene.agent.state
        scene.agent.refuse = True
        scene.agent.cut()
        other = FakeAgent(state("other", revision=50))
        scene.network.agents[URL] = other
        await asyncio.sleep(60)
        report = scene.fleet.report("u")
        assert report is not None
        assert report.state == known
        assert not report.connected
        client = scene.fleet.client("u")
        assert client is not None
        with pytest.raises(AgentUnreachable):
            await client.state()

    play(script)


def test_a_restarted_agent_at_the_same_revision_is_read_anew() -> None:
    async def script(scene: Scene) -> None:
        scene.agent.restart("i2", revision=scene.agent.state.revision)
        await scene.until(scene.knows, 2)

    play(script)


def test_where_streams_fail_the_state_is_polled_and_streams_are_tried_again() -> None:
    async def script(scene: Scene) -> None:
        scene.agent.streams = False
        scene.agent.cut()
        await asyncio.sleep(5)
        for phase in (Phase.DRAINED, Phase.OPEN) * 15:
            scene.agent.change(phase=phase)
            assert await scene.until(scene.knows, 8) <= 7
            assert scene.connected()
        scene.agent.streams = True
        await scene.until(lambda: bool(scene.agent.watchers), 40)
        scene.agent.change(phase=Phase.DRAINED)
        await scene.until(scene.knows, 0.2)

    play(script)


def test_a_state_that_was_read_elsewhere_counts_unless_it_is_older_or_of_another_incarnation() -> None:
    async def script(scene: Scene) -> None:
        scene.agent.lose_changes = 1
        before = scene.agent.state
        newer = scene.agent.change(phase=Phase.DRAINED)
        scene.fleet.note("u", newer)
        assert scene.knows()
        scene.fleet.note("u", before)
        assert scene.knows()
        scene.agent.restart("i2")
        await scene.until(scene.knows, 2)
        scene.fleet.note("u", newer)
        assert scene.knows()

    play(script)


def test_a_heartbeat_that_was_sent_before_a_newer_state_was_read_breaks_nothing() -> None:
    async def script(scene: Scene) -> None:
        scene.agent.lose_changes = 1
        scene.agent.beat()
        scene.fleet.note("u", scene.agent.change(phase=Phase.DRAINED))
        await asyncio.sleep(1)
        assert scene.network.streams_opened == 1

    play(script)


def test_a_forgotten_pod_is_left_alone_and_one_with_a_new_address_is_found_there() -> None:
    async def script(scene: Scene) -> None:
        moved = FakeAgent(state("u", revision=9))
        scene.network.agents["http://10.0.0.2:8721"] = moved
        scene.fleet.add("u", "http://10.0.0.2:8721", "ns", "p")
        assert scene.connected(), "what was known a moment ago still is"
        scene.agent = moved
        await scene.until(scene.knows, 2)
        told = len(scene.told)
        scene.fleet.forget("u")
        assert scene.fleet.report("u") is None
        moved.change()
        await asyncio.sleep(60)
        assert len(scene.told) == told

    play(script)


def test_an_agent_that_is_not_reached_is_said_with_pool_and_pod(caplog: pytest.LogCaptureFixture) -> None:
    async def script(scene: Scene) -> None:
        scene.fleet.add("v", "http://10.0.0.3:8721", "ns", "p", pod="p-xyz")
        await asyncio.sleep(60)
        scene.fleet.forget("v")

    with caplog.at_level("INFO", logger="controller.agents.fleet"):
        play(script)
    said = [vars(record) for record in caplog.records if record.message == "agent not reached"]
    assert {(line["pool"], line["pod"], line["pod_uid"]) for line in said} == {("ns/p", "p-xyz", "v")}


def test_an_agent_that_ends_every_stream_at_once_is_not_hammered() -> None:
    async def script(scene: Scene) -> None:
        opened = scene.network.streams_opened
        for _ in range(6000):
            scene.agent.cut()
            await asyncio.sleep(0.01)
        assert scene.network.streams_opened - opened < 60

    play(script)


def test_an_agent_with_no_end_of_news_is_read_at_a_pace() -> None:
    """What imitates an agent must not have the loop to itself. An honest one then says several changes in one line."""

    async def script(scene: Scene) -> None:
        told = len(scene.told)
        for _ in range(20_000):
            scene.agent.change()
            await asyncio.sleep(0.001)
        assert 0.5 * 20 * LINES_PER_SECOND < len(scene.told) - told <= 22 * LINES_PER_SECOND
        assert scene.connected()

    play(script)


@pytest.mark.parametrize(
    "changes",
    [
        {"slots": state("u").slots * 6},
        {"slots": (replace(state("u").slots[0], accepts=("plan",) * 17),)},
        {"slots": (replace(state("u").slots[0], accepts=("p" * 2000,)),)},
        {"slots": (replace(state("u").slots[0], id=16),)},
        {"slots": (replace(state("u").slots[0], id=-1),)},
        {"slots": (state("u").slots[0],) * 2},
        {"slots": (replace(state("u").slots[0], task_id="t" * 2000),)},
        {"slots": (replace(state("u").slots[0], since=datetime(9999, 12, 31, tzinfo=UTC)),)},
        {"slots": (replace(state("u").slots[0], expires_at=datetime(1, 1, 1, tzinfo=UTC)),)},
        {"slots": (replace(state("u").slots[0], task_id="a task"),)},
        {"ended": ("t",) * 5000},
        {"ended": ("t", "../t")},
        {"tokens": ("t",) * 300},
        {"warnings": ("w" * 2000,)},
        {"version": "v" * 2000},
    ],
)
def test_a_state_that_no_agent_has_is_no_state(changes: dict[str, Any]) -> None:
    """It is kept, for each Pod, and looked at in every pass."""

    async def script(scene: Scene) -> None:
        known = scene.fleet.report("u")
        scene.agent.change(**changes)
        await asyncio.sleep(60)
        report = scene.fleet.report("u")
        assert known is not None
        assert report is not None
        assert report.state == known.state, "what was known stays the least that it holds"
        assert not report.connected

    play(script)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32))
def test_after_any_trouble_the_last_state_is_known(seed: int) -> None:
    """T21, T25, rule 6."""
    rng = random.Random(seed)

    async def script(scene: Scene) -> None:
        agent = scene.agent
        for _ in range(40):
            match rng.randrange(7):
                case 0:
                    agent.hole = rng.random() < 0.5
                case 1:
                    agent.refuse = rng.random() < 0.5
                    agent.cut()
                case 2:
                    agent.streams = rng.random() < 0.5
                case 3:
                    agent.lose_changes = rng.randrange(3)
                case 4:
                    agent.restart(f"i{rng.random()}", rng.randrange(5))
                case _:
                    agent.change(drain_id=str(rng.random()))
            await asyncio.sleep(rng.choice((0.0, 0.1, 5.0, 30.0)) * rng.random())
            report = scene.fleet.report("u")
            assert report is not None
            assert report.state.pod_uid == "u"
        agent.hole = agent.refuse = False
        agent.lose_changes = 0
        assert await scene.until(scene.knows, 45) <= 40

    play(script)


def test_writes_to_one_agent_go_one_after_the_other_with_rising_stamps() -> None:
    """T19: and name the Pod and the incarnation they were decided on."""

    async def script(scene: Scene) -> None:
        client = scene.fleet.client("u")
        assert client is not None
        scene.agent.delay = 0.5
        started = asyncio.get_running_loop().time()
        await asyncio.gather(*(client.ack("i1", f"task-{index}") for index in range(10)))
        assert asyncio.get_running_loop().time() - started >= 5
        bodies = [body for method, _, body in scene.agent.log if method == "POST"]
        stamps = [(body["stamp"]["term"], body["stamp"]["counter"]) for body in bodies]
        assert stamps == sorted(set(stamps))
        assert all(body["pod_uid"] == "u" and body["incarnation"] == "i1" for body in bodies)

    play(script)


def test_a_token_that_changes_is_used_from_then_on() -> None:
    async def script(scene: Scene) -> None:
        client = scene.fleet.client("u")
        assert client is not None
        scene.agent.token = scene.token
        await client.drain("i1", "d")
        scene.agent.token = "next"
        with pytest.raises(AgentRefused) as refused:
            await client.drain("i1", "d")
        assert refused.value.code == "unauthorized"
        scene.token = "next"
        await client.drain("i1", "d")

    play(script)


def test_nothing_is_written_without_leadership() -> None:
    """T22."""

    async def main() -> None:
        network = FakeNetwork()
        network.agents[URL] = FakeAgent(state("u"))

        def no_term() -> int:
            raise NotLeader("not now")

        client = AgentClient(network, URL, "u", token=lambda: None, stamps=Stamps(no_term))
        with pytest.raises(NotLeader):
            await client.open("i1", "d")
        assert network.requests == 0
        assert (await client.state()).pod_uid == "u"

    virtual_time.run(main)


def test_an_agent_is_followed_on_whatever_broke(monkeypatch: pytest.MonkeyPatch) -> None:
    """D1: it would be taken for silent for ever."""

    async def script(scene: Scene) -> None:
        def breaks(*_: object, **__: object) -> None:
            raise RuntimeError("a mistake")

        with monkeypatch.context() as patched:
            patched.setattr(scene.network, "stream", breaks)
            scene.agent.cut()
            await scene.until(lambda: not scene.connected(), 60)
        await scene.until(scene.knows, 120)

    play(script)
