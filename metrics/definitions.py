"""Every metric family, made by one class per process over a registry that is given.

Label sets are closed: the values of each label are named here or in the enums of the process, and never come from a
task, a Pod or a person. Which Pod and pool a series is about, the scrape's target labels say. Counts of things that
exist (slots, workers) are set from the state when they are read, and never counted up and down on the side.
"""

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

JOURNAL_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
"""From tmpfs to a network disk in trouble."""

STEP_SECONDS = (1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 4 * 3600.0)
"""A plan takes seconds to minutes, an apply minutes to hours."""


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
    ) -> None:
        states, steps = tuple(slot_states), tuple(steps)
        slots = Gauge("podslots_slots", "Slots by state", ["state"], registry=registry)
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
        transitions = Counter("podslots_slot_transitions", "Slot transitions by cause", ["cause"], registry=registry)
        self.transitions = {event: transitions.labels(event) for event in events}
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
        requests = Counter("podslots_agent_requests", "Requests by call", ["call"], registry=registry)
        self.requests = {call: requests.labels(call) for call in calls}
        refusals = Counter("podslots_agent_refusals", "Requests refused, by error", ["error"], registry=registry)
        self.refusals = {error: refusals.labels(error) for error in errors}
        self.journal_seconds = Histogram(
            "podslots_agent_journal_commit_duration_seconds",
            "From handing a commit to the disk to having it there",
            buckets=JOURNAL_SECONDS,
            registry=registry,
        )
        self.journal_records = Counter("podslots_agent_journal_records", "Records journaled", registry=registry)
        self.journal_failures = Counter(
            "podslots_agent_journal_failures", "Commits that the disk refused", registry=registry
        )
        self.journal_failing = Gauge(
            "podslots_agent_journal_failing", "Whether the last commit failed", registry=registry
        )
        self.journal_bytes = Gauge("podslots_agent_journal_bytes", "Size of the journal", registry=registry)
