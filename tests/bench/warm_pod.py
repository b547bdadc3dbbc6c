"""A Pod that runs, as far as the API tells: an agent and its workers as processes, and a status that says so."""

import asyncio
import base64
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

from agent.wire import PORT
from tests.bench.machine import IN_MEMORY, Cores, running_on
from tests.bench.plane import PODS, SECRETS, Json, Plane, pods, until
from tests.support.agent_process import LAYOUT, AgentProcess
from tests.support.worker_process import WorkerProcess


@asynccontextmanager
async def warm_agent(cores: Cores, pod_uid: str, tokens: dict[str, str]) -> AsyncIterator[AgentProcess]:
    """An agent with all its workers connected; its other tokens are those of the tests."""
    parent = IN_MEMORY if IN_MEMORY.is_dir() else None
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="podslots-bench-", dir=parent)))
        agent = AgentProcess(folder, pod_uid=pod_uid, environ={"PODSLOTS_PORT": str(PORT)})
        agent.port = PORT
        for name, token in tokens.items():
            (agent.tokens_dir / name).write_text(token)
        with running_on(cores.server):
            stack.callback(agent.stop)
            await asyncio.to_thread(agent.start)
            for slot in range(len(LAYOUT)):
                work = folder / f"work-{slot}"
                work.mkdir()
                credential = agent.credentials_dir / str(slot)
                worker = WorkerProcess(agent.url, credential, work, environ={"PODSLOTS_SLOT": str(slot)}).start()
                stack.callback(worker.kill)

        def connected() -> bool:
            return all(slot.worker is not None and slot.worker.connected for slot in agent.state().slots)

        await until(connected, "the workers are connected")
        yield agent


@asynccontextmanager
async def warm_pods(cores: Cores, plane: Plane, number: int) -> AsyncIterator[None]:
    """The Pods of the pool, so many, running and opened by the controller."""

    async def all_pods() -> list[Json] | None:
        found = await pods(plane.api)
        return found if len(found) == number else None

    created: list[Json] = await until(all_pods, f"the controller has created {number} Pods")
    secret = (await plane.api.send("GET", SECRETS))["items"][0]
    tokens = {name: base64.b64decode(value).decode() for name, value in secret["data"].items()}
    async with AsyncExitStack() as stack:
        for pod in created:
            agent = await stack.enter_async_context(warm_agent(cores, pod["metadata"]["uid"], tokens))
            path = f"{PODS}/{pod['metadata']['name']}"
            await plane.api.patch(f"{path}/status", {"status": running_status(pod, agent.address)})
            await until(partial(_is_open, agent), "the controller has opened the Pod")
        yield


def _is_open(agent: AgentProcess) -> bool:
    return agent.state().phase == "open"


def running_status(pod: Json, address: str) -> Json:
    """What a kubelet writes of a Pod whose containers all run."""
    now = pod["metadata"]["creationTimestamp"]

    def container(spec: Json) -> Json:
        return {
            "name": spec["name"],
            "image": spec["image"],
            "imageID": f"sha256:{'0' * 64}",
            "containerID": f"containerd://{'0' * 64}",
            "ready": True,
            "started": True,
            "restartCount": 0,
            "lastState": {},
            "state": {"running": {"startedAt": now}},
        }

    return {
        "phase": "Running",
        "podIP": address,
        "podIPs": [{"ip": address}],
        "hostIP": "127.0.0.1",
        "startTime": now,
        "conditions": [
            {"type": kind, "status": "True", "lastTransitionTime": now}
            for kind in ("PodScheduled", "Initialized", "ContainersReady", "Ready")
        ],
        "initContainerStatuses": [container(spec) for spec in pod["spec"].get("initContainers", ())],
        "containerStatuses": [container(spec) for spec in pod["spec"]["containers"]],
    }
