"""The embedded API server answers as a kube-apiserver did, step by step, for two Kubernetes versions.

With PODSLOTS_CONTRACT_KUBECONFIG set to a kubeconfig, the same recordings are replayed against that cluster instead
(those of the nearest version), which shows whether the recordings still hold.
"""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.api_client import Answer, ApiClient, real_cluster, running_server, until
from tests.support.transcripts import Replay, Scenario, scenarios, widget_crd

Json = dict[str, Any]

KUBECONFIG = os.environ.get("PODSLOTS_CONTRACT_KUBECONFIG")

_TABLES = "kubectl prints names and ages from plain objects; server-side tables are not served"
_APPLY = "server-side apply needs field ownership, which nothing here uses"
_DEPLOYMENTS = "Deployments have no controller in the embedded cluster"
_EVICTION = "evictions and PodDisruptionBudgets are a cluster's business; one machine has no node drain"

# Steps that are not replayed, for both versions, and why.
LEFT_OUT: dict[tuple[str, int], str] = {
    ("custom-resource", 18): _TABLES,
    ("custom-resource", 19): _TABLES,
    ("custom-resource", 21): _APPLY,
    ("custom-resource", 22): _APPLY,
    ("pod-patch", 14): _APPLY,
    ("pod-patch", 15): _APPLY,
    ("pod-patch", 16): _APPLY,
    ("deployment-event", 0): _DEPLOYMENTS,
    ("deployment-event", 1): _DEPLOYMENTS,
    ("deployment-event", 2): _DEPLOYMENTS,
    ("eviction", 1): _EVICTION,
    ("eviction", 2): "follows from the eviction before it",
    ("eviction", 5): _EVICTION,
    ("eviction", 6): _EVICTION,
    ("eviction", 7): _EVICTION,
    ("watch", 11): "shows the history of the scenarios recorded before, which a fresh server hasn't; "
    "test_watch_from_a_forgotten_version_is_expired holds the ERROR event",
}

# Fields that are not compared, by the end of their path, and why.
IGNORED: dict[str, str] = {
    ".managedFields": "field ownership is not tracked",
    ".userInfo.extra": "the identity of a credential, which tokens here do not have",
    ".metadata.annotations.kubernetes.io/initial-events-list-blueprint": "an aid of 1.32's own client, gone in 1.36",
}
IGNORED_BY_VERSION: dict[str, dict[str, str]] = {
    # Only Pods differ: custom resources have had a generation for long, and it is compared.
    "v1.32": {".metadata.generation": "the server keeps to 1.36, where Pods have a generation too"},
    "v1.36": {},
}
# Scenarios of 1.32 in which generation is compared all the same, because no Pod appears.
GENERATION_SCENARIOS = frozenset({"custom-resource"})

# Requests that were recorded wrongly: the recorder showed a later step's body. The responses show what was sent.
CORRECTED_OWNER: dict[tuple[str, int], str] = {("owner-references", 1): "own", ("owner-references", 5): "own2"}

# What /api/v1 of the embedded server serves; the recording has more.
SERVED_CORE = frozenset(
    {
        "bindings", "configmaps", "events", "namespaces", "namespaces/finalize", "namespaces/status", "nodes",
        "nodes/status", "pods", "pods/binding", "pods/log", "pods/status", "secrets",
    }
)  # fmt: skip


def test_every_left_out_step_exists() -> None:
    """The table of exceptions has no stale entry."""
    known = {(s.name, index) for s in scenarios() for index in range(len(s.steps()))}
    assert set(LEFT_OUT) <= known
    assert set(CORRECTED_OWNER) <= known
    for scenario in scenarios():
        kept = [i for i in range(len(scenario.steps())) if (scenario.name, i) not in LEFT_OUT]
        assert kept, f"nothing of {scenario} is left to replay"


@asynccontextmanager
async def _cluster(version: str) -> AsyncIterator[tuple[ApiClient, str]]:
    """A server to talk to, and a fresh namespace in it."""
    namespace = f"conformance-{uuid.uuid4().hex[:8]}" if KUBECONFIG else "conformance"
    if KUBECONFIG:
        async with real_cluster(Path(KUBECONFIG)) as client:
            await _prepare(client, namespace, version)
            yield client, namespace
            await client.send("DELETE", f"/api/v1/namespaces/{namespace}")
    else:
        async with running_server() as (_, client):
            await _prepare(client, namespace, version)
            yield client, namespace


async def _prepare(client: ApiClient, namespace: str, version: str) -> None:
    await client.post("/api/v1/namespaces", {"metadata": {"name": namespace}})
    path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    created = await client.send("POST", path, widget_crd(version))
    assert created.status in (201, 409), created

    async def served() -> bool:
        return (await client.send("GET", "/apis/example.dev/v1")).status == 200

    await until(served)


@pytest.mark.parametrize("scenario", scenarios(), ids=str)
async def test_answers_as_recorded(scenario: Scenario) -> None:
    """Status, content type and body of every step are those of the recording."""
    async with _cluster(scenario.version) as (client, namespace):
        if KUBECONFIG and not await _is_nearest(client, scenario.version):
            pytest.skip("recorded from a version that is further away")
        ignored = dict(IGNORED)
        if scenario.name not in GENERATION_SCENARIOS:
            ignored |= IGNORED_BY_VERSION[scenario.version]
        replay = Replay(namespace, ignored)
        for index, step in enumerate(scenario.steps()):
            if (scenario.name, index) in LEFT_OUT:
                continue
            _correct(scenario, index, step)
            answer, differences = await _replay(client, replay, scenario, index, step)
            request = step["request"]
            assert not differences, "\n".join(
                [f"step {index}: {request['method']} {request['path']} ({step.get('note', '')})", *differences]
            )
            replay.capture(step, answer.body)


async def _replay(
    client: ApiClient, replay: Replay, scenario: Scenario, index: int, step: Json
) -> tuple[Answer, list[str]]:
    request = replay.request(step)
    # The collector and what follows from it take their time in a real cluster as here.
    deadline = asyncio.get_running_loop().time() + (10 if "settled" in (step.get("note") or "") else 0)
    while True:
        answer = await client.send(
            request["method"],
            request["path"],
            request.get("body"),
            content_type=request.get("contentType", "application/json"),
            accept=request.get("accept", "application/json"),
            anonymous=request.get("anonymous", False),
            events="watch=true" in request["path"],
        )
        body, recorded = _comparable(scenario, index, step, answer.body)
        differences = replay.differences(recorded, answer.status, answer.content_type, body)
        if not differences or asyncio.get_running_loop().time() >= deadline:
            return answer, differences
        await asyncio.sleep(0.02)


def _comparable(scenario: Scenario, index: int, step: Json, body: Any) -> tuple[Any, Json]:
    """The parts of discovery documents that can be compared."""
    if scenario.name != "discovery" or not isinstance(body, dict):
        return body, step
    recorded = step["response"]["body"]
    if index == 0:
        # The version document is the build's; its fields are there and are strings.
        body, recorded = {key: str(type(body.get(key))) for key in recorded}, dict.fromkeys(recorded, str(str))
    elif step["request"]["path"] == "/api/v1":
        body, recorded = _served_only(body), _served_only(recorded)
    return body, {**step, "response": {**step["response"], "body": recorded}}


def _served_only(document: Json) -> Json:
    return {**document, "resources": [r for r in document["resources"] if r["name"] in SERVED_CORE]}


def _correct(scenario: Scenario, index: int, step: Json) -> None:
    owner = CORRECTED_OWNER.get((scenario.name, index))
    if owner is not None:
        reference = step["request"]["body"]["metadata"]["ownerReferences"][0]
        assert reference["name"] != owner, "the recording is right after all"
        reference.update(name=owner, uid="{{uid}}")


async def _is_nearest(client: ApiClient, version: str) -> bool:
    minor = int((await client.get("/version"))["minor"].rstrip("+"))
    recorded = {int(s.version.partition(".")[2]) for s in scenarios()}
    return min(recorded, key=lambda known: abs(known - minor)) == int(version.partition(".")[2])
