"""The transport to agents over real sockets."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from controller.agents.client import AgentClient, Stamps, agent_url
from controller.agents.transport import HttpTransport, http_transport
from controller.errors import AgentRefused, AgentUnreachable

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def agent(handler: Handler) -> AsyncIterator[tuple[HttpTransport, AgentClient]]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        async with http_transport() as transport:
            yield (
                transport,
                AgentClient(transport, url, "u", token=lambda: "secret", stamps=Stamps(lambda: 1), timeout_seconds=0.5),
            )
    finally:
        await runner.cleanup()


async def test_a_write_whose_answer_is_lost_is_sent_once_and_told_as_unknown() -> None:
    """T19: even on a connection that was kept, where a client library may try again by itself."""
    seen: list[str] = []

    async def handler(request: web.Request) -> web.Response:
        seen.append(request.path)
        await request.read()
        if request.path == "/drain":
            assert request.transport is not None
            request.transport.abort()
        return web.json_response({})

    async with agent(handler) as (_, client):
        await client.ack("i", "t")
        with pytest.raises(AgentUnreachable):
            await client.drain("i", "d")
        assert seen == ["/tasks/t/ack", "/drain"]


async def test_silence_is_given_up_and_nobody_there_is_told() -> None:
    async def handler(request: web.Request) -> web.Response:
        del request
        await asyncio.sleep(2)
        return web.json_response({})

    async with agent(handler) as (transport, client):
        with pytest.raises(AgentUnreachable, match="no answer in time"):
            await client.ack("i", "t")
        nobody = AgentClient(transport, "http://127.0.0.1:1", "u", token=lambda: None, stamps=Stamps(lambda: 1))
        with pytest.raises(AgentUnreachable):
            await nobody.state()


@pytest.mark.parametrize(
    ("status", "body", "refused"),
    [
        (409, b'{"error":"busy","message":"slot 1 is running"}', True),
        (503, b'{"error":"storage","message":"disk full"}', True),
        (500, b'{"error":"internal","message":"?"}', False),
        (502, b"<html>bad gateway</html>", False),
        (200, b"not json", False),
        (200, b'{"phase":"odd"}', False),
        (302, b"", False),
        (500, b'{"error":["storage"]}', False),
        (500, b'{"error":{"a":1},"message":null}', False),
        (409, b'{"error":7,"message":"busy"}', False),
        (409, b"[" * 100_000, False),
        (200, b"[" * 100_000, False),
    ],
)
async def test_only_an_agents_own_word_is_a_refusal(status: int, body: bytes, refused: bool) -> None:
    """Anything else may have taken effect."""

    async def handler(request: web.Request) -> web.Response:
        assert request.path == "/drain", "redirects are not followed: the token is for this agent"
        return web.Response(status=status, body=body, headers={"Location": "/elsewhere"})

    async with agent(handler) as (_, client):
        with pytest.raises(AgentRefused if refused else AgentUnreachable):
            await client.drain("i", "d")


async def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")

    async def handler(request: web.Request) -> web.Response:
        assert request.headers["Authorization"] == "Bearer secret"
        return web.json_response({})

    async with agent(handler) as (_, client):
        await client.ack("i", "t")


async def test_a_stream_gives_whole_lines_and_ends_when_silent() -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for piece in (b'{"a":', b"1}\n\n", b'{"b":2}\n{"c"', b":3}\n"):
            await response.write(piece)
            await asyncio.sleep(0.01)
        await asyncio.sleep(5)
        return response

    async with agent(handler) as (transport, client):
        stream = transport.stream(client.url + "/slots", headers={}, idle_timeout_seconds=0.3)
        come = b""
        while come.count(b"}") < 3:
            come += await anext(stream) + b"\n"
        assert come.split() == [b'{"a":1}', b'{"b":2}', b'{"c":3}']
        with pytest.raises(AgentUnreachable, match="no answer in time"):
            await anext(stream)


async def test_a_stream_that_is_refused_says_why() -> None:
    async def handler(request: web.Request) -> web.Response:
        del request
        return web.json_response({"error": "unauthorized", "message": "no"}, status=401)

    async with agent(handler) as (transport, client):
        with pytest.raises(AgentRefused) as refused:
            await anext(transport.stream(client.url + "/slots", headers={}, idle_timeout_seconds=1))
        assert refused.value.status == 401


def test_addresses_of_both_kinds_make_urls() -> None:
    assert agent_url("10.1.2.3") == "http://10.1.2.3:8721"
    assert agent_url("fd00::1") == "http://[fd00::1]:8721"
