"""`python -m controller.local` as a process: ready line, kubeconfigs, resuming, SIGKILL at any moment."""

import asyncio
import contextlib
import json
import os
import random
import signal
import stat
import sys
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from tests.support.local_pods import (
    BRAND,
    POLITE,
    STUBBORN,
    Brand,
    Json,
    Pods,
    container_status,
    pod,
    shell,
    until,
)
from tests.support.repository import ROOT


@dataclass
class Process:
    """A cluster process that has said it is ready."""

    process: asyncio.subprocess.Process
    ready: dict[str, Any]

    async def end(self, number: int) -> int:
        self.process.send_signal(number)
        return await self.process.wait()


class Clusters:
    """Starts cluster processes on one folder, one after the other."""

    def __init__(self, folder: Path, http: aiohttp.ClientSession) -> None:
        self.folder = folder
        self.brand = Brand(uuid.uuid4().hex)
        self.processes: list[asyncio.subprocess.Process] = []
        self._http = http

    async def spawn(self, *options: str, pass_fds: Sequence[int] = ()) -> asyncio.subprocess.Process:
        command = [sys.executable, "-m", "controller.local", "--state-dir", str(self.folder), "--no-tls"]
        brand = f"{BRAND}={self.brand.value}"
        process = await asyncio.create_subprocess_exec(
            *command,
            *("--env", brand, "--backoff-seconds", "0.3", "--stop-grace-seconds", "1"),
            *options,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            cwd=ROOT,
            pass_fds=pass_fds,
        )
        self.processes.append(process)
        return process

    async def start(self, *options: str, pass_fds: Sequence[int] = ()) -> Process:
        process = await self.spawn(*options, pass_fds=pass_fds)
        assert process.stdout is not None
        async with asyncio.timeout(60):
            line = await process.stdout.readline()
        if not line:
            assert process.stderr is not None
            raise AssertionError((await process.stderr.read()).decode())
        return Process(process, json.loads(line))

    async def freeze(self, running: Process) -> None:
        headers = {"Authorization": f"Bearer {self.token()}"}
        url = running.ready["kubelet_admin"]
        async with self._http.post(url, json={"frozen": True}, headers=headers) as response:
            assert response.status == 200

    def token(self) -> str:
        document = yaml.safe_load((self.folder / "kubeconfig").read_text())
        return str(next(u["user"]["token"] for u in document["users"] if u["name"] == "admin"))

    def pods(self) -> Pods:
        document = yaml.safe_load((self.folder / "kubeconfig").read_text())
        return Pods(self._http, document["clusters"][0]["cluster"]["server"], self.token())


@pytest.fixture
async def clusters(tmp_path: Path) -> AsyncIterator[Clusters]:
    async with aiohttp.ClientSession() as http:
        made = Clusters(tmp_path / "c", http)
        yield made
        for process in made.processes:
            if process.returncode is None:
                process.terminate()
            await process.communicate()
        if made.brand.processes():  # a test that leaves Pods on purpose: a last process ends them
            await (await made.start()).end(signal.SIGTERM)
        await made.brand.gone()


async def test_the_ready_line_and_kubeconfigs_lead_to_the_api(clusters: Clusters, tmp_path: Path) -> None:
    extra = tmp_path / "elsewhere" / "config"
    running = await clusters.start("--kubeconfig", str(extra), "--ready-file", str(tmp_path / "ready"))
    assert json.loads((tmp_path / "ready").read_text()) == running.ready
    assert running.ready["kubeconfig"] == str(extra)
    document = yaml.safe_load(extra.read_text())
    assert [c["name"] for c in document["contexts"]] == ["admin", "podslots-controller", "demo"]
    assert document["current-context"] == "admin"
    assert len({user["user"]["token"] for user in document["users"]}) == 3
    for name in ("kubeconfig", "kubeconfig-podslots-controller", "kubeconfig-demo", "cluster.json", "audit.jsonl"):
        assert stat.S_IMODE((clusters.folder / name).stat().st_mode) == 0o600
    nodes = await clusters.pods().api.request("GET", "/api/v1/nodes")
    assert [node["metadata"]["name"] for node in nodes["items"]] == ["local"]
    assert await running.end(signal.SIGTERM) == 0


@pytest.mark.long
async def test_sigterm_leaves_nothing_running_and_a_new_start_runs_the_pods_again(clusters: Clusters) -> None:
    running = await clusters.start()
    await clusters.pods().create(pod("p", [shell("work", STUBBORN)], terminationGracePeriodSeconds=600))
    before = await clusters.pods().ready("p")
    assert await running.end(signal.SIGTERM) == 0
    assert clusters.brand.processes() == []
    again = await clusters.start()
    assert again.ready["url"] == running.ready["url"]
    after = await clusters.pods().wait(
        "p", lambda p: container_status(p, "work").get("restartCount") == 1, "runs again"
    )
    assert after["status"]["podIP"] == before["status"]["podIP"]


@pytest.mark.long
async def test_keep_pods_leaves_them_for_the_next_start(clusters: Clusters) -> None:
    running = await clusters.start("--keep-pods")
    await clusters.pods().create(pod("p", [shell("work", POLITE)]))
    before = await clusters.pods().ready("p")
    processes = clusters.brand.processes()
    assert await running.end(signal.SIGTERM) == 0
    assert set(processes) <= {*clusters.brand.processes(), *processes}
    assert clusters.brand.processes()
    await clusters.start()
    after = await clusters.pods().ready("p")
    assert container_status(after, "work") == container_status(before, "work")


async def test_pods_that_are_kept_hold_nothing_open_that_the_cluster_was_started_with(clusters: Clusters) -> None:
    """Who reads from a pipe to it hears the end when it ends."""
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    os.set_inheritable(writing, True)
    try:
        running = await clusters.start("--keep-pods", pass_fds=(writing,))
        os.close(writing)
        await clusters.pods().create(pod("p", [shell("work", POLITE)]))
        await clusters.pods().ready("p")
        assert await running.end(signal.SIGTERM) == 0
        assert clusters.brand.processes()
        assert os.read(reading, 1) == b""
    finally:
        os.close(reading)


async def test_a_second_signal_does_not_wait_for_the_grace(clusters: Clusters) -> None:
    running = await clusters.start("--stop-grace-seconds", "500")
    await clusters.pods().create(pod("p", [shell("work", STUBBORN)]))
    await clusters.pods().ready("p")
    running.process.send_signal(signal.SIGINT)
    assert running.process.stdout is not None
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(running.process.wait(), 0.5)
    assert running.process.returncode is None
    async with asyncio.timeout(60):
        assert await running.end(signal.SIGINT) == 0


async def test_a_second_process_on_the_folder_is_refused_and_says_why(clusters: Clusters) -> None:
    running = await clusters.start()
    second = await clusters.spawn()
    _, errors = await second.communicate()
    assert second.returncode == 1
    assert f"a cluster already runs on {clusters.folder} (process {running.process.pid})" in errors.decode()
    assert running.process.returncode is None


async def test_after_sigkill_of_the_cluster_containers_run_on_and_are_taken_over(clusters: Clusters) -> None:
    """T3: what runs is learnt from what runs."""
    running = await clusters.start()
    pods = clusters.pods()
    agent = shell("agent", POLITE, restartPolicy="Always")
    await pods.create(pod("p", [shell("work", POLITE)], initContainers=[agent]))
    await pods.create(pod("done", [shell("work", "sleep 1.5; exit 7")]))
    before = await pods.ready("p")
    done = await pods.ready("done")
    exited = Path(clusters.folder, "node", "pods", done["metadata"]["uid"], "c", "work", "0", "exit")
    await running.end(signal.SIGKILL)
    assert clusters.brand.processes()

    async def done_has_ended() -> bool:
        return there(exited)

    await until(done_has_ended, what="the other Pod's container has ended meanwhile")
    again = await clusters.start()
    assert again.ready["url"] == running.ready["url"]
    pods = clusters.pods()
    shown = await pods.wait("done", lambda p: container_status(p, "work")["restartCount"] >= 1, "was run again")
    assert container_status(shown, "work")["lastState"]["terminated"]["exitCode"] == 7
    after = await pods.ready("p")
    assert after["status"] == before["status"]
    await pods.delete("p")
    await pods.gone("p")


async def test_pods_deleted_by_force_while_the_cluster_was_down_are_ended(clusters: Clusters) -> None:
    running = await clusters.start()
    await clusters.pods().create(pod("p", [shell("work", STUBBORN)], terminationGracePeriodSeconds=600))
    await clusters.pods().ready("p")
    await clusters.freeze(running)
    await clusters.pods().delete("p", grace_seconds=0)
    await running.end(signal.SIGKILL)
    assert clusters.brand.processes()
    await clusters.start()
    await clusters.brand.gone()


async def test_a_pod_deleted_by_force_while_its_record_can_not_be_written_is_ended_once_it_can(
    clusters: Clusters,
) -> None:
    """As on a full disk: what becomes of the Pod between two tries is not missed."""
    running = await clusters.start()
    await clusters.pods().create(pod("p", [shell("work", STUBBORN)], terminationGracePeriodSeconds=600))
    shown = await clusters.pods().ready("p")
    await running.end(signal.SIGKILL)
    blocker = clusters.folder / "node" / "pods" / shown["metadata"]["uid"] / "pod.json.tmp"
    blocker.mkdir()
    await clusters.start()
    await clusters.pods().delete("p", grace_seconds=0)
    await clusters.pods().gone("p")
    await clusters.pods().create(pod("p", [shell("work", POLITE)]))
    new = await clusters.pods().ready("p")
    assert new["status"]["podIP"] != shown["status"]["podIP"]
    blocker.rmdir()

    async def only_the_new_one() -> bool:
        return len(clusters.brand.processes()) == 1

    await until(only_the_new_one, what="the deleted Pod's container has ended")
    await clusters.pods().delete("p", grace_seconds=1)
    await clusters.brand.gone()


def there(path: Path) -> bool:
    return path.exists()


def told(folder: Path, suffix: str) -> list[str]:
    """What the containers wrote, one text for each."""
    return [path.read_text() for path in folder.iterdir() if path.suffix == suffix]


@pytest.mark.long
async def test_no_container_runs_twice_or_leaks_however_often_the_cluster_is_killed(
    clusters: Clusters, tmp_path: Path
) -> None:
    """Each container holds a lock while it lives, and says if it found it held."""
    rng = random.Random(7)
    script = "exec 9>$FILE.lock; flock -n 9 || echo x >> $FILE.double; echo x >> $FILE.starts; exec sleep 300"
    names = [f"p{number}" for number in range(3)]

    def containers(name: str) -> list[Json]:
        return [
            shell(c, script, env=[{"name": "FILE", "value": str(tmp_path / f"{name}-{c}")}]) for c in ("one", "two")
        ]

    running = await clusters.start()
    for name in names:
        await clusters.pods().create(pod(name, containers(name)))
    for _ in range(6):
        await asyncio.sleep(rng.uniform(0.0, 0.15))  # the moment is the point: nothing is waited for
        await running.end(signal.SIGKILL)
        running = await clusters.start()
    for name in names:
        shown = await clusters.pods().ready(name)
        assert [container_status(shown, c)["restartCount"] for c in ("one", "two")] == [0, 0]
    assert told(tmp_path, ".double") == []
    assert told(tmp_path, ".starts") == ["x\n"] * 6
    assert len(clusters.brand.processes()) == 6
    for name in names:
        await clusters.pods().delete(name, grace_seconds=1)
    await running.end(signal.SIGKILL)
    await clusters.start()
    for name in names:
        await clusters.pods().gone(name)
    await clusters.brand.gone()


async def test_a_port_taken_meanwhile_moves_the_cluster(clusters: Clusters) -> None:
    running = await clusters.start()
    await running.end(signal.SIGTERM)
    port = int(running.ready["url"].rpartition(":")[2])
    blocker = await asyncio.start_server(lambda _, w: w.close(), "127.0.0.1", port)
    try:
        again = await clusters.start()
        assert again.ready["url"] != running.ready["url"]
        assert again.ready["url"] in (clusters.folder / "kubeconfig").read_text()
    finally:
        blocker.close()
        await blocker.wait_closed()


async def test_a_signal_during_the_start_stops_it(clusters: Clusters) -> None:
    process = await clusters.spawn()

    async def begun() -> bool:
        return (clusters.folder / "lock").exists()

    await until(begun, what="the start has begun")
    process.terminate()
    async with asyncio.timeout(60):
        await process.communicate()
    await (await clusters.start()).end(signal.SIGTERM)


async def test_kubectl_works_with_the_kubeconfig(clusters: Clusters) -> None:
    kubectl = next((p for d in os.get_exec_path() if (p := Path(d, "kubectl")).exists()), None)
    if kubectl is None:
        pytest.skip("no kubectl here")
    command = [sys.executable, "-m", "controller.local", "--state-dir", str(clusters.folder)]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, cwd=ROOT)
    clusters.processes.append(process)
    assert process.stdout is not None
    async with asyncio.timeout(60):
        ready = json.loads(await process.stdout.readline())
    environment = {"KUBECONFIG": ready["kubeconfig"], "HOME": str(clusters.folder), "PATH": "/usr/bin:/bin"}
    client = await asyncio.create_subprocess_exec(
        str(kubectl), "get", "nodes", "-o", "name", env=environment, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await client.communicate()
    assert out.decode() == "node/local\n"
