"""The families of pools. Series are made at each scrape, so that none outlives its pool."""

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from metrics import controller_families as families
from metrics.families import Buckets, Family
from metrics.figures import PoolFigures, TaskFigures

Key = tuple[str, str]
"""Namespace and name of a pool."""

GRANTED, REFUSED = "granted", "refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolLabels:
    """The closed sets that counters' labels take their values from: each is shown from the first scrape on, at 0."""

    reasons: Iterable[str]
    phases: Iterable[str]
    steps: Iterable[str]
    reservation_ends: Iterable[str]


class _Counts:
    """What has happened to one pool, since it was first shown."""

    def __init__(self, labels: PoolLabels) -> None:
        self.decisions = dict.fromkeys(map(str, labels.reasons), 0)
        self.drains = {GRANTED: 0, REFUSED: 0}
        self.ended = dict.fromkeys(map(str, labels.phases), 0)
        self.reservations = dict.fromkeys(map(str, labels.reservation_ends), 0)
        self.slot_wait = Buckets(families.SLOT_WAIT.buckets)
        self.approval_wait = Buckets(families.APPROVAL_WAIT.buckets)
        self.steps = {str(step): Buckets(families.STEP_DURATION.buckets) for step in labels.steps}


class PoolMetrics(Collector):
    """The pools of a leader. `now` is the wall clock, in seconds since 1970: ages are right whenever they are read."""

    def __init__(self, registry: CollectorRegistry, labels: PoolLabels, now: Callable[[], float]) -> None:
        self._labels = labels
        self._now = now
        self._figures: dict[Key, PoolFigures] = {}
        self._conditions: dict[Key, Mapping[str, bool]] = {}
        self._counts: dict[Key, _Counts] = {}
        registry.register(self)

    # --- what is said of a pool ---------------------------------------------------------------------------------------

    def show(self, key: Key, figures: PoolFigures) -> None:
        """A pool as a pass saw it."""
        self._figures[key] = figures
        self._begin(key)

    def conditions(self, key: Key, conditions: Mapping[str, bool]) -> None:
        """A pool's conditions as a pass derived them."""
        self._conditions[key] = conditions
        self._begin(key)

    def forget(self, key: Key) -> None:
        """There is no such pool any more."""
        for kept in (self._figures, self._conditions, self._counts):
            kept.pop(key, None)

    def clear(self) -> None:
        """This process shows no pools any more: the next leader does."""
        for kept in (self._figures, self._conditions, self._counts):
            kept.clear()

    def _begin(self, key: Key) -> None:
        if key not in self._counts:
            self._counts[key] = _Counts(self._labels)

    # --- what happens to it; to one that is not shown, nothing is counted ---------------------------------------------

    def decided(self, key: Key, reason: str) -> None:
        """Another size was decided on."""
        if (counts := self._counts.get(key)) is not None:
            counts.decisions[str(reason)] += 1

    def drained(self, key: Key, *, granted: bool) -> None:
        """An agent was asked for a drain, and answered."""
        if (counts := self._counts.get(key)) is not None:
            counts.drains[GRANTED if granted else REFUSED] += 1

    def task_written(self, key: Key, task: TaskFigures) -> None:
        """A task's status was written, and tells something new."""
        if (counts := self._counts.get(key)) is None:
            return
        if task.slot_wait_seconds is not None:
            counts.slot_wait.observe(task.slot_wait_seconds)
        if task.approval_wait_seconds is not None:
            counts.approval_wait.observe(task.approval_wait_seconds)
        for step, seconds in task.steps.items():
            counts.steps[str(step)].observe(seconds)
        if task.ended is not None:
            counts.ended[str(task.ended)] += 1
        if task.reservation_ended is not None:
            counts.reservations[str(task.reservation_ended)] += 1

    # --- what is read -------------------------------------------------------------------------------------------------

    def collect(self) -> Iterator[Metric]:
        """Every family of pools."""
        now = self._now()
        for family, value in _VALUES:
            yield self._gauge(family, value)
        for family, since in _AGES:
            yield self._gauge(family, functools.partial(_age_of, since, now))
        for family, values in _BY_LABEL:
            yield self._by(family, self._figures, values)
        yield self._by(families.CONDITION, self._conditions, lambda conditions: conditions)
        for family, counted in _COUNTED:
            yield self._by(family, self._counts, counted)
        for family, observed in _OBSERVED:
            yield self._histogram(family, observed)

    def _gauge(self, family: Family, value: Callable[[PoolFigures], float | None]) -> Any:
        made: Any = family.collected()
        for key, pool in self._figures.items():
            if (found := value(pool)) is not None:
                made.add_metric(key, found)
        return made

    def _by(self, family: Family, pools: Mapping[Key, Any], values: Callable[[Any], Mapping[Any, float]]) -> Any:
        made: Any = family.collected()
        for key, pool in pools.items():
            for value, count in values(pool).items():
                made.add_metric((*key, *_labels(value)), count)
        return made

    def _histogram(self, family: Family, observed: Callable[[_Counts], Mapping[str, Buckets]]) -> Any:
        made: Any = family.collected()
        for key, counts in self._counts.items():
            for value, buckets in observed(counts).items():
                labels = key if len(family.labels) == len(key) else (*key, value)
                made.add_metric(labels, buckets.cumulative(), buckets.sum)
        return made


def _labels(value: str | tuple[str, ...]) -> tuple[str, ...]:
    return value if isinstance(value, tuple) else (str(value),)


def _age_of(since: Callable[[PoolFigures], float | None], now: float, pool: PoolFigures) -> float:
    began = since(pool)
    return max(0.0, now - began) if began is not None else 0.0


_VALUES: tuple[tuple[Family, Callable[[PoolFigures], float | None]], ...] = (
    (families.DESIRED_PODS, lambda pool: pool.desired),
    (families.CURRENT_PODS, lambda pool: pool.current),
    (families.MIN_PODS, lambda pool: pool.least),
    (families.MAX_PODS, lambda pool: pool.most),
    (families.UTILIZATION, lambda pool: pool.utilization_ratio),
    (families.PODS_NOT_STARTING, lambda pool: pool.not_starting_pods),
    (families.LEAVING_PODS, lambda pool: pool.leaving_pods),
    (families.AGENTS_CONNECTED, lambda pool: pool.connected_agents),
    (families.AGENTS_UNREACHABLE, lambda pool: pool.unreachable_agents),
    (families.QUEUED_TASKS, lambda pool: pool.queued_tasks),
    (families.BLOCKED_TASKS, lambda pool: pool.blocked_tasks),
    (families.NEXT_EXPIRY, lambda pool: pool.next_expiry),
    (families.LOST_LOCKS, lambda pool: pool.lost_locks),
    (families.TOKEN_SINCE, lambda pool: pool.token_since),
)
_AGES: tuple[tuple[Family, Callable[[PoolFigures], float | None]], ...] = (
    (families.OLDEST_QUEUED_AGE, lambda pool: pool.oldest_queued),
    (families.OLDEST_APPROVAL_AGE, lambda pool: pool.oldest_approval),
)
_BY_LABEL: tuple[tuple[Family, Callable[[PoolFigures], Mapping[Any, int]]], ...] = (
    (families.PODS, lambda pool: pool.pods),
    (families.SLOTS, lambda pool: pool.slots),
    (families.CLASS_SLOTS, lambda pool: pool.class_slots),
    (families.FREE_TYPE_SLOTS, lambda pool: pool.free_slots),
    (families.QUEUED_TYPE_TASKS, lambda pool: pool.queue),
    (families.TASKS, lambda pool: pool.tasks),
    (families.PLANS, lambda pool: pool.plans),
    (families.TOKEN_ROTATION, lambda pool: pool.rotation),
)
_COUNTED: tuple[tuple[Family, Callable[[_Counts], Mapping[str, int]]], ...] = (
    (families.SIZE_DECISIONS, lambda counts: counts.decisions),
    (families.DRAINS, lambda counts: counts.drains),
    (families.TASKS_ENDED, lambda counts: counts.ended),
    (families.RESERVATIONS_ENDED, lambda counts: counts.reservations),
)
_OBSERVED: tuple[tuple[Family, Callable[[_Counts], Mapping[str, Buckets]]], ...] = (
    (families.SLOT_WAIT, lambda counts: {"": counts.slot_wait}),
    (families.APPROVAL_WAIT, lambda counts: {"": counts.approval_wait}),
    (families.STEP_DURATION, lambda counts: counts.steps),
)
