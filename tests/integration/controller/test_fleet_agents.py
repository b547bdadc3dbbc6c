"""The fleet and the client with real agents in processes of their own."""

import asyncio
import random
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from agent.wire import ErrorCode, Phase
from controller.agents.client import AgentClient, Stamps
from controller.agents.fleet import AgentReport, Fleet
from controller.agents.transport import http_transport
from controller.errors import AgentRefused, AgentUnreachable
from tests.support.agent_process import POOL_TOKEN, AgentProcess

UID = "pod-uid-1"


class Scene:
    def __init__(self, agent: AgentProcess, fleet: Fleet) -> None:
        self.agent = agent
        self.fleet = fleet

    @property
    def client(self) -> AgentClient:
        client = self.fleet.client(UID)
        assert client is not None
        return client

    async def until(self, condition: Callable[[AgentReport], bool], seconds: float = 60.0) -> AgentReport:
        async with asyncio.timeout(seconds):
            while True:
                report = self.fleet.report(UID)
                if report is not None and condition(report):
                    return report
                await asyncio.sleep(0.02)


@asynccontextmanager
async def followed(tmp_path: Path) -> AsyncIterator[Scene]:
    agent = await asyncio.to_thread(AgentProcess(tmp_path).start)
    try:
        async with (
            http_transport() as transport,
            Fleet(
                transport,
                tokens=lambda _namespace, _pool: POOL_TOKEN,
                stamps=Stamps(lambda: 5),
                rng=random.Random(1),
                on_change=lambda _uid: None,
            ) as fleet,
        ):
            fleet.add(UID, f"http://{agent.address}:{agent.port}", "default", "terraform")
            yield Scene(agent, fleet)
    finally:
        agent.stop()


async def test_an_agent_is_opened_drained_and_watched(tmp_path: Path) -> None:
    """T6: born drained; what was granted shows in the stream."""
    async with followed(tmp_path) as scene:
        report = await scene.until(lambda report: report.connected)
        state = report.state
        assert state.phase is Phase.DRAINED
        assert state.drain_id is not None
        await scene.client.open(state.incarnation, state.drain_id)
        await scene.until(lambda report: report.state.phase is Phase.OPEN)
        answer = await scene.client.drain(state.incarnation, "drain-1")
        assert (answer.phase, answer.drain_id) == (Phase.DRAINED, "drain-1")
        await scene.until(lambda report: report.state.drain_id == "drain-1")
        await scene.client.ack(state.incarnation, "task-unknown")


async def test_a_restarted_agent_is_heard_again_and_refuses_what_was_meant_for_the_one_before(tmp_path: Path) -> None:
    """T25: without anybody's help."""
    async with followed(tmp_path) as scene:
        before = (await scene.until(lambda report: report.connected)).state
        scene.agent.kill()
        with pytest.raises(AgentUnreachable):
            await scene.client.drain(before.incarnation, "drain-1")
        await asyncio.to_thread(scene.agent.start)
        report = await scene.until(lambda report: report.state.incarnation != before.incarnation)
        assert report.connected
        with pytest.raises(AgentRefused) as refused:
            await scene.client.drain(before.incarnation, "drain-1")
        assert refused.value.code == ErrorCode.RESTARTED
        await scene.client.drain(report.state.incarnation, "drain-1")


@pytest.mark.long
async def test_a_stopped_agent_is_not_connected_and_is_again_when_it_goes_on(tmp_path: Path) -> None:
    """R5: SIGSTOP is silence, and silence is not idleness."""
    async with followed(tmp_path) as scene:
        await scene.until(lambda report: report.connected)
        assert scene.agent.process is not None
        scene.agent.process.send_signal(signal.SIGSTOP)
        try:
            await scene.until(lambda report: not report.connected)
        finally:
            scene.agent.process.send_signal(signal.SIGCONT)
        await scene.until(lambda report: report.connected)


async def test_an_older_leaders_write_is_refused_after_a_newer_ones(tmp_path: Path) -> None:
    """T22."""
    async with followed(tmp_path) as scene:
        state = (await scene.until(lambda report: report.connected)).state
        await scene.client.drain(state.incarnation, "newer")
        async with http_transport() as transport:
            older = AgentClient(transport, scene.client.url, UID, token=lambda: POOL_TOKEN, stamps=Stamps(lambda: 4))
            with pytest.raises(AgentRefused) as refused:
                await older.drain(state.incarnation, "older")
        assert refused.value.code == ErrorCode.STALE
