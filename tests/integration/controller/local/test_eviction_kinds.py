"""The kinds of lifecycle.k8s.io/v1alpha1 on the embedded API server: only if asked for, and what may become of them."""

import copy
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio

from tests.support.api_client import MERGE, ApiClient, running_server

Json = dict[str, Any]
GROUP = "/apis/lifecycle.k8s.io/v1alpha1"
EVICTIONS = f"{GROUP}/namespaces/default/evictions"
OURS, OTHER = "podslots.dev/slots", "imperative-eviction.k8s.io/evictor"
STARTED, LATER = "2026-03-01T12:00:00Z", "2026-03-01T12:01:00Z"
RESPONDERS = [{"name": OURS, "priority": 10000}]
POD: Json = {
    "metadata": {"name": "p"},
    "spec": {"evictionResponders": RESPONDERS, "containers": [{"name": "c", "image": "i"}]},
}
STATUS: Json = {
    "requesters": [{"name": "example.org/r", "intent": "Eviction"}],
    "targetResponders": [
        {"name": OURS, "priority": 10000, "state": "Active"},
        {"name": OTHER, "priority": 100, "state": "Inactive"},
    ],
    "responders": [{"name": OURS, "startTime": STARTED, "heartbeatTime": STARTED}, {"name": OTHER}],
}


@pytest_asyncio.fixture
async def served() -> AsyncIterator[ApiClient]:
    """A server with the kinds, and an Eviction `e` that the first of two responders is to answer."""
    async with running_server(evictions=True) as (_, client):
        target = {"pod": {"name": "p", "uid": "5f3a0c3e-0d0c-4d4e-9d39-0b1e4f4f3f10"}}
        await client.post(EVICTIONS, {"metadata": {"name": "e"}, "spec": {"target": target}})
        await client.merge(f"{EVICTIONS}/e/status", {"status": STATUS})
        yield client


async def test_the_group_is_there_and_pods_keep_their_responders(served: ApiClient) -> None:
    names = {entry["name"] for entry in (await served.get(GROUP))["resources"]}
    assert names == {"evictions", "evictions/status", "evictionrequests", "evictionrequests/status"}
    pod = await served.post("/api/v1/namespaces/default/pods", POD)
    assert pod["spec"]["evictionResponders"] == RESPONDERS


async def test_without_being_asked_for_neither_is() -> None:
    async with running_server() as (_, client):
        assert (await client.send("GET", GROUP)).status == 404
        assert (await client.send("GET", EVICTIONS)).status == 404
        pod = await client.post("/api/v1/namespaces/default/pods", POD)
        assert "evictionResponders" not in pod["spec"]


async def test_the_active_responder_answers(served: ApiClient) -> None:
    responders = [{"name": OURS, "startTime": STARTED, "heartbeatTime": LATER, "message": "m" * 4000}, {"name": OTHER}]
    changed = await served.merge(f"{EVICTIONS}/e/status", {"status": {"responders": responders}})
    assert changed["status"] == {**STATUS, "responders": responders}


def changed(change: Callable[[list[Json]], Any]) -> list[Json]:
    responders: list[Json] = copy.deepcopy(STATUS["responders"])
    change(responders)
    return responders


REFUSED = {
    "another's entry": changed(lambda both: both[1].update(message="?")),
    "another order": changed(lambda both: both.reverse()),
    "an entry less": changed(lambda both: both.pop()),
    "an entry more": changed(lambda both: both.append({"name": "example.org/more"})),
    "another start": changed(lambda both: both[0].update(startTime=LATER)),
    "no heartbeat any more": changed(lambda both: both[0].pop("heartbeatTime")),
    "a longer message": changed(lambda both: both[0].update(message="m" * 4001)),
    "no time": changed(lambda both: both[0].update(heartbeatTime="soon")),
}


@pytest.mark.parametrize("responders", REFUSED.values(), ids=REFUSED.keys())
async def test_what_a_responder_may_not_write_is_refused(served: ApiClient, responders: list[Json]) -> None:
    body = {"status": {"responders": responders}}
    answer = await served.send("PATCH", f"{EVICTIONS}/e/status", body, content_type=MERGE)
    assert answer.status == 422, answer


async def test_an_end_is_never_taken_back(served: ApiClient) -> None:
    ended = changed(lambda both: both[0].update(completionTime=LATER))
    await served.merge(f"{EVICTIONS}/e/status", {"status": {"responders": ended}})
    body = {"status": {"responders": STATUS["responders"]}}
    answer = await served.send("PATCH", f"{EVICTIONS}/e/status", body, content_type=MERGE)
    assert answer.status == 422, answer


async def test_a_target_never_changes(served: ApiClient) -> None:
    body = {"spec": {"target": {"pod": {"name": "q"}}}}
    answer = await served.send("PATCH", f"{EVICTIONS}/e", body, content_type=MERGE)
    assert answer.status == 422, answer
