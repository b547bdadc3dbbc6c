"""Every metric family, made by one class per process over a registry that is given.

Label sets are closed: the values of each label are named here or in the enums of the process, and never come from a
task, a Pod or a person. Which Pod and pool a series is about, the scrape's target labels say. Counts of things that
exist (slots, workers) are set from the state when they are read, and never counted up and down on the side.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

JOURNAL_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
"""From tmpfs to a network disk in trouble."""

STEP_SECONDS = (1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 4 * 3600.0)
"""A plan takes seconds to minutes, an apply minutes to hours."""


class Tally(Collector):
    """A counter with one label, as a dictionary: for what is counted in the path of every request.

    `counts[value] += 1` is a tenth of a client library's `inc()`. One thread only.
    """

    def __init__(
        self, registry: CollectorRegistry, name: str, help_text: str, label: str, values: Iterable[str]
    ) -> None:
        self.counts = dict.fromkeys(values, 0)
        self._name, self._help, self._label = name, help_text, label
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """The family as it is now."""
        family = CounterMetricFamily(self._name, self._help, labels=[self._label])
        for value, count in self.counts.items():
            family.add_metric([str(value)], count)
        yield family


class Durations(Collector):
    """A histogram without labels, for the path of every write. One thread only."""

    def __init__(self, registry: CollectorRegistry, name: str, help_text: str, bounds: tuple[float, ...]) -> None:
        self._name, self._help, self._bounds = name, help_text, bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0
        registry.register(self)

    def observe(self, seconds: float) -> None:
        """One more."""
        self._counts[bisect_left(self._bounds, seconds)] += 1
        self._sum += seconds

    def collect(self) -> Iterator[Metric]:
        """The family as it is now."""
        total, buckets = 0, []
        for bound, count in zip((*map(str, self._bounds), "+Inf"), self._counts, strict=True):
            total += count
            buckets.append((bound, float(total)))
        family = HistogramMetricFamily(self._name, self._help)
        family.add_metric([], buckets, self._sum)
        yield family


class AgentMetrics:
    """The families of an agent. The enums' values are passed in: this package knows no other."""

    def __init__(
        self,
        registry: CollectorRegistry,
        *,
        slot_states: Iterable[str],
        events: Iterable[str],
        outcomes: Iterable[str],
        steps: Iterable[str],
        calls: Iterable[str],
        errors: Iterable[str],
        record_kinds: Iterable[str],
    ) -> None:
        states, steps = tuple(slot_states), tuple(steps)
        slots = Gauge(
            "podslots_slots",
            "Slots by state; `recovering`: not known yet, after a lost journal",
            ["state"],
            registry=registry,
        )
        self.slots = {state: slots.labels(state) for state in states}
        self.open = Gauge("podslots_agent_open", "Whether the agent takes new work", registry=registry)
        self.recovering = Gauge(
            "podslots_agent_recovering_slots",
            "Slots whose worker has not yet said what it holds after a lost journal",
            registry=registry,
        )
        self.workers = Gauge("podslots_agent_workers_connected", "Workers heard of lately", registry=registry)
        self.ended = Gauge(
            "podslots_agent_unacknowledged_tasks", "Ended tasks whose result waits for its ack", registry=registry
        )
        self.watchers = Gauge("podslots_agent_watchers", "Open watch streams", registry=registry)
        self.tokens = Gauge("podslots_agent_pool_tokens", "Pool tokens that are valid now", registry=registry)
        self.transitions = Tally(
            registry, "podslots_slot_transitions", "Slot transitions by cause", "cause", events
        ).counts
        tasks = Counter("podslots_agent_tasks_ended", "Tasks with work that ended", ["outcome"], registry=registry)
        self.tasks_ended = {outcome: tasks.labels(outcome) for outcome in outcomes}
        seconds = Histogram(
            "podslots_agent_step_duration_seconds",
            "From a step's start to its end",
            ["step"],
            buckets=STEP_SECONDS,
            registry=registry,
        )
        self.step_seconds = {step: seconds.labels(step) for step in steps}
        self.output_bytes = Counter("podslots_agent_output_bytes", "Output received of steps", registry=registry)
        self.requests = Tally(registry, "podslots_agent_requests", "Requests by call", "call", calls).counts
        self.refusals = Tally(registry, "podslots_agent_refusals", "Requests refused, by error", "error", errors).counts
        self.journal_seconds = Durations(
            registry,
            "podslots_agent_journal_commit_duration_seconds",
            "From handing a commit to the disk to having it there",
            JOURNAL_SECONDS,
        )
        self.journal_records = Tally(
            registry, "podslots_agent_journal_records", "Records journaled, by kind", "kind", record_kinds
        ).counts
        self.journal_failures = Counter(
            "podslots_agent_journal_failures", "Commits that the disk refused", registry=registry
        )
        self.journal_failing = Gauge(
            "podslots_agent_journal_failing", "Whether the last commit failed", registry=registry
        )
        self.journal_bytes = Gauge("podslots_agent_journal_bytes", "Size of the journal", registry=registry)
