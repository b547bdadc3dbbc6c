"""What a journaled write costs: acquire and release, beside a bare handler that reads JSON and answers with JSON."""

from collections.abc import AsyncIterator, Iterator
from itertools import count

import orjson

from tests.bench.effort import Effort
from tests.bench.load import Load, Script, request
from tests.bench.machine import Cores
from tests.bench.measure import Compared, Measure, Row, Sample, interleave, percentile
from tests.bench.servers import Served, agent, bare
from tests.support.agent_process import POOL_TOKEN

SLOTS = 16
LAYOUT = (("plan",),) * SLOTS
BAR = 0.40
CONNECTIONS = {
    1: "acquire + release in turn, 1 client",
    SLOTS: "acquire + release, 16 clients for 16 slots",
    64: "acquire + release, 64 clients for 16 slots",
}


async def measure(effort: Effort, cores: Cores) -> AsyncIterator[Row]:
    runs: dict[int, Compared] = {}
    waits: dict[str, list[float]] = {"agent": [], "bare": []}
    refused = 0.0
    for _ in range(effort.launches):
        async with (
            agent(cores, workers=False, layout=LAYOUT) as (_process, served),
            bare(cores, "writing") as reference,
        ):
            names = (f"task-{number}.1" for number in count())
            for connections in CONNECTIONS:
                ours: list[Load] = []
                theirs: list[Load] = []
                run = await interleave(
                    _writing(served, connections, effort.seconds, names, ours, bare_handler=False),
                    _writing(reference, connections, effort.seconds, names, theirs, bare_handler=True),
                    effort.rounds,
                )
                runs[connections] = runs[connections].also(run) if connections in runs else run
                if connections == max(CONNECTIONS):
                    refused = sum(load.statuses[409] for load in ours) / sum(load.requests for load in ours)
                    waits["agent"] += [seconds for load in ours for seconds in load.latencies]
                    waits["bare"] += [seconds for load in theirs for seconds in load.latencies]
    for connections, name in CONNECTIONS.items():
        yield runs[connections].row(
            "writes",
            name,
            "requests/s",
            reference_name="bare aiohttp + uvloop, JSON in and out",
            bar=BAR,
            at_least=True,
            note=f"{refused:.0%} were refused: no free slot" if connections > SLOTS else "journaled in memory",
        )
    yield await _on_disk(effort, cores)
    for percent in (50, 99):
        ours_ms, bare_ms = (1e3 * percentile(waits[name], percent) for name in ("agent", "bare"))
        yield Row(
            subject="writes",
            figure=f"acquire under 64 clients, p{percent}",
            unit="ms",
            value=ours_ms,
            reference=bare_ms,
            reference_name="bare aiohttp + uvloop, JSON in and out",
            ratio=ours_ms / bare_ms,
        )


async def _on_disk(effort: Effort, cores: Cores) -> Row:
    """With a disk that has to say that it has each record."""
    names = (f"task-{number}.1" for number in count())
    async with (
        agent(cores, on_disk=True, workers=False, layout=LAYOUT) as (_process, served),
        bare(cores, "writing") as reference,
    ):
        run = await interleave(
            _writing(served, SLOTS, effort.seconds, names, [], bare_handler=False),
            _writing(reference, SLOTS, effort.seconds, names, [], bare_handler=True),
            effort.rounds,
        )
    return run.row(
        "writes",
        f"{CONNECTIONS[SLOTS]}, journaled on disk",
        "requests/s",
        reference_name="bare aiohttp + uvloop, JSON in and out",
        bar=BAR,
        at_least=True,
        note="the bare handler writes nothing: the disk's own time is in the ratio, and not in that of CPU time",
    )


def _writing(
    served: Served, connections: int, seconds: float, names: Iterator[str], loads: list[Load], *, bare_handler: bool
) -> Measure:
    async def sample() -> Sample:
        before = served.cpu()
        load = Load()
        scripts = [_cycle(load, names, bare_handler=bare_handler) for _ in range(connections)]
        await served.client.follow(load, scripts, seconds)
        loads.append(load)
        return Sample(value=load.rate, cpu=load.requests / (served.cpu() - before))

    return sample


def _cycle(load: Load, names: Iterator[str], *, bare_handler: bool) -> Script:
    """Acquire, release, and again. The bare handler gets the same two bodies, and answers each with the same JSON."""
    while not load.over:
        task_id = next(names)
        asked = {"task_id": task_id, "task_type": "plan"}
        began = load.clock()
        status, body = yield request("POST", "/slots/acquire", asked, token=POOL_TOKEN)
        load.latencies.append(load.clock() - began)
        if status == 409 and not bare_handler:
            continue
        if status != 200:
            raise AssertionError(body)
        held = orjson.loads(body)
        path = "/slots/acquire" if bare_handler else f"/slots/{held['slot']}/release"
        status, body = yield request("POST", path, {"task_id": task_id, "fence": held["fence"]}, token=POOL_TOKEN)
        if status != 200:
            raise AssertionError(body)
