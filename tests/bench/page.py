"""What the status page costs a controller with thousands of Pods while somebody looks, and what is sent.

On the stage of `passes`, in CPU time: see `staged.py`.
"""

from collections.abc import AsyncIterator
from statistics import median

from tests.bench.effort import Effort
from tests.bench.machine import Cores
from tests.bench.measure import Row
from tests.bench.staged import process

BAR_MS = 10.0
"""Once a second at most: 1 % of a core."""
BAR_KIB = 64.0
KIB = 1024


async def measure(effort: Effort, cores: Cores) -> AsyncIterator[Row]:
    size = f"{effort.page_pods} Pods"
    async with process(cores, {"scenario": "looked_at", "pods": effort.page_pods}) as staged:
        begun = await staged.start()
        rounds = [await staged.round() for _ in range(2 + effort.rounds)][2:]

    def middle(name: str) -> float:
        return float(median(said[name] for said in rounds))

    yield Row(
        subject="page",
        figure=f"status page made anew after one change, {size}",
        unit="ms",
        value=1e3 * middle("cpu_seconds"),
        bar=BAR_MS,
        note="CPU time, for all readers together, once a second at most",
    )
    yield Row(
        subject="page",
        figure=f"status page, all that a reader is sent at first, {size}",
        unit="KiB",
        value=begun["whole_bytes"] / KIB,
        bar=BAR_KIB,
        note=f"with {effort.page_pods} queued tasks, of which 100 are sent",
    )
    yield Row(
        subject="page",
        figure=f"status page, sent to each reader after one change, {size}",
        unit="KiB",
        value=middle("sent_bytes") / KIB,
    )
    yield Row(
        subject="page",
        figure=f"status page, 50 Pods by the age of what they hold, of {size}",
        unit="ms",
        value=1e3 * middle("page_seconds"),
        note=f"CPU time, of an answer of {middle('page_bytes') / KIB:.1f} KiB",
    )
