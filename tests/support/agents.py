"""Agents in memory behind a `Transport`, with the faults that a network has. For tests on virtual time."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import orjson

from agent.codec import encode
from agent.wire import AgentState, Phase, Slot, SlotState, WatchLine, WatchType
from controller.agents.answers import refusal
from controller.errors import AgentUnreachable

MOMENT = datetime(2026, 3, 1, 12, tzinfo=UTC)
HEARTBEAT_SECONDS = 5.0


def state(pod_uid: str, *, incarnation: str = "i1", revision: int = 1) -> AgentState:
    slots = tuple(Slot(id=index, accepts=("plan",), state=SlotState.IDLE, fence=1, since=MOMENT) for index in range(3))
    return AgentState(
        version="1",
        pod=f"pod-{pod_uid}",
        pod_uid=pod_uid,
        pool="p",
        incarnation=incarnation,
        phase=Phase.OPEN,
        drain_id=None,
        revision=revision,
        tokens=("t1",),
        slots=slots,
    )


@dataclass(slots=True)
class FakeAgent:
    """One agent. `refuse`: nothing listens. `hole`: packets vanish. `streams`: whether the watch works."""

    state: AgentState
    refuse: bool = False
    hole: bool = False
    streams: bool = True
    lose_changes: int = 0
    """How many changes are not sent to watchers, as if the lines were lost."""
    token: str | None = None
    delay: float = 0.01
    log: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)
    watchers: set[asyncio.Queue[bytes | None]] = field(default_factory=set)

    def change(self, **changes: Any) -> AgentState:
        self.state = dataclasses.replace(self.state, revision=self.state.revision + 1, **changes)
        if self.lose_changes:
            self.lose_changes -= 1
            return self.state
        self._send(WatchLine(type=WatchType.CHANGE, revision=self.state.revision, state=self.state))
        return self.state

    def restart(self, incarnation: str, revision: int = 1) -> None:
        """A new process: its connections are gone."""
        self.state = dataclasses.replace(self.state, incarnation=incarnation, revision=revision)
        self.cut()

    def cut(self) -> None:
        for watcher in self.watchers:
            watcher.put_nowait(None)

    def beat(self) -> None:
        self._send(WatchLine(type=WatchType.HEARTBEAT, revision=self.state.revision))

    def line(self) -> bytes:
        return orjson.dumps(encode(WatchLine(type=WatchType.STATE, revision=self.state.revision, state=self.state)))

    def _send(self, line: WatchLine) -> None:
        for watcher in self.watchers:
            watcher.put_nowait(orjson.dumps(encode(line)))


class FakeNetwork:
    """`Transport` to the agents by address."""

    def __init__(self) -> None:
        self.agents: dict[str, FakeAgent] = {}
        self.streams_opened = 0
        self.requests = 0

    async def request(
        self, method: str, url: str, *, headers: dict[str, str], body: bytes | None, timeout_seconds: float
    ) -> tuple[int, bytes]:
        self.requests += 1
        base, path = _split(url)
        agent = await self._reach(base, timeout_seconds)
        agent.log.append((method, path, orjson.loads(body) if body else {}))
        await asyncio.sleep(agent.delay)
        if agent.token is not None and headers.get("Authorization") != f"Bearer {agent.token}":
            return 401, b'{"error":"unauthorized","message":"no"}'
        if path == "/slots":
            return 200, orjson.dumps(encode(agent.state))
        if path in ("/open", "/drain"):
            return 200, orjson.dumps({"phase": "drained", "drain_id": "d", "revision": 1})
        return 200, b"{}"

    async def stream(self, url: str, *, headers: dict[str, str], idle_timeout_seconds: float) -> AsyncIterator[bytes]:
        del headers
        self.streams_opened += 1
        base, path = _split(url)
        assert path == "/slots?watch=true"
        agent = await self._reach(base, idle_timeout_seconds)
        if not agent.streams:
            raise refusal(404, b'{"error":"not_found","message":"no watch here"}')
        queue: asyncio.Queue[bytes | None] = asyncio.Queue()
        agent.watchers.add(queue)
        try:
            yield agent.line()
            silent = 0.0
            while True:
                try:
                    async with asyncio.timeout(HEARTBEAT_SECONDS):
                        line = await queue.get()
                except TimeoutError:
                    silent += HEARTBEAT_SECONDS
                    if not agent.hole:
                        silent = 0.0
                        yield orjson.dumps(encode(WatchLine(type=WatchType.HEARTBEAT, revision=agent.state.revision)))
                    elif silent >= idle_timeout_seconds:
                        raise AgentUnreachable("silence") from None
                    continue
                if line is None:
                    raise AgentUnreachable("connection reset")
                if not agent.hole:
                    yield line
        finally:
            agent.watchers.discard(queue)

    async def _reach(self, base: str, timeout_seconds: float) -> FakeAgent:
        agent = self.agents.get(base)
        if agent is None or agent.refuse:
            await asyncio.sleep(0.001)
            raise AgentUnreachable("connection refused")
        if agent.hole:
            await asyncio.sleep(timeout_seconds)
            raise AgentUnreachable("no answer in time")
        return agent


def _split(url: str) -> tuple[str, str]:
    scheme, _, rest = url.partition("://")
    host, _, path = rest.partition("/")
    return f"{scheme}://{host}", f"/{path}"
