"""What people do with podslots, over real processes: an embedded cluster, a controller, agents, workers, commands."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from controller.errors import Invalid, NotFound
from controller.kube.api import LEASES, PODS, SECRETS, SLOTPOOLS, SLOTTASKS
from controller.names import ROTATION_REQUESTED, lock_lease, token_secret
from controller.objects.token_secret import token_state
from tests.support.cluster import NAMESPACE, Cluster, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

ONE_SLOT = [{"accepts": ["plan", "apply", "plan_and_apply"]}]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Cluster]:
    # With the resync: nothing else wakes a pool when a task has waited long enough for its reason to be said.
    async with Cluster(tmp_path_factory.mktemp("flows"), resync_seconds=5.0) as running:
        yield running
        await running.settle()
        running.check()


class Gate:
    """A file that a step waits for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def command(self, name: str, then: str = "true") -> str:
        return f"touch {self.folder}/{name}.waits; until [ -e {self.folder}/{name} ]; do sleep 0.05; done; {then}"

    def open(self, name: str) -> None:
        (self.folder / name).touch()

    def runs(self, name: str) -> bool:
        """Whether the process whose pid a step wrote into this file is there."""
        return Path(f"/proc/{(self.folder / name).read_text().strip()}").exists()

    async def reached(self, name: str) -> None:
        await until((self.folder / f"{name}.waits").exists, f"step {name} runs")


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path)


def fixed(replicas: int, **spec: Any) -> dict[str, Any]:
    return {"replicas": replicas, "autoscaling": None, **spec}


async def test_from_an_empty_pool_to_an_apply_and_back(cluster: Cluster) -> None:
    """T4, T6, T8, H2, H4: no Pod before there is work; three tasks share one; the apply runs where its plan ran."""
    await cluster.create_pool("cold")
    await until(lambda: condition(cluster, "cold", "Ready"), "the pool is looked at")
    assert await of_pool(cluster, "cold") == []
    for name in ("cold-a", "cold-b"):
        await cluster.create_task(name, pool="cold")
    await cluster.create_task("cold-c", "plan_and_apply", pool="cold")
    planned = await cluster.until_phase("cold-c", "AwaitingApproval")
    await cluster.until_phase("cold-a", "Succeeded")
    await cluster.until_phase("cold-b", "Succeeded")
    (pod,) = await of_pool(cluster, "cold")
    assert [slot["state"] for slot in (await cluster.slots(pod))["slots"]] == ["reserved", "idle", "idle"]
    await cluster.approve("cold-c")
    applied = await cluster.until_phase("cold-c", "Succeeded")
    assert (applied["podUID"], applied["slot"]) == (planned["podUID"], planned["slot"])
    assert "planned default/cold-c" in applied["steps"]["apply"]["logTail"]
    await until_pods(cluster, "cold", 0)


async def test_of_three_busy_pods_only_the_one_that_falls_idle_goes(cluster: Cluster, gate: Gate) -> None:
    """T1, R1, T15: scaled from three to two, nothing goes while all are busy; then the idle one, and no other."""
    await cluster.create_pool("three", **fixed(3, slots=ONE_SLOT))
    for name in ("t1", "t2", "t3"):
        await cluster.create_task(name, pool="three", plan=gate.command(name))
    for name in ("t1", "t2", "t3"):
        await gate.reached(name)
    await cluster.api.patch(SLOTPOOLS, NAMESPACE, "three", {"spec": {"replicas": 2}})
    await until(lambda: desired(cluster, "three", 2), "the pool wants two Pods")
    gate.open("t2")
    idle = (await cluster.until_phase("t2", "Succeeded"))["pod"]
    await until_pods(cluster, "three", 2)
    busy = {(await cluster.status(name))["pod"] for name in ("t1", "t3")}
    assert {pod["metadata"]["name"] for pod in await of_pool(cluster, "three")} == busy
    assert [name for name in cluster.deleted_pods() if name.startswith("three-")] == [idle]
    gate.open("t1")
    gate.open("t3")
    for name in ("t1", "t3"):
        await cluster.until_phase(name, "Succeeded")


async def test_a_plan_that_awaits_approval_outlives_scaling_down(cluster: Cluster, gate: Gate) -> None:
    """T1, T15, A2: idle Pods around it go, its own stays, and the apply runs there."""
    await cluster.create_pool("kept", slots=ONE_SLOT)
    await cluster.create_task("kept-a", "plan_and_apply", pool="kept")
    for name in ("kept-b", "kept-c"):
        await cluster.create_task(name, pool="kept", plan=gate.command(name))
    for name in ("kept-b", "kept-c"):
        await gate.reached(name)
    planned = await cluster.until_phase("kept-a", "AwaitingApproval")
    gate.open("kept-b")
    gate.open("kept-c")
    await until_pods(cluster, "kept", 1)
    (pod,) = await of_pool(cluster, "kept")
    assert pod["metadata"]["uid"] == planned["podUID"]
    await cluster.approve("kept-a")
    applied = await cluster.until_phase("kept-a", "Succeeded")
    assert applied["podUID"] == planned["podUID"]
    await until_pods(cluster, "kept", 0)


async def test_an_approval_of_another_plan_is_refused_and_said(cluster: Cluster, gate: Gate) -> None:
    """T10: neither a wrong digest nor a wrong attempt starts the apply; the right approval still does."""
    await cluster.create_pool("digest")
    marker = gate.folder / "applied"
    await cluster.create_task("digest-a", "plan_and_apply", pool="digest", apply=f"touch {marker}")
    await cluster.approve("digest-a", planDigest="sha256:" + "0" * 64)
    await until(lambda: task_condition(cluster, "digest-a", "Approved", "False"), "the approval is refused")
    await cluster.approve("digest-a", attempt=7)
    refused = await until(lambda: task_condition(cluster, "digest-a", "Approved", "False"), "it is refused")
    assert refused["reason"] == "DigestMismatch"
    assert not marker.exists()
    await cluster.approve("digest-a")
    await cluster.until_phase("digest-a", "Succeeded")
    assert marker.exists()


async def test_an_automatic_approval_needs_nobody(cluster: Cluster) -> None:
    await cluster.create_pool("auto")
    await cluster.create_task("auto-a", "plan_and_apply", pool="auto", approvalPolicy="Auto")
    status = await cluster.until_phase("auto-a", "Succeeded")
    assert status["steps"]["apply"]["exitCode"] == 0


async def test_a_failing_plan_fails_its_task_and_frees_its_slot(cluster: Cluster) -> None:
    await cluster.create_pool("fails")
    await cluster.create_task("fails-a", "plan_and_apply", pool="fails", plan="echo no >&2; exit 3")
    status = await cluster.until_phase("fails-a", "Failed")
    assert status["steps"]["plan"]["exitCode"] == 3
    assert "no" in status["steps"]["plan"]["logTail"]
    await until_pods(cluster, "fails", 0)


async def test_cancel_ends_the_command_and_says_so(cluster: Cluster, gate: Gate) -> None:
    """T24: a running step's process group ends, the slot is free again, the task is Cancelled."""
    await cluster.create_pool("cancel")
    await cluster.create_task("cancel-a", pool="cancel", plan=f"echo $$ > {gate.folder}/pid; {gate.command('c')}")
    await gate.reached("c")
    await cluster.patch_task("cancel-a", {"cancel": True})
    await cluster.until_phase("cancel-a", "Cancelled")
    assert not gate.runs("pid")
    await until_pods(cluster, "cancel", 0)


async def test_cancel_of_a_reservation_and_of_a_queued_task(cluster: Cluster) -> None:
    await cluster.create_pool("cancel2", autoscaling={"maxReplicas": 1, "minIdleSeconds": 1}, slots=ONE_SLOT)
    await cluster.create_task("cancel-b", "plan_and_apply", pool="cancel2")
    await cluster.until_phase("cancel-b", "AwaitingApproval")
    await cluster.create_task("cancel-c", pool="cancel2")
    await cluster.patch_task("cancel-c", {"cancel": True})
    await cluster.until_phase("cancel-c", "Cancelled")
    await cluster.patch_task("cancel-b", {"cancel": True})
    await cluster.until_phase("cancel-b", "Cancelled")
    await until_pods(cluster, "cancel2", 0)


async def test_deleting_a_task_waits_for_its_apply(cluster: Cluster, gate: Gate) -> None:
    """Deleting cancels, but an apply that runs is not torn."""
    await cluster.create_pool("delete")
    await cluster.create_task("delete-a", "apply", pool="delete", apply=gate.command("d"))
    await gate.reached("d")
    await cluster.api.delete(SLOTTASKS, NAMESPACE, "delete-a")
    await until(lambda: deleting(cluster, "delete-a"), "the task is being deleted")
    assert await cluster.phase("delete-a") == "Running"
    gate.open("d")
    await until_gone(cluster, "delete-a")


async def test_a_reservation_ends_at_its_limit(cluster: Cluster) -> None:
    """T9: one that is not approved in time expires, and its Pod goes."""
    await cluster.create_pool("expires", reservation={"ttlSeconds": 1})
    await cluster.create_task("expires-a", "plan_and_apply", pool="expires")
    await cluster.until_phase("expires-a", "Expired")
    await until_pods(cluster, "expires", 0)


async def test_tasks_of_one_lock_key_take_turns_in_order(cluster: Cluster, gate: Gate) -> None:
    """T12: the second waits until the first has ended, and calls for no Pod; a plan waits for nobody."""
    await cluster.create_pool("locks", slots=ONE_SLOT)
    for name in ("lock-a", "lock-b"):
        await cluster.create_task(name, "apply", pool="locks", lockKey="vpc", apply=gate.command(name))
    await gate.reached("lock-a")
    await cluster.create_task("lock-p", pool="locks", lockKey="vpc")
    await cluster.until_phase("lock-p", "Succeeded")
    assert await cluster.phase("lock-b") == "Queued"
    await until(lambda: waits_for(cluster, "lock-b", "for lockKey vpc, held by lock-a"), "the task says why")
    gate.open("lock-a")
    await gate.reached("lock-b")
    assert await cluster.phase("lock-a") == "Succeeded"
    gate.open("lock-b")
    await cluster.until_phase("lock-b", "Succeeded")
    await until(lambda: no_lock(cluster, "vpc"), "the lock is released")


async def test_a_finished_task_goes_after_its_time(cluster: Cluster) -> None:
    await cluster.create_pool("ttl")
    await cluster.create_task("ttl-a", pool="ttl", ttlSecondsAfterFinished=1)
    await until_gone(cluster, "ttl-a")


async def test_a_deleted_pool_drains_and_leaves_nothing(cluster: Cluster, gate: Gate) -> None:
    """T30: what runs ends first; then Pods, Secret and pool are gone."""
    await cluster.create_pool("gone", **fixed(1))
    await cluster.create_task("gone-a", pool="gone", plan=gate.command("g"))
    await gate.reached("g")
    await cluster.api.delete(SLOTPOOLS, NAMESPACE, "gone")
    await until(lambda: desired(cluster, "gone", 0), "the pool wants no Pod")
    assert len(await of_pool(cluster, "gone")) == 1
    gate.open("g")
    await cluster.until_phase("gone-a", "Succeeded")
    await until(lambda: pool_gone(cluster, "gone"), "the pool is gone")
    assert await of_pool(cluster, "gone") == []
    with pytest.raises(NotFound):
        await cluster.api.get(SECRETS, NAMESPACE, token_secret("gone"))


async def test_bad_input_is_told_and_disturbs_nothing(cluster: Cluster) -> None:
    """T5: what can be refused at the API is; the rest stands on the object, and other work goes on."""
    await cluster.create_pool("good")
    with pytest.raises(Invalid, match="maxReplicas"):
        await cluster.create_pool("no-max", autoscaling={"minReplicas": 0})
    with pytest.raises(Invalid, match="plan"):
        await cluster.create_task("bad-steps", "plan_and_apply", pool="good", steps={"plan": {"command": ["true"]}})
    await cluster.create_task("bad-type", "destroy", pool="good", lockKey="bad")
    await cluster.create_task("no-pool", pool="nowhere")
    await cluster.create_task("fine", pool="good")
    await cluster.create_task("behind", "apply", pool="good", lockKey="bad", apply="true")
    refused = await until(lambda: task_condition(cluster, "bad-type", "Accepted", "False"), "the type is refused")
    assert refused["reason"] == "UnknownTaskType"
    refused = await until(lambda: task_condition(cluster, "no-pool", "Accepted", "False"), "the pool is missed")
    assert refused["reason"] == "PoolNotFound"
    await cluster.until_phase("fine", "Succeeded")
    await cluster.until_phase("behind", "Succeeded")
    await cluster.create_pool("nowhere")
    await cluster.until_phase("no-pool", "Succeeded")


async def test_a_template_that_cannot_be_used_is_a_condition(cluster: Cluster) -> None:
    """The cluster refuses most of them itself; into this one its rules can't look."""
    agent = {"name": "slot-agent", "securityContext": {"privileged": True}}
    template = {"spec": {"initContainers": [agent], "containers": [{"name": "worker", "image": "x"}]}}
    await cluster.create_pool("bad-template", template=template)
    await cluster.create_task("waits", pool="bad-template")
    found = await until(lambda: condition(cluster, "bad-template", "Degraded"), "the pool is Degraded")
    assert "securityContext" in found["message"]


# --- what is asked of the cluster -----------------------------------------------------------------------------------


async def of_pool(cluster: Cluster, name: str) -> list[dict[str, Any]]:
    return [pod for pod in await cluster.pods() if pod["metadata"]["labels"].get("podslots.dev/pool") == name]


async def until_pods(cluster: Cluster, name: str, count: int) -> None:
    async def reached() -> bool:
        return len(await of_pool(cluster, name)) == count

    await until(reached, f"pool {name} has {count} Pods")


async def condition(cluster: Cluster, name: str, kind: str) -> dict[str, Any] | None:
    pool = await cluster.api.get(SLOTPOOLS, NAMESPACE, name)
    return find(pool, kind, "True")


async def task_condition(cluster: Cluster, name: str, kind: str, status: str) -> dict[str, Any] | None:
    return find(await cluster.task(name), kind, status)


def find(obj: dict[str, Any], kind: str, status: str) -> dict[str, Any] | None:
    conditions: list[dict[str, Any]] = (obj.get("status") or {}).get("conditions") or []
    return next((entry for entry in conditions if (entry["type"], entry["status"]) == (kind, status)), None)


async def desired(cluster: Cluster, name: str, count: int) -> bool:
    pool = await cluster.api.get(SLOTPOOLS, NAMESPACE, name)
    return bool((pool.get("status") or {}).get("desiredReplicas") == count)


async def waits_for(cluster: Cluster, name: str, reason: str) -> bool:
    return bool((await cluster.status(name)).get("queuedReason") == reason)


async def deleting(cluster: Cluster, name: str) -> bool:
    return "deletionTimestamp" in (await cluster.task(name))["metadata"]


async def pool_gone(cluster: Cluster, name: str) -> bool:
    try:
        await cluster.api.get(SLOTPOOLS, NAMESPACE, name)
    except NotFound:
        return True
    return False


async def no_lock(cluster: Cluster, key: str) -> bool:
    try:
        await cluster.api.get(LEASES, NAMESPACE, lock_lease(key))
    except NotFound:
        return True
    return False


async def until_gone(cluster: Cluster, name: str) -> None:
    async def gone() -> bool:
        try:
            await cluster.task(name)
        except NotFound:
            return True
        return False

    await until(gone, f"task {name} is gone")


# --- tokens -----------------------------------------------------------------------------------------------------------


async def test_tokens_rotate_and_come_back_under_a_plan_that_waits(cluster: Cluster) -> None:
    """T16, T17: mounts follow, what is reserved stays reserved, and its apply runs."""
    await cluster.create_pool("rotated", **fixed(1))
    await cluster.create_task("kept", "plan_and_apply", pool="rotated")
    status = await cluster.until_phase("kept", "AwaitingApproval")
    name = token_secret("rotated")
    before = await cluster.api.get(SECRETS, NAMESPACE, name)
    first = token_state(before)
    request: dict[str, Any] = {"metadata": {"annotations": {ROTATION_REQUESTED: "now"}}}
    await cluster.api.patch(SLOTPOOLS, NAMESPACE, "rotated", request)

    async def used() -> bool:
        state = token_state(await cluster.api.get(SECRETS, NAMESPACE, name))
        return state.current != first.current and state.previous == first.current

    await until(used, "the next token is used")
    await cluster.api.delete(SECRETS, NAMESPACE, name)
    uid = ""

    async def made_again() -> bool:
        nonlocal uid
        try:
            secret = await cluster.api.get(SECRETS, NAMESPACE, name)
        except NotFound:
            return False
        uid = secret["metadata"]["uid"]
        return bool(uid != before["metadata"]["uid"])

    await until(made_again, "the Secret is made again")

    async def owned() -> bool:
        pod = await cluster.api.get(PODS, NAMESPACE, status["pod"])
        return [owner["uid"] for owner in pod["metadata"]["ownerReferences"]][1:] == [uid]

    await until(owned, "it owns the Pod")
    await cluster.approve("kept")
    done = await cluster.until_phase("kept", "Succeeded")
    assert done["podUID"] == status["podUID"]
