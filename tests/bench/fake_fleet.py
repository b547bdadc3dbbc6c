"""Agents by the thousand in one process: one loopback address each, states that were encoded before.

Run as `python -m tests.bench.fake_fleet`. stdin: a line with the addresses; then, once `bound` was said, a line with
the Pods' UIDs; then `ready` is said. `GET /slots` is answered with a state whose revision rises, a watch with the state
and then heartbeats.
"""

import asyncio
import dataclasses
import socket
import sys
from typing import cast

import orjson
import uvloop

from agent.codec import encode
from agent.wire import PORT, WatchLine, WatchType
from tests.support import pools

HEARTBEAT_SECONDS = 3.0
REVISION = b"1000000000000"
"""What stands in the encoded state; replaced by one of the same length."""


class FakeAgent:
    """One agent's answers."""

    def __init__(self, number: int, pod_uid: str) -> None:
        state = dataclasses.replace(pools.agent(f"pod-{number}"), pod_uid=pod_uid, revision=int(REVISION))
        line = WatchLine(type=WatchType.STATE, revision=state.revision, state=state)
        self._body = orjson.dumps(encode(state))
        self._line = orjson.dumps(encode(line)) + b"\n"
        self._revision = int(REVISION)

    def answer(self) -> bytes:
        self._revision += 1
        body = self._body.replace(REVISION, b"%d" % self._revision)
        return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)

    def stream(self) -> bytes:
        self._revision += 1
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n"
        return head + chunk(self._line.replace(REVISION, b"%d" % self._revision))

    def heartbeat(self) -> bytes:
        return chunk(orjson.dumps({"type": "HEARTBEAT", "revision": self._revision}) + b"\n")


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


class Serving(asyncio.Protocol):
    """One connection to one agent."""

    def __init__(self, agent: FakeAgent, watchers: dict["Serving", FakeAgent]) -> None:
        self._agent = agent
        self._watchers = watchers
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if data.startswith(b"GET /slots?watch=true"):
            self.send(self._agent.stream())
            self._watchers[self] = self._agent
        elif data.startswith(b"GET /slots "):
            self.send(self._agent.answer())
        else:
            body = b'{"error":"not_found","message":""}'
            self.send(b"HTTP/1.1 404 Not Found\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

    def connection_lost(self, error: Exception | None) -> None:
        del error
        self._watchers.pop(self, None)

    def send(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)


async def serve(addresses: list[str]) -> None:
    listening = []
    for address in addresses:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, PORT))
        listening.append(listener)
    sys.stdout.write("bound\n")
    sys.stdout.flush()
    uids = sys.stdin.readline().split()
    watchers: dict[Serving, FakeAgent] = {}
    loop = asyncio.get_running_loop()
    for number, (listener, uid) in enumerate(zip(listening, uids, strict=True)):
        agent = FakeAgent(number, uid)
        await loop.create_server(lambda agent=agent: Serving(agent, watchers), sock=listener, backlog=16)  # type: ignore[misc]  # of a lambda's default nothing is inferred
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while True:
        await asyncio.sleep(HEARTBEAT_SECONDS)
        for connection, agent in list(watchers.items()):
            connection.send(agent.heartbeat())


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as loop:
        loop.run(serve(sys.stdin.readline().split()))
