"""What the manifests grant the controller is what it needs: it works with those rights and no others."""

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from controller import names
from controller.kube.api import LEASES, SLOTPOOLS, SLOTTASKS
from tests.support.cluster import NAMESPACE, Cluster, pool, task, until
from tests.support.installed import install
from tests.support.kubectl import Kubectl
from tests.support.repository import ROOT

pytestmark = pytest.mark.long

MANIFESTS = ROOT / "manifests"
OTHER = "elsewhere"


@asynccontextmanager
async def installed(cluster: Cluster, folder: Path) -> AsyncIterator[Kubectl]:
    """Once it is there the roles are in force."""
    kubectl = Kubectl(cluster.state / "kubeconfig")
    try:
        await install(kubectl, folder)
        yield kubectl
    finally:
        kubectl.close()


def refusals(cluster: Cluster, user: str, since: int) -> set[str]:
    """This user's requests that were refused for a missing right, from entry `since` of the audit log on."""
    later = cluster.audit()[since:]
    entries = [entry for entry in later if user in {entry["user"]["username"], _stood_in_for(entry)}]
    assert len(entries) > 50
    return {
        f"{entry['verb']} {entry['objectRef'].get('resource')}"
        for entry in entries
        if entry["responseStatus"]["code"] == 403
    }


def _stood_in_for(entry: dict[str, dict[str, str]]) -> str:
    return (entry.get("impersonatedUser") or {}).get("username", "")


async def plan_and_apply(cluster: Cluster) -> None:
    """A pool from nothing to a Pod and back, with a plan that is approved and applied."""
    await cluster.create_pool()
    await cluster.create_task("both", "plan_and_apply", lockKey="vpc")
    await cluster.approve("both")
    await cluster.until_phase("both", "Succeeded")
    await cluster.until_size(0)


async def test_two_replicas_work_with_the_rights_of_the_highly_available_overlay(tmp_path: Path) -> None:
    home, user = names.CONTROLLER_NAMESPACE, names.CONTROLLER_USER
    async with Cluster(tmp_path, resync_seconds=5.0, stands_in_for=user, controller_namespace=home) as cluster:
        standby = cluster.new_controller("standby")
        async with installed(cluster, MANIFESTS / "overlays" / "ha"):
            since = len(cluster.audit())
            await standby.start()
            try:
                await plan_and_apply(cluster)
                await until(lambda: "serving" in standby.log.read_text(), "the standby serves")
                assert await cluster.controller.terminate() == 0
                await cluster.create_task("after")
                await cluster.until_phase("after", "Succeeded")
                lease = await cluster.api.get(LEASES, home, names.LEADER_LEASE)
                assert lease["spec"]["holderIdentity"].startswith("standby")
            finally:
                await standby.terminate()
            assert refusals(cluster, user, since) == set()


async def test_with_the_rights_of_one_namespace_it_looks_after_that_one(tmp_path: Path) -> None:
    """It does without nodes and policies, says so, and leaves pools elsewhere alone."""
    user = f"system:serviceaccount:{NAMESPACE}:{names.CONTROLLER_ACCOUNT}"
    for folder in ("base", "protection", "overlays/namespaced"):
        shutil.copytree(MANIFESTS / folder, tmp_path / "manifests" / folder)
    overlay = tmp_path / "manifests" / "overlays" / "namespaced"
    text = (overlay / "kustomization.yaml").read_text()
    (overlay / "kustomization.yaml").write_text(text.replace("namespace: podslots\n", f"namespace: {NAMESPACE}\n", 1))
    watch = {"PODSLOTS_WATCH_NAMESPACE": NAMESPACE}
    async with (
        Cluster(tmp_path, resync_seconds=5.0, stands_in_for=user, environ=watch) as cluster,
        installed(cluster, overlay) as kubectl,
    ):
        since = len(cluster.audit())
        await kubectl("create", "namespace", OTHER)
        for made in (pool("pool", autoscaling=None, replicas=1), task("left-alone")):
            resource = SLOTPOOLS if made["kind"] == SLOTPOOLS.kind else SLOTTASKS
            await cluster.api.create(resource, OTHER, {**made, "metadata": {"name": made["metadata"]["name"]}})
        await plan_and_apply(cluster)
        said = cluster.controller.log.read_text()
        assert "done without" in said
        untouched = (await cluster.api.get(SLOTTASKS, OTHER, "left-alone"))["status"]
        assert untouched == {"phase": "Queued", "queuedReason": "no word from the controller yet"}
        assert (await kubectl("get", "pods", "-n", OTHER)).strip() == ""
        conditions = (await cluster.api.get(SLOTPOOLS, NAMESPACE, "pool"))["status"]["conditions"]
        protected = next(entry for entry in conditions if entry["type"] == "Protected")
        assert (protected["status"], protected["reason"]) == ("False", "PoliciesNotKnown")
        allowed = {"list nodes", "list validatingadmissionpolicies", "list validatingadmissionpolicybindings"}
        assert refusals(cluster, user, since) <= allowed
