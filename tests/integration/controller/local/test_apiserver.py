"""The API server over HTTP: who may ask, what is logged, watches, logs, faults on request, restarts."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from controller.local.apiserver.faults import FaultRule
from controller.local.apiserver.persistence import SqliteJournal
from controller.local.apiserver.store.versions import Change
from controller.local.log_source import LogOptions, LogUnavailableError
from tests.support.api_client import TOKEN, ApiClient, running_server, until

Json = dict[str, Any]

PODS = "/api/v1/namespaces/default/pods"
SECRETS = "/api/v1/namespaces/default/secrets"
MAPS = "/api/v1/namespaces/default/configmaps"


def pod(name: str, **spec: Any) -> Json:
    containers = [{"name": "main", "image": "example:1"}]
    return {"metadata": {"name": name}, "spec": {"containers": containers, **spec}}


# --- who may ask ------------------------------------------------------------------------------------------


async def test_a_wrong_token_is_unauthorized_and_none_is_forbidden() -> None:
    async with running_server() as (server, client):
        stranger = ApiClient(client.session, server.url, "wrong")
        assert (await stranger.send("GET", PODS)).status == 401
        assert (await client.send("GET", PODS, anonymous=True)).status == 403
        assert (await client.send("GET", "/apis", anonymous=True)).status == 403
        for path in ("/healthz", "/livez", "/readyz", "/version"):
            assert (await client.send("GET", path, anonymous=True)).status == 200


async def test_administration_is_for_admins() -> None:
    async with running_server(users={TOKEN: "somebody"}) as (_, client):
        assert (await client.send("GET", "/_podslots/faults")).status == 403
        assert (await client.send("GET", "/_podslots/faults", anonymous=True)).status == 403


# --- requests ---------------------------------------------------------------------------------------------


async def test_unknown_fields_are_told_as_a_warning() -> None:
    async with running_server() as (_, client):
        answer = await client.send("POST", PODS, pod("a", bogus=1))
        assert answer.status == 201
        assert answer.headers["Warning"] == '299 - "unknown field \\"spec.bogus\\""'


async def test_unknown_fields_are_refused_where_the_request_is_strict() -> None:
    async with running_server() as (_, client):
        await client.send("POST", PODS, pod("a"))
        for method, path, code in (("POST", PODS, 400), ("PUT", f"{PODS}/a", 400), ("PATCH", f"{PODS}/a", 422)):
            content_type = "application/merge-patch+json" if method == "PATCH" else "application/json"
            body = {"spec": {"bogus": 1}} if method == "PATCH" else pod("a", bogus=1)
            answer = await client.send(method, f"{path}?fieldValidation=Strict", body, content_type=content_type)
            assert answer.status == code
            assert answer.body["message"].endswith('strict decoding error: unknown field "spec.bogus"')


async def test_yaml_is_taken_and_too_much_is_refused() -> None:
    async with running_server() as (_, client):
        body = "metadata: {name: c}\ndata: {a: '1'}\n"
        assert (await client.send("POST", MAPS, body, content_type="application/yaml")).status == 201
        huge = {"metadata": {"name": "h"}, "data": {"a": "x" * (4 * 1024 * 1024)}}
        assert (await client.send("POST", MAPS, huge)).status == 413


async def test_resources_that_do_not_know_a_verb() -> None:
    async with running_server() as (_, client):
        for method, path in (
            ("POST", f"{PODS}/a"),
            ("PUT", PODS),
            ("DELETE", "/api/v1/namespaces"),
            ("POST", "/api/v1/pods"),
        ):
            assert (await client.send(method, path, {})).status == 405, (method, path)


async def test_definitions_are_loaded_from_a_folder_and_brought_up_to_date(tmp_path: Path) -> None:
    folder = tmp_path / "crds"
    folder.mkdir()
    text = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: things.example.dev}
spec:
  group: example.dev
  scope: Cluster
  names: {plural: things, kind: Thing}
  versions:
  - {name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, properties: {spec: SPEC}}}}
---
kind: Kustomization
"""
    (folder / "things.yaml").write_text(text.replace("SPEC", "{type: string}"))
    state = tmp_path / "state"
    async with running_server(state, crds=folder) as (_, client):
        await client.post("/apis/example.dev/v1/things", {"metadata": {"name": "a"}, "spec": "x"})
    (folder / "things.yaml").write_text(text.replace("SPEC", "{type: string, maxLength: 1}"))
    async with running_server(state, crds=folder) as (_, client):
        assert (await client.get("/apis/example.dev/v1/things/a"))["spec"] == "x"
        longer = {"metadata": {"name": "b"}, "spec": "xy"}
        assert (await client.send("POST", "/apis/example.dev/v1/things", longer)).status == 422


# --- rights -----------------------------------------------------------------------------------------------


async def test_who_somebody_stands_in_for_has_only_what_rbac_grants(tmp_path: Path) -> None:
    audit = tmp_path / "audit"
    ben = {"Impersonate-User": "ben"}
    async with running_server(audit_path=audit) as (_, client):
        assert (await client.send("GET", PODS, more_headers=ben)).status == 403
        rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/default"
        rules = [{"verbs": ["list", "watch"], "apiGroups": [""], "resources": ["pods"]}]
        await client.post(f"{rbac}/roles", {"metadata": {"name": "r"}, "rules": rules})
        subjects = [{"kind": "User", "name": "ben"}]
        binding = {"metadata": {"name": "r"}, "roleRef": {"kind": "Role", "name": "r"}, "subjects": subjects}
        await client.post(f"{rbac}/rolebindings", binding)
        assert (await client.send("GET", PODS, more_headers=ben)).status == 200
        watch = await client.send("GET", f"{PODS}?watch=true&timeoutSeconds=1", events=True, more_headers=ben)
        assert watch.status == 200
        assert (await client.send("DELETE", f"{PODS}/a", more_headers=ben)).status == 403
        assert (await client.send("GET", PODS, more_headers={"Impersonate-Group": "g"})).status == 400
    last = json.loads(audit.read_text().splitlines()[-2])
    assert (last["user"]["username"], last["impersonatedUser"]["username"]) == ("admin", "ben")


async def test_rbac_can_be_enforced_for_everybody_but_admins() -> None:
    users = {"the-token-of-eve": "eve", TOKEN: "admin"}
    async with running_server(users=users, enforce_rbac=True) as (server, client):
        eve = ApiClient(client.session, server.url, "the-token-of-eve")
        assert (await eve.send("GET", PODS)).status == 403
        assert (await eve.send("GET", PODS, more_headers={"Impersonate-User": "admin"})).status == 403
        assert (await eve.send("GET", "/version")).status == 200
        assert (await client.send("GET", PODS)).status == 200


async def test_what_a_refused_eviction_took_from_a_budget_is_durable(tmp_path: Path) -> None:
    budgets = "/apis/policy/v1/namespaces/default/poddisruptionbudgets"
    async with running_server(tmp_path) as (_, client):
        await client.post(PODS, pod("a", nodeName="n"))
        status = {"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}}
        await client.merge(f"{PODS}/a/status", status)
        await client.post(budgets, {"metadata": {"name": "b"}, "spec": {"maxUnavailable": 1, "selector": {}}})

        async def allowed() -> bool:
            return bool((await client.get(f"{budgets}/b"))["status"]["disruptionsAllowed"] == 1)

        await until(allowed)
        wrong = {"deleteOptions": {"preconditions": {"uid": "another"}}}
        assert (await client.send("POST", f"{PODS}/a/eviction", wrong)).status == 409
    async with running_server(tmp_path) as (_, client):
        assert "a" in (await client.get(f"{budgets}/b"))["status"]["disruptedPods"]
        refused = await client.send("POST", f"{PODS}/a/eviction", {})
        assert (refused.status, refused.body["reason"]) == (429, "TooManyRequests")


# --- audit ------------------------------------------------------------------------------------------------


async def test_every_write_is_in_the_audit_log_before_its_answer(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"

    def entries() -> list[Json]:
        return [json.loads(line) for line in path.read_text().splitlines()]

    async with running_server(audit_path=path) as (_, client):
        made = await client.post(PODS, pod("a"))
        last = entries()[-1]
        assert (last["verb"], last["responseStatus"]["code"], last["user"]["username"]) == ("create", 201, "admin")
        assert last["objectRef"] == {
            "resource": "pods",
            "namespace": "default",
            "name": "a",
            "uid": made["metadata"]["uid"],
            "apiVersion": "v1",
            "resourceVersion": made["metadata"]["resourceVersion"],
        }
        assert last["requestObject"]["spec"]["containers"][0]["name"] == "main"
        await client.merge(f"{PODS}/a/status", {"status": {"phase": "Running"}})
        assert entries()[-1]["objectRef"]["subresource"] == "status"
        await client.send("GET", f"{PODS}/a")
        assert entries()[-1]["verb"] == "get"
        await client.send("DELETE", f"{PODS}/a")
        assert (entries()[-1]["verb"], entries()[-1]["objectRef"]["uid"]) == ("delete", made["metadata"]["uid"])
        lines = len(entries())
        await client.send("DELETE", f"{PODS}/a")
        assert (len(entries()), entries()[-1]["responseStatus"]["code"]) == (lines + 1, 404)


async def test_a_write_is_in_the_audit_log_before_it_takes_effect(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server killed in between leaves no write that nobody was told of."""
    path = tmp_path / "audit.jsonl"
    async with running_server(audit_path=path) as (server, client):
        seen: list[Json] = []
        commit = server.commit

        async def watched(changes: tuple[Change, ...]) -> None:
            seen.extend(json.loads(line) for line in path.read_text().splitlines())
            await commit(changes)

        monkeypatch.setattr(server, "commit", watched)
        made = await client.post(PODS, pod("a"))
        first, last = json.loads(path.read_text().splitlines()[0]), json.loads(path.read_text().splitlines()[-1])
    assert seen == [first]
    assert (first["stage"], first["verb"], first["objectRef"]) == ("RequestReceived", "create", last["objectRef"])
    assert first["requestObject"]["metadata"]["name"] == "a"
    assert "responseStatus" not in first
    assert (last["auditID"], last["objectRef"]["uid"]) == (first["auditID"], made["metadata"]["uid"])


async def test_deleting_what_answers_with_a_status_still_logs_the_uid(tmp_path: Path) -> None:
    async with running_server(audit_path=tmp_path / "audit") as (_, client):
        made = await client.post(MAPS, {"metadata": {"name": "c"}})
        assert (await client.send("DELETE", f"{MAPS}/c")).body["kind"] == "Status"
        last = json.loads((tmp_path / "audit").read_text().splitlines()[-1])
        assert last["objectRef"]["uid"] == made["metadata"]["uid"]


async def test_secrets_never_reach_the_audit_log(tmp_path: Path) -> None:
    async with running_server(audit_path=tmp_path / "audit") as (_, client):
        hidden = base64.b64encode(b"top-secret").decode()
        body = {"metadata": {"name": "s"}, "data": {"a": hidden}, "stringData": {"b": "top-secret"}}
        await client.post(SECRETS, body)
        await client.merge(f"{SECRETS}/s", {"data": {"a": hidden}})
        patch = [{"op": "replace", "path": "/data/a", "value": hidden}]
        await client.send("PATCH", f"{SECRETS}/s", patch, content_type="application/json-patch+json")
        await client.send("PUT", f"{SECRETS}/s", body)
        text = (tmp_path / "audit").read_text()
        assert sum(json.loads(line)["stage"] == "ResponseComplete" for line in text.splitlines()) == 4
        assert "top-secret" not in text
        assert hidden not in text
        assert TOKEN not in text


# --- watches ----------------------------------------------------------------------------------------------


class Watch:
    """Reads a watch line by line."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.response = response

    async def next(self) -> Json:
        async with asyncio.timeout(60):
            event: Json = json.loads(await self.response.content.readline())
        return event

    async def ended(self) -> bool:
        """True at a polite end; a cut raises."""
        async with asyncio.timeout(60):
            return await self.response.content.readline() == b""


@asynccontextmanager
async def watch(client: ApiClient, path: str, **query: str) -> AsyncIterator[Watch]:
    async with client.session.get(
        client.url + path, params={"watch": "true", **query}, headers=client.headers(), timeout=aiohttp.ClientTimeout()
    ) as response:
        assert response.status == 200
        yield Watch(response)
        response.close()


async def test_a_watch_tells_of_changes_as_they_come() -> None:
    async with (
        running_server() as (_, client),
        watch(client, MAPS, resourceVersion=(await client.get(MAPS))["metadata"]["resourceVersion"]) as events,
    ):
        await client.post(MAPS, {"metadata": {"name": "a"}})
        assert (await events.next())["type"] == "ADDED"
        await client.merge(f"{MAPS}/a", {"data": {"x": "1"}})
        event = await events.next()
        assert (event["type"], event["object"]["data"], event["object"]["kind"]) == (
            "MODIFIED",
            {"x": "1"},
            "ConfigMap",
        )
        await client.send("DELETE", f"{MAPS}/a")
        assert (await events.next())["type"] == "DELETED"


async def test_bookmarks_carry_the_version_on_while_nothing_happens() -> None:
    async with (
        running_server(bookmark_interval_seconds=0.05) as (_, client),
        watch(client, MAPS, resourceVersion="0", allowWatchBookmarks="true") as events,
    ):
        first = await events.next()
        version = (await client.post(SECRETS, {"metadata": {"name": "s"}}))["metadata"]["resourceVersion"]
        while first["object"]["metadata"]["resourceVersion"] != version:
            assert first["type"] == "BOOKMARK"
            first = await events.next()


async def test_a_watch_ends_politely_at_its_time_limit() -> None:
    async with (
        running_server() as (_, client),
        watch(client, MAPS, resourceVersion="0", timeoutSeconds="1") as events,
    ):
        assert await events.ended()


async def test_a_watch_of_one_object() -> None:
    async with running_server() as (_, client):
        await client.post(MAPS, {"metadata": {"name": "a"}})
        async with watch(client, f"{MAPS}/a") as events:
            assert (await events.next())["object"]["metadata"]["name"] == "a"
            await client.post(MAPS, {"metadata": {"name": "b"}})
            await client.merge(f"{MAPS}/a", {"data": {"x": "1"}})
            assert (await events.next())["object"]["metadata"]["name"] == "a"


async def test_watch_from_a_forgotten_version_is_expired() -> None:
    """A version older than the history is answered with an ERROR event of code 410, and the watch ends."""
    async with running_server() as (_, client):
        version = (await client.get(MAPS))["metadata"]["resourceVersion"]
        await client.post(MAPS, {"metadata": {"name": "a"}})
        await client.send("POST", "/_podslots/compact")
        async with watch(client, MAPS, resourceVersion=version) as events:
            event = await events.next()
            assert (event["type"], event["object"]["code"], event["object"]["reason"]) == ("ERROR", 410, "Expired")
            assert await events.ended()
            query = f"{MAPS}?resourceVersion={version}&resourceVersionMatch=Exact"
            assert (await client.send("GET", query)).status == 410


async def test_a_client_that_goes_takes_its_watch_with_it() -> None:
    async with (
        running_server() as (server, client),
        watch(client, MAPS, resourceVersion="0") as events,
    ):
        events.response.close()

        async def forgotten() -> bool:
            return server.hub.waiting == 0

        await until(
            forgotten,
        )


# --- logs -------------------------------------------------------------------------------------------------


class Kubelet:
    """A log source that follows until told to stop."""

    def __init__(self) -> None:
        self.more = asyncio.Event()
        self.asked: list[LogOptions] = []

    async def stream(self, namespace: str, pod: str, pod_uid: str, options: LogOptions) -> AsyncIterator[bytes]:
        assert (namespace, bool(pod_uid)) == ("default", True)
        self.asked.append(options)
        if pod == "none":
            raise LogUnavailableError("container has not started")
        yield b"first\n"
        if options.follow:
            await self.more.wait()
            yield b"second\n"


async def test_logs_come_from_the_kubelet() -> None:
    kubelet = Kubelet()
    async with running_server(log_source=kubelet) as (_, client):
        await client.post(PODS, pod("a", nodeName="n"))
        answer = await client.send("GET", f"{PODS}/a/log?tailLines=3", accept="*/*")
        assert (answer.status, answer.content_type, answer.body) == (200, "text/plain", "first\n")
        assert (kubelet.asked[0].container, kubelet.asked[0].tail_lines) == ("main", 3)
        async with client.session.get(f"{client.url}{PODS}/a/log?follow=true", headers=client.headers()) as response:
            assert await response.content.readline() == b"first\n"
            kubelet.more.set()
            assert await response.content.readline() == b"second\n"


async def test_logs_that_are_not_there() -> None:
    async with running_server(log_source=Kubelet()) as (_, client):
        await client.post(PODS, pod("unbound"))
        await client.post(PODS, pod("none", nodeName="n"))
        two = [{"name": name, "image": "i"} for name in ("one", "two")]
        await client.post(PODS, pod("two", nodeName="n", containers=two))
        for path in ("unbound/log", "none/log", "two/log", "none/log?container=other"):
            assert (await client.send("GET", f"{PODS}/{path}")).status == 400, path
        assert (await client.send("GET", f"{PODS}/two/log?container=two")).status == 200
        assert (await client.send("GET", f"{PODS}/missing/log")).status == 404


# --- faults -----------------------------------------------------------------------------------------------


async def test_faults_are_set_shown_and_cleared_over_http() -> None:
    async with running_server() as (_, client):
        rule = {"verb": "create", "resource": "configmaps", "status": 429, "retry_after_seconds": 7, "count": 1}
        assert (await client.send("PUT", "/_podslots/faults", {"rules": [rule]})).status == 200
        refused = await client.send("POST", MAPS, {"metadata": {"name": "a"}})
        assert (refused.status, refused.headers["Retry-After"], refused.body["reason"]) == (429, "7", "TooManyRequests")
        await client.post(MAPS, {"metadata": {"name": "a"}})  # the count is used up
        assert (await client.get("/_podslots/faults"))["rules"][0]["fired"] == 1
        assert (await client.send("PUT", "/_podslots/faults", [{"verbs": "x"}])).status == 400
        assert (await client.send("DELETE", "/_podslots/faults")).body == {"rules": []}


async def test_a_drop_before_loses_the_request_and_a_drop_after_the_answer() -> None:
    async with running_server() as (server, client):
        server.faults.add(FaultRule(verb="create", drop="before", count=1))
        with pytest.raises(aiohttp.ClientError):
            await client.post(MAPS, {"metadata": {"name": "a"}})
        assert (await client.send("GET", f"{MAPS}/a")).status == 404
        server.faults.add(FaultRule(verb="create", drop="after", count=1))
        with pytest.raises(aiohttp.ClientError):
            await client.post(MAPS, {"metadata": {"name": "a"}})
        assert (await client.send("GET", f"{MAPS}/a")).status == 200


async def test_a_client_that_hangs_up_in_its_body_changes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    audit = tmp_path / "audit"
    async with running_server(audit_path=audit) as (server, client):
        host, _, port = server.url.removeprefix("http://").partition(":")
        _, writer = await asyncio.open_connection(host, int(port))
        head = f"POST {MAPS} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: 100\r\n\r\n"
        writer.write(head.encode() + b'{"metadata": {"name": "a"}')
        await writer.drain()
        writer.close()

        async def noted() -> bool:
            return '"code":400' in audit.read_text()

        await until(noted)
        assert (await client.send("GET", f"{MAPS}/a")).status == 404
    assert [record for record in caplog.records if record.name == "aiohttp.server"] == []


async def test_a_quota_refuses_as_a_cluster_does() -> None:
    async with running_server() as (server, client):
        server.faults.add(FaultRule(verb="create", resource="pods", status=403))
        refused = await client.send("POST", PODS, pod("a"))
        assert (refused.status, refused.body["reason"]) == (403, "Forbidden")
        assert "exceeded quota" in refused.body["message"]


async def test_a_fault_picks_its_requests() -> None:
    async with running_server() as (server, client):
        server.faults.add(FaultRule(resource="pods/status", name="b", status=500))
        for name in ("a", "b"):
            await client.post(PODS, pod(name))
        await client.merge(f"{PODS}/a/status", {"status": {"phase": "Running"}})
        answer = await client.send(
            "PATCH", f"{PODS}/b/status", {"status": {}}, content_type="application/merge-patch+json"
        )
        assert answer.status == 500
        await client.merge(f"{PODS}/b", {"metadata": {"labels": {"a": "b"}}})


async def test_watches_are_cut_on_request() -> None:
    async with (
        running_server() as (_, client),
        watch(client, MAPS, resourceVersion="0") as events,
    ):
        assert (await client.send("POST", "/_podslots/faults/drop-watches")).status == 200
        with pytest.raises(aiohttp.ClientError):
            await events.ended()


# --- restarts ---------------------------------------------------------------------------------------------


async def test_a_restart_resumes_with_rising_versions_and_expires_old_ones(tmp_path: Path) -> None:
    async with running_server(tmp_path) as (_, client):
        made = await client.post(MAPS, {"metadata": {"name": "a"}, "data": {"x": "1"}})
        await client.post(MAPS, {"metadata": {"name": "b"}})
        await client.send("DELETE", f"{MAPS}/b")
        version = (await client.get(MAPS))["metadata"]["resourceVersion"]
    async with running_server(tmp_path) as (_, client):
        assert await client.get(f"{MAPS}/a") == made
        listed = await client.get(MAPS)
        assert [item["metadata"]["name"] for item in listed["items"]] == ["a"]
        assert int(listed["metadata"]["resourceVersion"]) >= int(version)
        async with watch(client, MAPS, resourceVersion=made["metadata"]["resourceVersion"]) as events:
            assert (await events.next())["object"]["code"] == 410
            await events.ended()
            async with watch(client, MAPS, resourceVersion=listed["metadata"]["resourceVersion"]) as again:
                later = await client.post(MAPS, {"metadata": {"name": "c"}})
                assert int(later["metadata"]["resourceVersion"]) > int(version)
                assert (await again.next())["object"]["metadata"]["name"] == "c"


async def test_a_directory_serves_one_process(tmp_path: Path) -> None:
    """Two servers on one directory would each believe in their own memory."""
    async with running_server(tmp_path):
        with pytest.raises(RuntimeError, match="in use"):
            async with running_server(tmp_path):
                pass


async def test_a_failing_disk_stops_answers(tmp_path: Path) -> None:
    """What the disk refused is never acknowledged, nor shown to readers, and health says so."""
    async with running_server(tmp_path) as (server, client):
        await client.post(MAPS, {"metadata": {"name": "a"}})
        journal = server._journal
        assert isinstance(journal, SqliteJournal)
        journal._database.execute("PRAGMA query_only=ON")  # as a full disk: every write fails
        assert (await client.send("POST", MAPS, {"metadata": {"name": "b"}})).status == 500
        assert (await client.send("GET", MAPS)).status == 500
        assert (await client.send("GET", "/readyz")).status == 500
    async with running_server(tmp_path) as (_, client):
        assert [item["metadata"]["name"] for item in (await client.get(MAPS))["items"]] == ["a"]
