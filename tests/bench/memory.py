"""What an agent weighs after many tasks, beside a bare service that answered as many requests."""

from collections.abc import AsyncIterator, Iterator

from tests.bench.effort import Effort
from tests.bench.load import Load, Script, request
from tests.bench.machine import Cores, rss_bytes
from tests.bench.measure import Row
from tests.bench.servers import Served, agent, bare
from tests.bench.task_load import REQUESTS_A_TASK, SLOTS, Tasks, holds
from tests.support.agent_process import POOL_TOKEN, AgentProcess

BAR = 1.15
MIB = 2**20
BODY = {"task_id": "task-1.1", "task_type": "plan"}


async def measure(effort: Effort, cores: Cores) -> AsyncIterator[Row]:
    async with agent(cores) as (process, served):
        empty = rss_bytes(served.pid)
        await _run_tasks(process, served, effort.tasks)
        await _scrape(served)
        after_tasks = rss_bytes(served.pid)
        held = iter(f"hold-{number}.1" for number in range(effort.tasks))
        load = Load()
        await served.client.follow(load, [holds(load, held) for _ in range(SLOTS)])
        after_holds = rss_bytes(served.pid)
        body = process.call("GET", "/slots")[1]
    async with bare(cores, "measured", body) as reference:
        bare_empty = rss_bytes(reference.pid)
        load = Load()
        left = iter(range(effort.tasks * REQUESTS_A_TASK))
        await reference.client.follow(load, [_post(left) for _ in range(SLOTS)])
        await _scrape(reference)
        bare_after = rss_bytes(reference.pid)
    for figure, weight, other in (
        ("just started", empty, bare_empty),
        (f"after {effort.tasks} tasks", after_tasks, bare_after),
        (f"after {effort.tasks} tasks and as many holds", after_holds, bare_after),
    ):
        yield Row(
            subject="memory",
            figure=f"agent RSS, {figure}",
            unit="MiB",
            value=weight / MIB,
            reference=other / MIB,
            reference_name="bare aiohttp + uvloop + prometheus_client, after as many requests",
            ratio=weight / other,
            bar=BAR,
        )


async def _run_tasks(process: AgentProcess, served: Served, count: int) -> None:
    tasks = Tasks(process)
    names = iter(f"task-{number}.1" for number in range(count))
    load = Load()
    await served.client.follow(load, [tasks.script(load, names) for _ in range(SLOTS)])
    if tasks.done != count:
        raise AssertionError(f"{tasks.done} of {count} tasks")


async def _scrape(served: Served) -> None:
    """As Prometheus does: what rendering needs is part of what a process weighs."""

    def script() -> Script:
        for _ in range(3):
            yield request("GET", "/metrics")

    await served.client.follow(Load(), [script()])


def _post(left: Iterator[int]) -> Script:
    for _ in left:
        yield request("POST", "/slots/acquire", BODY, token=POOL_TOKEN)
