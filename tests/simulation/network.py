"""Messages between controllers and agents: late, lost before or after their effect, repeated, or cut off a while."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from controller.errors import AgentUnreachable
from tests.simulation.agent import SimAgent
from tests.simulation.node import SimNode, SimPod


@dataclass
class NetworkFaults:
    """How likely each is, for one message."""

    lost: float = 0.0
    """It never arrives."""
    unanswered: float = 0.0
    """It takes effect, and its answer is lost."""
    late: float = 0.0
    """It arrives long after the sender gave up."""
    repeated: float = 0.0
    """It arrives a second time, later."""
    cut: float = 0.0
    """For one line of a stream: the connection breaks."""
    latency: float = 1.0
    """How many times longer than usual (0.5 to 10 ms each way) a message takes."""


_OK = 200
_UNAUTHORIZED = 401


class SimNetwork:
    """`Transport` of one replica."""

    def __init__(
        self,
        node: SimNode,
        rng: random.Random,
        *,
        faults: NetworkFaults,
        pause: Callable[[], Coroutine[Any, Any, None]],
        note: Callable[[str], None],
        spring: Callable[[str, str], float],
        refused: Callable[[dict[str, str], str], None],
    ) -> None:
        self.node = node
        self._refused = refused
        """Told of a call that an agent refused for its token: its headers, and the Pod."""
        self.cut_off: set[str] = set()
        """Addresses that can't be reached."""
        self.dead = False
        self._rng = rng
        self._faults = faults
        self._pause = pause
        self._note = note
        self._spring = spring
        self.taken: list[tuple[str, str, dict[str, str], bytes]] = []
        """Acquires that were answered: address, target, headers, body."""

    async def request(
        self, method: str, url: str, *, headers: dict[str, str], body: bytes | None, timeout_seconds: float
    ) -> tuple[int, bytes]:
        address, target = _split(url)
        faults, rng = self._faults, self._rng
        if method == "POST":
            self._note(f"→ {address} {target}")
        await self._pause()
        await asyncio.sleep(rng.uniform(0.0005, 0.01) * self._faults.latency)
        held_up_seconds = self._spring(method, target)
        await self._pause()
        pod = self._reach(address)

        def arrive(agent: SimAgent) -> Coroutine[Any, Any, tuple[int, bytes]]:
            return agent.request(method, target, headers, body)

        if rng.random() < faults.lost:
            await asyncio.sleep(timeout_seconds)
            raise AgentUnreachable("no answer in time")
        if not held_up_seconds and rng.random() < faults.late:
            held_up_seconds = rng.uniform(0.1, 60.0)
        if held_up_seconds:
            self.node.spawn(self._later(held_up_seconds, address, arrive))
            await asyncio.sleep(timeout_seconds)
            raise AgentUnreachable("no answer in time")
        if rng.random() < faults.repeated:
            self.node.spawn(self._later(rng.uniform(0.1, 60.0), address, arrive))
        agent = pod.agent
        if agent is None or not agent.alive:
            raise AgentUnreachable("connection refused")
        answer = await agent.run(arrive(agent), timeout_seconds)
        self._note_answer(pod, target, headers, body, answer[0])
        if rng.random() < faults.unanswered:
            raise AgentUnreachable("connection reset")
        await asyncio.sleep(rng.uniform(0.0005, 0.01) * self._faults.latency)
        await self._pause()
        return answer

    def _note_answer(self, pod: SimPod, target: str, headers: dict[str, str], body: bytes | None, status: int) -> None:
        if target == "/slots/acquire" and body is not None and status == _OK:
            self.taken.append((pod.address, target, headers, body))
        if status == _UNAUTHORIZED:
            self._refused(headers, pod.name)

    async def _later(
        self, seconds: float, address: str, arrive: Callable[[SimAgent], Coroutine[Any, Any, tuple[int, bytes]]]
    ) -> None:
        await asyncio.sleep(seconds)
        pod = self.node.by_address.get(address)
        if pod is not None and pod.agent is not None and pod.agent.alive:
            try:
                await pod.agent.run(arrive(pod.agent), 60.0)
            except AgentUnreachable:
                return

    async def stream(self, url: str, *, headers: dict[str, str], idle_timeout_seconds: float) -> AsyncIterator[bytes]:
        del headers
        address, _ = _split(url)
        await self._pause()
        await asyncio.sleep(self._rng.uniform(0.0005, 0.01) * self._faults.latency)
        pod = self._reach(address)
        agent = pod.agent
        if agent is None or not agent.alive:
            raise AgentUnreachable("connection refused")
        async for line in agent.watch():
            await asyncio.sleep(self._rng.uniform(0.0005, 0.01) * self._faults.latency)
            await self._pause()
            if not agent.alive or self._rng.random() < self._faults.cut:
                raise AgentUnreachable("connection reset")
            if self.dead or address in self.cut_off:
                await asyncio.sleep(idle_timeout_seconds)
                raise AgentUnreachable("nothing came")
            yield line

    def _reach(self, address: str) -> SimPod:
        if self.dead or address in self.cut_off:
            raise AgentUnreachable("no route")
        pod = self.node.by_address.get(address)
        if pod is None or pod.over:
            raise AgentUnreachable("no route")
        return pod


def _split(url: str) -> tuple[str, str]:
    host, _, path = url.partition("://")[2].partition("/")
    return host.rpartition(":")[0], f"/{path}"
