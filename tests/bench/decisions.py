"""How long deciding takes over a large pool: the loop answers nobody meanwhile."""

import random
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from statistics import median

from controller.decide.pods.pod_actions import pod_actions
from controller.decide.reading import Answer, Reading, Sample
from controller.decide.scaling.size import decide_size
from controller.decide.view import PoolView
from controller.objects.signal import Signal
from tests.bench.effort import Effort
from tests.bench.machine import Cores
from tests.bench.measure import Row
from tests.support import pools

BAR_MS = 20.0
BY_PROMETHEUS = "by Prometheus"
ROUNDS = 20


async def measure(effort: Effort, cores: Cores) -> AsyncIterator[Row]:
    del cores
    rng = random.Random(1)
    for case, kinds, percent in (
        ("busy", ["rrr", "rr.", "Rr.", "r.."], 10),
        ("to shrink", ["...", "...", "...", "...", "R..", "r..", ".r."], 60),
        (BY_PROMETHEUS, ["rrr", "rr.", "Rr.", "r.."], 10),
    ):
        view = _view(rng, kinds, effort.pods, percent)
        if case == BY_PROMETHEUS:
            view = _by_prometheus(view)
        seconds = [_decide(view) for _ in range(ROUNDS)]
        yield Row(
            subject="decisions",
            figure=f"scaling decision, {effort.pods} Pods, {case}",
            unit="ms",
            value=1e3 * median(seconds),
            bar=BAR_MS,
            note=f"CPU time, median of {ROUNDS}; fastest {1e3 * min(seconds):.1f} ms",
        )
        planned = [_decide_and_plan(view) for _ in range(ROUNDS)]
        yield Row(
            subject="decisions",
            figure=f"decision and plan, {effort.pods} Pods, {case}",
            unit="ms",
            value=1e3 * median(planned),
        )


def _decide(view: PoolView) -> float:
    view = replace(view)  # as of a new pass: a view keeps what was counted in it
    began = time.process_time()
    decide_size(view)
    return time.process_time() - began


def _decide_and_plan(view: PoolView) -> float:
    view = replace(view)
    began = time.process_time()
    pod_actions(view, decide_size(view))
    return time.process_time() - began


def _view(rng: random.Random, kinds: list[str], count: int, percent: int) -> PoolView:
    pods = tuple(pools.pod(f"p-{number}", rng.choice(kinds)) for number in range(count))
    return pools.pool(pods, max_replicas=count, scale_down_utilization_percent=percent)


def _by_prometheus(view: PoolView) -> PoolView:
    """The same pool, with answers to its queries about every Pod."""
    assert view.spec.autoscaling is not None
    scaler = replace(view.spec.autoscaling, signal=Signal(url="http://prometheus:9090"))
    utilization = Answer(view.now, tuple(Sample({"pod": pod.name}, len(pod.held) / 3) for pod in view.pods))
    reading = Reading(view.now, utilization, Answer(view.now, (Sample({}, 0.0),)))
    return replace(view, spec=replace(view.spec, autoscaling=scaler), reading=reading)
