"""How long a pool takes from zero to many Pods, beside the same creates sent bare to the same API server."""

import asyncio
import time
from collections.abc import AsyncIterator

import orjson

from controller.names import POOL_LABEL
from tests.bench.effort import Effort
from tests.bench.machine import Cores
from tests.bench.measure import Measure, Row, Sample, interleave
from tests.bench.plane import PODS, POOLS, Api, Json, Plane, control_plane, prepared_pool, until

BAR = 1.5
CONCURRENT = 64
"""Creates at once: as many as the controller's operations."""

LABEL = "bench.example/pool"
"""In the place of the pool's label, so that these Pods are nobody's."""


async def measure(effort: Effort, cores: Cores) -> AsyncIterator[Row]:
    async with control_plane(cores) as plane:
        await prepared_pool(plane, 0)
        run = await interleave(
            _scaling(plane, effort.creates), _bare(plane, effort.creates), max(1, effort.rounds // 2)
        )
    yield run.row(
        "creates",
        f"0 to {effort.creates} Pods created",
        "ms",
        reference_name=f"the same creates sent bare, {CONCURRENT} at once",
        bar=BAR,
        note="from the change of the pool's size until a watch has shown the last Pod; CPU of all processes",
    )


class _Seen:
    """The Pods that a watch has shown."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.last: Json = {}
        self._changed = asyncio.Event()

    def __call__(self, kind: str, pod: Json) -> None:
        name = pod["metadata"]["name"]
        if kind == "DELETED":
            self.names.discard(name)
        else:
            self.names.add(name)
            self.last = pod
        self._changed.set()

    async def count(self, wanted: int) -> None:
        async with asyncio.timeout(60):
            while len(self.names) != wanted:
                self._changed.clear()
                await self._changed.wait()


def _scaling(plane: Plane, count: int) -> Measure:
    async def sample() -> Sample:
        seen = _Seen()
        async with plane.api.watching(PODS, seen):
            began, cpu = time.perf_counter(), plane.cpu() + time.process_time()
            await plane.api.patch(f"{POOLS}/bench", {"spec": {"replicas": count}})
            await seen.count(count)
            result = Sample(value=1e3 * (time.perf_counter() - began), cpu=plane.cpu() + time.process_time() - cpu)
            await plane.api.patch(f"{POOLS}/bench", {"spec": {"replicas": 0}})
            await seen.count(0)
            return result

    return sample


def _bare(plane: Plane, count: int) -> Measure:
    bodies: list[bytes] = []

    async def sample() -> Sample:
        if not bodies:
            bodies.extend(await _bodies(plane, count))
        seen = _Seen()
        gate = asyncio.Semaphore(CONCURRENT)

        async def send(body: bytes) -> None:
            async with gate:
                await plane.api.send("POST", PODS, body)

        async with plane.api.watching(PODS, seen):
            began, cpu = time.perf_counter(), plane.cpu() + time.process_time()
            await asyncio.gather(*(send(body) for body in bodies))
            await seen.count(count)
            result = Sample(value=1e3 * (time.perf_counter() - began), cpu=plane.cpu() + time.process_time() - cpu)
            await _delete_all(plane.api, seen)
            return result

    return sample


async def _bodies(plane: Plane, count: int) -> list[bytes]:
    """A Pod as the controller creates it, without the pool's label, under so many names."""
    seen = _Seen()
    async with plane.api.watching(PODS, seen):
        await plane.api.patch(f"{POOLS}/bench", {"spec": {"replicas": 1}})
        await seen.count(1)
        pod = seen.last
        await plane.api.patch(f"{POOLS}/bench", {"spec": {"replicas": 0}})
        await seen.count(0)
    metadata = pod["metadata"]
    kept = {key: metadata[key] for key in ("namespace", "labels", "annotations", "ownerReferences") if key in metadata}
    labels = dict(kept["labels"])
    labels[LABEL] = labels.pop(POOL_LABEL)
    body: Json = {"apiVersion": "v1", "kind": "Pod", "metadata": {**kept, "labels": labels}, "spec": pod["spec"]}
    return [
        orjson.dumps({**body, "metadata": {**body["metadata"], "name": f"bare-{number}"}}) for number in range(count)
    ]


async def _delete_all(api: Api, seen: _Seen) -> None:
    for name in list(seen.names):
        await api.send("DELETE", f"{PODS}/{name}", {"apiVersion": "v1", "kind": "DeleteOptions"})
    await until(lambda: not seen.names, "the Pods are gone")
