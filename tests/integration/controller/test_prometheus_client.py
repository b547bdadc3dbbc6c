"""Asking a Prometheus over real sockets: what is sent, and what is made of answers that are none."""

import asyncio
import gzip
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from controller.agents.tls import make_context
from controller.decide.reading import Sample
from controller.errors import SignalError
from controller.prometheus import client
from controller.prometheus.client import Server, prometheus
from tests.support.mounted import Authority

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
FOUND = {
    "status": "success",
    "data": {"resultType": "vector", "result": [{"metric": {"pod": "p"}, "value": [1, "0.5"]}]},
}


@asynccontextmanager
async def server(handler: Handler, context: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    try:
        yield f"http{'s' if context else ''}://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def test_a_query_is_sent_with_its_token_below_the_path_of_the_url() -> None:
    seen: list[tuple[str, str, str | None, object]] = []

    async def handler(request: web.Request) -> web.Response:
        form = await request.post()
        seen.append((request.method, request.path, request.headers.get("Authorization"), form["query"]))
        return web.json_response(FOUND)

    async with server(handler) as url, prometheus() as ask:
        answer = await ask(Server(url=f"{url}/tenant/", token="secret"), 'up{a="b"}')
        assert answer.samples == (Sample({"pod": "p"}, 0.5),)
        await ask(Server(url=url), "up")
    assert seen == [
        ("POST", "/tenant/api/v1/query", "Bearer secret", 'up{a="b"}'),
        ("POST", "/api/v1/query", None, "up"),
    ]


async def test_over_tls_it_is_verified_by_the_ca_that_is_given_and_shows_its_own_certificate(tmp_path: Path) -> None:
    ours, theirs = Authority("ours"), Authority("theirs")
    served, shown = ours.sign("prometheus.example"), theirs.sign("controller")
    (tmp_path / "served").write_bytes(served.certificate + served.key)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cadata=theirs.certificate.decode())
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(tmp_path / "served")

    async def handler(_: web.Request) -> web.Response:
        return web.json_response(FOUND)

    async with server(handler, context) as url, prometheus() as ask:
        right = make_context(ours.certificate, shown.certificate + shown.key)
        answer = await ask(Server(url=url, context=right, server_name="prometheus.example"), "up")
        assert answer.samples
        wrong = (
            Server(url=url, context=right, server_name="other.example"),
            Server(url=url, context=make_context(theirs.certificate, None), server_name="prometheus.example"),
            Server(url=url),
        )
        for case in wrong:
            with pytest.raises(SignalError, match=r"(?i)certificate|ssl"):
                await ask(case, "up")


async def error_of(handler: Handler) -> str:
    async with server(handler) as url, prometheus() as ask:
        with pytest.raises(SignalError) as error:
            await ask(Server(url=url, token="secret"), "up")
        return str(error.value).replace(url, "URL")


async def test_what_prometheus_says_is_wrong_with_a_query_is_passed_on() -> None:
    async def handler(_: web.Request) -> web.Response:
        return web.json_response({"status": "error", "errorType": "bad_data", "error": "parse error"}, status=400)

    assert await error_of(handler) == "URL: bad_data: parse error"


async def test_of_anything_else_nothing_is_shown_but_its_status() -> None:
    """The URL is a user's, and may lead anywhere in the cluster."""

    async def handler(_: web.Request) -> web.Response:
        return web.Response(text="somebody's secrets", status=403)

    async def fine(_: web.Request) -> web.Response:
        return web.Response(text="somebody's secrets")

    assert await error_of(handler) == "URL answers with status 403"
    assert await error_of(fine) == "URL: this is no answer of Prometheus"


@pytest.mark.parametrize(
    "said",
    [
        b"SSH-2.0-somebody's secrets\r\n",
        b"-ERR somebody's secrets\r\n",
        b"HTTP/1.1 999999 somebody's secrets\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nsomebody's secrets\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"somebody's secrets" * 1000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: somebody's secrets\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nsomebody's secrets\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: somebody's secrets\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2000\r\n\r\nsomebody's secrets",
    ],
)
async def test_nor_of_what_is_no_http(said: bytes) -> None:
    """An error of the HTTP library quotes what came; the pool's status would show it to whoever may read pools."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(said)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as listening, prometheus() as ask:
        with pytest.raises(SignalError) as error:
            await ask(Server(url=f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"), "up")
    assert "secrets" not in str(error.value)


async def test_a_small_answer_that_unfolds_to_a_large_one_is_not_unfolded() -> None:
    async def handler(request: web.Request) -> web.Response:
        assert "Accept-Encoding" not in request.headers
        return web.Response(body=gzip.compress(b" " * (64 << 20)), headers={"Content-Encoding": "gzip"})

    assert await error_of(handler) == "URL answers in a coding that it was not asked for"


async def test_a_redirect_is_not_followed() -> None:
    async def handler(request: web.Request) -> web.Response:
        raise web.HTTPTemporaryRedirect(f"http://{request.host}/elsewhere")

    assert await error_of(handler) == "URL answers with status 307"


async def test_an_answer_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "MAX_ANSWER_BYTES", 100_000)

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b" " * 10_000)

    assert await error_of(handler) == "the answer is too large"


async def test_silence_and_a_connection_that_breaks_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    async def silent(_: web.Request) -> web.Response:
        await asyncio.sleep(60)
        return web.Response()

    async def breaks(request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    assert "disconnected" in (await error_of(breaks)).lower()
    monkeypatch.setattr(client, "TIMEOUT_SECONDS", 0.2)
    assert await error_of(silent) == "URL: no answer in time"


async def test_nobody_there_is_said() -> None:
    async def handler(_: web.Request) -> web.Response:
        return web.Response()

    async with server(handler) as url:
        pass
    async with prometheus() as ask:
        with pytest.raises(SignalError, match="Connect"):
            await ask(Server(url=url), "up")
        with pytest.raises(SignalError):
            await ask(Server(url="http://127.0.0.1:99999"), "up")
