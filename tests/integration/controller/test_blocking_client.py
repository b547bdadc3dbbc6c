"""The commands' client against the embedded API server: what it says and hears is what the controller's does."""

import asyncio
import gzip
import json
import select
import socket
import ssl
import subprocess
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

from controller.errors import (
    AlreadyExists,
    ApiUnavailable,
    Conflict,
    Forbidden,
    Gone,
    NoConfiguration,
    NotFound,
    PodslotsError,
)
from controller.kube.access import KubeSettings
from controller.kube.api import PODS, SECRETS, Object
from controller.kube.blocking import BlockingClient, Patience
from controller.local.apiserver.faults import FaultRule
from controller.local.apiserver.server import ApiServer
from tests.support.api_client import TOKEN, make_server

PATIENCE = Patience(connect=1, answer=2, watch=2)


MADE: list[BlockingClient] = []


def client_of(settings: KubeSettings, patience: Patience = PATIENCE) -> BlockingClient:
    """Closed at the test's end."""
    MADE.append(BlockingClient(settings, lambda: datetime.now(UTC), patience))
    return MADE[-1]


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    while MADE:
        MADE.pop().close()


@asynccontextmanager
async def cluster(
    *, token: str = TOKEN, patience: Patience = PATIENCE
) -> AsyncIterator[tuple[ApiServer, BlockingClient]]:
    server = make_server()
    await server.start()
    try:
        yield server, client_of(KubeSettings(server=server.url, token=token), patience)
    finally:
        await server.stop()


def secret(name: str) -> Object:
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}}


async def test_every_verb_does_what_it_says() -> None:
    async with cluster() as (_, client):

        def all_of_them() -> None:
            created = client.create(SECRETS, "default", secret("a"))
            assert client.get(SECRETS, "default", "a") == created
            changed = client.patch(SECRETS, "default", "a", {"metadata": {"labels": {"x": "1"}}})
            assert client.replace(SECRETS, "default", "a", changed)["metadata"]["labels"] == {"x": "1"}
            client.create(SECRETS, "default", secret("b"))
            client.dry_run("delete", SECRETS, "default", "a")
            page = client.list_page(SECRETS, None, label_selector="x=1")
            assert [item["metadata"]["name"] for item in page["items"]] == ["a"]
            first = client.list_page(SECRETS, "default", limit=1)
            rest = client.list_page(SECRETS, "default", continue_token=first["metadata"]["continue"])
            assert [item["metadata"]["name"] for item in first["items"] + rest["items"]] == ["a", "b"]
            with pytest.raises(AlreadyExists):
                client.create(SECRETS, "default", secret("a"))
            with pytest.raises(Conflict):
                client.delete(SECRETS, "default", "a", uid="another")
            client.delete(SECRETS, "default", "a", uid=created["metadata"]["uid"])
            with pytest.raises(NotFound):
                client.get(SECRETS, "default", "a")
            assert client.version().startswith("v1.")

        await asyncio.to_thread(all_of_them)


async def test_an_unknown_field_is_refused_and_a_wrong_token_too() -> None:
    async with cluster() as (_, client):
        body = {**secret("a"), "dtaa": {}}
        with pytest.raises(PodslotsError, match='unknown field "dtaa"'):
            await asyncio.to_thread(client.create, SECRETS, "default", body)
    async with cluster(token="wrong") as (_, client):
        with pytest.raises(Forbidden):
            await asyncio.to_thread(client.get, SECRETS, "default", "a")


async def test_a_write_whose_answer_is_lost_is_sent_once() -> None:
    async with cluster() as (server, client):
        await asyncio.to_thread(client.list_page, SECRETS, "default")
        rule = server.faults.add(FaultRule(verb="create", drop="after"))
        with pytest.raises(ApiUnavailable, match="closed before there was an answer"):
            await asyncio.to_thread(client.create, SECRETS, "default", secret("a"))
        assert rule.fired == 1


async def test_what_takes_too_long_is_given_up_and_the_next_call_is_not_told_its_answer() -> None:
    async with cluster(patience=Patience(answer=0.3)) as (server, client):
        await asyncio.to_thread(client.create, SECRETS, "default", secret("b"))
        server.faults.add(FaultRule(delay_seconds=1, count=1))
        with pytest.raises(ApiUnavailable, match="no answer in time"):
            await asyncio.to_thread(client.list_page, SECRETS, "default")
        assert (await asyncio.to_thread(client.get, SECRETS, "default", "b"))["metadata"]["name"] == "b"


async def test_a_watch_tells_changes_and_its_end() -> None:
    async with cluster() as (server, client):
        start = (await asyncio.to_thread(client.list_page, SECRETS, "default"))["metadata"]["resourceVersion"]
        events = client.watch(SECRETS, "default", resource_version=start)
        await asyncio.to_thread(client.create, SECRETS, "default", secret("a"))
        event = await asyncio.to_thread(next, events)
        assert (event["type"], event["object"]["metadata"]["name"]) == ("ADDED", "a")
        server.hub.drop_watches()
        with pytest.raises((StopIteration, ApiUnavailable, RuntimeError)):
            await asyncio.to_thread(next, events)
        server.faults.add(FaultRule(verb="watch", status=410))
        with pytest.raises(Gone):
            await asyncio.to_thread(next, client.watch(SECRETS, "default", resource_version=start))


def test_nobody_there_is_said_in_the_systems_words() -> None:
    client = client_of(KubeSettings(server="http://127.0.0.1:1"))
    with pytest.raises(ApiUnavailable, match=r"^can't connect to 127\.0\.0\.1:1: Connection refused$"):
        client.get(PODS, "default", "a")
    elsewhere = client_of(KubeSettings(server="http://no-such-host.invalid"))
    with pytest.raises(ApiUnavailable, match=r"^can't connect to no-such-host\.invalid:80: [A-Z]") as raised:
        elsewhere.get(PODS, "default", "a")
    assert "Errno" not in str(raised.value)


# --- what stands between ----------------------------------------------------------------------------------------------

Answer = Callable[[BaseHTTPRequestHandler], None]


@contextmanager
def serving(answer: Answer, tls: Path | None = None) -> Iterator[int]:
    """An HTTP server that answers every GET and CONNECT by a function."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            answer(self)

        do_CONNECT = do_POST = do_GET  # noqa: N815 - so are they called

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if tls is not None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(tls / "crt", tls / "key")
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def give(handler: BaseHTTPRequestHandler, content: bytes, status: int = 200, **headers: str) -> None:
    handler.send_response(status)
    for name, value in {"Content-Length": str(len(content)), **headers}.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(content)


def secret_json(handler: BaseHTTPRequestHandler) -> None:
    give(handler, json.dumps({"metadata": {"name": handler.path}}).encode())


def certificate(folder: Path, names: str) -> None:
    made = ("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    files = ("-keyout", str(folder / "key"), "-out", str(folder / "crt"), "-days", "2", "-subj", "/CN=kube")
    subprocess.run([*made, *files, "-addext", f"subjectAltName={names}"], check=True, capture_output=True)


def kubeconfig(folder: Path, server: str, **cluster: object) -> KubeSettings:
    document = {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "c"}}],
        "clusters": [{"name": "c", "cluster": {"server": server, **cluster}}],
        "users": [{"name": "c", "user": {}}],
    }
    (folder / "config").write_text(yaml.safe_dump(document))
    return KubeSettings(kubeconfig=str(folder / "config"))


def test_a_certificate_of_another_name_needs_tls_server_name(tmp_path: Path) -> None:
    certificate(tmp_path, "DNS:kubernetes.example")
    with serving(secret_json, tmp_path) as port:
        url, ca = f"https://127.0.0.1:{port}", {"certificate-authority": "crt"}
        with pytest.raises(ApiUnavailable, match="its certificate is not trusted: IP address mismatch"):
            client_of(kubeconfig(tmp_path, url, **ca)).get(PODS, "d", "a")
        named = {**ca, "tls-server-name": "kubernetes.example"}
        assert client_of(kubeconfig(tmp_path, url, **named)).get(PODS, "d", "a")
        with pytest.raises(ApiUnavailable, match="its certificate is not trusted"):
            client_of(kubeconfig(tmp_path, url, **{"tls-server-name": "kubernetes.example"})).get(PODS, "d", "a")
        assert client_of(kubeconfig(tmp_path, url, **{"insecure-skip-tls-verify": True})).get(PODS, "d", "a")


@pytest.mark.parametrize("proxy", ["http://[::1", "http://127.0.0.1:x", "http://127.0.0.1:99999", "http://a..b:1"])
def test_a_proxy_of_the_environment_that_is_none_is_said(monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    monkeypatch.setenv("https_proxy", proxy)
    client = client_of(KubeSettings(server="https://192.0.2.1"))
    with pytest.raises(NoConfiguration, match="the environment's proxy can't be used"):
        client.get(PODS, "default", "x")


def test_a_proxy_of_the_kubeconfig_or_the_environment_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate(tmp_path, "IP:127.0.0.1")
    seen: list[str] = []

    def tunnel(handler: BaseHTTPRequestHandler) -> None:
        seen.append(f"{handler.command} {handler.path} {handler.headers.get('Proxy-Authorization')}")
        if handler.command != "CONNECT":
            secret_json(handler)
            return
        host, _, port = handler.path.partition(":")
        handler.send_response(200)
        handler.end_headers()
        with socket.create_connection((host, int(port))) as there:
            copying = threading.Thread(target=copy, args=(handler.connection, there), daemon=True)
            copying.start()
            copy(there, handler.connection)

    with serving(secret_json, tmp_path) as port, serving(tunnel) as proxy:
        by = {"proxy-url": f"http://me:pw@127.0.0.1:{proxy}"}
        ca = {"certificate-authority": "crt"}
        assert client_of(kubeconfig(tmp_path, f"https://127.0.0.1:{port}", **ca, **by)).get(PODS, "d", "a")
        assert seen == [f"CONNECT 127.0.0.1:{port} Basic bWU6cHc="]
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy}")
        forwarded = client_of(kubeconfig(tmp_path, "http://api.example:8080/k8s"))
        assert forwarded.get(PODS, "d", "a")["metadata"]["name"] == seen[-1].split()[1]
        assert seen[-1] == "GET http://api.example:8080/k8s/api/v1/namespaces/d/pods/a None"
        monkeypatch.setenv("no_proxy", "example")
        with pytest.raises(ApiUnavailable):
            client_of(kubeconfig(tmp_path, "http://api.example:1")).get(PODS, "d", "a")
        with pytest.raises(ApiUnavailable, match="only http:// ones can"):
            client_of(kubeconfig(tmp_path, "https://x", **{"proxy-url": "socks5://127.0.0.1:1"})).get(PODS, "d", "a")


def copy(source: socket.socket, target: socket.socket) -> None:
    while data := source.recv(1 << 16):
        target.sendall(data)


@pytest.mark.parametrize(("status", "body"), [(200, b"<html>"), (200, b"[]"), (502, b"<html>bad</html>"), (302, b"")])
def test_what_a_proxy_answers_is_not_taken_for_the_api(status: int, body: bytes) -> None:
    with serving(lambda handler: give(handler, body, status, Location="http://127.0.0.1:1/")) as port:
        client = client_of(KubeSettings(server=f"http://127.0.0.1:{port}"))
        with pytest.raises(PodslotsError):
            client.get(PODS, "default", "a")


NO_STATUS = [
    b'{"reason": null, "message": null, "details": null}',
    b'{"details": []}',
    b'{"details": {"retryAfterSeconds": "soon"}}',
    b'{"details": {"retryAfterSeconds": -1e999}}',
    b'{"details": {"retryAfterSeconds": {}}}',
]


@pytest.mark.parametrize("status", [429, 409, 500])
@pytest.mark.parametrize("body", NO_STATUS)
def test_an_error_whose_words_are_odd_is_that_error(status: int, body: bytes) -> None:
    with serving(lambda handler: give(handler, body, status, Retry_After=400 * "9")) as port:
        client = client_of(KubeSettings(server=f"http://127.0.0.1:{port}"))
        with pytest.raises(PodslotsError) as raised:
            client.get(PODS, "default", "a")
        assert getattr(raised.value, "code", None) == status
        seconds = getattr(raised.value, "retry_after_seconds", None)
        assert seconds is None or 0 <= seconds <= 3600


@pytest.mark.parametrize(
    "line",
    [
        b"null",
        b"5",
        b"{}",
        b'{"type": "ADDED"}',
        b'{"type": "ADDED", "object": null}',
        b'{"type": "ADDED", "object": {"metadata": null}}',
        b'{"type": "ERROR", "object": null}',
        b'{"type": "ERROR", "object": {"code": "x"}}',
    ],
)
def test_an_event_that_is_none_is_an_error_of_the_api(line: bytes) -> None:
    with serving(lambda handler: give(handler, line + b"\n")) as port:
        client = client_of(KubeSettings(server=f"http://127.0.0.1:{port}"))
        with pytest.raises(PodslotsError):
            list(client.watch(PODS, "default", resource_version="1"))


def test_what_says_that_it_is_compressed_and_is_not_is_an_answer_of_no_api() -> None:
    with serving(lambda handler: give(handler, b"{}", Content_Encoding="gzip")) as port:
        client = client_of(KubeSettings(server=f"http://127.0.0.1:{port}"))
        with pytest.raises(ApiUnavailable, match="not compressed as it says"):
            client.get(PODS, "default", "a")


def test_a_connection_that_was_closed_meanwhile_is_made_anew_for_writes_too() -> None:
    seen: list[str] = []

    def answer(handler: BaseHTTPRequestHandler) -> None:
        seen.append(handler.command)
        secret_json(handler)
        handler.close_connection = True  # and the answer has not said so

    with serving(answer) as port:
        client = client_of(KubeSettings(server=f"http://127.0.0.1:{port}"))
        client.get(PODS, "d", "a")
        assert client._kept is not None
        assert select.select([client._kept.sock], [], [], 10)[0]
        client.create(SECRETS, "d", secret("a"))
    assert seen == ["GET", "POST"]


def test_a_compressed_answer_is_read() -> None:
    content = gzip.compress(b'{"metadata": {"name": "a"}}')
    with serving(lambda handler: give(handler, content, Content_Encoding="gzip")) as port:
        assert client_of(KubeSettings(server=f"http://127.0.0.1:{port}")).get(PODS, "d", "a")["metadata"]["name"] == "a"


def test_lines_come_whole_and_a_silent_stream_can_be_ended_from_elsewhere() -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Connection", "close")
        handler.end_headers()
        for piece in (b"one\ntw", b"o\n\n", b"x" * 1_000_000 + b"\nno end"):
            handler.wfile.write(piece)
        if "follow" in handler.path:
            handler.rfile.read(1)

    with serving(answer) as port:
        client = client_of(KubeSettings(server=f"http://127.0.0.1:{port}"))
        assert [line[:6] for line in client.pod_log("d", "a", "c")] == [b"one", b"two", b"", b"xxxxxx", b"no end"]
        following = client.pod_log("d", "a", "c", follow=True)
        lines = iter(following)
        assert [next(lines)[:3] for _ in range(4)] == [b"one", b"two", b"", b"xxx"]
        threading.Timer(0.1, following.close).start()
        assert list(lines) == [b"no end"]
