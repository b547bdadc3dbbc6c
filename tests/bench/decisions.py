"""How long a scaling decision over a large pool takes."""

import random
import time
from collections.abc import Iterator
from statistics import median

from controller.scaling import decide
from controller.view import PoolView
from tests.bench.figures import Bar, Figure
from tests.support import pools

PODS = 10_000
ROUNDS = 5


def measure() -> Iterator[Figure]:
    """All figures of this module."""
    view = _view(random.Random(1))
    yield Figure(
        name=f"scaling decision, {PODS:,} Pods",
        unit="ms",
        measured=median(_decide(view) for _ in range(ROUNDS)),
        bar=Bar.AT_MOST,
        limit=20,
    )


def _decide(view: PoolView) -> float:
    began = time.perf_counter()
    decide(view)
    return (time.perf_counter() - began) * 1000


def _view(rng: random.Random) -> PoolView:
    """A pool with every mix of slots, at a load from which it may shrink."""
    kinds = ["...", "...", "...", "...", "R..", "r..", ".r."]
    pods = tuple(pools.pod(f"p-{number}", rng.choice(kinds)) for number in range(PODS))
    return pools.pool(pods, max_replicas=PODS, scale_down_utilization_percent=60)
