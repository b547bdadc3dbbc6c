"""What a pass costs the controller with thousands of Pods and many more tasks, and what such a controller weighs.

In CPU time throughout, beside the same pool without the ended tasks. Each is a process of its own: see `staged.py`.
"""

from collections.abc import AsyncIterator

from tests.bench.effort import Effort
from tests.bench.machine import Cores
from tests.bench.measure import Compared, Measure, Row, Sample, interleave
from tests.bench.staged import Staged, process

BAR_RATIO = 1.2
BAR_PASS_MS = 60.0
BAR_START_SECONDS = 10.0
BAR_TURN_MS = 50.0
BAR_MIB = 450.0
MIB = 2**20
NOTE = "CPU time of all that one change of an agent's slots brings about, by the passes that it took"


async def measure(effort: Effort, cores: Cores) -> AsyncIterator[Row]:
    size = f"{effort.pods} Pods"
    both = f"{size} and {effort.ended} ended tasks"
    large = {"scenario": "large_pool", "pods": effort.pods}
    async with (
        process(cores, {**large, "ended": effort.ended, "queued": 0}) as full,
        process(cores, {**large, "ended": 0, "queued": 0}) as bare,
    ):
        begun = await full.start()
        await bare.start()
        passes = await interleave(_change(full), _change(bare), effort.rounds)
    yield passes.row(
        "passes",
        f"pass after one change, {both}, over that without",
        "ms",
        reference_name="the same Pods without ended tasks",
        bar=BAR_RATIO,
        note=NOTE,
    )
    yield _alone(f"pass after one change, {both}", passes, BAR_PASS_MS)
    yield Row(
        subject="passes",
        figure=f"start until the first pass is done, {both}",
        unit="s",
        value=begun["cpu_seconds"],
        bar=BAR_START_SECONDS,
        note="CPU time, of reading everything twice too: once to stand by, once to lead",
    )
    yield Row(
        subject="passes",
        figure=f"longest turn of the loop in such a start, {both}",
        unit="ms",
        value=1e3 * begun["turn_seconds"],
        bar=BAR_TURN_MS,
        note="CPU time between two looks at the timers",
    )
    yield Row(
        subject="passes",
        figure=f"controller RSS, {both}",
        unit="MiB",
        value=begun["rss_bytes"] / MIB,
        bar=BAR_MIB,
        note="streams without sockets",
    )
    async with process(cores, {**large, "ended": 0, "queued": effort.queued}) as queued:
        await queued.start()
        change = _change(queued)
        samples = [await change() for _ in range(2 + effort.rounds)]
    figure = f"pass after one change, {size} and {effort.queued} queued tasks, half of them being dispatched"
    yield _alone(figure, Compared(subject=samples, reference=samples), None)


def _change(staged: Staged) -> Measure:
    async def sample() -> Sample:
        said = await staged.round()
        return Sample(value=1e3 * said["cpu_seconds"] / said["passes"])

    return sample


def _alone(figure: str, passes: Compared, bar: float | None) -> Row:
    return Row(subject="passes", figure=figure, unit="ms", value=passes.value, bar=bar, note=NOTE)
