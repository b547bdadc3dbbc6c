"""The families of a controller: of its process, and of each pool. Only the leader shows those of pools."""

from metrics.families import Family, counter, gauge, histogram

RECONCILE_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
"""A pass does no I/O: a hundredth of a second is much, even for thousands of Pods."""

SLOT_WAIT_SECONDS = (1.0, 5.0, 15.0, 60.0, 180.0, 600.0, 1800.0, 3600.0, 4 * 3600.0)
"""A free slot is given within a second; a Pod from nothing takes up to minutes; the rest is a pool at its maximum."""

APPROVAL_WAIT_SECONDS = (60.0, 300.0, 900.0, 3600.0, 4 * 3600.0, 12 * 3600.0, 24 * 3600.0, 7 * 24 * 3600.0)
"""People answer in minutes, or tomorrow."""

STEP_SECONDS = (1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 4 * 3600.0)
"""A plan takes seconds to minutes, an apply minutes to hours."""

_POOL = {"namespace": "the pool's", "pool": "the pool's name"}
_STEP = {**_POOL, "step": "`plan`, `apply`"}
_TYPE = {**_POOL, "type": "the task types of the pool's layout; `other`: a type that no slot accepts"}

# --- the process ------------------------------------------------------------------------------------------------------

BUILD_INFO = gauge(
    "podslots_controller_build_info",
    "Always 1, with the version of this controller",
    {"version": "of podslots", "python": "of Python"},
)
LEADER = gauge("podslots_controller_leader", "Whether this replica leads")
LEADERSHIP_CHANGES = counter(
    "podslots_controller_leadership_changes",
    "How often this replica began or stopped to lead",
    {"change": "`gained`, `lost`"},
)
RECONCILE_DURATION = histogram(
    "podslots_controller_reconcile_duration_seconds", "Duration of one pass over one pool", RECONCILE_SECONDS
)
PASSES = counter(
    "podslots_controller_passes",
    "Passes over pools, by result",
    {"result": "`done`, or `broken`: a defect of the controller"},
)
OPERATIONS = counter(
    "podslots_controller_operations",
    "Operations by kind and result",
    {"kind": "what is acted on", "result": "`done`, `conflict`, `failed`, `not_leader`, `broken`, `cancelled`"},
)
OPERATIONS_IN_FLIGHT = gauge("podslots_controller_operations_in_flight", "Operations under way")
KUBERNETES_REQUESTS = counter(
    "podslots_controller_kubernetes_requests",
    "Calls of the Kubernetes API; code `none`: there was no answer",
    {"verb": "of the API", "resource": "the kinds that podslots uses", "code": "HTTP status, or `none`"},
)
AGENT_REQUESTS = counter(
    "podslots_controller_agent_requests",
    "Calls of agents; code `none`: there was no answer",
    {"call": "the calls of the protocol that the controller makes", "code": "HTTP status, or `none`"},
)

# --- pools: their size ------------------------------------------------------------------------------------------------

DESIRED_PODS = gauge("podslots_pool_desired_pods", "The size that the controller decided on", _POOL)
CURRENT_PODS = gauge(
    "podslots_pool_current_pods", "Pods that count as the size: not dead, not retiring and not being removed", _POOL
)
MIN_PODS = gauge("podslots_pool_min_pods", "The least size: minReplicas, or replicas of a pool of fixed size", _POOL)
MAX_PODS = gauge("podslots_pool_max_pods", "The greatest size: maxReplicas, or replicas of a pool of fixed size", _POOL)
SIZE_DECISIONS = counter(
    "podslots_pool_size_decisions",
    "Decisions that changed the size, by reason",
    {**_POOL, "reason": "the reasons of a size (docs/reasons.md)"},
)
UTILIZATION = gauge("podslots_pool_utilization_ratio", "The share of all slots that is held or asked for", _POOL)
CONDITION = gauge(
    "podslots_pool_condition",
    "The pool's conditions: 1 if it is True",
    {**_POOL, "condition": "`Ready`, `Progressing`, `Degraded`, …"},
)

# --- pools: Pods and slots --------------------------------------------------------------------------------------------

PODS = gauge("podslots_pool_pods", "Pods by state", {**_POOL, "state": "`starting`, `active`, `draining`, `dead`"})
PODS_NOT_STARTING = gauge("podslots_pool_not_starting_pods", "Pods that can't start", _POOL)
LEAVING_PODS = gauge(
    "podslots_pool_leaving_pods",
    "Pods that are to be removed, but still hold work or have not answered",
    _POOL,
)
AGENTS_CONNECTED = gauge("podslots_pool_agents_connected", "Agents that the controller is connected to", _POOL)
AGENTS_UNREACHABLE = gauge(
    "podslots_pool_agents_unreachable", "Agents that do not answer, of active Pods that are not known to be dead", _POOL
)
DRAINS = counter(
    "podslots_pool_drains",
    "Drains that the controller asked agents for",
    {**_POOL, "result": "`granted`, `refused`"},
)
SLOTS = gauge(
    "podslots_pool_slots", "Slots by state", {**_POOL, "state": "`idle`, `running`, `reserved`, `recovering`"}
)
CLASS_SLOTS = gauge(
    "podslots_pool_class_slots",
    "Slots by what they accept and state",
    {
        **_POOL,
        "class": "the task types that a slot of the pool's layout accepts, joined by `+`; `other`: an earlier layout's",
        "state": "`idle`, `running`, `reserved`",
    },
)
FREE_TYPE_SLOTS = gauge(
    "podslots_pool_free_type_slots",
    "Free slots by the type that they accept; a slot counts once for each type",
    {**_POOL, "type": "the task types of the pool's layout"},
)

# --- pools: tasks -----------------------------------------------------------------------------------------------------

QUEUED_TASKS = gauge("podslots_pool_queued_tasks", "Tasks that wait for a slot", _POOL)
QUEUED_TYPE_TASKS = gauge("podslots_pool_queued_type_tasks", "Tasks that wait for a slot, by type", _TYPE)
BLOCKED_TASKS = gauge("podslots_pool_blocked_tasks", "Tasks that wait for a lock", _POOL)
TASKS = gauge(
    "podslots_pool_tasks", "Tasks by phase", {**_POOL, "phase": "the phases of a SlotTask, those that have ended too"}
)
PLANS = gauge(
    "podslots_pool_plans",
    "Tasks by what their plan found, according to its exit code",
    {**_POOL, "found": "`changed`, `unchanged`"},
)
OLDEST_QUEUED_AGE = gauge(
    "podslots_pool_oldest_queued_age_seconds",
    "How long the oldest queued task has waited for a slot; 0: none waits",
    _POOL,
)
OLDEST_APPROVAL_AGE = gauge(
    "podslots_pool_oldest_approval_age_seconds",
    "How long the oldest plan has waited for its approval; 0: none waits",
    _POOL,
)
NEXT_EXPIRY = gauge(
    "podslots_pool_next_expiry_timestamp_seconds",
    "When the next reservation expires, in seconds since 1970; no series if there is none",
    _POOL,
)
LOST_LOCKS = gauge("podslots_pool_lost_task_locks", "lockKeys of lost tasks that may still run", _POOL)
SLOT_WAIT = histogram(
    "podslots_pool_slot_wait_seconds",
    "Time from being queued to getting a slot, including the wait for a lockKey",
    SLOT_WAIT_SECONDS,
    _POOL,
)
APPROVAL_WAIT = histogram(
    "podslots_pool_approval_wait_seconds", "Time from a plan's end to its approval", APPROVAL_WAIT_SECONDS, _POOL
)
STEP_DURATION = histogram(
    "podslots_pool_step_duration_seconds", "Time from a step's start to its end", STEP_SECONDS, _STEP
)
TASKS_ENDED = counter(
    "podslots_pool_tasks_ended",
    "Tasks that ended, by phase",
    {**_POOL, "phase": "`Succeeded`, `Failed`, `Cancelled`, `Expired`, `Lost`"},
)
RESERVATIONS_ENDED = counter(
    "podslots_pool_reservations_ended",
    "Reservations that ended, by cause",
    {**_POOL, "how": "`approved`, `cancelled`, `expired`, `lost`"},
)

# --- pools: tokens ----------------------------------------------------------------------------------------------------

TOKEN_SINCE = gauge(
    "podslots_pool_token_since_timestamp_seconds",
    "Since when the current token is used, in seconds since 1970",
    _POOL,
)
TOKEN_ROTATION = gauge(
    "podslots_pool_token_rotation",
    "State of the token rotation: 1 for the reason of the condition TokensInSync, else 0",
    {**_POOL, "reason": "the reasons of the condition `TokensInSync`"},
)

OF_THE_PROCESS: tuple[Family, ...] = (
    BUILD_INFO,
    LEADER,
    LEADERSHIP_CHANGES,
    RECONCILE_DURATION,
    PASSES,
    OPERATIONS,
    OPERATIONS_IN_FLIGHT,
    KUBERNETES_REQUESTS,
    AGENT_REQUESTS,
)
OF_POOLS: tuple[Family, ...] = (
    DESIRED_PODS,
    CURRENT_PODS,
    MIN_PODS,
    MAX_PODS,
    SIZE_DECISIONS,
    UTILIZATION,
    CONDITION,
    PODS,
    PODS_NOT_STARTING,
    LEAVING_PODS,
    AGENTS_CONNECTED,
    AGENTS_UNREACHABLE,
    DRAINS,
    SLOTS,
    CLASS_SLOTS,
    FREE_TYPE_SLOTS,
    QUEUED_TASKS,
    QUEUED_TYPE_TASKS,
    BLOCKED_TASKS,
    TASKS,
    PLANS,
    OLDEST_QUEUED_AGE,
    OLDEST_APPROVAL_AGE,
    NEXT_EXPIRY,
    LOST_LOCKS,
    SLOT_WAIT,
    APPROVAL_WAIT,
    STEP_DURATION,
    TASKS_ENDED,
    RESERVATIONS_ENDED,
    TOKEN_SINCE,
    TOKEN_ROTATION,
)
FAMILIES = (*OF_THE_PROCESS, *OF_POOLS)
"""In the order of the documentation."""
