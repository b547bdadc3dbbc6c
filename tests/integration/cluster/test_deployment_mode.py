"""Pools in Deployment mode on a whole cluster: real agents, the embedded ReplicaSet controller, admission policies.

What the rules say of Pods holds for those of a ReplicaSet: none with a running or reserved slot is ever deleted,
whoever asks for it and whichever process is killed in between. Each run is judged by its logs at the end.
"""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from controller.errors import ApiError
from controller.kube.api import DEPLOYMENTS, REPLICASETS, SLOTPOOLS, Object
from controller.names import DEPLOYMENT_LABEL, POD_FINALIZER, STATE_LABEL
from tests.support.cluster import NAMESPACE, Cluster, until

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.long]

ONE_SLOT = [{"accepts": ["plan", "apply", "plan_and_apply"]}]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Cluster]:
    async with Cluster(tmp_path_factory.mktemp("deployments")) as running:
        yield running
        await running.settle()
        running.check()


async def test_it_grows_and_shrinks_and_never_takes_what_is_reserved(cluster: Cluster) -> None:
    """T1: the ReplicaSet takes exactly the drained Pods; the one with a reservation stays, and its apply runs there."""
    await make(cluster, "grow", slots=ONE_SLOT)
    for name in ("grow-a", "grow-b", "grow-c"):
        await cluster.create_task(name, "plan_and_apply", pool="grow")
    for name in ("grow-a", "grow-b", "grow-c"):
        await cluster.until_phase(name, "AwaitingApproval")
    for pod in await of_pool(cluster, "grow"):
        owners = [owner["kind"] for owner in pod["metadata"]["ownerReferences"]]
        assert owners == ["ReplicaSet", "Secret"]
        assert pod["metadata"]["finalizers"] == [POD_FINALIZER]
    kept = (await cluster.status("grow-b"))["podUID"]
    for name in ("grow-a", "grow-c"):
        await cluster.patch_task(name, {"cancel": True})
    await until_pods(cluster, "grow", {kept})
    assert [found["spec"]["replicas"] for found in await deployments(cluster, "grow")] == [1]
    assert not [name for name in cluster.deleted_pods() if name.startswith("grow-")], "its ReplicaSet deleted them"
    await cluster.approve("grow-b")
    done = await cluster.until_phase("grow-b", "Succeeded")
    assert done["podUID"] == kept
    await until_pods(cluster, "grow", set())


async def test_a_manual_scale_to_zero_takes_no_pod_that_works(cluster: Cluster) -> None:
    """T1: the policy holds the wrong victim back, and the controller puts the size right."""
    await make(cluster, "manual", slots=ONE_SLOT)
    pod = await reserve(cluster, "manual")
    (found,) = await deployments(cluster, "manual")
    await set_size(cluster, found, 0)

    async def put_right() -> bool:
        return [d["spec"]["replicas"] for d in await deployments(cluster, "manual")] == [1]

    await until(put_right, "the size is as it was")
    await apply(cluster, "manual", pod)


async def test_a_wrong_victim_is_held_back_by_the_policy(cluster: Cluster) -> None:
    """With no controller there, the ReplicaSet is refused the Pod; it says so, and the work goes on."""
    await make(cluster, "victim", slots=ONE_SLOT)
    pod = await reserve(cluster, "victim")
    (found,) = await deployments(cluster, "victim")
    await cluster.controller.kill()
    try:
        await set_size(cluster, found, 0)

        async def refused() -> bool:
            conditions = (await deployments(cluster, "victim"))[0]["status"].get("conditions") or []
            return any(c["type"] == "ReplicaFailure" and "is active" in c["message"] for c in conditions)

        await until(refused, "the ReplicaSet is refused")
        assert await alive(cluster, "victim") == {pod}
    finally:
        await cluster.controller.start()
    await apply(cluster, "victim", pod)


@pytest.mark.parametrize("propagation", ["Foreground", "Background", "Orphan"])
@pytest.mark.parametrize("resource", [DEPLOYMENTS, REPLICASETS], ids=["deployment", "replicaset"])
async def test_a_deleted_manager_leaves_the_pods_that_work(cluster: Cluster, resource: Any, propagation: str) -> None:
    """N3, T30: their second owner keeps them; they serve on without a manager, and go once they are idle."""
    name = f"del-{resource.plural[0]}-{propagation.lower()}"
    await make(cluster, name, slots=ONE_SLOT)
    pod = await reserve(cluster, name)
    managers = deployments if resource is DEPLOYMENTS else replica_sets
    (found,) = await managers(cluster, name)
    await delete(cluster, resource, found, propagation)

    async def gone() -> bool:
        return found["metadata"]["uid"] not in {left["metadata"]["uid"] for left in await managers(cluster, name)}

    await until(gone, "the manager is gone")
    assert pod in await alive(cluster, name)
    await apply(cluster, name, pod)
    await until_pods(cluster, name, set())
    await cluster.create_task(f"{name}-next", pool=name)
    await cluster.until_phase(f"{name}-next", "Succeeded")


@pytest.mark.parametrize("propagation", ["Foreground", "Background", "Orphan"])
async def test_a_deleted_pool_leaves_the_pod_that_works_and_then_nothing(cluster: Cluster, propagation: str) -> None:
    """N3, T30: the garbage collector makes its Deployment nobody's, or takes it; its ReplicaSet makes no Pod anew."""
    name = f"pool-{propagation.lower()}"
    await make(cluster, name, slots=ONE_SLOT)
    pod = await reserve(cluster, name)
    path = f"/apis/{SLOTPOOLS.group}/{SLOTPOOLS.version}/namespaces/{NAMESPACE}/{SLOTPOOLS.plural}/{name}"
    await cluster.delete_by(path, {"kind": "DeleteOptions", "propagationPolicy": propagation})
    await apply(cluster, name, pod)

    async def gone() -> bool:
        pools = {found["metadata"]["name"] for found in await cluster.list_all(SLOTPOOLS)}
        managers = [*await deployments(cluster, name), *await replica_sets(cluster, name)]
        return name not in pools and not managers and not await of_pool(cluster, name)

    await until(gone, "the pool and all of it is gone")


async def test_switching_both_ways_loses_nothing(cluster: Cluster) -> None:
    """T16: Pods of the other mode are replaced as they fall idle; none is adopted, and what is reserved is applied."""
    await cluster.create_pool("switch", slots=ONE_SLOT)
    first = await reserve(cluster, "switch", "switch-pods")
    await set_mode(cluster, "switch", "Deployment")
    second = await reserve(cluster, "switch", "switch-deployment")
    managers = {pod["metadata"]["uid"]: manager(pod) for pod in await of_pool(cluster, "switch")}
    assert (managers[first], managers[second]) == ("SlotPool", "ReplicaSet")
    await set_mode(cluster, "switch", "Pods")
    third = await reserve(cluster, "switch", "switch-back")
    assert {first, second, third} <= await alive(cluster, "switch")
    for name, pod in (("switch-pods", first), ("switch-deployment", second), ("switch-back", third)):
        await apply(cluster, "switch", pod, name)
    await until_pods(cluster, "switch", set())
    await until(lambda: none(deployments(cluster, "switch")), "no Deployment is left")


async def test_what_runs_while_the_mode_is_switched_ends_where_it_began_and_runs_once(
    cluster: Cluster, tmp_path: Path
) -> None:
    """T2, T16: a plan and an apply of each mode are switched over while they run, there and back."""
    gate, ran = tmp_path / "gate", tmp_path / "ran"
    await cluster.create_pool("running", slots=ONE_SLOT)
    begun = {name: await run(cluster, f"{name}-pods", name, gate, ran) for name in ("plan", "apply")}
    await set_mode(cluster, "running", "Deployment")
    for name in ("plan", "apply"):
        begun[f"second-{name}"] = await run(cluster, f"{name}-deployment", name, gate, ran)
    managers = {pod["metadata"]["uid"]: manager(pod) for pod in await of_pool(cluster, "running")}
    assert [managers[pod] for _, pod in begun.values()] == ["SlotPool"] * 2 + ["ReplicaSet"] * 2
    await set_mode(cluster, "running", "Pods")
    await until(lambda: observed(cluster, "running"), "the controller knows of it")
    for task, pod in begun.values():
        status = await cluster.status(task)
        assert (status["phase"], status["podUID"]) == ("Running", pod)
    gate.touch()
    for task, pod in begun.values():
        done = await cluster.until_phase(task, "Succeeded")
        assert (done["podUID"], done["attempt"]) == (pod, 1)
    assert sorted(ran.read_text().split()) == sorted(task for task, _ in begun.values())
    await until_pods(cluster, "running", set())
    await until(lambda: none(deployments(cluster, "running")), "no Deployment is left")


async def test_the_controller_killed_in_between_never_opens_a_pod_without_finalizer_and_owner(cluster: Cluster) -> None:
    """T3, T11: between each two of its writes somewhere: making, opening, draining, lowering the size, deleting."""
    await make(cluster, "killed", slots=ONE_SLOT)
    names = [f"killed-{number}" for number in range(4)]
    for name in names:
        await cluster.create_task(name, "plan_and_apply", pool="killed")
        await cluster.controller.kill()
        await cluster.controller.start()
    for name in names:
        await cluster.until_phase(name, "AwaitingApproval")
        for pod in await of_pool(cluster, "killed"):
            if pod["metadata"]["labels"][STATE_LABEL] == "active":
                assert POD_FINALIZER in pod["metadata"]["finalizers"]
                assert "Secret" in {owner["kind"] for owner in pod["metadata"]["ownerReferences"]}
    kept = {(await cluster.status(name))["podUID"] for name in names[2:]}
    for name in names[:2]:
        await cluster.patch_task(name, {"cancel": True})
        await cluster.until_phase(name, "Cancelled")
        await cluster.controller.kill()
        await cluster.controller.start()
    await until_pods(cluster, "killed", kept)
    await cluster.api.delete(SLOTPOOLS, NAMESPACE, "killed")
    await cluster.controller.kill()
    await cluster.controller.start()
    for name in names[2:]:
        await cluster.approve(name)
        assert (await cluster.until_phase(name, "Succeeded"))["podUID"] in kept
    await until_pods(cluster, "killed", set())
    await until(lambda: none(deployments(cluster, "killed")), "no Deployment is left")


async def test_only_the_controller_writes_a_pools_deployment(cluster: Cluster) -> None:
    """T16: a template that somebody writes into it would replace Pods that work."""
    await make(cluster, "own", slots=ONE_SLOT, autoscaling={"minReplicas": 1, "maxReplicas": 1})
    found = (await until(lambda: deployments(cluster, "own"), "there is a Deployment"))[0]
    await until(lambda: paused(cluster, "own"), "it is paused")
    for spec in ({"paused": False}, {"template": {"spec": {"terminationGracePeriodSeconds": 1}}}):
        with pytest.raises(ApiError, match="is the controller's"):
            await cluster.api.patch(DEPLOYMENTS, NAMESPACE, found["metadata"]["name"], {"spec": spec})
    assert found["spec"]["selector"]["matchLabels"] == {DEPLOYMENT_LABEL: found["metadata"]["name"]}


# --- what is asked of the cluster -----------------------------------------------------------------------------------


async def make(cluster: Cluster, name: str, **spec: Any) -> None:
    await cluster.create_pool(name, mode="Deployment", **spec)


async def reserve(cluster: Cluster, pool: str, name: str = "") -> str:
    """Have a task planned, and tell the UID of its Pod."""
    await cluster.create_task(name or pool, "plan_and_apply", pool=pool)
    status = await cluster.until_phase(name or pool, "AwaitingApproval")
    return str(status["podUID"])


async def run(cluster: Cluster, task: str, kind: str, gate: Path, ran: Path) -> tuple[str, str]:
    """Have a step run that says so and waits for `gate`; the task's name, and the UID of its Pod."""
    step = f"echo {task} >> {ran}; until [ -e {gate} ]; do sleep 0.05; done; touch tfplan"
    await cluster.create_task(task, kind, pool="running", **{kind: step})
    status = await cluster.until_phase(task, "Running")
    await until(lambda: ran.exists() and task in ran.read_text().split(), f"{task} runs")
    return task, str(status["podUID"])


async def observed(cluster: Cluster, name: str) -> bool:
    """Whether the controller has gone by the newest spec of a pool."""
    found = await cluster.api.get(SLOTPOOLS, NAMESPACE, name)
    return bool(found["status"].get("observedGeneration") == found["metadata"]["generation"])


async def apply(cluster: Cluster, pool: str, pod: str, name: str = "") -> None:
    """The apply runs in the very Pod that planned it."""
    await cluster.approve(name or pool)
    done = await cluster.until_phase(name or pool, "Succeeded")
    assert done["podUID"] == pod


async def set_mode(cluster: Cluster, name: str, mode: str) -> None:
    await cluster.api.patch(SLOTPOOLS, NAMESPACE, name, {"spec": {"mode": mode}})


async def set_size(cluster: Cluster, deployment: Object, replicas: int) -> None:
    name = deployment["metadata"]["name"]
    await cluster.api.patch(DEPLOYMENTS, NAMESPACE, name, {"spec": {"replicas": replicas}}, subresource="scale")


async def delete(cluster: Cluster, resource: Any, obj: Object, propagation: str) -> None:
    path = f"/apis/apps/v1/namespaces/{NAMESPACE}/{resource.plural}/{obj['metadata']['name']}"
    await cluster.delete_by(path, {"kind": "DeleteOptions", "propagationPolicy": propagation})


async def of_pool(cluster: Cluster, name: str) -> list[Object]:
    return [pod for pod in await cluster.pods() if pod["metadata"]["labels"].get("podslots.dev/pool") == name]


async def alive(cluster: Cluster, name: str) -> set[str]:
    found = await of_pool(cluster, name)
    return {pod["metadata"]["uid"] for pod in found if "deletionTimestamp" not in pod["metadata"]}


async def until_pods(cluster: Cluster, name: str, uids: set[str]) -> None:
    async def reached() -> bool:
        return {pod["metadata"]["uid"] for pod in await of_pool(cluster, name)} == uids

    await until(reached, f"pool {name} has {len(uids)} Pods")


async def deployments(cluster: Cluster, pool: str) -> list[Object]:
    return await labelled(cluster, DEPLOYMENTS, pool)


async def replica_sets(cluster: Cluster, pool: str) -> list[Object]:
    return await labelled(cluster, REPLICASETS, pool)


async def labelled(cluster: Cluster, resource: Any, pool: str) -> list[Object]:
    return [obj for obj in await cluster.list_all(resource) if obj["metadata"]["labels"]["podslots.dev/pool"] == pool]


async def none(found: Any) -> bool:
    return not await found


async def paused(cluster: Cluster, pool: str) -> bool:
    return all(found["spec"].get("paused") for found in await deployments(cluster, pool))


def manager(pod: Object) -> str:
    owners = pod["metadata"].get("ownerReferences") or ()
    return next((str(owner["kind"]) for owner in owners if owner.get("controller")), "")
