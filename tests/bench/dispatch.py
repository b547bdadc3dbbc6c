"""How long a queued task takes until it runs on a Pod that waits for work, beside the same writes and calls sent bare.

The chain is the same: create the SlotTask, give it its finalizer, write the intent, acquire a slot from the agent,
write that it runs. The bare one goes to the same API server and to an agent of its own, one request after the other.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from itertools import count

import aiohttp
import orjson

from agent.wire import encode
from controller.names import TASK_FINALIZER
from controller.objects.task import Task
from tests.bench.effort import Effort
from tests.bench.machine import Cores
from tests.bench.measure import Measure, Row, Sample, interleave
from tests.bench.plane import NAMESPACE, TASKS, Api, Json, Plane, control_plane, prepared_pool, until
from tests.bench.warm_pod import warm_agent, warm_pods
from tests.support.agent_process import POOL_TOKEN, AgentProcess

BAR = 2.0
BARE_NAMESPACE = "bare"
BARE_TASKS = TASKS.replace(f"/{NAMESPACE}/", f"/{BARE_NAMESPACE}/")
TTL_SECONDS = 86400
SECONDS = 30.0


async def measure(effort: Effort, cores: Cores) -> AsyncIterator[Row]:
    async with control_plane(cores) as plane:
        await plane.api.send(
            "POST",
            "/api/v1/namespaces",
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": BARE_NAMESPACE}},
        )
        await prepared_pool(plane, 1)
        async with warm_pods(cores, plane, 1), warm_agent(cores, "uid-bare", {}) as other:
            other.open()
            run = await interleave(_dispatched(plane), _bare(plane.api, other), effort.dispatches)
    yield run.row(
        "dispatch",
        "queued task to running on a warm Pod",
        "ms",
        reference_name="its API writes and agent call sent bare, one after the other",
        bar=BAR,
        note="from the task's creation until its status says Running",
    )


def _task(name: str, namespace: str) -> Json:
    return {
        "apiVersion": "podslots.dev/v1alpha1",
        "kind": "SlotTask",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"pool": "bench", "type": "plan", "steps": {"plan": {"command": ["/bin/true"]}}},
    }


def _dispatched(plane: Plane) -> Measure:
    names = (f"task-{number}" for number in count())

    async def sample() -> Sample:
        name = next(names)
        running, ended = asyncio.Event(), asyncio.Event()

        def seen(kind: str, task: Json) -> None:
            del kind
            phase = (task.get("status") or {}).get("phase")
            if task["metadata"]["name"] == name and phase in {"Running", "Succeeded"}:
                running.set()
                if phase == "Succeeded":
                    ended.set()

        async with plane.api.watching(TASKS, seen), asyncio.timeout(SECONDS):
            began = time.perf_counter()
            await plane.api.send("POST", TASKS, _task(name, NAMESPACE))
            await running.wait()
            result = Sample(value=1e3 * (time.perf_counter() - began))
            await ended.wait()
            await plane.api.send("DELETE", f"{TASKS}/{name}")
        return result

    return sample


def _bare(api: Api, agent: AgentProcess) -> Measure:
    names = (f"bare-{number}" for number in count())

    async def sample() -> Sample:
        name = next(names)
        path = f"{BARE_TASKS}/{name}"
        timeout = aiohttp.ClientTimeout(total=SECONDS)
        headers = {"Authorization": f"Bearer {POOL_TOKEN}", "Content-Type": "application/json"}
        async with aiohttp.ClientSession(timeout=timeout, headers=headers) as session:
            async with session.get(f"{agent.url}/slots") as response:  # the controller has its connections too
                await response.read()
            began = time.perf_counter()
            task = await api.send("POST", BARE_TASKS, _task(name, BARE_NAMESPACE))
            task = await api.patch(path, _of(task, {"metadata": {"finalizers": [TASK_FINALIZER]}}))
            intent = {"phase": "Assigned", "attempt": 1, "pod": "bare", "podUID": "uid-bare", "observedGeneration": 1}
            task = await api.patch(f"{path}/status", _of(task, {"status": intent}))
            known = Task.parse(task)
            body = {"task_id": known.task_id, "task_type": "plan", "work": encode(known.to_work(TTL_SECONDS))}
            async with session.post(f"{agent.url}/slots/acquire", data=orjson.dumps(body)) as response:
                slot = orjson.loads(await response.read())["slot"]
            started = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
            running = {"phase": "Running", "slot": slot, "step": "plan", "startTime": started}
            task = await api.patch(f"{path}/status", _of(task, {"status": running}))
            result = Sample(value=1e3 * (time.perf_counter() - began))
        await _clean_up(api, agent, path, known.task_id)
        return result

    return sample


def _of(task: Json, changes: Json) -> Json:
    """Changes to this very version."""
    metadata = {**changes.get("metadata", {}), "resourceVersion": task["metadata"]["resourceVersion"]}
    return {**changes, "metadata": metadata}


async def _clean_up(api: Api, agent: AgentProcess, path: str, task_id: str) -> None:
    await until(lambda: task_id in agent.state().ended, "the worker has run the task")
    headers = {"Authorization": f"Bearer {POOL_TOKEN}"}
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.post(f"{agent.url}/tasks/{task_id}/ack") as ack,
    ):
        ack.raise_for_status()
    await api.patch(path, {"metadata": {"finalizers": []}})
    await api.send("DELETE", path)
