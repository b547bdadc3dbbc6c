"""How long a simulated day takes: beside the decisions in it alone, and all strategies together."""

import time
from collections.abc import AsyncIterator, Callable
from typing import Any, Self

from controller.cli.verbs.simulate import podslots
from controller.cli.verbs.simulate.comparison import Settings, compare
from controller.cli.verbs.simulate.day import make_day
from controller.cli.verbs.simulate.engine import Engine, Terms
from controller.cli.verbs.simulate.podslots import Podslots
from controller.objects.autoscaling import Autoscaling
from controller.objects.pool import PoolSpec
from tests.bench.effort import Effort
from tests.bench.machine import Cores
from tests.bench.measure import Row

MOST_PODS = 2_000
SEED = 1
RATIO_BAR = 2.0
ALL_BAR = 3.0
"""By CPU time beside the decisions: what else the machine does makes both slower."""


async def measure(effort: Effort, cores: Cores) -> AsyncIterator[Row]:
    del cores
    spec = PoolSpec(autoscaling=Autoscaling(max_replicas=MOST_PODS))
    trace = make_day(spec.layout, tasks=effort.simulated, seed=SEED)
    with _Decisions() as decisions:
        began = time.process_time()
        figures = Engine(trace, Podslots(spec, pass_seconds=Settings().pass_seconds), Terms()).run()
        seconds = time.process_time() - began
    yield Row(
        subject="simulator",
        figure=f"simulated day of {effort.simulated} tasks",
        unit="s",
        value=seconds,
        reference_name="the controller's decisions in it",
        reference=decisions.seconds,
        ratio=seconds / decisions.seconds,
        bar=RATIO_BAR,
        note=f"CPU time; {figures.pods_max} Pods at most, {decisions.passes} passes",
    )
    with _Decisions() as decisions:
        began = time.process_time()
        found = compare(trace, spec, Settings())
        seconds = time.process_time() - began
    yield Row(
        subject="simulator",
        figure=f"podslots simulate, {effort.simulated} tasks",
        unit="s",
        value=seconds,
        reference_name="the controller's decisions in it",
        reference=decisions.seconds,
        ratio=seconds / decisions.seconds,
        bar=ALL_BAR,
        note=f"CPU time; podslots and {len(found.figures) - 1} others",
    )


class _Decisions:
    """The CPU time that the controller's functions take in the simulator, while this is entered."""

    NAMES = ("decide_size", "pod_actions", "surplus", "assign")

    def __init__(self) -> None:
        self.seconds = 0.0
        self.passes = 0
        self._originals = {name: getattr(podslots, name) for name in self.NAMES}

    def __enter__(self) -> Self:
        for name, function in self._originals.items():
            setattr(podslots, name, self._timed(name, function))
        return self

    def __exit__(self, *_: object) -> None:
        for name, function in self._originals.items():
            setattr(podslots, name, function)

    def _timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any) -> Any:
            began = time.process_time()
            found = function(*arguments)
            self.seconds += time.process_time() - began
            self.passes += name == "decide_size"
            return found

        return timed
