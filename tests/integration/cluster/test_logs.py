"""Logs tell what happened: each thing once, with whom it was about and why; and nothing that is secret."""

import base64
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from controller.kube.api import SECRETS, SLOTPOOLS
from controller.names import ROTATION_REQUESTED, token_secret
from controller.objects.token_secret import token_state, tokens_of
from tests.support.cluster import NAMESPACE, Cluster, until

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.long]

POOL = "told"
SECRET_VALUE = "a-value-of-the-environment-4711"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Cluster]:
    async with Cluster(tmp_path_factory.mktemp("told"), resync_seconds=1.0) as running:
        yield running


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def of_the_controller(cluster: Cluster, message: str) -> list[dict[str, Any]]:
    return [line for line in lines(cluster.controller.log.read_text()) if line["message"] == message]


def of_the_agents(cluster: Cluster, message: str) -> list[dict[str, Any]]:
    logs = (path.read_text() for path in sorted((cluster.folder / "logs").rglob("*")) if path.is_file())
    return [line for text in logs for line in lines_of_an_agent(text) if line.get("message") == message]


def lines_of_an_agent(text: str) -> list[dict[str, Any]]:
    """Kept logs have a time and a stream before each line."""
    found = []
    for line in text.splitlines():
        _, brace, rest = line.partition('{"time"')
        if brace:
            found.append(json.loads(brace + rest))
    return found


async def test_a_tasks_way_is_told_once_in_each_log(cluster: Cluster) -> None:
    pool = f"{NAMESPACE}/{POOL}"
    await cluster.create_pool(POOL, autoscaling={"maxReplicas": 1, "minIdleSeconds": 0})
    await cluster.create_task(
        "way", "plan_and_apply", pool=POOL, env=[{"name": "PASSWORD", "value": SECRET_VALUE}], lockKey="l"
    )
    planned = await cluster.until_phase("way", "AwaitingApproval")
    tokens = await tokens_now(cluster)
    await rotate(cluster)
    tokens |= await tokens_now(cluster)
    assert len(tokens) == 2
    await cluster.approve("way")
    await cluster.until_phase("way", "Succeeded")
    await cluster.until_size(0)
    await until(lambda: len(of_the_controller(cluster, "pod deleted")) == 1, "its Pod's end is told")

    told = [line for line in of_the_controller(cluster, "task") if line["task"] == f"{NAMESPACE}/way"]
    ways = [(line["event"], line["from"], line["to"], line["reason"]) for line in told]
    assert ways == [
        ("dispatch", "Queued", "Assigned", "SlotFree"),
        ("run", "Assigned", "Running", "SlotAcquired"),
        ("reserve", "Running", "AwaitingApproval", "PlanDone"),
        ("approve", "AwaitingApproval", "Running", "Approved"),
        ("release", "Running", "Succeeded", "Succeeded"),
    ]
    for line in told:
        assert (line["pool"], line["pod"], line["attempt"]) == (pool, planned["pod"], 1)
    assert [line["slot"] for line in told] == [None, 0, 0, 0, 0]

    scaled = [(line["pool"], line["from"], line["to"], line["reason"]) for line in of_the_controller(cluster, "scale")]
    assert scaled == [(pool, 0, 1, "QueuedTasks"), (pool, 1, 0, "UtilizationBelow")]
    (drain,) = of_the_controller(cluster, "drain")
    about = {"pool": pool, "pod": planned["pod"], "from": "active", "to": "draining", "result": "granted"}
    assert about.items() <= drain.items()
    assert drain["reason"] == "Surplus"
    (deleted,) = of_the_controller(cluster, "pod deleted")
    assert (deleted["pool"], deleted["pod"]) == (pool, planned["pod"])
    steps = [line["step"] for line in of_the_controller(cluster, "token rotation") if line["pool"] == pool]
    assert [step for step in steps if step != "RecordTimes"] == ["AddNext", "UseNext"]

    slots = [line for line in of_the_agents(cluster, "slot") if line["pool"] == POOL]
    assert [(line["from"], line["to"], line["cause"]) for line in slots] == [
        ("idle", "running", "acquire"),
        ("running", "reserved", "planned"),
        ("reserved", "running", "approve"),
        ("running", "idle", "finish"),
    ]
    uid = (await cluster.task("way"))["metadata"]["uid"]
    for line in slots:
        assert (line["pod"], line["slot"]) == (planned["pod"], 0)
        assert line["task"].startswith(uid)

    everything = cluster.controller.log.read_text() + json.dumps(slots)
    for path in (cluster.folder / "logs").rglob("*"):
        everything += path.read_text() if path.is_file() else ""
    for value in (SECRET_VALUE, *tokens):
        assert value not in everything


async def tokens_now(cluster: Cluster) -> set[str]:
    """The values that are accepted."""
    secret = await cluster.api.get(SECRETS, NAMESPACE, token_secret(POOL))
    return {base64.b64decode(value).decode() for value in tokens_of(secret).values()}


async def rotate(cluster: Cluster) -> None:
    """Until the next token is used."""
    name = token_secret(POOL)
    before = token_state(await cluster.api.get(SECRETS, NAMESPACE, name)).current
    annotations = {ROTATION_REQUESTED: "now"}
    await cluster.api.patch(SLOTPOOLS, NAMESPACE, POOL, {"metadata": {"annotations": annotations}})

    async def in_use() -> bool:
        return token_state(await cluster.api.get(SECRETS, NAMESPACE, name)).current != before

    await until(in_use, "the next token is used")
