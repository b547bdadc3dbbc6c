"""Taking podslots off a cluster: it ends, whatever is there, and says what it waits for."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from controller import names
from controller.cli.main import main
from controller.cli.verbs import uninstall
from controller.kube.api import PODS, SLOTPOOLS, SLOTTASKS
from tests.support.cluster import NAMESPACE, Cluster, until
from tests.support.installed import built, install, served
from tests.support.kubectl import Kubectl
from tests.support.repository import ROOT

BASE = ROOT / "manifests" / "base"
KINDS = (
    "customresourcedefinitions,validatingadmissionpolicies,validatingadmissionpolicybindings,clusterroles,"
    "clusterrolebindings"
)

pytestmark = pytest.mark.long


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    async with Cluster(tmp_path, resync_seconds=5.0, controller_namespace=names.CONTROLLER_NAMESPACE) as running:
        yield running


@pytest.fixture
async def kubectl(cluster: Cluster) -> AsyncIterator[Kubectl]:
    caller = Kubectl(cluster.state / "kubeconfig")
    await install(caller, BASE)
    yield caller
    caller.close()


async def run(cluster: Cluster, *arguments: str) -> Result:
    options = ("--kubeconfig", str(cluster.state / "kubeconfig"), "uninstall", *arguments)
    return await asyncio.to_thread(CliRunner().invoke, main, options)


async def a_task_that_ended_and_one_that_runs(cluster: Cluster) -> None:
    await cluster.create_pool()
    await cluster.create_task("ended")
    await cluster.until_phase("ended", "Succeeded")
    await cluster.create_task("runs", plan="sleep 1000")
    await cluster.until_phase("runs", "Running")


async def assert_nothing_is_left(cluster: Cluster, kubectl: Kubectl) -> None:
    left = json.loads(await kubectl("get", KINDS, "-o", "json"))["items"]
    assert [obj["metadata"]["name"] for obj in left if "podslots" in obj["metadata"]["name"]] == []
    assert await cluster.pods() == []
    here = json.loads(await kubectl("get", "secrets,leases,poddisruptionbudgets", "-A", "-o", "json"))["items"]
    assert [obj["metadata"]["name"] for obj in here if "podslots" in obj["metadata"]["name"]] == []
    assert "NotFound" in (await kubectl.run("get", "namespace", names.CONTROLLER_NAMESPACE)).err


async def test_it_refuses_what_is_held_and_with_consent_takes_all_of_it(cluster: Cluster, kubectl: Kubectl) -> None:
    await a_task_that_ended_and_one_that_runs(cluster)
    refused = await run(cluster, "--yes", "--wait")
    assert refused.exit_code == 1
    assert "1 tasks have not ended: default/runs (Running)" in refused.output
    assert await cluster.phase("runs") == "Running"
    begun = await run(cluster, "--yes", "--cancel-tasks")
    assert begun.exit_code == uninstall.NOT_DONE
    assert "waiting for pools, and what is theirs: SlotPool default/pool" in begun.output
    await kubectl("create", "configmap", "mine", "-n", names.CONTROLLER_NAMESPACE)
    done = await run(cluster, "--yes", "--cancel-tasks", "--wait")
    assert done.exit_code == 0, done.output
    assert done.output.endswith("namespace podslots-system stays, for it has ConfigMap podslots-system/mine\n")
    await kubectl("delete", "configmap", "mine", "-n", names.CONTROLLER_NAMESPACE)
    done = await run(cluster, "--yes", "--wait")
    assert done.exit_code == 0, done.output
    assert done.output.endswith("podslots is off this cluster\n")
    await cluster.controller.terminate()
    await assert_nothing_is_left(cluster, kubectl)
    again = await run(cluster, "--yes", "--wait")
    assert again.exit_code == 0, again.output


async def test_without_a_controller_it_says_so_and_lets_go_itself(
    cluster: Cluster, kubectl: Kubectl, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uninstall, "CONTROLLER_PATIENCE_SECONDS", 2 * cluster.lease_seconds)
    await a_task_that_ended_and_one_that_runs(cluster)
    await cluster.controller.kill()
    refused = await run(cluster, "--yes", "--cancel-tasks", "--wait")
    assert refused.exit_code == 1
    assert "no controller runs in namespace podslots-system, and pools still have 1 Pods" in refused.output
    pod = (await cluster.pods())[0]["metadata"]["name"]
    for _ in range(2):  # by hand, as it says
        await kubectl("annotate", "pod", pod, f"{names.BREAK_GLASS}=test", "--overwrite")
    await kubectl("patch", "pod", pod, "--type=merge", "-p", '{"metadata": {"finalizers": null}}')
    await kubectl("delete", "pod", pod, "--grace-period=1")
    done = await run(cluster, "--yes", "--cancel-tasks", "--wait")
    assert done.exit_code == 0, done.output
    assert "No controller runs in namespace podslots-system: finalizers are taken off here." in done.output
    await assert_nothing_is_left(cluster, kubectl)


async def test_by_hand_in_the_order_that_the_documents_give(cluster: Cluster, kubectl: Kubectl) -> None:
    await cluster.create_pool()
    await cluster.create_task("ended")
    await cluster.until_phase("ended", "Succeeded")
    await kubectl("delete", "slotpools", "--all", "-A")
    await kubectl("delete", "slottasks", "--all", "-A")
    await kubectl("delete", "--ignore-not-found", "-f", "-", stdin=served(built(BASE)))
    await cluster.controller.terminate()
    await assert_nothing_is_left(cluster, kubectl)


async def test_kubectl_delete_ends_with_ended_tasks_there_and_no_controller(cluster: Cluster, kubectl: Kubectl) -> None:
    """The definitions go with the tasks: nothing holds these any more."""
    await cluster.create_pool()
    for name in ("one", "two"):
        await cluster.create_task(name)
        await cluster.until_phase(name, "Succeeded")
    await cluster.create_task("unwanted", pool="none")
    await cluster.patch_task("unwanted", {"cancel": True})

    async def let_go() -> bool:
        return not any(task["metadata"].get("finalizers") for task in await cluster.list_all(SLOTTASKS))

    await until(let_go, "ended tasks have no finalizer")
    await kubectl("delete", "slotpool", "pool")
    assert len(await cluster.list_all(SLOTTASKS)) == 3
    await cluster.controller.kill()
    await kubectl("delete", "--ignore-not-found", "-f", "-", stdin=served(built(BASE)))
    left = json.loads(await kubectl("get", KINDS, "-o", "json"))["items"]
    assert [obj["metadata"]["name"] for obj in left if "podslots" in obj["metadata"]["name"]] == []
    assert (await cluster.api.list_page(PODS, NAMESPACE))["items"] == []
    assert SLOTPOOLS.plural not in await kubectl("api-resources", "-o", "name")
