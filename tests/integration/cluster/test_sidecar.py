"""Programs that manage their Pod's slots themselves, as the examples say, by sh and curl alone, in a cluster."""

import asyncio
import base64
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from shutil import which
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
import yaml

from agent.wire import SlotState, WatchLine, decode
from controller.errors import NotFound
from controller.kube.api import PODS, SECRETS, SLOTPOOLS, Object
from controller.names import BREAK_GLASS, token_secret
from tests.support.cluster import NAMESPACE, Cluster, until
from tests.support.repository import ROOT

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(which("curl") is None, reason="the examples' programs call the agent by curl"),
]

EXAMPLES = ROOT / "manifests" / "examples"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Cluster]:
    async with Cluster(tmp_path_factory.mktemp("sidecar")) as running:
        yield running


class Program:
    """What the example's program does at each of its stages: it says so, and waits for a file."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def stage(self, name: str) -> str:
        script = self._folder / f"{name}.sh"
        script.write_text(
            f"echo {name} >> {self._folder}/stages\n"
            f"until rm {self._folder}/{name} 2>/dev/null; do [ -e {self._folder}/all ] && break; sleep 0.02; done\n"
        )
        return f"sh {script}"

    def environ(self, container: dict[str, Any]) -> None:
        """Have the container run these stages in the place of the example's."""
        for variable in container["env"]:
            if variable["name"] in {"JOB", "REVIEW", "PAUSE"}:
                variable["value"] = self.stage(variable["name"].lower())

    def finish(self, name: str) -> None:
        (self._folder / name).touch()

    def run_freely(self) -> None:
        (self._folder / "all").touch()

    def stages(self) -> list[str]:
        file = self._folder / "stages"
        return file.read_text().split() if file.exists() else []

    async def reached(self, *stages: str) -> None:
        await until(lambda: self.stages() == list(stages), lambda: f"stages {stages}; they are {self.stages()}")


@pytest.fixture
def program(tmp_path: Path) -> Program:
    return Program(tmp_path)


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((EXAMPLES / name).read_text()))


async def create_pool(cluster: Cluster, program: Program, name: str) -> Object:
    """The example's pool with one Pod; the Pod once its program has its slot."""
    (example,) = documents("sidecar.yaml")
    example["metadata"] = {"name": name, "namespace": NAMESPACE}
    example["spec"]["replicas"] = 1
    program.environ(example["spec"]["template"]["spec"]["containers"][0])
    await cluster.api.create(SLOTPOOLS, NAMESPACE, example)
    await program.reached("job")
    (pod,) = await pods_of(cluster, name)
    return pod


async def test_the_same_in_python(cluster: Cluster, program: Program) -> None:
    """Killed, it lets go of what it held and goes on; its Pod is kept while it works, and goes after its last job."""
    (example,) = documents("sidecar.yaml")
    example["metadata"] = {"name": "python", "namespace": NAMESPACE}
    example["spec"]["replicas"] = 1
    script = str(EXAMPLES / "sidecar.py")
    (main,) = example["spec"]["template"]["spec"]["containers"]
    main |= {"command": [sys.executable, script, *program.stage("job").split()], "env": []}
    await cluster.api.create(SLOTPOOLS, NAMESPACE, example)
    await program.reached("job")
    (pod,) = await pods_of(cluster, "python")
    before = await slot(cluster, pod)
    assert (before["state"], before["origin"], before["task_type"]) == ("running", "local", "job")
    await cluster.kill_container(pod["metadata"]["name"], "main")
    await program.reached("job", "job")
    after = await slot(cluster, pod)
    assert after["task_id"] != before["task_id"]
    await cluster.api.patch(SLOTPOOLS, NAMESPACE, "python", {"spec": {"replicas": 0}})
    assert await still_there(cluster, pod)
    program.run_freely()

    async def gone() -> bool:
        return not await pods_of(cluster, "python")

    await until(gone, "the Pod is deleted once its slot is idle")


async def pods_of(cluster: Cluster, pool: str) -> list[Object]:
    return [pod for pod in await cluster.pods() if pod["metadata"]["labels"].get("podslots.dev/pool") == pool]


async def slot(cluster: Cluster, pod: Object) -> dict[str, Any]:
    (only,) = (await cluster.slots(pod))["slots"]
    return dict(only)


async def until_slot(cluster: Cluster, pod: Object, state: str) -> dict[str, Any]:
    async def reached() -> bool:
        return bool((await slot(cluster, pod))["state"] == state)

    await until(reached, f"the slot is {state}")
    return await slot(cluster, pod)


async def test_a_program_holds_its_slot_through_all_states_and_its_pod_goes_only_when_it_is_idle(
    cluster: Cluster, program: Program
) -> None:
    """T1, T6, R1: opened by the controller without waiting for workers; kept while running and while reserved."""
    pod = await create_pool(cluster, program, "held")
    held = await slot(cluster, pod)
    assert (held["state"], held["origin"], held["task_type"], held["worker"]) == ("running", "local", "job", None)
    await cluster.api.patch(SLOTPOOLS, NAMESPACE, "held", {"spec": {"replicas": 0}})
    program.finish("job")
    await program.reached("job", "review")
    reserved = await slot(cluster, pod)
    assert (reserved["state"], reserved["task_id"]) == ("reserved", held["task_id"])
    assert reserved["fence"] > held["fence"]
    assert await still_there(cluster, pod)
    program.finish("review")
    await program.reached("job", "review", "job")
    assert (await slot(cluster, pod))["state"] == "running"
    assert await still_there(cluster, pod)
    program.finish("job")

    async def gone() -> bool:
        return not await pods_of(cluster, "held")

    program.run_freely()
    await until(gone, "the Pod is deleted once its slot is idle")


async def still_there(cluster: Cluster, pod: Object) -> bool:
    """Whether the Pod is there, and not on its way out, after the controller has looked at it again."""
    pool = pod["metadata"]["labels"]["podslots.dev/pool"]
    annotated = await cluster.api.patch(
        SLOTPOOLS, NAMESPACE, pool, {"spec": {"template": {"metadata": {"labels": {"looked": pool}}}}}
    )
    generation = annotated["metadata"]["generation"]

    async def observed() -> bool:
        status = (await cluster.api.get(SLOTPOOLS, NAMESPACE, pool)).get("status") or {}
        return bool(status.get("observedGeneration", 0) >= generation)

    await until(observed, "the controller has looked")
    found = await cluster.api.get(PODS, NAMESPACE, pod["metadata"]["name"])
    return "deletionTimestamp" not in found["metadata"]


async def test_a_program_that_was_killed_gives_its_slot_back_when_it_starts_again(
    cluster: Cluster, program: Program
) -> None:
    """A4, B1: the agent outlives the program; no hold is left over, and none is taken for idle in between."""
    pod = await create_pool(cluster, program, "killed")
    before = await slot(cluster, pod)
    await cluster.kill_container(pod["metadata"]["name"], "main")
    await program.reached("job", "job")
    after = await slot(cluster, pod)
    assert after["state"] == "running"
    assert after["task_id"] != before["task_id"]
    assert after["fence"] >= before["fence"] + 2
    program.run_freely()


async def watch(pod: Object, lines: list[WatchLine]) -> None:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://{pod['status']['podIP']}:8721/slots?watch=true") as response,
    ):
        async for line in response.content:
            lines += [decode(WatchLine, json.loads(line))]


async def test_the_agent_outlives_the_program_and_reports_its_end(cluster: Cluster, program: Program) -> None:
    """A4: a Pod is stopped from outside. No new work at once, the job goes on, its end is told, the agent ends last."""
    pod = await create_pool(cluster, program, "stopped")
    name = pod["metadata"]["name"]
    lines: list[WatchLine] = []
    watching = asyncio.create_task(watch(pod, lines))
    await until(lambda: lines, "the watch has begun")
    await cluster.api.patch(PODS, NAMESPACE, name, {"metadata": {"annotations": {BREAK_GLASS: "a test of its end"}}})
    await cluster.api.patch(PODS, NAMESPACE, name, {"metadata": {"finalizers": ["tests/kept"]}})
    await cluster.api.delete(PODS, NAMESPACE, name)
    await until(lambda: lines[-1].state is not None and lines[-1].state.closing, "the agent takes no new work")
    assert lines[-1].state is not None
    assert lines[-1].state.slots[0].state is SlotState.RUNNING
    program.run_freely()
    async with asyncio.timeout(120):
        await watching
    states = [line.state for line in lines if line.state is not None]
    assert states[-1].slots[0].state is SlotState.IDLE, "the end of the job was told before the agent ended"
    assert all(state.closing for state in states[states.index(next(s for s in states if s.closing)) :])

    async def ended() -> Object | None:
        found = await cluster.api.get(PODS, NAMESPACE, name)
        statuses = found["status"]["containerStatuses"] + found["status"]["initContainerStatuses"]
        return found if all("terminated" in status["state"] for status in statuses) else None

    found = await until(ended, "all containers have ended")
    (main,) = (status["state"]["terminated"] for status in found["status"]["containerStatuses"])
    (agent,) = (status["state"]["terminated"] for status in found["status"]["initContainerStatuses"])
    assert (main["exitCode"], agent["exitCode"]) == (0, 0)
    assert main["finishedAt"] <= agent["finishedAt"]
    await cluster.api.patch(PODS, NAMESPACE, name, {"metadata": {"finalizers": None}})


async def test_a_plain_pod_without_a_controller_is_opened_and_drained_by_its_pool_token(
    cluster: Cluster, program: Program
) -> None:
    """T6: nothing runs before somebody opens the agent; a drain is refused while the program holds its slot."""
    token = "a-token-of-32-or-more-characters-for-tests"
    for document in documents("sidecar-pod.yaml"):
        document["metadata"]["namespace"] = NAMESPACE
        if document["kind"] == "Secret":
            document["data"] = {"first": base64.b64encode(token.encode()).decode()}
            del document["stringData"]
            await cluster.api.create(SECRETS, NAMESPACE, document)
        else:
            document["spec"]["terminationGracePeriodSeconds"] = 30
            program.environ(document["spec"]["containers"][0])
            await cluster.api.create(PODS, NAMESPACE, document)

    async def running() -> Object | None:
        found = await cluster.api.get(PODS, NAMESPACE, "crunch")
        statuses = (found.get("status") or {}).get("containerStatuses") or []
        return found if statuses and all("running" in status["state"] for status in statuses) else None

    pod = await until(running, "the program runs")
    state = await cluster.slots(pod)
    assert (state["phase"], state["slots"][0]["state"], program.stages()) == ("drained", "idle", [])
    assert await write(pod, "open", state["drain_id"], token) == 200
    await program.reached("job")
    assert await write(pod, "drain", "down", token) == 409
    program.finish("job")
    await until_slot(cluster, pod, "idle")
    assert await write(pod, "drain", "down", token) == 200
    program.run_freely()
    await cluster.api.delete(PODS, NAMESPACE, "crunch")

    async def gone() -> bool:
        try:
            await cluster.api.get(PODS, NAMESPACE, "crunch")
        except NotFound:
            return True
        return False

    await until(gone, "the Pod is gone")


async def write(pod: Object, call: str, drain_id: str, token: str) -> int:
    """The status of an open or a drain."""
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as session,
        session.post(
            f"http://{pod['status']['podIP']}:8721/{call}",
            json={"drain_id": drain_id},
            headers={"Authorization": f"Bearer {token}"},
        ) as response,
    ):
        return response.status


async def test_a_programs_own_credential_neither_opens_nor_drains(cluster: Cluster, program: Program) -> None:
    """The folder that the program's containers mount holds its own credential, and the pool token is not in it."""
    pod = await create_pool(cluster, program, "own")
    volumes = cluster.state / "node" / "pods" / pod["metadata"]["uid"]
    secret = await cluster.api.get(SECRETS, NAMESPACE, token_secret("own"))
    pool_tokens = {base64.b64decode(value).decode() for value in secret["data"].values()}
    found = [path for path in volumes.rglob("local/token") if path.is_file()]
    assert len(found) == 1
    assert [path.name for path in found[0].parent.iterdir()] == ["token"]
    credential = found[0].read_text()
    assert credential not in pool_tokens
    assert await write(pod, "drain", "mine", credential) == 403
    assert await write(pod, "open", "mine", credential) == 403
    assert {await write(pod, "drain", "theirs", token) for token in pool_tokens} == {409}, "the slot is held"
    program.run_freely()
