"""The embedded API server answers as a kube-apiserver did, step by step, for two Kubernetes versions.

With PODSLOTS_CONTRACT_KUBECONFIG set to a kubeconfig, the same recordings are replayed against that cluster instead
(those of the nearest version), which shows whether the recordings still hold. An administrator is needed. Each scenario
has a namespace, and a custom resource in a group, of its own, and takes them away.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.api_client import Answer, ApiClient, real_cluster, running_server, until
from tests.support.own_namespace import remove, remove_namespace
from tests.support.transcripts import GROUP, NAMESPACE, Replay, Scenario, scenarios, widget_crd

Json = dict[str, Any]

DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
KUBECONFIG = os.environ.get("PODSLOTS_CONTRACT_KUBECONFIG")

_FORGOTTEN = "shows a server that has forgotten version 1; a fresh one hasn't"
_STREAMING_LIST = "was refused for an old etcd; streaming lists are served here, as by every cluster of today"
_JSON_ONLY = "answers are JSON: whoever takes protobuf or YAML takes JSON too"
_OPENAPI_V2 = "no client asks for it where v3 is served"
_TOKENS = "service accounts have no tokens here: nothing in a Pod asks the API server"
_APPLY = "server-side apply needs field ownership, which nothing here uses"

# Steps that are not replayed, for both versions, and why.
LEFT_OUT: dict[tuple[str, int], str] = {
    ("admission-policy", 1): "the types of expressions are not checked before they are evaluated",
    ("custom-resource", 21): _APPLY,
    ("custom-resource", 22): _APPLY,
    ("pod-patch", 14): _APPLY,
    ("pod-patch", 15): _APPLY,
    ("pod-patch", 16): _APPLY,
    ("namespace-delete", 13): _APPLY,
    ("openapi", 7): _JSON_ONLY,
    ("openapi", 9): _OPENAPI_V2,
    **{("protobuf", index): _JSON_ONLY for index in (3, 6, 13, 15, 19, 20)},
    ("dry-run", 11): _APPLY,
    ("dry-run", 12): _APPLY,
    **{("self-review", index): _TOKENS for index in range(25, 28)},
    **{("server-side-apply", index): _APPLY for index in (*range(16), *range(17, 35), 36)},
    ("tables", 35): _STREAMING_LIST,
    ("tables", 38): _FORGOTTEN,
    ("watch", 11): "shows the history of the scenarios recorded before, which a fresh server hasn't; "
    "test_watch_from_a_forgotten_version_is_expired holds the ERROR event",
}

# Steps of which the status alone is compared, and why.
STATUS_ONLY: dict[tuple[str, int], str] = {
    **{("protobuf", index): _JSON_ONLY for index in (0, 4, 7, 18)},
    ("self-review", 12): _JSON_ONLY,
}

# Fields that are not compared, by the end of their path, and why.
IGNORED: dict[str, str] = {
    ".status.typeChecking": "the types of expressions are not checked",
    ".status.userInfo.extra": "only what authenticates beside tokens fills it",
    ".components.schemas.io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions.x-kubernetes-group-version-kind": (
        "lists every group of a whole cluster"
    ),
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

# … and those of one step.
IGNORED_IN_STEP: dict[tuple[str, int], dict[str, str]] = {
    ("namespace-delete", 7): {
        ".status.conditions": "the recorded namespace controller had not come by yet",
        ".metadata.resourceVersion": "follows",
    },
    ("deployment-event", 1): {".metadata.resourceVersion": "the recorded controllers had not come by yet"},
    **{
        ("strategic-merge", index): {
            ".metadata.annotations.deployment.kubernetes.io/revision": "the recorded controllers had not come by yet",
            ".status": "follows",
            ".metadata.resourceVersion": "follows",
        }
        for index in range(11, 17)
    },
    ("namespace-delete", 25): {".metadata.annotations": "woke the recorded namespace controller, beside the recording"},
}

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
    assert set(LEFT_OUT) | set(STATUS_ONLY) <= known
    assert set(CORRECTED_OWNER) <= known
    for scenario in scenarios():
        kept = [i for i in range(len(scenario.steps())) if (scenario.name, i) not in LEFT_OUT]
        assert kept, f"nothing of {scenario} is left to replay"


async def test_server_side_apply_is_refused_in_plain_words() -> None:
    """Every recorded apply gets the same answer: what to use instead."""
    steps = Scenario("v1.36", "server-side-apply").steps()
    applies = [s["request"] for s in steps if s["request"].get("contentType") == "application/apply-patch+yaml"]
    async with running_server() as (_, client):
        await client.post("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", widget_crd("v1.36"))
        for request in applies:
            answer = await client.send("PATCH", request["path"], "{}", content_type=request["contentType"])
            assert answer.status == 415, answer
            assert "no server-side apply" in answer.body["message"]


@asynccontextmanager
async def _cluster(version: str) -> AsyncIterator[tuple[ApiClient, str, str]]:
    """A server to talk to, a fresh namespace in it, and the group of the custom resource."""
    if KUBECONFIG:
        async with real_cluster(Path(KUBECONFIG)) as client:
            if not await _is_nearest(client, version):
                pytest.skip("recorded from a version that is further away")
            # Names of this run's own, as long as the recorded ones.
            run = uuid.uuid4().hex[:6]
            namespace, group = f"conf-{run}", f"x{run}.dev"
            try:
                await _prepare(client, namespace, version, group)
                yield client, namespace, group
            finally:
                await _clean_up(client, namespace, group)
    else:
        async with running_server() as (_, client):
            await _prepare(client, NAMESPACE, version, GROUP)
            yield client, NAMESPACE, GROUP


# What RBAC was there before a scenario began: (role, user) → rules.
_EDIT: list[Json] = [
    {"verbs": ["*"], "apiGroups": [""], "resources": ["pods", "pods/status", "pods/eviction"]},
    {"verbs": ["*"], "apiGroups": ["example.dev"], "resources": ["widgets"]},
]
_APPROVE: list[Json] = [
    {"verbs": ["update"], "apiGroups": ["example.dev"], "resources": ["widgets/approval", "pods/break-glass"]}
]
_MADE_BEFORE: dict[str, dict[tuple[str, str], list[Json]]] = {
    "self-review": {
        ("reader", "ben"): [
            {"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods"]},
            {
                "verbs": ["update"],
                "apiGroups": ["example.dev"],
                "resources": ["widgets/approval"],
                "resourceNames": ["w"],
            },
        ]
    },
    "admission-policy": {
        ("edit", "ben"): _EDIT,
        ("approve", "anna"): [*_EDIT, *_APPROVE],
        ("controller", f"system:serviceaccount:{NAMESPACE}:controller"): _EDIT,
        ("node", "system:node:node-1"): _EDIT,
    },
}


async def _make_rbac(client: ApiClient, namespace: str, group: str, scenario: str) -> None:
    rbac = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}"
    for (role, user), rules in _MADE_BEFORE.get(scenario, {}).items():
        todays = json.loads(json.dumps(rules).replace(GROUP, group))
        await client.post(f"{rbac}/roles", {"metadata": {"name": role}, "rules": todays})
        reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": role}
        subjects = [{"kind": "User", "name": user.replace(NAMESPACE, namespace)}]
        await client.post(
            f"{rbac}/rolebindings", {"metadata": {"name": role}, "roleRef": reference, "subjects": subjects}
        )


async def _clean_up(client: ApiClient, namespace: str, group: str) -> None:
    """Policies first: they would keep the namespace's Pods. Then all of this run, until nothing of it is left."""
    for plural in ("validatingadmissionpolicybindings", "validatingadmissionpolicies"):
        path = f"/apis/admissionregistration.k8s.io/v1/{plural}"
        for item in (await client.get(path))["items"]:
            if item["metadata"]["name"].startswith(namespace):
                await client.send("DELETE", f"{path}/{item['metadata']['name']}")
    widgets = f"/apis/{group}/v1/namespaces/{namespace}/widgets"
    await remove_namespace(client, namespace, also=(widgets,))
    await remove(client, f"{DEFINITIONS}/widgets.{group}")


async def _prepare(client: ApiClient, namespace: str, version: str, group: str) -> None:
    await client.post(DEFINITIONS, widget_crd(version, group))
    await client.post("/api/v1/namespaces", {"metadata": {"name": namespace}})

    async def served() -> bool:
        return (await client.send("GET", f"/apis/{group}/v1")).status == 200

    await until(served)
    # A controller of a real cluster makes it: in the recordings the namespace is not the newest object.
    made = await client.send(
        "POST", f"/api/v1/namespaces/{namespace}/configmaps", {"metadata": {"name": "kube-root-ca.crt"}}
    )
    assert made.status in (201, 409), made


@pytest.mark.parametrize("scenario", scenarios(), ids=str)
async def test_answers_as_recorded(scenario: Scenario) -> None:
    """Status, content type and body of every step are those of the recording."""
    async with _cluster(scenario.version) as (client, namespace, group):
        await _make_rbac(client, namespace, group, scenario.name)
        ignored = dict(IGNORED)
        if scenario.name not in GENERATION_SCENARIOS:
            ignored |= IGNORED_BY_VERSION[scenario.version]
        if group != GROUP:
            ignored[".storageVersionHash"] = "is that of the group's name"
        replay = Replay(namespace, ignored, group)
        for index, step in enumerate(scenario.steps()):
            if (scenario.name, index) in LEFT_OUT:
                continue
            _correct(scenario, index, step)
            answer, differences = await _replay(client, replay, scenario, index, step)
            request = step["request"]
            assert not differences, "\n".join(
                [f"step {index}: {request['method']} {request['path']} ({step.get('note', '')})", *differences]
            )
            replay.capture(step, answer.body, answer.headers.get("Etag", ""))


async def _replay(
    client: ApiClient, replay: Replay, scenario: Scenario, index: int, step: Json
) -> tuple[Answer, list[str]]:
    request = replay.request(step)
    # The collector and what follows from it take their time in a real cluster as here, and so do policies.
    patient = "settled" in (step.get("note") or "") or "until" in step
    deadline = asyncio.get_running_loop().time() + (10 if patient else 0)
    while True:
        answer = await client.send(
            request["method"],
            request["path"],
            _sent(request.get("body")),
            content_type=request.get("contentType", "application/json"),
            accept=request.get("accept", "application/json"),
            anonymous=request.get("anonymous", False),
            events="watch=true" in request["path"],
            more_headers=request.get("headers"),
        )
        body, recorded = _comparable(scenario, index, step, replay.in_recorded_names(answer.body))
        if (scenario.name, index) in STATUS_ONLY and answer.status == recorded["response"]["status"]:
            return answer, []
        also_ignored = IGNORED_IN_STEP.get((scenario.name, index), {})
        differences = replay.differences(recorded, answer.status, answer.content_type, body, also_ignored)
        differences += _header_differences(step, answer, replay)
        if not differences or asyncio.get_running_loop().time() >= deadline:
            return answer, differences
        await asyncio.sleep(0.02)


def _sent(body: Any) -> Any:
    """A recorded body; those in protobuf are bytes."""
    return base64.b64decode(body["base64"]) if isinstance(body, dict) and set(body) == {"base64"} else body


def _header_differences(step: Json, answer: Answer, replay: Replay) -> list[str]:
    """Warnings are compared word for word, of the other recorded headers that they are there."""
    recorded: Json = step["response"].get("headers", {})
    missing = [f"header {name} is missing" for name in recorded if name not in answer.headers]
    warning = recorded.get("Warning")
    found = replay.as_recorded(answer.headers.get("Warning", ""))
    if warning is not None and found != warning:
        missing.append(f"warning {found}, recorded {warning}")
    return missing


def _comparable(scenario: Scenario, index: int, step: Json, body: Any) -> tuple[Any, Json]:
    """The parts of answers that can be compared: of those recorded in part, what was recorded."""
    recorded = step["response"]["body"]
    if not step["response"]["contentType"] or (recorded == [] and body == ""):
        return recorded, step  # an answer without a body that matters
    if isinstance(body, str) and isinstance(recorded, dict) and body.startswith("{"):
        body = json.loads(body)  # the index of OpenAPI documents says that it is text
    if scenario.name == "openapi" and isinstance(body, dict):
        body = _openapi_parts(body, recorded)
        recorded = _openapi_parts(recorded, recorded, served=body)
        return body, {**step, "response": {**step["response"], "body": recorded}}
    if step["response"].get("reduced") and isinstance(body, dict) and isinstance(recorded, dict):
        return {key: value for key, value in body.items() if key in recorded}, step
    if scenario.name != "discovery" or not isinstance(body, dict):
        return body, step
    recorded = step["response"]["body"]
    if index == 0:
        # The version document is the build's; its fields are there and are strings.
        body, recorded = {key: str(type(body.get(key))) for key in recorded}, dict.fromkeys(recorded, str(str))
    elif step["request"]["path"] == "/api/v1":
        body, recorded = _served_only(body), _served_only(recorded)
    return body, {**step, "response": {**step["response"], "body": recorded}}


def _openapi_parts(document: Json, recorded: Json, *, served: Json | None = None) -> Json:
    """The parts of OpenAPI documents that can be compared: of the core group and the index, what is served here."""
    if "openapi" not in document and set(document) == {"paths"}:
        known = served or document
        return {"paths": {path: {"serverRelativeURL": ""} for path in document["paths"] if path in known["paths"]}}
    if "pathKeys" not in recorded:
        return document
    if "pathKeys" in document:
        parts: Json = {
            key: document[key] for key in ("keys", "openapi", "info", "pathKeys", "schemaKeys") if key in document
        }
    else:
        parts = {
            "keys": list(document),
            "pathKeys": sorted(document["paths"]),
            "schemaKeys": sorted(document["components"]["schemas"]),
        }
        parts |= {key: document[key] for key in ("openapi", "info") if key in recorded}
    if "info" in recorded and served is not None:
        for keys in ("pathKeys", "schemaKeys"):
            parts[keys] = sorted(set(parts[keys]) & set(served[keys]))
    return parts


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
