"""How Pods end on the embedded cluster: hooks, order, grace, force."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from controller.local.node.client import MERGE_PATCH
from tests.support.local_pods import (
    NAMESPACE,
    POLITE,
    STUBBORN,
    Json,
    Local,
    container_status,
    local_cluster,
    pod,
    shell,
    until,
)


@pytest.fixture
async def local(tmp_path: Path) -> AsyncIterator[Local]:
    async with local_cluster(tmp_path / "c") as made:
        yield made


def telling(name: str, path: Path, *, sidecar: bool = False, after: str = "", hook: str = "") -> Json:
    """A container that writes down its SIGTERM and its end, and its preStop hook."""
    script = (
        f"trap 'echo {name} TERM >> {path}; {after} echo {name} end >> {path}; exit 0' TERM; "
        "while :; do sleep 0.1 & wait; done"
    )
    fields: Json = {"restartPolicy": "Always"} if sidecar else {}
    if hook:
        command = ["sh", "-c", f"echo {name} hook >> {path}; {hook}"]
        fields["lifecycle"] = {"preStop": {"exec": {"command": command}}}
    return shell(name, script, **fields)


async def test_sidecars_hooks_run_at_once_and_their_sigterm_comes_after_the_main_containers_end_in_reverse(
    local: Local, tmp_path: Path
) -> None:
    """A4: the sidecar outlives what it serves."""
    told = tmp_path / "told"
    first = telling("first", told, sidecar=True, hook="true")
    second = telling("second", told, sidecar=True)
    work = telling("work", told, after="sleep 0.5;")
    await local.pods.create(pod("p", [work], initContainers=[first, second], terminationGracePeriodSeconds=20))
    await local.pods.ready("p")
    await local.pods.delete("p")
    await local.pods.gone("p")
    lines = told.read_text().splitlines()
    assert sorted(lines[:2]) == ["first hook", "work TERM"]
    assert lines[2:] == ["work end", "second TERM", "second end", "first TERM", "first end"]


async def test_sigterm_waits_for_the_pre_stop_hook_which_still_reaches_the_program(
    local: Local, tmp_path: Path
) -> None:
    told = tmp_path / "told"
    work = telling("work", told, hook="sleep 0.5; echo hook over >> " + str(told))
    await local.pods.create(pod("p", [work]))
    await local.pods.ready("p")
    await local.pods.delete("p")
    await local.pods.gone("p")
    assert told.read_text().splitlines() == ["work hook", "hook over", "work TERM", "work end"]


async def test_an_http_hook_is_asked_of_the_pods_own_address(local: Local) -> None:
    env = [{"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}]
    work = {
        "name": "work",
        "image": "x",
        "command": ["python3", "-u", "-m", "http.server", "8721", "--bind", "$(IP)"],
        "env": env,
        "ports": [{"name": "http", "containerPort": 8721}],
        "readinessProbe": {"tcpSocket": {"port": "http"}, "periodSeconds": 1},
        "lifecycle": {"preStop": {"httpGet": {"port": "http", "path": "/closing"}}},
    }
    await local.pods.create(pod("p", [work]))
    await local.pods.ready("p")
    following = asyncio.create_task(local.log("p", "work", follow="true"))
    await local.log_has("p", "work", "")
    await local.pods.delete("p")
    assert "GET /closing" in await following
    await local.pods.gone("p")


async def test_what_ignores_sigterm_is_killed_when_the_grace_is_over(local: Local) -> None:
    await local.pods.create(pod("p", [shell("work", STUBBORN)]))
    await local.pods.ready("p")
    await local.log_has("p", "work", "up")
    loop = asyncio.get_running_loop()
    began = loop.time()
    await local.pods.delete("p", grace_seconds=3)
    await local.log_has("p", "work", "ignored")
    await local.pods.gone("p")
    assert loop.time() - began >= 2.5
    assert "Stopping container work" in await local.pods.event("p", "Killing")


async def test_a_second_delete_shortens_the_grace(local: Local) -> None:
    await local.pods.create(pod("p", [shell("work", STUBBORN)], terminationGracePeriodSeconds=600))
    await local.pods.ready("p")
    await local.pods.delete("p")
    await local.log_has("p", "work", "ignored")
    await local.pods.delete("p", grace_seconds=1)
    await local.pods.gone("p")
    await local.brand.gone()


async def test_force_takes_the_object_at_once_and_the_containers_soon(local: Local) -> None:
    await local.pods.create(pod("p", [shell("work", STUBBORN)], terminationGracePeriodSeconds=600))
    first = await local.pods.ready("p")
    await local.pods.delete("p", grace_seconds=0)
    assert await local.pods.get("p") is None
    await local.pods.create(pod("p", [shell("work", POLITE)]))
    second = await local.pods.ready("p")
    assert second["status"]["podIP"] != first["status"]["podIP"]

    async def one_left() -> bool:
        folders = list((local.cluster.config.state_dir / "node" / "pods").iterdir())
        return [folder.name for folder in folders] == [second["metadata"]["uid"]]

    await until(one_left, what="the old Pod's containers and folder are gone")


async def test_the_last_status_shows_every_container_terminated_before_the_object_goes(local: Local) -> None:
    """What others take as proof that a Pod is dead."""
    agent = shell("agent", POLITE, restartPolicy="Always")
    body = pod("p", [shell("work", "exec sleep 60"), shell("other", POLITE)], initContainers=[agent])
    body["metadata"]["finalizers"] = ["example.com/hold"]
    await local.pods.create(body)
    await local.pods.ready("p")
    await local.pods.delete("p")
    shown = await local.pods.wait("p", lambda p: p["status"]["phase"] == "Failed", "has failed")
    codes = {n: container_status(shown, n)["state"]["terminated"]["exitCode"] for n in ("agent", "work", "other")}
    assert codes == {"agent": 0, "work": 143, "other": 0}
    assert local.brand.processes() == []
    patch: Json = {"metadata": {"finalizers": None}}
    await local.pods.api.request("PATCH", f"{NAMESPACE}/pods/p", patch, content_type=MERGE_PATCH)
    await local.pods.gone("p")


async def test_a_phase_made_terminal_by_others_ends_the_containers(local: Local) -> None:
    await local.pods.create(pod("p", [shell("work", POLITE)]))
    await local.pods.ready("p")
    body = {"status": {"phase": "Failed", "reason": "Evicted"}}
    await local.pods.api.request("PATCH", f"{NAMESPACE}/pods/p/status", body, content_type=MERGE_PATCH)
    shown = await local.pods.wait("p", lambda p: container_status(p, "work")["state"].get("terminated"), "ended")
    assert (shown["status"]["phase"], shown["status"]["reason"]) == ("Failed", "Evicted")
    await local.brand.gone()


async def test_a_pod_deleted_before_it_could_start_goes_at_once(local: Local) -> None:
    await local.pods.create(pod("p", [{"name": "work", "image": "no-command"}]))
    await local.pods.wait("p", lambda p: p["status"].get("containerStatuses"), "was seen")
    await local.pods.delete("p")
    await local.pods.gone("p")


async def test_nothing_of_a_pod_is_left_on_disk(local: Local) -> None:
    """T30, as far as the node goes."""
    await local.pods.create(pod("p", [shell("work", POLITE)]))
    await local.pods.ready("p")
    await local.pods.delete("p")
    await local.pods.gone("p")

    async def empty() -> bool:
        return not list((local.cluster.config.state_dir / "node" / "pods").iterdir())

    await until(empty, what="the Pods' folder is empty")
