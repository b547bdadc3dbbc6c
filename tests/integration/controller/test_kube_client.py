"""The client against the embedded API server: every verb, every kind of failure, credentials that change."""

import asyncio
import random
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry

from controller.errors import (
    AlreadyExists,
    ApiUnavailable,
    Conflict,
    Forbidden,
    Gone,
    Invalid,
    NoConfiguration,
    NotFound,
    PodslotsError,
    TooManyRequests,
)
from controller.kube.access import KubeSettings
from controller.kube.answers import path_of
from controller.kube.api import LEASES, NODES, PODS, SECRETS, Object
from controller.kube.cache import Cache
from controller.kube.client import ClientSettings, KubeClient, connect
from controller.kube.reflector import Reflector, ReflectorSettings
from controller.local.apiserver.faults import FaultRule
from controller.local.apiserver.server import ApiServer
from metrics.controller import KubernetesRequests
from metrics.exposition import new_registry
from tests.support.api_client import TOKEN, make_server, until

LIMITS = ClientSettings(request_timeout_seconds=2, connect_timeout_seconds=1, watch_idle_seconds=2)


def now() -> datetime:
    return datetime.now(UTC)


def pod(name: str, **labels: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": labels},
        "spec": {"containers": [{"name": "main", "image": "example:1"}]},
    }


@asynccontextmanager
async def cluster(
    *, token: str = TOKEN, limits: ClientSettings = LIMITS, registry: CollectorRegistry | None = None, **options: Any
) -> AsyncIterator[tuple[ApiServer, KubeClient]]:
    server = make_server(**options)
    await server.start()
    try:
        observe = KubernetesRequests(registry or new_registry()).observe
        async with connect(KubeSettings(server=server.url, token=token), now, limits, observe=observe) as client:
            yield server, client
    finally:
        await server.stop()


async def test_every_verb_does_what_it_says() -> None:
    async with cluster() as (_, client):
        created = await client.create(PODS, "default", pod("a", x="1"))
        assert await client.get(PODS, "default", "a") == created
        patched = await client.patch(PODS, "default", "a", {"metadata": {"labels": {"x": None, "y": "2"}}})
        assert patched["metadata"]["labels"] == {"y": "2"}
        patched["metadata"]["annotations"] = {"z": "3"}
        replaced = await client.replace(PODS, "default", "a", patched)
        assert replaced["metadata"]["annotations"] == {"z": "3"}
        status = await client.patch(PODS, "default", "a", {"status": {"phase": "Running"}}, subresource="status")
        assert status["status"]["phase"] == "Running"
        await client.create(NODES, None, {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}})
        assert (await client.get(NODES, None, "n"))["metadata"]["name"] == "n"
        page = await client.list_page(PODS, None, label_selector="y=2")
        assert [item["metadata"]["name"] for item in page["items"]] == ["a"]
        metadata = status["metadata"]
        await client.delete(PODS, "default", "a", uid=metadata["uid"], resource_version=metadata["resourceVersion"])
        with pytest.raises(NotFound):
            await client.get(PODS, "default", "a")


async def test_refusals_are_told_apart() -> None:
    async with cluster() as (server, client):
        created = await client.create(PODS, "default", pod("a"))
        with pytest.raises(AlreadyExists):
            await client.create(PODS, "default", pod("a"))
        stale = {"metadata": {"resourceVersion": "1", "labels": {"x": "1"}}}
        with pytest.raises(Conflict):
            await client.patch(PODS, "default", "a", stale)
        with pytest.raises(Conflict):
            await client.delete(PODS, "default", "a", uid="another")
        with pytest.raises(Invalid):
            await client.create(PODS, "default", pod("Not A Name"))
        server.faults.add(FaultRule(verb="create", status=403, message="exceeded quota"))
        with pytest.raises(Forbidden, match="exceeded quota"):
            await client.create(PODS, "default", pod("b"))
        server.faults.clear()
        server.faults.add(FaultRule(status=429, retry_after_seconds=7))
        with pytest.raises(TooManyRequests) as refused:
            await client.get(PODS, "default", "a")
        assert refused.value.retry_after_seconds == 7
        server.faults.clear()
        assert (await client.get(PODS, "default", "a"))["metadata"]["uid"] == created["metadata"]["uid"]


@pytest.mark.parametrize("status", [500, 503, 504])
async def test_a_server_error_leaves_the_outcome_unknown(status: int) -> None:
    async with cluster() as (server, client):
        server.faults.add(FaultRule(status=status))
        with pytest.raises(ApiUnavailable):
            await client.create(PODS, "default", pod("a"))


async def test_a_lost_answer_is_told_as_unknown_and_a_create_is_never_sent_again() -> None:
    async with cluster() as (server, client):
        await client.list_page(PODS, "default")  # the connection is kept: aiohttp might repeat on it
        rule = server.faults.add(FaultRule(verb="create", drop="after"))
        with pytest.raises(ApiUnavailable):
            await client.create(PODS, "default", pod("a"))
        assert rule.fired == 1
        rule = server.faults.add(FaultRule(verb="patch", drop="after"))
        with pytest.raises(ApiUnavailable):
            await client.patch(PODS, "default", "a", {"metadata": {"labels": {"x": "1"}}})
        assert rule.fired == 1
        server.faults.clear()
        assert (await client.get(PODS, "default", "a"))["metadata"]["labels"] == {"x": "1"}


async def test_a_call_that_takes_too_long_is_given_up() -> None:
    async with cluster(limits=ClientSettings(request_timeout_seconds=0.2)) as (server, client):
        server.faults.add(FaultRule(delay_seconds=5))
        with pytest.raises(ApiUnavailable, match="no answer in time"):
            await client.get(PODS, "default", "a")


async def test_nobody_there_is_unavailable() -> None:
    async with connect(KubeSettings(server="http://127.0.0.1:1"), now, LIMITS) as client:
        with pytest.raises(ApiUnavailable, match=r"can't connect to 127\.0\.0\.1:1: Connection refused$"):
            await client.get(PODS, "default", "a")
        with pytest.raises(ApiUnavailable):
            await anext(client.watch(PODS, None, resource_version="1"))


async def test_lists_come_in_pages_of_one_version() -> None:
    async with cluster() as (_, client):
        for index in range(5):
            await client.create(PODS, "default", pod(f"p{index}"))
        first = await client.list_page(PODS, None, limit=2)
        await client.create(PODS, "default", pod("later"))
        second = await client.list_page(PODS, None, limit=2, continue_token=first["metadata"]["continue"])
        third = await client.list_page(PODS, None, limit=2, continue_token=second["metadata"]["continue"])
        versions = {page["metadata"]["resourceVersion"] for page in (first, second, third)}
        assert len(versions) == 1
        assert [len(page["items"]) for page in (first, second, third)] == [2, 2, 1]


async def test_a_watch_tells_changes_and_bookmarks() -> None:
    async with cluster(bookmark_interval_seconds=0.1) as (_, client):
        start = (await client.list_page(PODS, None))["metadata"]["resourceVersion"]
        await client.create(PODS, "default", pod("a", keep="1"))
        await client.create(PODS, "default", pod("b"))
        await client.patch(PODS, "default", "a", {"metadata": {"labels": {"keep": None}}})
        seen = []
        async for event in client.watch(PODS, None, resource_version=start, label_selector="keep"):
            seen.append((event["type"], event["object"]["metadata"].get("name")))
            if event["type"] == "BOOKMARK":
                break
        assert [entry for entry in seen if entry[0] != "BOOKMARK"] == [("ADDED", "a"), ("DELETED", "a")]


async def test_a_version_that_is_too_old_is_gone() -> None:
    async with cluster(history_limit=4) as (_, client):
        start = (await client.list_page(PODS, None))["metadata"]["resourceVersion"]
        for index in range(20):
            await client.create(PODS, "default", pod(f"p{index}"))
        with pytest.raises(Gone):
            await anext(client.watch(PODS, None, resource_version=start))


async def test_a_silent_watch_is_given_up() -> None:
    limits = ClientSettings(watch_idle_seconds=0.2)
    async with cluster(limits=limits, bookmark_interval_seconds=60) as (_, client):
        start = (await client.list_page(PODS, None))["metadata"]["resourceVersion"]
        with pytest.raises(ApiUnavailable):
            await anext(client.watch(PODS, None, resource_version=start))


async def test_a_cache_follows_through_restarts_and_cut_watches() -> None:
    """A3, T21."""
    async with cluster() as (server, client):
        cache = Cache(PODS)
        reflector = Reflector(
            client, cache, random.Random(1), settings=ReflectorSettings(page_limit=3, max_backoff_seconds=0.2)
        )
        running = asyncio.create_task(reflector.run())
        await reflector.wait_synced()

        async def equal() -> bool:
            try:
                page = await client.list_page(PODS, None)
            except ApiUnavailable:  # the fault hit us instead
                return False
            live = {item["metadata"]["name"]: item for item in page["items"]}
            return {obj["metadata"]["name"] for obj in cache.items()} == live.keys() and all(
                obj["metadata"]["resourceVersion"] == live[obj["metadata"]["name"]]["metadata"]["resourceVersion"]
                for obj in cache.items()
            )

        for index in range(10):
            cache.note(await client.create(PODS, "default", pod(f"p{index}")))
            assert cache.get("default", f"p{index}") is not None
            if index % 3 == 0:
                server.hub.drop_watches()
        server.faults.add(FaultRule(verb="list", status=503, count=2))
        server.faults.add(FaultRule(verb="watch", status=410, count=2))
        server.hub.drop_watches()
        for index in range(0, 10, 2):
            cache.note_deleted("default", f"p{index}", await client.delete(PODS, "default", f"p{index}"))
        await until(equal)
        assert len(cache) == 5
        running.cancel()
        await asyncio.wait([running])


# --- credentials ----------------------------------------------------------------------------------------------------


async def test_a_wrong_token_is_forbidden() -> None:
    async with cluster(token="wrong") as (_, client):
        with pytest.raises(Forbidden):
            await client.get(PODS, "default", "a")


def kubeconfig(tmp_path: Any, server: str, user: str, cluster_extra: str = "") -> KubeSettings:
    path = tmp_path / "config"
    path.write_text(
        f"""
apiVersion: v1
kind: Config
current-context: c
contexts: [{{name: c, context: {{cluster: k, user: u, namespace: team}}}}]
clusters: [{{name: k, cluster: {{server: "{server}"{cluster_extra}}}}}]
users: [{{name: u, user: {user}}}]
"""
    )
    return KubeSettings(kubeconfig=str(path))


async def test_a_kubeconfig_names_server_user_and_namespace(tmp_path: Any) -> None:
    async with cluster() as (server, _):
        settings = kubeconfig(tmp_path, server.url, f"{{token: {TOKEN}}}")
        async with connect(settings, now, LIMITS) as client:
            assert await client.default_namespace() == "team"
            await client.create(SECRETS, "default", {"metadata": {"name": "s"}, "data": {}})


async def test_one_of_several_kubeconfigs_may_be_missing(tmp_path: Any, capfd: pytest.CaptureFixture[str]) -> None:
    settings = kubeconfig(tmp_path, "http://127.0.0.1:1", "{}")
    several = replace(settings, kubeconfig=f"{tmp_path}/none:{settings.kubeconfig}")
    async with connect(several, now, LIMITS) as client:
        assert await client.default_namespace() == "team"
    assert capfd.readouterr().err == ""


async def test_a_token_file_that_is_rewritten_is_read_again_at_the_first_401(tmp_path: Any) -> None:
    async with cluster() as (server, _):
        file = tmp_path / "token"
        file.write_text("old\n")
        settings = kubeconfig(tmp_path, server.url, f'{{tokenFile: "{file}"}}')
        async with connect(settings, now, LIMITS) as client:
            with pytest.raises(Forbidden):  # loaded a moment ago: not loaded again at once
                await client.get(PODS, "default", "a")
            file.write_text(TOKEN)
            client._source._loaded_at -= 10
            with pytest.raises(NotFound):
                await client.get(PODS, "default", "a")


async def test_an_exec_plugin_is_run_again_as_its_token_ends(tmp_path: Any) -> None:
    plugin = tmp_path / "plugin"
    plugin.write_text(
        f"""#!/bin/sh
echo run >> {tmp_path}/runs
echo '{{"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential",
  "status": {{"token": "{TOKEN}", "expirationTimestamp": "2999-01-01T00:00:00Z"}}}}'
"""
    )
    plugin.chmod(0o755)
    user = f"{{exec: {{apiVersion: client.authentication.k8s.io/v1, command: {plugin}}}}}"
    async with cluster() as (server, _), connect(kubeconfig(tmp_path, server.url, user), now, LIMITS) as client:
        for _attempt in range(3):
            await client.list_page(PODS, "default")
        assert (tmp_path / "runs").read_text() == "run\n"
        client._source._loaded_at -= 1000 * 365 * 86400
        await client.list_page(PODS, "default")
        assert (tmp_path / "runs").read_text() == "run\nrun\n"


async def test_a_configuration_that_cannot_be_read_says_so(tmp_path: Any) -> None:
    for missing in (str(tmp_path / "none"), f"{tmp_path}/none:{tmp_path}/nor"):
        with pytest.raises(NoConfiguration, match=f"there is no kubeconfig {missing.replace(':', ' or ')}"):
            async with connect(KubeSettings(kubeconfig=missing), now, LIMITS):
                pass
    with pytest.raises(NoConfiguration, match=f"{tmp_path}: Is a directory"):
        async with connect(KubeSettings(kubeconfig=str(tmp_path)), now, LIMITS):
            pass
    with pytest.raises(ApiUnavailable, match="no usable Kubernetes configuration"):
        async with connect(KubeSettings(in_cluster=True, service_account_dir=tmp_path), now, LIMITS):
            pass


async def certificate(tmp_path: Any) -> None:
    process = await asyncio.create_subprocess_exec(
        *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
        *("-keyout", str(tmp_path / "key"), "-out", str(tmp_path / "ca.crt"), "-days", "2"),
        *("-subj", "/CN=kube", "-addext", "subjectAltName=IP:127.0.0.1"),
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert await process.wait() == 0


async def test_a_service_account_works_over_tls_and_its_token_is_renewed(tmp_path: Any) -> None:
    await certificate(tmp_path)
    tokens = ["first"]

    async def answer(request: web.Request) -> web.Response:
        good = request.headers["Authorization"] == f"Bearer {tokens[-1]}"
        return web.json_response({"metadata": {"name": "a"}} if good else {"code": 401}, status=200 if good else 401)

    async with serving(answer, tls=tmp_path) as port:
        (tmp_path / "token").write_text("first")
        (tmp_path / "namespace").write_text("podslots-system\n")
        settings = KubeSettings(in_cluster=True, service=("127.0.0.1", str(port)), service_account_dir=tmp_path)
        async with connect(settings, now, LIMITS) as client:
            assert await client.default_namespace() == "podslots-system"
            await client.get(PODS, "default", "a")
            tokens.append("second")
            (tmp_path / "token").write_text("second")
            client._source._loaded_at -= 10
            await client.get(PODS, "default", "a")


async def test_a_server_that_the_ca_did_not_sign_is_not_spoken_to(tmp_path: Any) -> None:
    other = tmp_path / "other"
    other.mkdir()
    await certificate(tmp_path)
    await certificate(other)

    async def answer(request: web.Request) -> web.Response:
        raise AssertionError(request.headers)

    async with serving(answer, tls=tmp_path) as port:
        (other / "token").write_text("first")
        settings = KubeSettings(in_cluster=True, service=("127.0.0.1", str(port)), service_account_dir=other)
        async with connect(settings, now, LIMITS) as client:
            with pytest.raises(ApiUnavailable):
                await client.get(PODS, "default", "a")


@asynccontextmanager
async def serving(handler: Any, tls: Any = None) -> AsyncIterator[int]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    context = None
    if tls is not None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(tls / "ca.crt", tls / "key")
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


@pytest.mark.parametrize(
    ("status", "body"),
    [(200, b"<html>"), (200, b"[]"), (502, b"<html>bad gateway</html>"), (302, b"")],
)
async def test_what_a_proxy_answers_is_not_taken_for_the_api(status: int, body: bytes) -> None:
    async def answer(request: web.Request) -> web.Response:
        assert request.headers["User-Agent"].startswith("podslots")
        return web.Response(status=status, body=body, headers={"Location": "http://127.0.0.1:1/"})

    async with (
        serving(answer) as port,
        connect(KubeSettings(server=f"http://127.0.0.1:{port}"), now, LIMITS) as client,
    ):
        with pytest.raises(PodslotsError):
            await client.get(PODS, "default", "a")


async def test_a_large_event_in_pieces_is_one_event() -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        line = b'{"type":"ADDED","object":{"metadata":{"name":"' + b"x" * 3_000_000 + b'"}}}\n'
        for start in range(0, len(line), 100_000):
            await response.write(line[start : start + 100_000])
        await response.write(b'{"type":"ERROR","object":{"code":410,"reason":"Expired"}}\n')
        return response

    async with (
        serving(answer) as port,
        connect(KubeSettings(server=f"http://127.0.0.1:{port}"), now, LIMITS) as client,
    ):
        watch = client.watch(PODS, None, resource_version="1")
        assert len((await anext(watch))["object"]["metadata"]["name"]) == 3_000_000
        with pytest.raises(Gone):
            await anext(watch)


def test_paths_are_those_of_the_api() -> None:
    assert path_of(PODS, "ns", "a", "status") == "/api/v1/namespaces/ns/pods/a/status"
    assert path_of(PODS, None) == "/api/v1/pods"
    assert path_of(NODES, "ignored", "n") == "/api/v1/nodes/n"
    assert path_of(PODS, "ns", "../x") == "/api/v1/namespaces/ns/pods/..%2Fx"


# --- how many calls ---------------------------------------------------------------------------------------------------


async def test_calls_are_counted_by_verb_resource_and_code() -> None:
    registry = new_registry()

    def count(verb: str, resource: str, code: str) -> float:
        labels = {"verb": verb, "resource": resource, "code": code}
        return registry.get_sample_value("podslots_controller_kubernetes_requests_total", labels) or 0.0

    async with cluster(registry=registry) as (server, client):
        await client.create(PODS, "default", pod("a"))
        with pytest.raises(AlreadyExists):
            await client.create(PODS, "default", pod("a"))
        await client.list_page(PODS, None)
        version = (await client.list_page(PODS, None))["metadata"]["resourceVersion"]
        watch = client.watch(PODS, None, resource_version=version)
        coming = asyncio.ensure_future(anext(watch))
        await client.patch(PODS, "default", "a", {"metadata": {"labels": {"b": "c"}}})
        await coming
        await server.stop()
        with pytest.raises(ApiUnavailable):
            await client.get(SECRETS, "default", "a")
    assert (count("create", "pods", "201"), count("create", "pods", "409")) == (1, 1)
    assert (count("list", "pods", "200"), count("watch", "pods", "200")) == (2, 1)
    assert count("get", "secrets", "none") == 1


async def test_more_calls_than_the_limit_wait_but_a_lease_never_does() -> None:
    limits = replace(LIMITS, requests_per_second=20.0, burst=5)
    async with cluster(limits=limits) as (_, client):
        loop, began = asyncio.get_running_loop(), asyncio.get_running_loop().time()
        reads = [asyncio.ensure_future(client.list_page(PODS, "default")) for _ in range(15)]
        await client.list_page(LEASES, "default")
        assert not all(read.done() for read in reads)
        await asyncio.gather(*reads)
        assert loop.time() - began >= 10 / 20 - 0.05
