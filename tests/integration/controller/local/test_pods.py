"""Pods on the embedded cluster: starts, probes, restarts, volumes, logs."""

import asyncio
import base64
import os
import pwd
import re
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from controller.local.node.client import MERGE_PATCH, ApiRefusedError
from tests.support.local_pods import (
    NAMESPACE,
    POLITE,
    Json,
    Local,
    Pods,
    condition,
    container_status,
    local_cluster,
    pod,
    shell,
    until,
)

SERVER = ["python3", "-m", "http.server", "8721", "--bind", "$(POD_IP)"]
POD_IP = {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}
PROBE = {"httpGet": {"port": 8721}, "periodSeconds": 1}


@pytest.fixture
async def local(tmp_path: Path) -> AsyncIterator[Local]:
    async with local_cluster(tmp_path / "c") as made:
        yield made


def secret(name: str, **data: str) -> Json:
    encoded = {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": encoded}


async def test_a_pod_is_scheduled_started_in_order_and_becomes_ready(local: Local) -> None:
    agent = {"name": "agent", "image": "x", "restartPolicy": "Always", "command": SERVER, "env": [POD_IP]}
    install = shell("install", "echo tool > /tools/tool", volumeMounts=[{"name": "t", "mountPath": "/tools"}])
    work = shell("work", f"cat /tools/tool; {POLITE}", volumeMounts=[{"name": "t", "mountPath": "/tools"}])
    await local.pods.create(
        pod(
            "p",
            [work],
            initContainers=[install, agent | {"startupProbe": PROBE, "readinessProbe": PROBE}],
            volumes=[{"name": "t", "emptyDir": {}}],
        )
    )
    shown = await local.pods.ready("p")
    assert shown["spec"]["nodeName"] == "local"
    status = shown["status"]
    assert status["phase"] == "Running"
    assert status["podIP"].startswith(status["hostIP"].rpartition(".")[0])
    assert container_status(shown, "install")["state"]["terminated"]["exitCode"] == 0
    assert container_status(shown, "agent")["ready"]
    assert await local.log("p", "work") == "tool\nup\n"
    async with local.http.get(f"http://{status['podIP']}:8721/") as response:
        assert response.status == 200
    reasons = [reason for reason, _ in await local.pods.events("p")]
    assert reasons.count("Started") == 3
    assert "Scheduled" in reasons


async def test_main_containers_wait_for_the_sidecars_startup_probe(local: Local, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    probe = {"exec": {"command": ["test", "-e", str(gate)]}, "periodSeconds": 1, "failureThreshold": 100}
    agent = shell("agent", POLITE, restartPolicy="Always", startupProbe=probe)
    await local.pods.create(pod("p", [shell("work", POLITE)], initContainers=[agent]))
    await local.pods.event("p", "Unhealthy")
    shown = await local.pods.get("p")
    assert shown
    assert container_status(shown, "work")["state"]["waiting"]["reason"] == "PodInitializing"
    assert shown["status"]["phase"] == "Pending"
    gate.touch()
    await local.pods.ready("p")


async def test_the_environment_holds_what_the_pod_says_and_nothing_of_the_hosts(
    local: Local, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OF_THE_HOST", "x")
    await local.pods.create(secret("tok", token="/data/abc"), "secrets")
    env = [
        POD_IP,
        {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "NOTE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.annotations['note']"}}},
        {"name": "DATA", "valueFrom": {"secretKeyRef": {"name": "tok", "key": "token"}}},
        {"name": "URL", "value": "http://$(POD_IP):8721"},
        {"name": "DIR", "value": "/data/x"},
    ]
    work = shell("work", "env; pwd; echo done", env=env, volumeMounts=[{"name": "d", "mountPath": "/data"}])
    await local.pods.create(
        pod("p", [work], restartPolicy="Never", volumes=[{"name": "d", "emptyDir": {}}], annotations={"note": "hi"})
    )
    lines = (await local.log_has("p", "work", "done")).splitlines()
    shown = await local.pods.wait("p", lambda p: p["status"]["phase"] == "Succeeded", "has succeeded")
    found = dict(line.split("=", 1) for line in lines if "=" in line)
    folder = local.cluster.config.state_dir / "node" / "pods" / shown["metadata"]["uid"]
    assert found["NAME"] == "p"
    assert found["NOTE"] == "hi"
    assert found["URL"] == f"http://{shown['status']['podIP']}:8721"
    assert found["DATA"] == "/data/abc"
    assert found["DIR"] == f"{folder}/v/d/x"
    assert found["HOME"] == pwd.getpwuid(os.geteuid()).pw_dir
    assert lines[-2].startswith(f"{folder}/c/work/")
    assert "OF_THE_HOST" not in found


async def test_a_missing_secret_holds_the_container_until_it_exists(local: Local) -> None:
    work = shell("work", POLITE, env=[{"name": "T", "valueFrom": {"secretKeyRef": {"name": "late", "key": "k"}}}])
    await local.pods.create(pod("p", [work]))
    shown = await local.pods.wait(
        "p", lambda p: container_status(p, "work").get("state", {}).get("waiting", {}).get("message"), "waits"
    )
    assert container_status(shown, "work")["state"]["waiting"] == {
        "reason": "CreateContainerConfigError",
        "message": 'secret "late" not found',
    }
    assert shown["status"]["phase"] == "Pending"
    await local.pods.create(secret("late", k="v"), "secrets")
    await local.pods.ready("p")


async def test_a_missing_secret_volume_is_a_failed_mount_until_it_exists(local: Local) -> None:
    mounts = [{"name": "s", "mountPath": "/s"}]
    await local.pods.create(
        pod(
            "p",
            [shell("work", f"cat /s/k; {POLITE}", volumeMounts=mounts)],
            volumes=[{"name": "s", "secret": {"secretName": "late"}}],
        )
    )
    assert 'secret "late" not found' in await local.pods.event("p", "FailedMount")
    await local.pods.create(secret("late", k="v"), "secrets")
    await local.pods.ready("p")


async def test_a_secrets_update_reaches_a_running_container(local: Local) -> None:
    """T17: what rotates must arrive."""
    await local.pods.create(secret("tok", current="one"), "secrets")
    script = "while :; do cat $DIR/current; stat -Lc ' %a' $DIR/current; sleep 0.05; done"
    work = shell(
        "work", script, env=[{"name": "DIR", "value": "/tok"}], volumeMounts=[{"name": "s", "mountPath": "/tok"}]
    )
    volumes = [{"name": "s", "secret": {"secretName": "tok", "defaultMode": 0o400}}]
    await local.pods.create(pod("p", [work], volumes=volumes, terminationGracePeriodSeconds=0))
    await local.log_has("p", "work", "one 400\n")
    body = {"data": {"current": base64.b64encode(b"two").decode()}}
    await local.pods.api.request("PATCH", f"{NAMESPACE}/secrets/tok", body, content_type=MERGE_PATCH)
    log = await local.log_has("p", "work", "two 400\n")
    assert set(log.splitlines()) <= {"one 400", "two 400"}


async def test_annotations_reach_a_running_container_as_a_file(local: Local) -> None:
    items = [{"path": "a", "fieldRef": {"fieldPath": "metadata.annotations"}}]
    work = shell("work", "while :; do cat /i/a; sleep 0.05; done", volumeMounts=[{"name": "i", "mountPath": "/i"}])
    await local.pods.create(
        pod("p", [work], volumes=[{"name": "i", "downwardAPI": {"items": items}}], annotations={"x": "1"})
    )
    await local.log_has("p", "work", 'x="1"')
    body = {"metadata": {"annotations": {"x": "2"}}}
    await local.pods.api.request("PATCH", f"{NAMESPACE}/pods/p", body, content_type=MERGE_PATCH)
    await local.log_has("p", "work", 'x="2"')


@pytest.mark.parametrize(
    ("fields", "reason", "text"),
    [
        ({"image": "some/image:1"}, "CreateContainerError", "no command"),
        ({"image": "x", "command": ["/no/such/program"]}, "StartError", "/no/such/program"),
    ],
)
async def test_what_cannot_run_says_why(local: Local, fields: dict[str, Any], reason: str, text: str) -> None:
    await local.pods.create(pod("p", [{"name": "work", **fields}], restartPolicy="Never"))

    def told(shown: Json) -> Any:
        states = container_status(shown, "work").get("state", {})
        return next((s for s in states.values() if s.get("reason") == reason and text in s.get("message", "")), None)

    await local.pods.wait("p", told, f"says {reason}")


async def test_a_failing_container_restarts_with_back_off_and_keeps_its_last_exit(local: Local) -> None:
    await local.pods.create(pod("p", [shell("work", "echo run; exit 3")]))

    def backs_off(shown: Json) -> bool:
        status = container_status(shown, "work")
        waits = status.get("state", {}).get("waiting", {}).get("reason") == "CrashLoopBackOff"
        return bool(waits and status["restartCount"] >= 2)

    shown = await local.pods.wait("p", backs_off, "backs off")
    status = container_status(shown, "work")
    assert status["lastState"]["terminated"]["exitCode"] == 3
    assert not status["ready"]
    assert shown["status"]["phase"] == "Running"
    await local.pods.event("p", "BackOff")
    assert await local.log("p", "work", previous="true") == "run\n"


async def test_a_restart_brings_a_new_scratch_folder_but_the_same_volumes(local: Local) -> None:
    script = "test -e own || echo fresh; touch own; echo x >> /v/all; wc -l < /v/all; sleep 0.3"
    work = shell("work", script, volumeMounts=[{"name": "v", "mountPath": "/v"}])
    await local.pods.create(pod("p", [work], volumes=[{"name": "v", "emptyDir": {}}]))
    await local.pods.wait("p", lambda p: container_status(p, "work").get("restartCount") == 1, "restarted")
    assert (await local.log_has("p", "work", "2")).split() == ["fresh", "2"]


async def test_a_failing_liveness_probe_restarts_the_container(local: Local) -> None:
    probe = {"exec": {"command": ["test", "!", "-e", "sick"]}, "periodSeconds": 1, "failureThreshold": 1}
    work = shell("work", f"(sleep 0.5; touch sick) & {POLITE}", livenessProbe=probe)
    await local.pods.create(pod("p", [work]))
    await local.pods.wait("p", lambda p: container_status(p, "work").get("restartCount", 0) >= 1, "restarted")
    assert "failed liveness probe" in await local.pods.event("p", "Killing")
    assert "Liveness probe failed" in await local.pods.event("p", "Unhealthy")


async def test_a_readiness_probe_follows_the_program(local: Local, tmp_path: Path) -> None:
    sign = tmp_path / "sign"
    probe = {"exec": {"command": ["test", "-e", str(sign)]}, "periodSeconds": 1, "failureThreshold": 1}
    await local.pods.create(pod("p", [shell("work", POLITE, readinessProbe=probe)]))
    await local.pods.wait("p", lambda p: container_status(p, "work").get("started"), "started")
    sign.touch()
    await local.pods.ready("p")
    sign.unlink()
    shown = await local.pods.wait("p", lambda p: condition(p, "Ready") == "False", "is not Ready")
    assert container_status(shown, "work")["restartCount"] == 0


async def test_a_failing_post_start_hook_ends_the_container(local: Local) -> None:
    hook = {"postStart": {"exec": {"command": ["false"]}}}
    await local.pods.create(pod("p", [shell("work", POLITE, lifecycle=hook)]))
    await local.pods.event("p", "FailedPostStartHook")
    await local.pods.wait("p", lambda p: container_status(p, "work").get("restartCount", 0) >= 1, "restarted")


async def test_a_finished_pod_ends_its_sidecars_and_is_terminal_only_then(local: Local) -> None:
    agent = shell("agent", "trap 'sleep 0.5; exit 0' TERM; while :; do sleep 0.1 & wait; done", restartPolicy="Always")
    await local.pods.create(pod("p", [shell("work", "exit 0")], initContainers=[agent], restartPolicy="Never"))
    shown = await local.pods.wait("p", lambda p: p["status"]["phase"] == "Succeeded", "has succeeded")
    every = [container_status(shown, name)["state"] for name in ("agent", "work")]
    assert all("terminated" in state for state in every)
    assert local.brand.processes() == []


async def test_a_failed_init_container_fails_a_pod_that_never_restarts(local: Local) -> None:
    await local.pods.create(
        pod("p", [shell("work", POLITE)], initContainers=[shell("install", "exit 2")], restartPolicy="Never")
    )
    shown = await local.pods.wait("p", lambda p: p["status"]["phase"] == "Failed", "has failed")
    assert container_status(shown, "install")["state"]["terminated"]["exitCode"] == 2


async def test_logs_can_be_followed_to_the_end_and_tailed(local: Local) -> None:
    script = "for i in 1 2 3; do echo line $i; sleep 0.2; done"
    await local.pods.create(pod("p", [shell("work", script)], restartPolicy="Never"))
    await local.log_has("p", "work", "line 1")
    assert await local.log("p", "work", follow="true") == "line 1\nline 2\nline 3\n"
    assert await local.log("p", "work", tailLines="2") == "line 2\nline 3\n"
    assert await local.log("p", "work", tailLines="0") == ""


async def test_a_cordoned_node_takes_no_pods(local: Local) -> None:
    async def cordon(value: bool) -> None:
        body = {"spec": {"unschedulable": value}}
        await local.pods.api.request("PATCH", "/api/v1/nodes/local", body, content_type=MERGE_PATCH)

    await cordon(True)
    await local.pods.create(pod("p", [shell("work", POLITE)]))
    assert "unschedulable" in await local.pods.event("p", "FailedScheduling")
    shown = await local.pods.get("p")
    assert shown
    assert condition(shown, "PodScheduled") == "False"
    await cordon(False)
    await local.pods.ready("p")


async def test_a_frozen_kubelet_leaves_its_containers_running_and_catches_up_later(tmp_path: Path) -> None:
    async with local_cluster(tmp_path / "c", node_grace_seconds=1.0, heartbeat_seconds=0.2) as local:
        await local.pods.create(pod("p", [shell("work", POLITE)]))
        await local.pods.ready("p")
        local.cluster.kubelet.faults.freeze()
        await local.pods.delete("p")
        shown = await local.pods.wait("p", lambda p: condition(p, "Ready") == "False", "was marked not ready")
        assert "deletionTimestamp" in shown["metadata"]
        assert local.brand.processes()
        node = await local.pods.api.request("GET", "/api/v1/nodes/local")
        assert node["status"]["conditions"][0]["status"] == "Unknown"
        assert {taint["key"] for taint in node["spec"]["taints"]} == {"node.kubernetes.io/unreachable"}
        local.cluster.kubelet.faults.thaw()
        await local.pods.gone("p")
        await local.brand.gone()

        async def ready_again() -> bool:
            found = await local.pods.api.request("GET", "/api/v1/nodes/local")
            return found["status"]["conditions"][0]["status"] == "True" and not found["spec"].get("taints")

        await until(ready_again, what="the node is Ready again")


async def test_logs_can_be_kept_after_their_pods(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    async with local_cluster(tmp_path / "c", keep_logs=kept) as local:
        made = await local.pods.create(pod("p", [shell("work", "echo again; exit 1")]))
        await local.pods.wait("p", lambda p: container_status(p, "work").get("restartCount", 0) >= 2, "ran three times")
        await local.log_has("p", "work", "again")
        await local.pods.delete("p")
        await local.pods.gone("p")
    assert [(kept / made["metadata"]["uid"] / "work" / f"{n}.log").read_text() for n in range(3)] == ["again\n"] * 3


async def test_the_admin_endpoint_switches_faults(local: Local) -> None:
    admin = local.cluster.admin
    assert admin
    headers = {"Authorization": f"Bearer {local.cluster.token('admin')}"}
    async with local.http.get(admin.url) as response:
        assert response.status == 401
    await local.pods.create(pod("p", [shell("work", POLITE)]))
    await local.pods.ready("p")

    async def post(body: Json) -> tuple[int, Json]:
        async with local.http.post(admin.url, json=body, headers=headers) as response:
            return response.status, await response.json() if response.status == 200 else {}

    target = {"namespace": "default", "pod": "p", "container": "work"}
    assert (await post({"kill": target | {"container": "no"}}))[0] == 404
    assert (await post({"kill": target}))[0] == 200
    shown = await local.pods.wait(
        "p", lambda p: container_status(p, "work")["lastState"].get("terminated"), "was killed"
    )
    assert container_status(shown, "work")["lastState"]["terminated"]["exitCode"] == 128 + signal.SIGKILL
    await local.pods.wait("p", lambda p: container_status(p, "work")["state"].get("running"), "runs again")
    assert (await post({"kill": target | {"signal": "SIGNONE"}}))[0] in {400, 404}
    assert (await post({"kill": target | {"signal": "SIGTERM"}}))[0] == 200
    shown = await local.pods.wait("p", lambda p: container_status(p, "work")["restartCount"] == 2, "was ended")
    assert container_status(shown, "work")["lastState"]["terminated"]["exitCode"] == 0
    status, document = await post({"frozen": True})
    assert (status, document["frozen"]) == (200, True)
    status, document = await post({"frozen": False, "start_delays": {"slow*": 1.0}})
    assert (document["frozen"], document["start_delays"]) == (False, {"slow*": 1.0})


async def test_a_delayed_start_can_be_called_off_by_deletion(local: Local) -> None:
    local.cluster.kubelet.faults.delay_starts({"work": 300.0})
    await local.pods.create(pod("p", [shell("work", POLITE)]))
    await local.pods.wait("p", lambda p: p["status"].get("podIP"), "was seen")
    await local.pods.delete("p")
    await local.pods.gone("p")


async def test_status_is_written_again_after_the_api_refused_it(local: Local) -> None:
    server = local.cluster.server
    assert server
    server.faults.replace([{"verb": "patch", "resource": "pods/status", "status": 503, "count": 5}])
    await local.pods.create(pod("p", [shell("work", POLITE)]))
    await local.pods.ready("p")


async def test_a_cut_watch_is_taken_up_again(local: Local) -> None:
    server = local.cluster.server
    assert server
    for number in range(3):
        server.hub.drop_watches()
        await local.pods.create(pod(f"p{number}", [shell("work", POLITE)]))
        await local.pods.ready(f"p{number}")


async def test_many_pods_get_addresses_of_their_own(local: Local) -> None:
    names = [f"p{number}" for number in range(6)]
    for name in names:
        await local.pods.create(pod(name, [{"name": "w", "image": "x", "command": SERVER, "env": [POD_IP]}]))
    shown = await asyncio.gather(*(local.pods.ready(name) for name in names))
    assert len({p["status"]["podIP"] for p in shown}) == 6


async def test_an_image_can_stand_for_a_command(tmp_path: Path) -> None:
    async with local_cluster(tmp_path / "c", images={"tools/*": ("sh", "-c")}) as local:
        await local.pods.create(pod("p", [{"name": "w", "image": "tools/x:1", "args": [POLITE]}]))
        await local.pods.ready("p")


async def test_two_clusters_run_side_by_side(tmp_path: Path, local: Local) -> None:
    async with local_cluster(tmp_path / "other") as other:
        for one in (local, other):
            await one.pods.create(pod("p", [{"name": "w", "image": "x", "command": SERVER, "env": [POD_IP]}]))
        first, second = await local.pods.ready("p"), await other.pods.ready("p")
        assert first["status"]["podIP"].rpartition(".")[0] != second["status"]["podIP"].rpartition(".")[0]
        for one in (local, other):
            assert len(one.brand.processes()) == 1
        stranger = Pods(local.http, local.cluster.url, other.cluster.token("admin"))
        with pytest.raises(ApiRefusedError) as refused:
            await stranger.get("p")
        assert refused.value.status == 401


async def test_a_pod_status_says_when_it_started(local: Local) -> None:
    """T32: times are UTC."""
    await local.pods.create(pod("p", [shell("work", POLITE)]))
    shown = await local.pods.ready("p")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", shown["status"]["startTime"])


async def test_a_pod_whose_worker_failed_is_taken_up_anew_without_touching_its_containers(
    local: Local, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await local.pods.create(pod("p", [shell("work", POLITE)]))
    before = await local.pods.ready("p")
    [worker] = local.cluster.kubelet._workers.values()

    def fail() -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(worker, "_step", fail)
    worker.wake()

    async def another() -> bool:
        return worker not in local.cluster.kubelet._workers.values() and bool(local.cluster.kubelet._workers)

    await until(another, what="another worker has the Pod")
    assert "no space left on device" in caplog.text
    after = await local.pods.ready("p")
    assert container_status(after, "work") == container_status(before, "work")
    await local.pods.delete("p")
    await local.pods.gone("p")


async def test_programs_can_make_sockets_in_their_temporary_folder(tmp_path: Path) -> None:
    """However long the path of the cluster's own folder is. Terraform's providers do not start without."""
    script = (
        "import os, socket; path = os.environ['TMPDIR'] + '/plugin-dir1234567890/plugin1234567890';"
        "os.mkdir(os.path.dirname(path)); socket.socket(socket.AF_UNIX).bind(path); print('bound', path)"
    )
    folder = tmp_path / ("long" * 20)
    folder.mkdir()
    async with local_cluster(folder / "c") as local:
        await local.pods.create(
            pod("p", [{"name": "c", "image": "x", "command": ["python3", "-c", script]}], restartPolicy="Never")
        )
        path = (await local.log_has("p", "c", "bound")).split()[1]
        assert len(path) < 108
