"""How much is measured. `FULL` is what the figures in docs/performance.md come from; `TINY` proves that it runs."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """`rounds` pairs of measurements of `seconds` each, in each of so many `launches` of fresh processes."""

    launches: int = 2
    rounds: int = 10
    seconds: float = 0.4
    starts: int = 20
    tasks: int = 10_000
    agents: int = 1_000
    pods: int = 10_000
    creates: int = 100
    dispatches: int = 20
    cached_pods: int = 2_600
    lease_seconds: int = 60  # with `cached_pods`: the embedded API server takes seconds for lists of so many
    ended: int = 100_000
    queued: int = 30_000
    waiting: int = 10_000
    warm_pods: int = 5
    short_tasks: int = 300
    page_pods: int = 2_000
    simulated: int = 100_000


FULL = Effort()

TINY = Effort(
    launches=1,
    rounds=1,
    seconds=0.05,
    starts=1,
    tasks=30,
    agents=20,
    pods=200,
    creates=5,
    dispatches=2,
    cached_pods=30,
    lease_seconds=4,
    ended=300,
    queued=600,
    waiting=50,
    warm_pods=1,
    short_tasks=3,
    page_pods=60,
    simulated=300,
)
