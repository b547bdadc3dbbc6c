"""Whether what somebody waits for is held up by others, and what a short task costs the leader."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import orjson

from controller.kube.answers import USER_AGENT
from tests.bench.effort import Effort
from tests.bench.machine import Cores, cpu_seconds
from tests.bench.measure import Measure, Row, Sample, interleave
from tests.bench.plane import POOLS, TASKS, Json, Plane, control_plane, pods, prepared_pool, until
from tests.bench.staged import Staged, process
from tests.bench.warm_pod import warm_pods

BAR_OTHER_POOL = 2.0
BAR_CPU_MS = 12.0
BAR_REQUESTS = 5.5
CREATES_AT_ONCE = 8
SETTLE_SECONDS = 3.0
"""Events are written a moment later."""

TASK_SECONDS = "1"


async def measure(effort: Effort, cores: Cores) -> AsyncIterator[Row]:
    yield await _other_pool(effort, cores)
    async with control_plane(cores, audited=True) as plane:
        await prepared_pool(plane, effort.warm_pods)
        async with warm_pods(cores, plane, effort.warm_pods):
            async for row in _short_tasks(plane, effort):
                yield row
    async with control_plane(cores, audited=True) as plane:
        yield await _scaled(plane, effort)


async def _other_pool(effort: Effort, cores: Cores) -> Row:
    scenario = {"scenario": "two_pools"}
    async with (
        process(cores, {**scenario, "waiting": effort.waiting}) as crowded,
        process(cores, {**scenario, "waiting": 0}) as alone,
    ):
        await crowded.start()
        await alone.start()
        run = await interleave(_warm_task(crowded), _warm_task(alone), effort.dispatches)
    return run.row(
        "fairness",
        f"warm task of one pool while {effort.waiting} wait in another",
        "ms",
        reference_name="the same alone",
        bar=BAR_OTHER_POOL,
        note="until it runs, in CPU time and the time that requests take; one more comes to wait at once",
    )


def _warm_task(staged: Staged) -> Measure:
    async def sample() -> Sample:
        said = await staged.round()
        return Sample(value=1e3 * said["seconds"], cpu=said["cpu_seconds"])

    return sample


async def _short_tasks(plane: Plane, effort: Effort) -> AsyncIterator[Row]:
    names = [f"short-{number}" for number in range(effort.short_tasks)]
    left = set(names)

    def seen(kind: str, task: Json) -> None:
        del kind
        if (task.get("status") or {}).get("phase") == "Succeeded":
            left.discard(task["metadata"]["name"])

    await asyncio.sleep(SETTLE_SECONDS)
    before, cpu = _requests(plane), cpu_seconds(plane.controller.pid)
    gate = asyncio.Semaphore(CREATES_AT_ONCE)

    async def create(name: str) -> None:
        async with gate:
            await plane.api.send("POST", TASKS, _short_task(name))

    async with plane.api.watching(TASKS, seen):
        await asyncio.gather(*(create(name) for name in names))
        await until(lambda: not left, "the tasks have ended")
    await asyncio.sleep(SETTLE_SECONDS)
    used, asked = cpu_seconds(plane.controller.pid) - cpu, _requests(plane) - before
    yield Row(
        subject="fairness",
        figure="CPU of the leader for a short task",
        unit="ms",
        value=1e3 * used / len(names),
        bar=BAR_CPU_MS,
        note=f"{len(names)} at once, of {TASK_SECONDS} s each, on {effort.warm_pods} warm Pods",
    )
    yield _asked("API requests for a short task", asked, len(names))


def _short_task(name: str) -> Json:
    return {
        "apiVersion": "podslots.dev/v1alpha1",
        "kind": "SlotTask",
        "metadata": {"name": name},
        "spec": {"pool": "bench", "type": "plan", "steps": {"plan": {"command": ["/bin/sleep", TASK_SECONDS]}}},
    }


async def _scaled(plane: Plane, effort: Effort) -> Row:
    await prepared_pool(plane, 0)
    await asyncio.sleep(SETTLE_SECONDS)
    before = _requests(plane)
    for size in (effort.creates, 0):
        await plane.api.patch(f"{POOLS}/bench", {"spec": {"replicas": size}})

        async def reached(size: int = size) -> bool:
            return len(await pods(plane.api)) == size

        await until(reached, f"the pool has {size} Pods")
    await asyncio.sleep(SETTLE_SECONDS)
    return _asked("API requests for a Pod created, and deleted again", _requests(plane) - before, effort.creates)


def _asked(figure: str, asked: Counter[str], by: int) -> Row:
    each = ", ".join(f"{count / by:.2f} {what}" for what, count in sorted(asked.items()))
    return Row(
        subject="fairness", figure=figure, unit="requests", value=asked.total() / by, bar=BAR_REQUESTS, note=each
    )


def _requests(plane: Plane) -> Counter[str]:
    """The controller's requests to the API server, except for its Lease, lists and watches."""
    asked: Counter[str] = Counter()
    for line in plane.audit.read_bytes().splitlines():
        entry: dict[str, Any] = orjson.loads(line)
        about, verb = entry.get("objectRef") or {}, entry["verb"]
        own = entry["userAgent"] == USER_AGENT and entry["stage"] == "ResponseComplete"
        if own and verb not in {"list", "watch"} and about.get("resource") != "leases":
            what = "/".join(filter(None, (about.get("resource"), about.get("subresource"))))
            asked[f"{verb} {what}"] += 1
    return asked
