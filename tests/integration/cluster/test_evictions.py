"""A Pod that is asked for in Kubernetes' own words, over real processes: it answers, and goes as it falls idle."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from agent.wire import parse_time
from controller import names
from controller.decide.pods.eviction import format_seconds
from controller.kube.api import EVICTIONS, PODS, SLOTPOOLS, Object
from tests.support.cluster import NAMESPACE, Cluster, until

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.long]

ONE_SLOT = {"slots": [{"accepts": ["plan", "apply", "plan_and_apply"]}]}
OTHER = "imperative-eviction.k8s.io/evictor"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Cluster]:
    async with Cluster(tmp_path_factory.mktemp("evictions"), options=("--evictions",)) as running:
        yield running
        await running.settle()
        running.check()


async def ask(cluster: Cluster, pod: Object) -> str:
    """What the evictionrequest-controller makes of an EvictionRequest; the Eviction's name."""
    name: str = pod["metadata"]["name"]
    target = {"pod": {"name": name, "uid": pod["metadata"]["uid"]}}
    body = {
        "apiVersion": EVICTIONS.api_version,
        "kind": "Eviction",
        "metadata": {"name": name},
        "spec": {"target": target},
    }
    await cluster.api.create(EVICTIONS, NAMESPACE, body)
    responders = [*(await cluster.api.get(PODS, NAMESPACE, name))["spec"]["evictionResponders"]]
    assert responders == [{"name": "podslots.dev/slots", "priority": 10000}]
    now = format_seconds(datetime.now(UTC))
    status = {
        "requesters": [{"name": "example.org/maintenance", "intent": "Eviction"}],
        "targetResponders": [
            {**responders[0], "state": "Active"},
            {"name": OTHER, "priority": 100, "state": "Inactive"},
        ],
        "responders": [{"name": names.EVICTION_RESPONDER, "startTime": now}, {"name": OTHER}],
    }
    await cluster.api.patch(EVICTIONS, NAMESPACE, name, {"status": status}, subresource="status")
    return name


async def answer(cluster: Cluster, name: str) -> dict[str, Any]:
    status = (await cluster.api.get(EVICTIONS, NAMESPACE, name))["status"]
    assert status["responders"][1] == {"name": OTHER}, "nobody else's entry is touched"
    entry: dict[str, Any] = status["responders"][0]
    return entry


async def reserved(cluster: Cluster, name: str) -> Object:
    """A pool that keeps one Pod, which holds a plan that awaits its approval."""
    await cluster.create_pool(name, **ONE_SLOT, autoscaling={"minReplicas": 1, "maxReplicas": 1})
    await cluster.create_task(name, "plan_and_apply", pool=name)
    status = await cluster.until_phase(name, "AwaitingApproval")
    return await cluster.api.get(PODS, NAMESPACE, status["pod"])


async def test_a_reserved_pod_says_what_it_holds_and_goes_after_the_apply(cluster: Cluster) -> None:
    pod = await reserved(cluster, "held")
    expires = (await cluster.slots(pod))["slots"][0]["expires_at"]
    name = await ask(cluster, pod)

    async def said() -> dict[str, Any]:
        entry = await answer(cluster, name)
        return entry if "heartbeatTime" in entry else {}

    entry = await until(said, "the Eviction is answered")
    assert "slot 0: task held is planned and awaits its approval" in entry["message"]
    late = parse_time(entry["expectedCompletionTime"]) - parse_time(expires)
    assert timedelta(0) <= late <= timedelta(seconds=1)
    assert entry["expectedCompletionTime"] in entry["message"]
    assert "completionTime" not in entry
    assert "deletionTimestamp" not in (await cluster.api.get(PODS, NAMESPACE, name))["metadata"]

    await cluster.approve("held")
    await cluster.until_phase("held", "Succeeded")

    async def completed() -> dict[str, Any]:
        entry = await answer(cluster, name)
        return entry if "completionTime" in entry else {}

    assert await until(completed, "the Eviction is completed")
    await until(lambda: is_gone(cluster, pod), "the Pod is gone")
    assert name in cluster.deleted_pods()


async def is_gone(cluster: Cluster, pod: Object) -> bool:
    return all(found["metadata"]["uid"] != pod["metadata"]["uid"] for found in await cluster.pods())


async def test_withdrawn_the_pod_takes_tasks_again(cluster: Cluster) -> None:
    """A task for its free slot waits while the Pod is asked for, and runs on it as soon as it is not."""
    layout = [{"accepts": ["plan"]}, {"accepts": ["plan"]}]
    await cluster.create_pool("back", slots=layout, autoscaling={"minReplicas": 1, "maxReplicas": 1})
    gate = cluster.folder / "gate"
    await cluster.create_task("first", pool="back", plan=f"until [ -e {gate} ]; do sleep 0.05; done")
    status = await cluster.until_phase("first", "Running")
    pod = await cluster.api.get(PODS, NAMESPACE, status["pod"])
    name = await ask(cluster, pod)

    async def said() -> bool:
        return "task first runs its plan" in (await answer(cluster, name)).get("message", "")

    await until(said, "the Eviction is answered")
    await cluster.create_task("second", pool="back")

    async def waits() -> bool:
        return bool((await cluster.status("second")).get("queuedReason"))

    await until(waits, "the second task says why it waits")
    assert await cluster.phase("second") == "Queued"
    known = (await cluster.api.get(EVICTIONS, NAMESPACE, name))["status"]
    states = [{**known["targetResponders"][0], "state": "Canceled"}, known["targetResponders"][1]]
    withdrawn = [{"name": "example.org/maintenance", "intent": "Withdrawn"}]
    body = {"status": {"targetResponders": states, "requesters": withdrawn}}
    await cluster.api.patch(EVICTIONS, NAMESPACE, name, body, subresource="status")
    assert (await cluster.until_phase("second", "Succeeded"))["podUID"] == pod["metadata"]["uid"]
    assert await cluster.phase("first") == "Running"
    gate.touch()
    await cluster.until_phase("first", "Succeeded")
    assert "completionTime" not in await answer(cluster, name)


async def test_a_pod_that_was_never_opened_is_deleted_at_once(cluster: Cluster) -> None:
    template = {"spec": {"nodeSelector": {"no": "such-node"}, "containers": [{"name": "worker", "image": "i:1"}]}}
    await cluster.create_pool("fresh", replicas=1, autoscaling=None, template=template)

    async def pending() -> list[Object]:
        return [pod for pod in await cluster.pods() if pod["metadata"]["labels"][names.POOL_LABEL] == "fresh"]

    (pod,) = await until(pending, "a Pod waits for a node")
    name = await ask(cluster, pod)
    await until(lambda: is_gone(cluster, pod), "it is gone")

    async def completed() -> bool:
        return "completionTime" in await answer(cluster, name)

    await until(completed, "the Eviction is completed")
    await cluster.api.patch(SLOTPOOLS, NAMESPACE, "fresh", {"spec": {"replicas": 0}})


async def test_a_cluster_without_evictions_is_asked_once_and_its_pods_name_nobody(tmp_path: Path) -> None:
    async with Cluster(tmp_path) as without:
        await without.create_pool("plain", **ONE_SLOT)
        await without.create_task("plain", pool="plain")
        status = await without.until_phase("plain", "Running", "Succeeded")
        pods = [pod for pod in await without.pods() if pod["metadata"]["name"] == status["pod"]]
        assert all("evictionResponders" not in pod["spec"] for pod in pods)
        await without.until_phase("plain", "Succeeded")
        await without.settle()
        asked = [entry for entry in without.audit() if "lifecycle.k8s.io" in entry["requestURI"]]
        assert [(entry["verb"], entry["responseStatus"]["code"]) for entry in asked] == [("list", 404)]
