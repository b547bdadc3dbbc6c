"""A Pod's code can imitate its agent: whatever answers then costs the controller little, and means nothing."""

import asyncio
import gzip
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any

import orjson
import pytest

from agent.wire import Step, WatchLine, WatchType, encode
from controller.agents.client import AgentClient, Stamps
from controller.agents.fleet import Fleet
from controller.agents.transport import http_transport
from controller.errors import AgentUnreachable
from tests.support.agents import state
from tests.support.cluster import until

Talk = Callable[[asyncio.StreamWriter], Awaitable[None]]
MIB = 2**20


class Said:
    """How much a server could send before it was left."""

    def __init__(self) -> None:
        self.bytes = 0


@asynccontextmanager
async def imitation(talk: Talk) -> AsyncIterator[str]:
    """A server that heeds no request, at its URL."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            await talk(writer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@asynccontextmanager
async def client_of(url: str) -> AsyncIterator[AgentClient]:
    async with http_transport() as http:
        yield AgentClient(http, url, "u", token=lambda: "secret", stamps=Stamps(lambda: 1), timeout_seconds=60.0)


def without_end(said: Said, head: bytes, piece: bytes) -> Talk:
    async def talk(writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        while True:
            writer.write(piece)
            await writer.drain()
            said.bytes += len(piece)

    return talk


LENGTH = b"HTTP/1.1 %b x\r\nContent-Length: 100000000000\r\n\r\n"
CHUNKED = b"HTTP/1.1 %b x\r\nTransfer-Encoding: chunked\r\n\r\n"
BLOCK = b"x" * (1 << 16)
CHUNK = b"%x\r\n%b\r\n" % (len(BLOCK), BLOCK)
WITHOUT_END = {
    "a length": (LENGTH, BLOCK),
    "chunks": (CHUNKED, CHUNK),
    "headers": (b"HTTP/1.1 %b x\r\n", b"X-Name: value\r\n" * 1000),
    "a header": (b"HTTP/1.1 %b x\r\nX: ", BLOCK),
}


@pytest.mark.parametrize("status", [b"200", b"409"])
@pytest.mark.parametrize(("head", "piece"), WITHOUT_END.values(), ids=WITHOUT_END)
async def test_an_answer_without_end_is_left_early(head: bytes, piece: bytes, status: bytes) -> None:
    """By any of the calls. It would fill the controller's memory, and so end it for every pool."""
    said = Said()
    async with imitation(without_end(said, head % status, piece)) as url, client_of(url) as client:
        calls: list[Callable[[], Awaitable[Any]]] = [
            client.state,
            lambda: client.task("t"),
            lambda: client.output_page("t", Step.PLAN, 0),
            lambda: client.outputs("t"),
            lambda: client.drain("i", "d"),
        ]
        for call in calls:
            with pytest.raises(AgentUnreachable):
                await call()
        async with http_transport() as http:
            with pytest.raises(AgentUnreachable):
                await anext(http.stream(url, headers={}, idle_timeout_seconds=60))
    assert said.bytes < 10 * 6 * MIB, "what fits into sockets is sent and never read"


async def test_a_small_answer_that_unfolds_to_a_large_one_is_not_unfolded() -> None:
    """Nobody has asked for a coding."""
    body = gzip.compress(b"[" + b" " * (64 * MIB) + b"]")

    async def talk(writer: asyncio.StreamWriter) -> None:
        head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n"
        writer.write(head % len(body) + body)
        await writer.drain()

    async with imitation(talk) as url, client_of(url) as client:
        with pytest.raises(AgentUnreachable, match="gzip"):
            await client.state()
        with pytest.raises(AgentUnreachable, match="gzip"):
            await client.output_page("t", Step.PLAN, 0)
        async with http_transport() as http:
            with pytest.raises(AgentUnreachable, match="gzip"):
                await anext(http.stream(url, headers={}, idle_timeout_seconds=60))


async def test_what_is_said_of_a_broken_answer_is_short() -> None:
    """It is logged, again and again."""
    long = b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000
    wrong = b'HTTP/1.1 409 x\r\nContent-Length: 500050\r\n\r\n{"error":"busy","message":"%b"}' % (b"y" * 500_000)
    for answer in (long, wrong):

        async def talk(writer: asyncio.StreamWriter, answer: bytes = answer) -> None:
            writer.write(answer)
            await writer.drain()

        async with imitation(talk) as url, client_of(url) as client:
            with pytest.raises(Exception, match="y") as said:
                await client.state()
            assert len(str(said.value)) < 2000


async def test_an_honest_agent_with_more_news_than_are_read_is_known_as_it_is_now() -> None:
    """Slots that a program takes for moments change some hundred times a second. Old news must not queue up."""
    changes, known = 10_000, state("u")
    pieces = [orjson.dumps(encode(WatchLine(type=WatchType.STATE, revision=known.revision, state=known)))]
    for revision in range(known.revision + 1, known.revision + 1 + changes):
        known = replace(known, revision=revision)
        pieces.append(orjson.dumps(encode(WatchLine(type=WatchType.CHANGE, revision=revision, state=known))))

    left: list[asyncio.StreamWriter] = []

    async def talk(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n\r\n")
        with suppress(ConnectionError):  # its reader goes once it has read the last piece
            for piece in pieces:
                writer.write(piece + b"\n")
                await writer.drain()
            while True:
                writer.write(b"\n")
                await writer.drain()
                await asyncio.sleep(0.01)
        left.append(writer)

    told: list[str] = []
    rng, stamps = random.Random(1), Stamps(lambda: 1)
    async with imitation(talk) as url, http_transport() as http:
        fleet = Fleet(http, tokens=lambda _namespace, _pool: "secret", stamps=stamps, rng=rng, on_change=told.append)
        async with fleet:
            fleet.add("u", url, "ns", "p")
            await until(
                lambda: (report := fleet.report("u")) is not None and report.state == known, "the last change is known"
            )
        await until(lambda: left and left[0].is_closing(), "the server has noticed that nobody reads")
    assert len(told) < changes / 2
