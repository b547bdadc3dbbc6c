"""What a real node does to Pods that it can't run, by the switches of the embedded one."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from controller.local.node.client import MERGE_PATCH
from controller.local.node.node_faults import Refusal
from tests.support.local_pods import NAMESPACE, POLITE, Json, Local, container_status, local_cluster, pod, shell

UNREACHABLE = "node.kubernetes.io/unreachable"


@pytest.fixture
async def local(tmp_path: Path) -> AsyncIterator[Local]:
    async with local_cluster(tmp_path / "c") as made:
        yield made


def waiting(shown: Json, container: str) -> str:
    found = (shown.get("status") or {}).get("containerStatuses") or []
    state: Json = next((entry["state"] for entry in found if entry["name"] == container), {})
    return str((state.get("waiting") or {}).get("reason"))


async def test_a_pod_that_the_kubelet_refuses_is_failed_at_once_and_never_runs(local: Local) -> None:
    local.faults.refuse_pods({"full*": Refusal("OutOfcpu", "Node didn't have enough resource: cpu")})
    await local.pods.create(pod("full", [shell("c", POLITE)]))
    shown = await local.pods.wait("full", lambda p: p["status"]["phase"] == "Failed", "is Failed")
    assert shown["status"]["reason"] == "OutOfcpu"
    assert shown["status"]["message"] == "Pod was rejected: Node didn't have enough resource: cpu"
    assert "containerStatuses" not in shown["status"]
    await local.pods.create(pod("other", [shell("c", POLITE)]))
    await local.pods.ready("other")
    local.faults.refuse_pods({})
    await local.pods.delete("full")
    await local.pods.gone("full")


@pytest.mark.long
async def test_an_image_that_is_not_there_is_told_and_pulled_again_once_it_is(local: Local) -> None:
    local.faults.miss_images(["*typo*"])
    await local.pods.create(pod("p", [shell("c", POLITE) | {"image": "registry.example/typo:1"}]))
    shown = await local.pods.wait("p", lambda p: waiting(p, "c") == "ErrImagePull", "can't pull")
    assert "not found" in container_status(shown, "c")["state"]["waiting"]["message"]
    assert shown["status"]["phase"] == "Pending"
    await local.pods.wait("p", lambda p: waiting(p, "c") == "ImagePullBackOff", "backs off")
    local.faults.miss_images([])
    await local.pods.ready("p")


@pytest.mark.long
async def test_a_container_that_can_not_be_run_waits_with_the_engines_reason(local: Local) -> None:
    local.faults.fail_starts({"c": Refusal("RunContainerError", "exec format error")})
    await local.pods.create(pod("p", [shell("c", POLITE)]))
    shown = await local.pods.wait("p", lambda p: waiting(p, "c") == "RunContainerError", "can't be run")
    assert container_status(shown, "c")["state"]["waiting"]["message"] == "exec format error"
    local.faults.fail_starts({})
    await local.pods.ready("p")


async def test_a_silent_nodes_pods_are_deleted_once_they_tolerate_it_no_longer(local: Local) -> None:
    """Those that tolerate it without a limit stay, and so do those whose time is not over."""
    for name, seconds in (("soon", 0), ("later", 300), ("never", None)):
        limit = {} if seconds is None else {"tolerationSeconds": seconds}
        toleration = {"key": UNREACHABLE, "operator": "Exists", "effect": "NoExecute", **limit}
        await local.pods.create(pod(name, [shell("c", POLITE)], tolerations=[toleration]))
        await local.pods.ready(name)
    local.faults.lose_node()
    shown = await local.pods.wait("soon", lambda p: p["metadata"].get("deletionTimestamp"), "is deleted")
    reasons = {c["type"]: c.get("reason") for c in shown["status"]["conditions"]}
    assert reasons["DisruptionTarget"] == "DeletionByTaintManager"
    for name in ("later", "never"):
        kept = await local.pods.get(name)
        assert kept is not None
        assert "deletionTimestamp" not in kept["metadata"]
    local.faults.thaw()
    await local.pods.gone("soon")
    await local.pods.ready("later")


@pytest.mark.parametrize("grace_seconds", [None, 0])
async def test_a_pod_with_a_finalizer_stays_until_it_is_gone_even_by_force(
    local: Local, grace_seconds: int | None
) -> None:
    body = pod("p", [shell("c", POLITE)])
    body["metadata"]["finalizers"] = ["tests/hold"]
    await local.pods.create(body)
    await local.pods.ready("p")
    await local.pods.delete("p", grace_seconds)

    def over(shown: Json) -> bool:
        return "terminated" in container_status(shown, "c")["state"]

    shown = await local.pods.wait("p", over, "has ended")
    assert shown["metadata"]["finalizers"] == ["tests/hold"]
    await local.pods.api.request(
        "PATCH", f"{NAMESPACE}/pods/p", {"metadata": {"finalizers": None}}, content_type=MERGE_PATCH
    )
    await local.pods.gone("p")
