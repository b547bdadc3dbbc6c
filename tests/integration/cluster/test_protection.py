"""What people try with kubectl on Pods that hold work, over real processes: refused, or it waits and says for what."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from controller import names
from controller.kube.api import BUDGETS, PODS, SLOTPOOLS, Object
from tests.support.cluster import NAMESPACE, Cluster, until
from tests.support.kubectl import Kubectl, Ran

pytestmark = pytest.mark.asyncio(loop_scope="module")

NODE = "local"
HELD = {"slots": [{"accepts": ["plan", "apply", "plan_and_apply"]}]}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Cluster]:
    async with Cluster(tmp_path_factory.mktemp("protection"), resync_seconds=5.0) as running:
        yield running
        await running.settle()
        running.check()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def kubectl(cluster: Cluster) -> AsyncIterator[Kubectl]:
    caller = Kubectl(cluster.state / "kubeconfig")
    yield caller
    caller.close()


async def held(cluster: Cluster, name: str) -> Object:
    """A pool of one Pod that holds a plan which awaits its approval; the Pod."""
    await cluster.create_pool(name, **HELD)
    await cluster.create_task(name, "plan_and_apply", pool=name)
    status = await cluster.until_phase(name, "AwaitingApproval")
    return await cluster.api.get(PODS, NAMESPACE, status["pod"])


async def is_untouched(cluster: Cluster, pod: Object) -> bool:
    found = await cluster.api.get(PODS, NAMESPACE, pod["metadata"]["name"])
    same = found["metadata"]["uid"] == pod["metadata"]["uid"]
    return same and "deletionTimestamp" not in found["metadata"] and (await cluster.slots(found))["phase"] == "open"


async def end(cluster: Cluster, name: str) -> None:
    await cluster.patch_task(name, {"cancel": True})
    await cluster.until_phase(name, "Cancelled")


async def condition(cluster: Cluster, pool: str, kind: str) -> Object:
    status = (await cluster.api.get(SLOTPOOLS, NAMESPACE, pool)).get("status") or {}
    return next((entry for entry in status.get("conditions") or () if entry["type"] == kind), {})


async def test_an_active_pod_is_marked_and_withstands_every_delete(cluster: Cluster, kubectl: Kubectl) -> None:
    pod = await held(cluster, "kept")
    name = pod["metadata"]["name"]
    notes = pod["metadata"]["annotations"]
    assert (notes[names.SAFE_TO_EVICT], notes[names.DO_NOT_DISRUPT]) == ("false", "true")
    assert names.POD_FINALIZER in pod["metadata"]["finalizers"]
    for arguments in (("pod", name), ("pod", name, "--force", "--grace-period=0"), ("pod", "-l", names.POOL_LABEL)):
        ran = await kubectl.run("delete", *arguments)
        assert ran.status == 1, ran.out
        assert f"Pod {name} of pool kept is active: `podslots drain` has it deleted once it is idle" in ran.err
    assert await is_untouched(cluster, pod)
    await end(cluster, "kept")


async def test_its_budget_is_kept_by_the_controller(cluster: Cluster, kubectl: Kubectl) -> None:
    await held(cluster, "budgeted")
    budget = names.disruption_budget("budgeted")
    refused = await kubectl.run("delete", "pdb", budget)
    assert "a pool's PodDisruptionBudget is the controller's" in refused.err
    before = await cluster.api.get(BUDGETS, NAMESPACE, budget)
    policy = "validatingadmissionpolicybinding/podslots-budget"
    saved = await kubectl("get", policy, "-o", "json")
    await kubectl("delete", policy)
    await kubectl("delete", "pdb", budget)

    async def made_anew() -> bool:
        return bool((await cluster.api.get(BUDGETS, NAMESPACE, budget))["metadata"]["uid"] != before["metadata"]["uid"])

    await until(made_anew, "the controller makes it anew")
    await kubectl("patch", "pdb", budget, "--type=merge", "-p", json.dumps({"spec": {"minAvailable": 0}}))

    async def mended() -> bool:
        return bool((await cluster.api.get(BUDGETS, NAMESPACE, budget))["spec"]["minAvailable"] > 1000)

    await until(mended, "the controller mends it")
    document = json.loads(saved)
    document["metadata"] = {"name": document["metadata"]["name"]}
    await kubectl("create", "-f", "-", stdin=json.dumps(document))
    await end(cluster, "budgeted")
    await kubectl("delete", "slotpool", "budgeted")
    assert "NotFound" in (await kubectl.run("get", "pdb", budget)).err


async def test_a_pool_says_that_its_pods_are_protected(cluster: Cluster) -> None:
    await cluster.create_pool("told")

    async def said() -> Object:
        return await condition(cluster, "told", "Protected")

    found = await until(said, "the condition is there")
    assert (found["status"], found["reason"]) == ("True", "PoliciesInForce")


@pytest.mark.long
async def test_kubectl_drain_waits_as_long_as_the_work_and_then_ends(
    cluster: Cluster, kubectl: Kubectl, tmp_path: Path
) -> None:
    """An idle Pod goes at once, one that works when its work is done; the cordoned node gets no new task."""
    await cluster.create_pool("drained", replicas=2, autoscaling=None, **HELD)
    gate = tmp_path / "gate"
    plan = f"until [ -e {gate} ]; do sleep 0.05; done; echo done"
    await cluster.create_task("drained", pool="drained", plan=plan)
    status = await cluster.until_phase("drained", "Running")

    async def both() -> bool:
        return (await condition(cluster, "drained", "Ready")).get("status") == "True"

    await until(both, "both Pods serve")
    draining = asyncio.create_task(
        kubectl.run("drain", NODE, "--delete-emptydir-data", "--pod-selector", f"{names.POOL_LABEL}=drained")
    )
    try:

        async def the_idle_one_goes() -> bool:
            found = await of_pool(cluster, "drained")
            return status["pod"] in found and len(found & before) == 1

        before = await of_pool(cluster, "drained")
        await until(the_idle_one_goes, "the idle Pod goes")
        await cluster.create_task("late", pool="drained")
        await until(lambda: queued_since(cluster, "late"), "the late task waits")
        assert not draining.done(), "kubectl waits"
        gate.touch()
        await cluster.until_phase("drained", "Succeeded")
        ran: Ran = await draining
        assert ran.status == 0, ran.err
        assert f"node/{NODE} drained" in ran.out
        assert "Cannot evict pod as it would violate the pod's disruption budget" in ran.err
        assert status["pod"] not in await of_pool(cluster, "drained")
    finally:
        draining.cancel()
        with suppress(asyncio.CancelledError):
            await draining
        await kubectl("uncordon", NODE)
    await cluster.until_phase("late", "Succeeded")
    await kubectl("delete", "slotpool", "drained")


async def of_pool(cluster: Cluster, pool: str) -> set[str]:
    return {p["metadata"]["name"] for p in await cluster.pods() if p["metadata"]["labels"][names.POOL_LABEL] == pool}


async def queued_since(cluster: Cluster, name: str) -> bool:
    status: dict[str, Any] = await cluster.status(name)
    return status.get("phase", "Queued") == "Queued" and bool(status.get("conditions") or status.get("queuedReason"))


@pytest.mark.long
async def test_deleting_a_pool_waits_and_says_for_what(cluster: Cluster, kubectl: Kubectl) -> None:
    pod = await held(cluster, "leaving")
    for cascade in ("background", "foreground"):
        waited = await kubectl.run("delete", "slotpool", "leaving", f"--cascade={cascade}", "--timeout=2s")
        assert waited.status == 1, waited.out

    async def says() -> bool:
        told = (await condition(cluster, "leaving", "Progressing")).get("message", "")
        return f"waiting for leaving (reserved on {pod['metadata']['name']})" in told

    await until(says, "the pool says what it waits for")
    assert await is_untouched(cluster, pod)
    await cluster.approve("leaving")
    await cluster.until_phase("leaving", "Succeeded")

    async def gone() -> bool:
        return "leaving" not in {p["metadata"]["name"] for p in await cluster.list_all(SLOTPOOLS)}

    await until(gone, "the pool goes when its work is done")


async def test_a_namespace_with_active_pods_is_kept(cluster: Cluster, kubectl: Kubectl) -> None:
    await kubectl("create", "namespace", "team")
    document = {
        "apiVersion": SLOTPOOLS.api_version,
        "kind": "SlotPool",
        "metadata": {"name": "p", "namespace": "team"},
        "spec": {
            "replicas": 1,
            "template": {"spec": {"containers": [{"name": "worker", "image": "podslots/tools:test"}]}},
        },
    }
    await cluster.api.create(SLOTPOOLS, "team", document)

    async def active() -> str:
        page = await cluster.api.list_page(PODS, "team", label_selector=f"{names.STATE_LABEL}=active")
        return page["items"][0]["metadata"]["name"] if page["items"] else ""

    pod = await until(active, "its Pod is active")
    ran = await kubectl.run("delete", "namespace", "team", "--timeout=2s")
    assert ran.status == 1
    assert f"the namespace has active Pods, as {pod} of pool p: delete its SlotPools first" in ran.err
    await kubectl("delete", "slotpool", "p", "-n", "team")
    await kubectl("delete", "namespace", "team")


@pytest.mark.long
async def test_a_broken_glass_lets_a_pod_go_and_what_it_held_is_lost(tmp_path: Path) -> None:
    """In a cluster of its own, for whoever judges a run finds that a Pod was deleted which held something."""
    async with Cluster(tmp_path) as cluster:
        pod = await held(cluster, "broken")
        caller = Kubectl(cluster.state / "kubeconfig")
        try:
            await caller("annotate", "pod", pod["metadata"]["name"], f"{names.BREAK_GLASS}=the machine is on fire")
            await caller("delete", "pod", pod["metadata"]["name"])
        finally:
            caller.close()
        await cluster.until_phase("broken", "Lost", "Failed")


async def test_the_doctor_finds_a_good_installation_good_and_a_wrong_one_wrong(
    cluster: Cluster, kubectl: Kubectl
) -> None:
    pod = await held(cluster, "examined")
    name = pod["metadata"]["name"]
    status, found = await doctor(cluster)
    assert (status, {entry["check"] for entry in found if entry["state"] == "fails"}) == (0, set())
    refused = {entry["check"] for entry in found if entry["found"] == "refuses"}
    assert len(refused) == 8, refused
    # What can go wrong by hand: a second budget over the same Pods, and a policy that only warns.
    await kubectl("create", "pdb", "mine", f"--selector={names.POOL_LABEL}=examined", "--min-available=1")
    binding = "validatingadmissionpolicybinding/podslots-pod-delete"
    warn, deny = (json.dumps({"spec": {"validationActions": [action]}}) for action in ("Warn", "Deny"))
    await kubectl("patch", binding, "--type=merge", "-p", warn)
    status, found = await doctor(cluster)
    wrong = {entry["check"]: entry["found"] for entry in found if entry["state"] == "fails"}
    assert status == 1
    assert wrong == {
        "policies": "ValidatingAdmissionPolicyBinding podslots-pod-delete is not the one of this version",
        "disruption budgets": f"PodDisruptionBudget default/mine also covers {name} of pools",
        "policy podslots-pod-delete": "the API server accepts what this policy has to refuse",
    }
    await kubectl("patch", binding, "--type=merge", "-p", deny)
    await kubectl("delete", "pdb", "mine")
    assert await is_untouched(cluster, pod), "nothing of this was more than a dry run"
    await end(cluster, "examined")


async def doctor(cluster: Cluster) -> tuple[int, list[dict[str, str]]]:
    """The exit status of `podslots doctor`, and what it found."""
    command = (str(Path(sys.executable).with_name("podslots")), "--kubeconfig", str(cluster.state / "kubeconfig"))
    process = await asyncio.create_subprocess_exec(
        *command, "doctor", "-o", "json", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await process.communicate()
    assert out, err.decode()
    return process.returncode or 0, json.loads(out)
