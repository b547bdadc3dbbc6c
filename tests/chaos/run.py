"""One run: load and faults for a time, then no more of either, everything settles, and the logs are judged."""

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from controller import names
from controller.kube.api import BUDGETS, CONTROLLERREVISIONS, DEPLOYMENTS, REPLICASETS, SECRETS
from controller.objects.revision import is_orphan
from tests.chaos import processes
from tests.chaos.disk import own_disk
from tests.chaos.faults import Faults
from tests.chaos.load import Load
from tests.chaos.strangers import Strangers
from tests.checker.verdict import Verdict, check
from tests.support.cluster import Cluster, until

SETTLE_SECONDS = 120.0
"""For everything to come to its end once faults stop: back-offs of up to 30 s may have to run out.

The kubelet's is limited to 10 s here: a Pod whose agent was killed a dozen times would wait for minutes, as it should.
"""

OF_POOLS = (BUDGETS, DEPLOYMENTS, REPLICASETS, SECRETS)
STRANGERS_PAUSE_SECONDS = 0.7
"""Between two deeds of strangers, on average."""


@dataclass(frozen=True)
class Outcome:
    """What was done, and what the logs say of it."""

    faults: Counter[str]
    load: Counter[str]
    strangers: Counter[str]
    settle_seconds: float
    verdict: Verdict

    def summary(self) -> dict[str, Any]:
        """As one line of JSON."""
        return {
            **self.verdict.summary(),
            "faults": dict(self.faults),
            "load": dict(self.load),
            "strangers": dict(self.strangers),
            "settle_seconds": round(self.settle_seconds, 1),
        }


async def run(
    folder: Path,
    *,
    seconds: float,
    seed: int,
    pause_seconds: float = 0.5,
    say: Callable[[str], None] = lambda _: None,
) -> Outcome:
    """Run; AssertionError if something does not settle. The folder keeps the evidence."""
    async with AsyncExitStack() as stack:
        disk = stack.enter_context(own_disk(folder / "cluster" / "node" / "pods", beside=folder / "disk"))
        if disk is None:
            say("no disk is filled: this process may not mount one")
        cluster = await stack.enter_async_context(Cluster(folder))
        standby = cluster.new_controller("standby")
        try:
            await standby.start()
            load = Load(cluster, random.Random(f"load {seed}"), say)
            controllers = [cluster.controller, standby]
            faults = Faults(cluster, controllers, random.Random(f"faults {seed}"), say, disk=disk)
            strangers = Strangers(cluster, random.Random(f"strangers {seed}"), say)
            await load.begin()
            await _for(seconds, load.run(), faults.run(pause_seconds), strangers.run(STRANGERS_PAUSE_SECONDS))
            say("no more faults")
            settle_seconds = await _settle(cluster, load)
        finally:
            await standby.terminate()
    return Outcome(faults.counts, load.counts, strangers.counts, settle_seconds, check(folder))


async def _for(seconds: float, *works: Any) -> None:
    tasks = [asyncio.create_task(work) for work in works]
    try:
        await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        for task in tasks:
            task.cancel()
        for task in tasks:
            with suppress(asyncio.CancelledError):
                await task


async def _nothing_left(cluster: Cluster) -> bool:
    found = [item["metadata"] for resource in OF_POOLS for item in await cluster.list_all(resource)]
    # Templates stay where a stranger has deleted a pool so that what it owns stays.
    found += [one["metadata"] for one in await cluster.list_all(CONTROLLERREVISIONS) if not is_orphan(one)]
    return not any(names.POOL_LABEL in (metadata.get("labels") or {}) for metadata in found)


async def _settle(cluster: Cluster, load: Load) -> float:
    """Wait until every task has ended and nothing is left; how long it took."""
    clock = asyncio.get_running_loop().time
    began = clock()
    await until(load.shrink, "the pools can be changed", seconds=SETTLE_SECONDS)
    await until(lambda: load.turn(new=False), "every task comes to its end", seconds=SETTLE_SECONDS)
    await cluster.settle(seconds=SETTLE_SECONDS)
    await until(lambda: not list(processes.of_cluster(cluster.state)), "no process of a Pod is left")
    await until(lambda: _nothing_left(cluster), "nothing that belongs to a pool is left", seconds=SETTLE_SECONDS)
    return clock() - began
