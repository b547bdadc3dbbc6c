"""How fast `GET /slots` is answered, beside a bare handler that returns the same bytes."""

from collections.abc import AsyncIterator

from tests.bench.effort import Effort
from tests.bench.load import repeat, request
from tests.bench.machine import Cores
from tests.bench.measure import Compared, Measure, Row, Sample, interleave
from tests.bench.servers import Served, agent, bare

REQUEST = request("GET", "/slots")
BAR = 0.85
CONNECTIONS = (1, 64)


async def measure(effort: Effort, cores: Cores) -> AsyncIterator[Row]:
    runs: dict[int, Compared] = {}
    shares: list[float] = []
    for _ in range(effort.launches):
        async with agent(cores, workers=False) as (process, served):
            body = process.call("GET", "/slots")[1]
            async with bare(cores, "reading", body) as reference:
                for connections in CONNECTIONS:
                    run = await interleave(
                        _reading(served, connections, effort.seconds, shares),
                        _reading(reference, connections, effort.seconds, shares),
                        effort.rounds,
                    )
                    runs[connections] = runs[connections].also(run) if connections in runs else run
    for connections, run in runs.items():
        yield run.row(
            "reads",
            f"GET /slots, {connections} connection{'s' if connections > 1 else ''}",
            "requests/s",
            reference_name="bare aiohttp + uvloop, same bytes",
            bar=BAR,
            at_least=True,
            note=f"the client used {max(shares):.0%} of its core at most",
        )


def _reading(served: Served, connections: int, seconds: float, shares: list[float]) -> Measure:
    async def sample() -> Sample:
        before = served.cpu()
        load = await served.client.run(repeat(REQUEST), connections, seconds)
        shares.append(load.client_share)
        return Sample(value=load.rate, cpu=load.requests / (served.cpu() - before))

    return sample
