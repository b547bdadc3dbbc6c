"""Days on which the API server or the node does badly: what is wrong is said, nothing held is lost, all of it heals.

By the switches of the embedded cluster, one fault at a time, over a plan that awaits its approval.
"""

import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio

from controller import names
from controller.kube.api import NODES, PODS, SLOTPOOLS, Object
from tests.support.cluster import NAMESPACE, Cluster, until

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.long]

CONTROLLER = names.CONTROLLER_USER


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Cluster]:
    async with Cluster(tmp_path_factory.mktemp("bad-days")) as running:
        await running.create_pool()
        await running.create_task("kept", "plan_and_apply")
        await running.until_phase("kept", "AwaitingApproval")
        yield running
        await running.administer("DELETE", "faults")
        await running.approve("kept")
        await running.until_phase("kept", "Succeeded")
        await running.settle()
        running.check()


async def fault(cluster: Cluster, **rule: Any) -> None:
    """One rule in force, of the controller's requests."""
    await cluster.administer("PUT", "faults", {"rules": [{"user": CONTROLLER, **rule}]})


async def fired(cluster: Cluster) -> int:
    """How often the rule in force has acted."""
    return int((await cluster.faults())[0]["fired"])


async def reaches(cluster: Cluster, count: int) -> None:
    async def ask() -> bool:
        return await fired(cluster) >= count

    await until(ask, f"the fault acts {count} times")


async def condition(cluster: Cluster, pool: str, kind: str) -> Object:
    conditions = ((await cluster.api.get(SLOTPOOLS, NAMESPACE, pool)).get("status") or {}).get("conditions") or []
    return next((entry for entry in conditions if entry["type"] == kind), {})


async def until_condition(cluster: Cluster, pool: str, kind: str, holds: Callable[[Object], bool]) -> Object:
    seen: Object = {}

    async def ask() -> bool:
        seen.clear()
        seen.update(await condition(cluster, pool, kind))
        return holds(seen)

    await until(ask, lambda: f"condition {kind} of {pool}: {seen}")
    return seen


async def runs_after_all(cluster: Cluster, name: str) -> None:
    await cluster.until_phase(name, "Succeeded")


UNLUCKY: dict[str, dict[str, Any]] = {
    "conflicts": {"verb": "patch", "status": 409, "probability": 0.5, "count": 20},
    "too-many-requests": {"status": 429, "retry_after_seconds": 1, "probability": 0.5, "count": 20},
    "internal-errors": {"status": 500, "probability": 0.5, "count": 20},
    "unavailable": {"status": 503, "retry_after_seconds": 1, "probability": 0.5, "count": 20},
    "answers-that-never-come": {"verb": "patch", "drop": "after", "probability": 0.5, "count": 10},
    "requests-that-never-arrive": {"drop": "before", "probability": 0.5, "count": 10},
    "slow-answers": {"delay_seconds": 0.5, "probability": 0.5, "count": 20},
}


SLOW = {"too-many-requests", "unavailable", "slow-answers"}
"""They keep everybody waiting."""


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=pytest.mark.long) if kind in SLOW else kind for kind in UNLUCKY]
)
async def test_half_of_all_requests_failing_stops_no_task(cluster: Cluster, kind: str) -> None:
    """R4. A task that by chance met no fault shows nothing: then another one goes."""
    await fault(cluster, **UNLUCKY[kind])
    tasks = 0
    while tasks == 0 or not await fired(cluster):
        await cluster.create_task(f"through-{kind}-{tasks}")
        await runs_after_all(cluster, f"through-{kind}-{tasks}")
        tasks += 1


async def test_retry_after_is_minded(cluster: Cluster) -> None:
    """A server that asks for five seconds is not asked again before."""
    rule = {"verb": "create", "resource": "pods", "status": 429, "retry_after_seconds": 5, "count": 1}
    await fault(cluster, **rule)
    await cluster.create_pool("patient", autoscaling=None, replicas=1)
    await reaches(cluster, 1)
    began = time.monotonic()

    async def there() -> bool:
        pods = await cluster.pods()
        return any(pod["metadata"]["labels"].get(names.POOL_LABEL) == "patient" for pod in pods)

    await until(there, "the Pod is made")
    assert time.monotonic() - began > 4
    await cluster.api.patch(SLOTPOOLS, NAMESPACE, "patient", {"spec": {"replicas": 0}})


async def test_a_quota_is_told_in_its_own_words_and_over_once_there_is_room(cluster: Cluster) -> None:
    """R4: on the pool, and on the task that waits."""
    await fault(cluster, verb="create", resource="pods", status=403)
    await cluster.create_pool("bounded")
    await cluster.create_task("bounded", pool="bounded")
    told = await until_condition(
        cluster, "bounded", "AbleToScale", lambda entry: entry.get("reason") == "QuotaExceeded"
    )
    assert "exceeded quota: podslots, requested: pods=1, used: pods=10, limited: pods=10" in told["message"]
    before = await fired(cluster)
    await reaches(cluster, before + 1)
    await cluster.administer("DELETE", "faults")
    await runs_after_all(cluster, "bounded")
    await until_condition(cluster, "bounded", "AbleToScale", lambda entry: entry.get("status") == "True")


async def test_an_image_that_is_not_there_is_told_and_over_once_it_is(cluster: Cluster) -> None:
    await cluster.kubelet({"missing_images": ["*nowhere*"]})
    template = {"spec": {"containers": [{"name": "worker", "image": "nowhere/terraform:1"}]}}
    await cluster.create_pool("imageless", template=template)
    await cluster.create_task("imageless", pool="imageless")
    told = await until_condition(cluster, "imageless", "Degraded", lambda entry: "ImagePull" in entry.get("reason", ""))
    assert "nowhere/terraform:1" in told["message"]

    async def said() -> bool:
        return "nowhere/terraform:1" in ((await cluster.status("imageless")).get("queuedReason") or "")

    await until(said, "the task says why")
    await cluster.kubelet({"missing_images": []})
    await runs_after_all(cluster, "imageless")


async def test_a_node_that_is_lost_and_comes_back_costs_no_reservation(cluster: Cluster) -> None:
    """R7: its Pods are not given up, whatever the node controller says of them meanwhile."""
    pod = (await cluster.status("kept"))["pod"]
    await cluster.kubelet({"lost": True})
    node = cluster.ready["node"]

    async def ready(wanted: str) -> bool:
        conditions = (await cluster.api.get(NODES, None, node))["status"]["conditions"]
        return bool(next(entry["status"] for entry in conditions if entry["type"] == "Ready") == wanted)

    async def lost() -> bool:
        return await ready("Unknown")

    async def back() -> bool:
        return await ready("True")

    await until(lost, "the node is lost")
    assert "deletionTimestamp" not in (await cluster.api.get(PODS, NAMESPACE, pod))["metadata"]
    await cluster.kubelet({"lost": False})
    await until(back, "the node is back")
    assert await cluster.phase("kept") == "AwaitingApproval"
    await cluster.create_task("after-the-node")
    await runs_after_all(cluster, "after-the-node")


async def test_watches_that_end_and_a_history_that_is_gone_hide_nothing(cluster: Cluster) -> None:
    """R8, T29: 410, and lists anew."""
    await cluster.administer("POST", "compact")
    await cluster.administer("POST", "faults/drop-watches")
    await cluster.create_task("after-the-cut")
    await runs_after_all(cluster, "after-the-cut")


@pytest.mark.long
async def test_a_minute_without_an_api_server_stops_nothing_that_runs(cluster: Cluster) -> None:
    """T22: the leader stops acting, and comes back; what ended meanwhile is told."""
    await cluster.create_task("through-it", plan="sleep 20")
    await cluster.until_phase("through-it", "Running")
    await fault(cluster, drop="before")
    began = time.monotonic()

    async def a_minute() -> bool:
        return time.monotonic() - began > 60

    await until(a_minute, "a minute has passed")
    assert await cluster.phase("through-it") == "Running"
    await cluster.administer("DELETE", "faults")
    await runs_after_all(cluster, "through-it")
    assert await cluster.phase("kept") == "AwaitingApproval"
