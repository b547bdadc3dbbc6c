"""The agent's families as they are kept.

Counts of things that exist (slots, workers) are set from the state when they are read, and never counted up and down
on the side.
"""

import platform
from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from metrics import agent_families as families
from metrics.families import Buckets, Family


class Tally(Collector):
    """A counter with one label, as a dictionary: for what is counted in the path of every request.

    `counts[value] += 1` is a tenth of a client library's `inc()`. One thread only.
    """

    def __init__(self, registry: CollectorRegistry, family: Family, values: Iterable[str]) -> None:
        self.counts = dict.fromkeys(values, 0)
        self._family = family
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """The family as it is now."""
        family = self._family.collected()
        for value, count in self.counts.items():
            family.add_metric([str(value)], count)
        yield family


class Durations(Collector):
    """A histogram without labels, for the path of every write. One thread only."""

    def __init__(self, registry: CollectorRegistry, family: Family) -> None:
        self._family = family
        self._buckets = Buckets(family.buckets)
        self.observe = self._buckets.observe
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """The family as it is now."""
        family = self._family.collected()
        family.add_metric([], self._buckets.cumulative(), self._buckets.sum)
        yield family


class AgentMetrics:
    """The families of an agent. The enums' values are passed in: this package knows no other."""

    def __init__(
        self,
        registry: CollectorRegistry,
        *,
        version: str,
        slot_states: Iterable[str],
        events: Iterable[str],
        outcomes: Iterable[str],
        steps: Iterable[str],
        calls: Iterable[str],
        errors: Iterable[str],
        record_kinds: Iterable[str],
    ) -> None:
        slots = families.SLOTS.gauge(registry)
        self.slots = {state: slots.labels(state) for state in slot_states}
        self.slot_state = families.SLOT_STATE.gauge(registry)
        families.BUILD_INFO.gauge(registry).labels(version, platform.python_version()).set(1)
        self.open = families.OPEN.gauge(registry)
        self.recovering = families.RECOVERING_SLOTS.gauge(registry)
        self.workers = families.WORKERS_CONNECTED.gauge(registry)
        self.ended = families.UNACKNOWLEDGED_TASKS.gauge(registry)
        self.watchers = families.WATCHERS.gauge(registry)
        self.tokens = families.POOL_TOKENS.gauge(registry)
        self.transitions = Tally(registry, families.SLOT_TRANSITIONS, events).counts
        tasks = families.TASKS_ENDED.counter(registry)
        self.tasks_ended = {outcome: tasks.labels(outcome) for outcome in outcomes}
        seconds = families.STEP_DURATION.histogram(registry)
        self.step_seconds = {step: seconds.labels(step) for step in steps}
        self.output_bytes = families.OUTPUT_BYTES.counter(registry)
        self.requests = Tally(registry, families.REQUESTS, calls).counts
        self.refusals = Tally(registry, families.REFUSALS, errors).counts
        self.journal_seconds = Durations(registry, families.JOURNAL_COMMIT_DURATION)
        self.journal_records = Tally(registry, families.JOURNAL_RECORDS, record_kinds).counts
        self.journal_failures = families.JOURNAL_FAILURES.counter(registry)
        self.journal_failing = families.JOURNAL_FAILING.gauge(registry)
        self.journal_bytes = families.JOURNAL_BYTES.gauge(registry)
