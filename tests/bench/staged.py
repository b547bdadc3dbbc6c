"""A controller on a stage (`stage.py`), as a process that measures itself: what it weighs is nothing of the bench's.

Run as `python -m tests.bench.staged SCENARIO`, the scenario in JSON. It says in a line of JSON how the start went;
then, for each line on stdin, how one more round did.
"""

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

import orjson

from controller.kube.api import PODS, SLOTTASKS
from controller.process import spare_the_collector
from controller.status_page.live import FORMAT, Live, Settings
from controller.status_page.model import PodsWanted
from controller.status_page.pod_entries import pods_said
from tests.bench.cpu_clock import CpuClockLoop
from tests.bench.machine import Cores, rss_bytes, running_on
from tests.bench.stage import (
    NAMESPACE,
    Stage,
    StageAgents,
    active_pods,
    ended_tasks,
    pool_object,
    prepared,
    queued_tasks,
    staged,
    task_object,
)
from tests.support.repository import ROOT

START_SECONDS = 600.0
SLOTS = 3
HOLDS_IN = 10
"""One Pod of so many has work of its own."""

Said = dict[str, Any]


class Staged:
    """The process, from outside."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def start(self) -> Said:
        """How the start went: CPU seconds, the loop's longest turn, memory."""
        return await self._hear()

    async def round(self) -> Said:
        assert self._process.stdin
        self._process.stdin.write(b"\n")
        return await self._hear()

    async def _hear(self) -> Said:
        assert self._process.stdout
        async with asyncio.timeout(START_SECONDS):
            line = await self._process.stdout.readline()
        said: Said = orjson.loads(line)
        return said


@asynccontextmanager
async def process(cores: Cores, scenario: Mapping[str, Any]) -> AsyncIterator[Staged]:
    """A process for this scenario."""
    with running_on(cores.server):
        started = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.bench.staged", orjson.dumps(dict(scenario)).decode()),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            cwd=ROOT,
        )
    try:
        yield Staged(started)
    finally:
        if started.returncode is None:
            started.kill()
        await started.wait()


def _say(said: Said) -> None:
    sys.stdout.buffer.write(orjson.dumps(said) + b"\n")
    sys.stdout.flush()


async def large_pool(pods: int, ended: int, queued: int) -> None:
    """A pool of so many Pods, beside so many tasks. A round is one change of an agent's slots.

    Of the queued tasks half find a slot, and all that is written of them is under way for ever.
    """
    api, (pool,) = await prepared(pool_object("bench", autoscaling={"minReplicas": pods, "maxReplicas": pods}))
    api.many = {PODS: [active_pods(pods, pool)], SLOTTASKS: [ended_tasks(ended), queued_tasks(queued)]}
    agents = StageAgents()
    _take_slots(agents, pods, queued)
    if queued:
        api.held = asyncio.Event()
    loop = _loop()
    loop.longest_turn_seconds, began = 0.0, time.thread_time()
    async with staged(api, agents) as stage:
        await stage.until(lambda: stage.passes)
        cpu = time.thread_time() - began
        await stage.rest()
        _say({"cpu_seconds": cpu, "turn_seconds": loop.longest_turn_seconds, "rss_bytes": rss_bytes(os.getpid())})
        for number in count():
            if not sys.stdin.readline():
                return
            _say(await _one_change(stage, number))


def _take_slots(agents: StageAgents, pods: int, queued: int) -> None:
    if not queued:
        for number in range(0, pods, HOLDS_IN):
            agents.hold(number, f"own-{number}")
        return
    full = max(0, SLOTS * pods - queued // 2) // SLOTS
    for number in range(full):
        for slot in range(SLOTS):
            agents.hold(number, f"own-{number}-{slot}", "plan" if slot else "apply")


async def _one_change(stage: Stage, number: int) -> Said:
    """A slot of the last Pod is taken by a holder in that Pod, or given back."""
    last = stage.api.many[PODS][0].count - 1
    began, passes = time.thread_time(), stage.passes
    name = f"change-{number // 2}"
    if number % 2:
        stage.agents.give_back(last, name)
    else:
        stage.agents.hold(last, name)
    await stage.until(lambda: stage.passes > passes)
    await stage.rest()
    return {"cpu_seconds": time.thread_time() - began, "passes": stage.passes - passes}


async def two_pools(waiting: int) -> None:
    """So many tasks wait in a pool without Pods. A round is a task of another pool, until it runs on a warm Pod.

    In the same instant one more comes to wait.
    """
    api, (own, _) = await prepared(pool_object("warm", replicas=1), pool_object("full", replicas=0))
    api.many = {PODS: [active_pods(1, own)], SLOTTASKS: [queued_tasks(waiting, "full")]}
    agents = StageAgents()
    loop = _loop()
    async with staged(api, agents) as stage:
        await stage.until(lambda: stage.passes >= len(("warm", "full")))
        _say({"rss_bytes": rss_bytes(os.getpid())})
        for number in count():
            if not sys.stdin.readline():
                return
            if waiting:
                api.put(SLOTTASKS, task_object(f"another-{number}", "full"))
            name, began, used = f"warm-{number}", loop.time(), time.thread_time()
            api.put(SLOTTASKS, task_object(name, "warm"))
            await _reached(stage, name, "Running")
            _say({"seconds": loop.time() - began, "cpu_seconds": time.thread_time() - used})
            agents.finish_all()
            await _reached(stage, name, "Succeeded")


async def _reached(stage: Stage, name: str, phase: str) -> None:
    """Wait for a task's phase, looking often: it comes within milliseconds."""

    def has() -> bool:
        status: Said = stage.api.find(SLOTTASKS, NAMESPACE, name).get("status") or {}
        return status.get("phase") == phase

    await stage.until(has, every_seconds=0.001)


async def looked_at(pods: int) -> None:
    """A pool of so many Pods, and somebody who looks at its page. A round is one change of an agent's slots."""
    api, (pool,) = await prepared(pool_object("bench", autoscaling={"minReplicas": pods, "maxReplicas": pods}))
    api.many = {PODS: [active_pods(pods, pool)], SLOTTASKS: [queued_tasks(pods, "none")]}
    agents = StageAgents()
    _take_slots(agents, pods, 0)
    async with staged(api, agents) as stage:
        await stage.until(lambda: stage.passes)
        await stage.rest()
        live = Live(stage.controller, Settings(period_seconds=0.0))
        whole = len((await live.latest()).body(live.now))
        _say({"whole_bytes": whole})
        for number in count():
            if not sys.stdin.readline():
                return
            before = (await live.latest()).number
            await _one_change(stage, number)
            began = time.thread_time()
            sent = (await live.latest()).body(live.now, before)
            made = time.thread_time()
            page = pods_said(await live.pools({(NAMESPACE, "bench")}), PodsWanted(limit=50, oldest_first=True))
            listed = orjson.dumps(page, option=FORMAT)
            _say(
                {
                    "cpu_seconds": made - began,
                    "sent_bytes": len(sent),
                    "page_seconds": time.thread_time() - made,
                    "page_bytes": len(listed),
                }
            )


SCENARIOS: dict[str, Callable[..., Coroutine[Any, Any, None]]] = {
    "large_pool": large_pool,
    "two_pools": two_pools,
    "looked_at": looked_at,
}


def _loop() -> CpuClockLoop:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, CpuClockLoop)
    return loop


if __name__ == "__main__":
    spare_the_collector()  # as `slot-controller` does
    given = orjson.loads(sys.argv[1])
    scenario = SCENARIOS[given.pop("scenario")](**given)
    with asyncio.Runner(loop_factory=CpuClockLoop) as runner:
        runner.run(scenario)
