"""What no client should send gets an answer that is documented, or a closed connection, and neither 500 nor silence.

By bytes on real sockets. What a client library would refuse to send is all here.
"""

import asyncio
import gzip
import json
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from agent.http import bodies, server
from agent.http.listeners import Listeners
from agent.wire import AgentState, decode
from tests.support.agent_process import POOL_TOKEN, AgentProcess, running_agent
from tests.support.mounted import Authority
from tests.support.no_log import NoLog

HEAD = f"Host: x\r\nAuthorization: Bearer {POOL_TOKEN}\r\n".encode()
CLOSE = b"Connection: close\r\n"


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentProcess]:
    with running_agent(tmp_path_factory.mktemp("agent")) as agent:
        agent.open()
        yield agent


@pytest.fixture(autouse=True)
def unmoved(agent: AgentProcess) -> Iterator[None]:
    """Nothing of this changes what the agent holds, breaks one of its handlers, or keeps it from serving others."""
    before = agent.state()
    yield
    after = agent.state()
    assert (after.slots, after.phase, after.revision) == (before.slots, before.phase, before.revision)
    assert not [line for line in agent.log_lines() if line["message"] in {"request failed", "unhandled"}]


def talk(agent: AgentProcess, data: bytes, seconds: float = 10.0) -> bytes:
    """Send, and read until the agent closes. TimeoutError if it says nothing and does not."""
    with socket.create_connection((agent.address, agent.port), timeout=seconds) as connection:
        connection.sendall(data)
        received = b""
        try:
            while chunk := connection.recv(1 << 16):
                received += chunk
        except ConnectionResetError:
            pass  # it closed with something of ours unread
        return received


def status_and_error(received: bytes) -> tuple[int, str]:
    head, _, body = received.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)["error"]


def get(target: bytes, headers: bytes = b"") -> bytes:
    return b"GET %b HTTP/1.1\r\n%b%b%b\r\n" % (target, HEAD, CLOSE, headers)


def post(target: bytes, body: bytes, headers: bytes = b"") -> bytes:
    length = b"Content-Length: %d\r\n" % len(body)
    return b"POST %b HTTP/1.1\r\n%b%b%b%b\r\n%b" % (target, HEAD, CLOSE, length, headers, body)


NO_REQUESTS = {
    "noise": b"\x00\x01\x02\xff\r\n\r\n",
    "a TLS hello": b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03" + b"x" * 100,
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "no host": b"GET /slots HTTP/1.1\r\n\r\n",
    "two hosts": b"GET /slots HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "lines without CR": b"GET /slots HTTP/1.1\nHost: x\n\n",
    "a space in the path": get(b"/slots x"),
    "bytes in the path": get(b"/\xff\xfe"),
    "a long path": get(b"/" + b"a" * 20_000),
    "a long header": get(b"/slots", b"X: " + b"a" * 100_000 + b"\r\n"),
    "many headers": get(b"/slots", b"".join(b"X-%d: y\r\n" % number for number in range(5_000))),
    "no colon": get(b"/slots", b"foo\r\n"),
    "a folded header": get(b"/slots", b"A: b\r\n c\r\n"),
    "a NUL in a header": get(b"/slots", b"A: b\x00c\r\n"),
    "an odd method": b"F@O /slots HTTP/1.1\r\n" + HEAD + b"\r\n",
    "a negative length": b"POST /drain HTTP/1.1\r\n" + HEAD + b"Content-Length: -5\r\n\r\n",
    "a length that is none": b"POST /drain HTTP/1.1\r\n" + HEAD + b"Content-Length: 5x\r\n\r\n",
    "a length past all": b"POST /drain HTTP/1.1\r\n" + HEAD + b"Content-Length: " + b"9" * 30 + b"\r\n\r\n",
    "two lengths": b"POST /drain HTTP/1.1\r\n" + HEAD + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    "a length and chunks": b"POST /drain HTTP/1.1\r\n"
    + HEAD
    + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "a bad chunk": b"POST /drain HTTP/1.1\r\n" + HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
    "an unknown coding": b"POST /drain HTTP/1.1\r\n" + HEAD + b"Transfer-Encoding: foo\r\n\r\n{}",
    "more than was announced": b"POST /drain HTTP/1.1\r\n" + HEAD + b'Content-Length: 5\r\n\r\n{"drain_id":"d"}',
}


@pytest.mark.parametrize("data", NO_REQUESTS.values(), ids=NO_REQUESTS)
def test_what_is_no_request_is_a_bad_one(agent: AgentProcess, data: bytes) -> None:
    assert status_and_error(talk(agent, data)) == (400, "bad_request")


ACQUIRE = b'{"task_id":"%b","task_type":"plan"}'
BODIES = {
    "nothing": b"",
    "null": b"null",
    "a list": b"[]",
    "NaN": b'{"task_id":"t","task_type":NaN}',
    "infinity": b'{"task_id":"t","task_type":Infinity}',
    "a number past all": b'{"task_id":"a","task_type":"plan","stamp":{"term":1e400,"counter":1}}',
    "an integer past 64 bits": b'{"task_id":"a","task_type":"plan","stamp":{"term":999999999999999999999,"counter":1}}',
    "an escaped half of a pair": ACQUIRE % b"\\ud800",
    "half of a pair": ACQUIRE % b"\xed\xa0\x80",
    "a NUL": ACQUIRE % b"a\\u0000",
    "a byte order mark": b"\xef\xbb\xbf" + ACQUIRE % b"a",
    "UTF-16": (ACQUIRE % b"a").decode().encode("utf-16"),
    "something after it": ACQUIRE % b"a" + b" x",
    "a slash in a name": ACQUIRE % b"a/b",
    "a bad name, then a good one": b'{"task_type":"plan","task_id":"a","task_id":7}',
    "deep lists": b"[" * 100_000,
    "deep lists that end": b'{"task_id":"a","task_type":"plan","work":' + b"[" * 1_000 + b"]" * 1_000 + b"}",
    "deep objects": b'{"a":' * 5_000 + b"1" + b"}" * 5_000,
    "many fields": json.dumps({f"k{number}": number for number in range(50_000)}).encode(),
    "a long name": ACQUIRE % (b"a" * ((1 << 20) - 60)),
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_what_is_no_message_is_a_bad_request(agent: AgentProcess, body: bytes) -> None:
    assert status_and_error(talk(agent, post(b"/slots/acquire", body))) == (400, "bad_request")


@pytest.mark.parametrize("coding", [b"gzip", b"deflate", b"br", b"zstd"])
def test_a_body_whose_coding_is_broken_is_a_bad_request(agent: AgentProcess, coding: bytes) -> None:
    """It was the agent's mistake once, with status 500."""
    request = post(b"/drain", b"\x1f\x8b\x08junk", b"Content-Encoding: %b\r\n" % coding)
    assert status_and_error(talk(agent, request)) == (400, "bad_request")


def test_a_body_that_is_too_large_is_refused_however_it_comes(agent: AgentProcess) -> None:
    """By its length before it comes at all; else as soon as it is. Small ones that unfold to large ones, too."""
    large = b'{"drain_id":"' + b"d" * (2 << 20) + b'"}'
    coded = gzip.compress(b'{"drain_id":"' + b"d" * (50 << 20) + b'"}')
    chunk = b"%x\r\n%b\r\n" % (len(large), large)
    for request in (
        post(b"/slots/acquire", large),
        post(b"/drain", coded, b"Content-Encoding: gzip\r\n"),
        b"POST /drain HTTP/1.1\r\n%b%bTransfer-Encoding: chunked\r\n\r\n%b0\r\n\r\n" % (HEAD, CLOSE, chunk),
    ):
        assert status_and_error(talk(agent, request)) == (413, "too_large")
    with socket.create_connection((agent.address, agent.port), timeout=60) as connection:
        connection.sendall(b"POST /drain HTTP/1.1\r\n" + HEAD + b"Content-Length: 3000000000\r\n\r\n")
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 413 ")


def test_who_asks_whether_to_go_on_is_told(agent: AgentProcess) -> None:
    """As curl does before a large body: it would wait a second else."""
    with socket.create_connection((agent.address, agent.port), timeout=60) as connection:
        body = b'{"drain_id":"d","no":"such field"}'
        head = b"POST /drain HTTP/1.1\r\n%b%bExpect: 100-continue\r\nContent-Length: %d\r\n\r\n"
        connection.sendall(head % (HEAD, CLOSE, len(body)))
        assert connection.recv(1 << 16) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(body)
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 400 ")
        connection.close()
    head = b"POST /drain HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\nConnection: close\r\n\r\n"
    with socket.create_connection((agent.address, agent.port), timeout=60) as connection:
        connection.sendall(head)
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 401 "), "and who may not, before it sends anything"


PATHS: dict[bytes, tuple[int, str]] = {
    b"/tasks/a%2Fb": (404, "not_found"),
    b"/tasks/a%2Flog": (404, "not_found"),
    b"/tasks/a%2flog": (404, "not_found"),
    b"/tasks/..%2Fslots": (404, "not_found"),
    b"/tasks/%zz": (400, "bad_request"),
    b"/tasks/%ff%fe": (400, "bad_request"),
    b"/tasks/a%00b": (400, "bad_request"),
    b"/tasks/a%3Fb": (400, "bad_request"),
    b"/tasks%2Fa": (404, "not_found"),
    b"/slots%2Facquire": (404, "not_found"),
    b"/slots/": (404, "not_found"),
    b"//slots": (404, "not_found"),
    b"/tasks/../slots": (404, "not_found"),
    b"http://x": (404, "not_found"),
    b"http://x/nowhere": (404, "not_found"),
    b"*": (400, "bad_request"),
    b"/slots?revision=99999999999999999999999": (400, "bad_request"),
    b"/slots?revision=%D9%A3": (400, "bad_request"),
    b"/slots?revision=-1": (400, "bad_request"),
    b"/slots?watch=maybe": (400, "bad_request"),
}


@pytest.mark.parametrize(("target", "expected"), PATHS.items(), ids=[path.decode() for path in PATHS])
def test_paths_that_lead_nowhere(agent: AgentProcess, target: bytes, expected: tuple[int, str]) -> None:
    """An escaped slash parts nothing: `/tasks/a%2Fack` is no ack of task a."""
    assert status_and_error(talk(agent, get(target))) == expected


def test_an_escaped_slash_does_not_choose_a_call(agent: AgentProcess) -> None:
    for target, body in ((b"/tasks/a%2Fack", b"{}"), (b"/slots%2Facquire", ACQUIRE % b"a"), (b"/tasks%2fa/ack", b"{}")):
        assert status_and_error(talk(agent, post(target, body))) == (404, "not_found")


SAME = {
    "an escaped letter": get(b"/%73lots"),
    "a whole address": get(b"http://x/slots"),
    "a whole address with a query": get(b"http://x:80/slots?watch=false"),
    "a parameter that nobody knows": get(b"/slots?foo=bar&%ff=%fe&&&=;;"),
    "a body nobody reads": get(b"/slots", b"Content-Length: 3\r\n") + b"abc",
    "weights that are none": get(b"/slots", b"Accept: text/plain;q=zz,*/*;q=,;;;\r\n"),
    "a range": get(b"/slots", b"Range: bytes=zz\r\nIf-Modified-Since: junk\r\nContent-Type: ;;;charset=zz\r\n"),
    "an upgrade": get(b"/slots", b"Upgrade: websocket\r\nSec-WebSocket-Key: x\r\nSec-WebSocket-Version: 13\r\n"),
}


@pytest.mark.parametrize("data", SAME.values(), ids=SAME)
def test_what_means_the_same_gets_the_same(agent: AgentProcess, data: bytes) -> None:
    head, _, body = talk(agent, data).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert decode(AgentState, json.loads(body), strict=True) == agent.state()


@pytest.mark.parametrize(
    "accept",
    [b"text/plain;version=abc", b"application/openmetrics-text;version=99.0", b"text/plain;version=", b";,;"],
)
def test_a_version_of_the_metrics_that_nobody_speaks(agent: AgentProcess, accept: bytes) -> None:
    """It was a mistake of the agent's once, or an answer in the name of a format that there is not."""
    head, _, body = talk(agent, get(b"/metrics", b"Accept: %b\r\n" % accept)).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert b"version=0.0.4" in head
    assert b"podslots_slots" in body


def test_a_bad_request_among_good_ones_ends_the_connection(agent: AgentProcess) -> None:
    received = talk(agent, b"GET /healthz HTTP/1.1\r\n" + HEAD + b"\r\nBAD\r\n\r\n")
    assert received.count(b"HTTP/1.") >= 1
    assert b" 400 " in received
    many = b"GET /healthz HTTP/1.1\r\n%b\r\n" % HEAD * 500 + get(b"/readyz")
    assert talk(agent, many).count(b"HTTP/1.1 200 OK") == 501


def test_a_request_that_is_refused_unread_does_not_spoil_the_next(agent: AgentProcess) -> None:
    for refused in (b"POST /nowhere HTTP/1.1\r\n" + HEAD, b"POST /drain HTTP/1.1\r\nHost: x\r\n"):
        received = talk(agent, refused + b"Content-Length: 4\r\n\r\nabcd" + get(b"/healthz"))
        assert received.endswith(b"ok\n")


# --- those who never end what they began ------------------------------------------------------------------------------


@asynccontextmanager
async def slow_server() -> AsyncIterator[Callable[[bytes], Any]]:
    """The agent's server, with a handler that reads the body; a way to send it a beginning and await the end."""

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(body=await bodies.read_body(request, bytes, max_bytes=100, may_be_empty=False))

    runner = web.ServerRunner(server.Server(handle, NoLog()), handle_signals=False)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()

    async def send(*pieces: bytes) -> bytes:
        reader, writer = await asyncio.open_connection(*runner.addresses[0][:2])
        try:
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
            async with asyncio.timeout(60):
                return await reader.read()
        finally:
            writer.close()

    try:
        yield send
    finally:
        await runner.cleanup()


BEGUN = b"POST / HTTP/1.1\r\nHost: x\r\n"


@pytest.mark.parametrize(
    "begun",
    [b"P", BEGUN, BEGUN + b"Content-Length: 0\r\n\r\n" + BEGUN, BEGUN + b"Content-Length: 5\r\n\r\nab", b""],
    ids=["a letter", "a head", "a second head", "a body", "nothing"],
)
async def test_who_never_ends_is_left(begun: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an answer to what was not asked: connections are few, and who reaches the Pod can open them all."""
    monkeypatch.setattr(server, "HEAD_SECONDS", 0.2)
    monkeypatch.setattr(bodies, "BODY_SECONDS", 0.2)
    if b"Content-Length" in begun:  # after a request, more is waited for as long as between two requests
        monkeypatch.setattr(server, "IDLE_SECONDS", 0.2)
    async with slow_server() as send:
        received = await send(begun)
        assert received.count(b"HTTP/1.1 ") == begun.count(b"Content-Length: 0")


async def test_who_begins_no_handshake_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "HEAD_SECONDS", 0.2)
    signed = Authority("a CA").sign("agent", "127.0.0.1")
    (tmp_path / "both.pem").write_bytes(signed.certificate + signed.key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "both.pem")
    runner = web.ServerRunner(server.Server(lambda _: web.Response(), NoLog()), handle_signals=False)
    await runner.setup()
    listeners = Listeners(runner, NoLog())
    await listeners.open(["127.0.0.1"], 0, context)
    try:
        reader, writer = await asyncio.open_connection(*runner.addresses[0][:2])
        async with asyncio.timeout(30):  # aiohttp's own is 60 s
            assert await reader.read() == b""
        writer.close()
    finally:
        listeners.close()
        await runner.cleanup()


async def test_who_is_slow_but_ends_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    """Byte by byte; and the time of one request is not the next one's."""
    monkeypatch.setattr(server, "IDLE_SECONDS", 0.2)
    request = BEGUN + b"Content-Length: 5\r\n\r\nabcde"
    async with slow_server() as send:
        received = await send(*(bytes([byte]) for byte in request * 2))
        assert received.count(b"\r\n\r\nabcde") == 2


def test_the_limits_are_far_above_what_anybody_needs() -> None:
    """Clients' own: the controller gives a call 5 s, a worker 10 s; idle connections are kept for 15 s at most."""
    assert server.HEAD_SECONDS >= 10
    assert bodies.BODY_SECONDS >= 10
    assert server.IDLE_SECONDS > 2 * 15
