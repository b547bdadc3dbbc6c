"""The controller's HTTP server: health by what is true, metrics, the page's files, and the API as it is described."""

import asyncio
import contextlib
import itertools
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import jsonschema_rs
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient

from controller.status_page import connections
from controller.status_page.access import Reviewer
from controller.status_page.connections import Runner
from controller.status_page.live import Live, Settings
from controller.status_page.server import create_app
from tests.support.cache_lists import apply_list
from tests.support.cluster import until
from tests.support.status_site import ReviewingApi, Site

Client = TestClient[web.Request, web.Application]
AiohttpClient = Callable[[web.Application], Coroutine[Any, Any, Client]]
EVIL = "<script>alert(1)</script>"
CALLS = ("status", "pools", "plans", "queue", "pods", "decisions")


def app(site: Site, api: ReviewingApi | None = None, live: Live | None = None) -> web.Application:
    reviewer = Reviewer(api or ReviewingApi({}, lambda _user, _path: False))
    return create_app(site.controller, site.registry, site.config, reviewer, live)


@contextlib.asynccontextmanager
async def served(site: Site) -> AsyncIterator[int]:
    """The page as the controller serves it: the port."""
    runner = Runner(app(site), handle_signals=False)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


async def say(port: int, *pieces: str) -> str:
    """Send, and read until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for piece in pieces:
            writer.write(piece.encode(errors="surrogateescape"))
            await writer.drain()
        async with asyncio.timeout(60):
            return (await reader.read()).decode(errors="replace")
    finally:
        writer.close()


async def read(client: Client, path: str, **headers: str) -> tuple[int, Any]:
    async with client.get(path, headers=headers) as answer:
        return answer.status, await answer.json() if answer.content_type == "application/json" else await answer.text()


async def test_ready_means_that_everything_was_read(aiohttp_client: AiohttpClient) -> None:
    site = Site()
    client, controller = await aiohttp_client(app(site)), site.controller
    assert (await read(client, "/readyz"))[0] == 503
    assert (await read(client, "/healthz"))[0] == 200
    caches = controller.caches
    for cache in (caches.pools, caches.pods, caches.tasks, caches.nodes, caches.leases):
        apply_list(cache, [], "1")
    assert (await read(client, "/readyz"))[0] == 200


async def test_metrics_are_exposed(aiohttp_client: AiohttpClient) -> None:
    client = await aiohttp_client(app(Site()))
    assert "podslots_controller_leader 0.0" in (await read(client, "/metrics"))[1]


async def test_the_page_runs_nothing_but_its_own_files(aiohttp_client: AiohttpClient) -> None:
    client = await aiohttp_client(app(Site()))
    for path in ("/", "/assets/page.js", "/api/v1/status", "/nowhere"):
        async with client.get(path) as answer:
            policy = answer.headers["Content-Security-Policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert answer.headers["X-Frame-Options"] == "DENY"
    page = (await read(client, "/"))[1]
    assert " style=" not in page
    assert "//" not in page.replace("<!doctype html>", "")


@pytest.mark.parametrize("name", ["nothing.js", "..%2fserver.py", "%2e%2e/__init__.py"])
async def test_nothing_but_the_pages_files_is_served(aiohttp_client: AiohttpClient, name: str) -> None:
    client = await aiohttp_client(app(Site()))
    assert (await read(client, f"/assets/{name}"))[0] == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
async def test_nothing_can_be_written(aiohttp_client: AiohttpClient, method: str) -> None:
    client = await aiohttp_client(app(Site()))
    for path in ("/", "/metrics", *(f"/api/v1/{call}" for call in (*CALLS, "stream"))):
        async with client.request(method, path) as answer:
            assert (answer.status, (await answer.json())["error"]) == (405, "method_not_allowed")
            assert answer.headers["Allow"] == ("GET" if path.endswith("stream") else "GET, HEAD")


@pytest.mark.parametrize("path", ["/nowhere", "/api", "/api/v1/", "/api/v1/nosuch", "/api/v2/pools", "/assets/x"])
async def test_where_nothing_is_one_reads_what_there_is(aiohttp_client: AiohttpClient, path: str) -> None:
    client = await aiohttp_client(app(Site()))
    status, answer = await read(client, path)
    assert (status, answer["error"]) == (404, "not_found")
    for call in ("/", "/healthz", *(f"/api/v1/{call}" for call in CALLS)):
        assert call in answer["message"].replace(",", "").split()


async def test_answers_are_as_the_description_says(aiohttp_client: AiohttpClient) -> None:
    site = Site()
    site.add_pool(autoscaling={"maxReplicas": 3})
    site.add_pod("p")
    site.add_task(EVIL)
    site.add_plan("network")
    site.controller.events.event({"kind": "SlotPool", "name": "pool", "namespace": "default", "uid": "u"}, "A", "b")
    client = await aiohttp_client(app(site))
    _, described = await read(client, "/api/v1/openapi.json")
    for call in CALLS:
        status, answer = await read(client, f"/api/v1/{call}")
        schema = described["paths"][f"/api/v1/{call}"]["get"]["responses"]["200"]["content"]["application/json"][
            "schema"
        ]
        assert status == 200
        assert answer.get("total", 1), call
        jsonschema_rs.Draft202012Validator(schema, validate_formats=True).validate(answer)
    assert set(described["paths"]) == {f"/api/v1/{call}" for call in (*CALLS, "stream")}


async def test_lists_come_by_pages_of_a_pool(aiohttp_client: AiohttpClient) -> None:
    site = Site()
    site.add_pool()
    for number in range(5):
        site.add_plan(f"t{number}", expiresAt=f"2026-01-31T13:0{number}:00Z")
    client = await aiohttp_client(app(site))
    _, page = await read(client, "/api/v1/plans?namespace=default&pool=pool&offset=3&limit=9")
    assert (page["total"], [plan["name"] for plan in page["items"]]) == (5, ["t3", "t4"])
    assert (await read(client, "/api/v1/plans?namespace=default&pool=other"))[1] == {"total": 0, "items": []}
    assert (await read(client, "/api/v1/plans?namespace=other"))[1]["total"] == 0
    assert (await read(client, "/api/v1/plans?pool=pool"))[1]["total"] == 5


@pytest.mark.parametrize(
    "query", ["limit=-1", "limit=501", "limit=x", "offset=²", "offset=1e3", "state=busy", "sort=up"]
)
async def test_a_query_that_cant_be_used_says_so(aiohttp_client: AiohttpClient, query: str) -> None:
    client = await aiohttp_client(app(Site()))
    status, answer = await read(client, f"/api/v1/pods?{query}")
    assert (status, answer["error"]) == (400, "bad_request")


async def test_a_stream_says_what_is_and_ends_with_the_server(aiohttp_client: AiohttpClient) -> None:
    site = Site()
    site.add_plan("network")
    client = await aiohttp_client(app(site))
    async with client.get("/api/v1/stream") as answer:
        assert answer.content_type == "text/event-stream"
        assert (await answer.content.readuntil(b"\n\n")) == b"retry: 2000\n\n"
        assert b'"name":"network"' in await answer.content.readuntil(b"\n\n")
        await client.app.shutdown()
        assert await answer.content.read() == b""


async def test_a_reader_that_takes_nothing_is_cut_off(
    aiohttp_client: AiohttpClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("controller.status_page.server._SLOW_SECONDS", 0.2)
    site = Site()
    live = Live(site.controller, Settings(period_seconds=0.001))
    client = await aiohttp_client(app(site, live=live))
    reader, writer = await asyncio.open_connection(client.host, client.port, limit=1024)
    writer.write(b"GET /api/v1/stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
    await reader.readuntil(b"\r\n\r\n")
    await until(lambda: live.readers == 1, "it reads")
    for number in itertools.count():
        site.add_task("t", queuedReason=f"{number}".zfill(500))
        for other in range(20):
            site.add_plan(f"p{other}", pod=f"{number}".zfill(10_000))
        if (await live.latest()).number and not live.readers:
            break
        await asyncio.sleep(0)
    writer.close()
    assert (await read(client, "/healthz"))[0] == 200


async def test_a_reader_that_goes_is_noticed(aiohttp_client: AiohttpClient) -> None:
    live = Live(Site().controller, Settings(beat_seconds=0.01))
    client = await aiohttp_client(app(Site(), live=live))
    async with client.get("/api/v1/stream") as answer:
        await answer.content.readuntil(b"\n\n")
        assert live.readers == 1
    await until(lambda: live.readers == 0, "it is known to have gone")


async def test_one_reader_too_many_is_refused(aiohttp_client: AiohttpClient) -> None:
    live = Live(Site().controller, Settings(most_readers=1))
    client = await aiohttp_client(app(Site(), live=live))
    async with client.get("/api/v1/stream") as answer:
        await answer.content.readuntil(b"\n\n")
        status, said = await read(client, "/api/v1/stream")
        assert (status, said["error"]) == (503, "too_many_readers")


# --- who may read -----------------------------------------------------------------------------------------------------

FAR = {"PODSLOTS_HTTP_TRUST_LOOPBACK": "false"}
GUARDED = ("/", *(f"/api/v1/{call}" for call in (*CALLS, "stream", "openapi.json")))
OPEN = ("/healthz", "/assets/page.js", "/assets/page.css", "/assets/icon.svg")


async def test_from_elsewhere_the_page_takes_a_token_and_metrics_take_none(aiohttp_client: AiohttpClient) -> None:
    client = await aiohttp_client(app(Site(**FAR)))
    for path in GUARDED:
        async with client.get(path) as answer:
            assert (answer.status, answer.headers["WWW-Authenticate"]) == (401, "Bearer"), path
    for path in (*OPEN, "/metrics"):
        assert (await read(client, path))[0] == 200


async def test_metrics_take_a_token_where_that_is_asked_for(aiohttp_client: AiohttpClient) -> None:
    api = ReviewingApi({"token": "prometheus"}, lambda _user, path: path == "/metrics")
    client = await aiohttp_client(app(Site(**FAR, PODSLOTS_HTTP_GUARDED="all"), api))
    assert (await read(client, "/metrics"))[0] == 401
    assert (await read(client, "/metrics", Authorization="Bearer token"))[0] == 200
    assert (await read(client, "/", Authorization="Bearer token"))[0] == 403
    for path in OPEN:
        assert (await read(client, path))[0] == 200


async def test_nothing_takes_a_token_where_that_is_asked_for(aiohttp_client: AiohttpClient) -> None:
    client = await aiohttp_client(app(Site(**FAR, PODSLOTS_HTTP_GUARDED="nothing")))
    assert (await read(client, "/api/v1/status"))[0] == 200


@pytest.mark.parametrize(
    ("authorization", "status"),
    [
        ("Bearer anna-token", 200),
        ("bearer  anna-token", 200),
        ("Bearer ben-token", 403),
        ("Bearer made-up", 401),
        ("Bearer ", 401),
        ("Basic anna-token", 401),
        ("anna-token", 401),
    ],
)
async def test_a_token_is_judged_by_the_api_server(
    aiohttp_client: AiohttpClient, authorization: str, status: int
) -> None:
    users = {"anna-token": "anna", "ben-token": "ben"}
    client = await aiohttp_client(app(Site(**FAR), ReviewingApi(users, lambda user, _: user == "anna")))
    assert (await read(client, "/api/v1/status", Authorization=authorization))[0] == status


async def test_while_tokens_cant_be_checked_nobody_gets_in(aiohttp_client: AiohttpClient) -> None:
    api = ReviewingApi({"token": "anna"}, lambda _user, _path: True)
    api.away = True
    client = await aiohttp_client(app(Site(**FAR), api))
    status, answer = await read(client, "/api/v1/status", Authorization="Bearer token")
    assert (status, answer["error"]) == (503, "unavailable")


async def test_a_forwarded_port_needs_no_token_unless_the_name_is_a_strangers(aiohttp_client: AiohttpClient) -> None:
    client = await aiohttp_client(app(Site()))
    assert (await read(client, "/api/v1/status"))[0] == 200
    assert (await read(client, "/api/v1/status", Host="localhost:8080"))[0] == 200
    assert (await read(client, "/api/v1/status", Host="[::1]:8080"))[0] == 200
    for host in ("evil.example", "localhost.evil.example", "10.0.0.1:8080", "127.0.0.1.evil.example"):
        assert (await read(client, "/api/v1/status", Host=host))[0] == 401, host


@pytest.mark.parametrize("host", ["localhost:x", "localhost:99999999", "a b", "[::1", "\udcff", "", "localhost:"])
async def test_a_name_that_is_none_is_a_strangers_or_ours(host: str) -> None:
    """It broke the request once. Written by hand, as no client sends such a header."""
    async with served(Site()) as port:
        answer = await say(port, f"GET /api/v1/status HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")
    assert answer.split()[1] in {"200", "401"}


async def test_a_stream_ends_when_its_token_is_good_no_more(aiohttp_client: AiohttpClient, monkeypatch: Any) -> None:
    monkeypatch.setattr("controller.status_page.access.LASTS_SECONDS", 0.0)
    api = ReviewingApi({"token": "anna"}, lambda _user, _path: True)
    site = Site(**FAR)
    client = await aiohttp_client(app(site, api))
    async with client.get("/api/v1/stream", headers={"Authorization": "Bearer token"}) as answer:
        await answer.content.readuntil(b"event: status\n")
        api.users.clear()
        site.add_pool()
        rest = await answer.content.read()
    assert b'"name":"pool"' not in rest


@pytest.mark.parametrize(
    "target",
    [
        "/assets/../api/v1/status",
        "/assets/%2e%2e/api/v1/status",
        "/assets//../api/v1/status",
        "/healthz/../api/v1/status",
        "//api/v1/status",
        "/api/v1/status/",
        "/%61pi/v1/status",
        "/api/v1/status?x=/healthz",
        "/api/v1/status#/healthz",
        "http://localhost/api/v1/status",
        "http://localhost/healthz/../api/v1/status",
    ],
)
async def test_no_way_of_writing_a_path_gets_around_the_token(aiohttp_client: AiohttpClient, target: str) -> None:
    site = Site(**FAR)
    site.add_plan("network")
    client = await aiohttp_client(app(site))
    reader, writer = await asyncio.open_connection(client.host, client.port)
    writer.write(f"GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    assert int(answer.split()[1]) in {400, 401, 404}
    assert b"network" not in answer


# --- those who never end what they began, and what is no request ------------------------------------------------------

HEALTH = "GET /healthz HTTP/1.1\r\nHost: x\r\n"


@pytest.mark.parametrize("begun", ["", "G", HEALTH, HEALTH + "\r\n", HEALTH + "\r\n" + HEALTH])
async def test_who_never_ends_a_request_is_left(begun: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who reaches the Pod could else hold connections until none is left for probes."""
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.2)
    monkeypatch.setattr(connections, "IDLE_SECONDS", 0.2)
    async with served(Site()) as port:
        assert (await say(port, begun)).count("HTTP/1.1 200 OK") == begun.count("\r\n\r\n")


async def test_a_stream_is_no_request_that_never_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.2)
    monkeypatch.setattr(connections, "IDLE_SECONDS", 0.2)
    site = Site()
    async with served(site) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /api/v1/stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await reader.readuntil(b"event: status")
        await asyncio.sleep(0.5)
        site.add_pool("another")
        await reader.readuntil(b"another")
        writer.close()


async def test_a_request_that_is_there_before_its_connection_is_taken_has_come_in_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """While the controller is busy, connections wait with their requests. Their streams must not end early."""
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.2)
    site = Site()
    async with served(site) as port:
        early = socket.create_connection(("127.0.0.1", port))
        early.sendall(b"GET /api/v1/stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
        reader, writer = await asyncio.open_connection(sock=early)
        await reader.readuntil(b"event: status")
        await asyncio.sleep(0.5)
        site.add_pool("another")
        await reader.readuntil(b"another")
        writer.close()


@pytest.mark.parametrize(
    "said",
    [
        "GET /healthz HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer a-token\x00\r\n\r\n",
        "GET /healthz HTTP/1.1\r\nHost: x\r\nAuthorization Bearer a-token\r\n\r\n",
        "GET /healthz HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + "a-token" * 5000 + "\r\n\r\n",
        "GET /healthz\udcff?a-token HTTP/1.1\r\nHost: x\r\n\r\n",
        "Bearer a-token\r\n\r\n",
    ],
)
async def test_what_is_no_request_is_logged_without_what_it_says(said: str, caplog: pytest.LogCaptureFixture) -> None:
    """It may be a token with a slip of the pen beside it; and it is a line, not a page."""
    async with served(Site()) as port:
        answer = await say(port, said)
    assert " 400 " in answer.splitlines()[0]
    assert len(caplog.records) <= 1
    assert "token" not in caplog.text
    assert "Traceback" not in caplog.text


async def test_a_mistake_of_our_own_is_logged_and_answered(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object) -> None:
        raise LookupError("a mistake")

    monkeypatch.setattr(Live, "latest", broken)
    async with served(Site()) as port:
        answer = await say(port, "GET /api/v1/status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    assert " 500 " in answer.splitlines()[0]
    assert '"error":"internal"' in answer
    assert "a mistake" not in answer
    assert "a mistake" in caplog.text
