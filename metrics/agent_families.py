"""The families of an agent. The target labels of the scrape say which Pod and pool a series is about."""

from metrics.families import Family, counter, gauge, histogram

JOURNAL_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
"""From tmpfs to a network disk in trouble."""

STEP_SECONDS = (1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 4 * 3600.0)
"""A plan takes seconds to minutes, an apply minutes to hours."""

SLOTS = gauge(
    "podslots_slots",
    "Slots by state; `recovering`: not known yet, after a lost journal",
    {"state": "`idle`, `running`, `reserved`, `recovering`"},
)
SLOT_STATE = gauge(
    "podslots_slot_state",
    "1 for the state that a slot is in, else 0",
    {"slot": "its number, 0 to 15 at most", "state": "as of `podslots_slots`"},
)
SLOT_TRANSITIONS = counter(
    "podslots_slot_transitions", "Slot transitions by cause", {"cause": "the events of a slot's state machine"}
)
BUILD_INFO = gauge(
    "podslots_agent_build_info",
    "Always 1, with the version of this agent",
    {"version": "of podslots", "python": "of Python"},
)
OPEN = gauge("podslots_agent_open", "Whether the agent takes new work")
RECOVERING_SLOTS = gauge(
    "podslots_agent_recovering_slots",
    "Slots with a worker that has not yet reported what it holds, after a lost journal",
)
WORKERS_CONNECTED = gauge("podslots_agent_workers_connected", "Workers that are connected")
UNACKNOWLEDGED_TASKS = gauge(
    "podslots_agent_unacknowledged_tasks", "Ended tasks with a result that is not acknowledged yet"
)
WATCHERS = gauge("podslots_agent_watchers", "Open watch streams")
POOL_TOKENS = gauge("podslots_agent_pool_tokens", "Pool tokens that are valid now")
TASKS_ENDED = counter(
    "podslots_agent_tasks_ended", "Tasks with work that ended", {"outcome": "how: `succeeded`, `failed`, …"}
)
STEP_DURATION = histogram(
    "podslots_agent_step_duration_seconds",
    "Time from a step's start to its end",
    STEP_SECONDS,
    {"step": "`plan`, `apply`"},
)
OUTPUT_BYTES = counter("podslots_agent_output_bytes", "Bytes of steps' output that the agent received")
REQUESTS = counter("podslots_agent_requests", "Requests by call", {"call": "the calls of the protocol, and `other`"})
REFUSALS = counter("podslots_agent_refusals", "Requests refused, by error", {"error": "the protocol's error codes"})
JOURNAL_COMMIT_DURATION = histogram(
    "podslots_agent_journal_commit_duration_seconds",
    "Duration of a commit to the disk",
    JOURNAL_SECONDS,
)
JOURNAL_RECORDS = counter(
    "podslots_agent_journal_records", "Records journaled, by kind", {"kind": "the kinds of a journal's records"}
)
JOURNAL_FAILURES = counter("podslots_agent_journal_failures", "Commits that could not be written")
JOURNAL_FAILING = gauge("podslots_agent_journal_failing", "Whether the last commit failed")
JOURNAL_BYTES = gauge("podslots_agent_journal_bytes", "Size of the journal")

FAMILIES: tuple[Family, ...] = (
    SLOTS,
    SLOT_STATE,
    SLOT_TRANSITIONS,
    BUILD_INFO,
    OPEN,
    RECOVERING_SLOTS,
    WORKERS_CONNECTED,
    UNACKNOWLEDGED_TASKS,
    WATCHERS,
    POOL_TOKENS,
    TASKS_ENDED,
    STEP_DURATION,
    OUTPUT_BYTES,
    REQUESTS,
    REFUSALS,
    JOURNAL_COMMIT_DURATION,
    JOURNAL_RECORDS,
    JOURNAL_FAILURES,
    JOURNAL_FAILING,
    JOURNAL_BYTES,
)
"""In the order of the documentation."""
