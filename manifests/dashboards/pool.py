"""A pool: why it has its size, what waits, what its Pods hold."""

from manifests.dashboards.figures import plans_to_approve, silent_agents, waiting_tasks
from manifests.dashboards.panels import (
    BLUE,
    GREY,
    RED,
    YELLOW,
    Board,
    Query,
    course,
    figure,
    rows,
    states,
)
from manifests.dashboards.places import POOL, THE_POD, of_pools
from manifests.dashboards.queries import BY_POOL, HOUR, IN_USE, counted, gauge, quantile, shown, total

_NOW = (
    figure(
        "Pods",
        "Pods that make up its size: neither dead nor on their way out.",
        Query(total("podslots_pool_current_pods")),
    ),
    figure(
        "Pods decided on",
        "The size it is to have. If Pods stay fewer, they do not start, or a quota holds them back.",
        Query(total("podslots_pool_desired_pods")),
    ),
    figure(
        "Slots in use",
        "Slots held or asked for, of all.",
        Query(gauge("podslots_pool_utilization_ratio")),
        unit="percentunit",
    ),
    waiting_tasks(),
    figure(
        "Longest wait",
        "How long the oldest task waits that waits for a slot.",
        Query(f"max({gauge('podslots_pool_oldest_queued_age_seconds')})"),
        unit="s",
        steps={300: YELLOW, 900: RED},
    ),
    figure(
        "Tasks that wait for a lock",
        "Another task has their lockKey. No Pod would help them.",
        Query(total("podslots_pool_blocked_tasks")),
        steps={1: BLUE},
    ),
    plans_to_approve(),
    silent_agents(),
)

_SIZE = (
    course(
        "Why this size?",
        "What there is, what was decided on, and the limits. Decided on at its most while tasks wait: raise "
        "maxReplicas. Below what is decided on: Pods do not start.",
        Query(gauge("podslots_pool_current_pods", "pool"), "there are"),
        Query(gauge("podslots_pool_desired_pods", "pool"), "decided on"),
        Query(gauge("podslots_pool_min_pods", "pool"), "least"),
        Query(gauge("podslots_pool_max_pods", "pool"), "most"),
    ),
    course(
        "What has changed the size?",
        "Decisions on another size, by reason. docs/reasons.md says what each means.",
        Query(counted("podslots_pool_size_decisions_total", "reason") + " > 0", "{{reason}}"),
        bars=True,
    ),
    states(
        "Which conditions did it have?",
        "The conditions of the SlotPool over time. Degraded and ScalingLimited are better not there, the others are. "
        "Their reasons: kubectl describe slotpool.",
        Query(gauge("podslots_pool_condition", "condition"), "{{condition}}"),
        words={"0": ("False", GREY), "1": ("True", BLUE)},
        width=12,
    ),
    states(
        "How did its tokens stand?",
        "The reason of the condition TokensInSync. Another than InUse for half an hour: a rotation does not end.",
        Query(gauge("podslots_pool_token_rotation", "reason") + " > 0", "{{reason}}"),
        words={"1": ("is the reason", BLUE)},
        width=12,
    ),
    course(
        "What state are its Pods in?",
        "Pods by state. `draining` have been promised to take no new work, and go.",
        Query(gauge("podslots_pool_pods", "state"), "{{state}}"),
        stacked=True,
        width=8,
    ),
    course(
        "What keeps Pods from coming and going?",
        "Pods that something keeps from starting; those that somebody wants gone and that still hold work.",
        Query(gauge("podslots_pool_not_starting_pods", "pool"), "do not start"),
        Query(gauge("podslots_pool_leaving_pods", "pool"), "are wanted gone, and hold work"),
        width=8,
    ),
    course(
        "Do agents grant their drains?",
        "Before a Pod goes its agent is asked. It refuses while a slot is in use, or a result is not yet recorded.",
        Query(counted("podslots_pool_drains_total", "result"), "{{result}}"),
        bars=True,
        width=8,
    ),
)

_WORK = (
    course(
        "What holds its slots?",
        "Slots by what they accept and state. All that accept an apply reserved: approvals hold up applies.",
        Query(gauge("podslots_pool_class_slots", "class, state"), "{{class}}: {{state}}"),
        stacked=True,
    ),
    course(
        "Is there room for each type?",
        "Slots that would take a task of a type now, and tasks of the type that wait. A slot counts for each type it "
        "accepts.",
        Query(gauge("podslots_pool_free_type_slots", "type"), "{{type}}: free slots"),
        Query(gauge("podslots_pool_queued_type_tasks", "type"), "{{type}}: tasks waiting"),
    ),
    course(
        "How long do tasks wait for a slot?",
        "Of those that got one within the last hour. Waiting for a lockKey counts too.",
        Query(quantile(0.5, "podslots_pool_slot_wait_seconds", window=HOUR), "half of them: at most"),
        Query(quantile(0.95, "podslots_pool_slot_wait_seconds", window=HOUR), "95 %: at most"),
        Query(quantile(0.99, "podslots_pool_slot_wait_seconds", window=HOUR), "99 %: at most"),
        unit="s",
        steps={900: RED},
    ),
    course(
        "How long do steps take?",
        "Of steps that ended within the last hour, from their start to their end.",
        Query(
            quantile(0.5, "podslots_pool_step_duration_seconds", by="step", window=HOUR),
            "{{step}}, half of them: at most",
        ),
        Query(quantile(0.95, "podslots_pool_step_duration_seconds", by="step", window=HOUR), "{{step}}, 95 %: at most"),
        unit="s",
    ),
    course(
        "How do tasks end?",
        "Tasks that ended, by phase. Lost: nobody knows how far they came.",
        Query(counted("podslots_pool_tasks_ended_total", "phase"), "{{phase}}"),
        bars=True,
    ),
    course(
        "Where are its tasks?",
        "Tasks that have not ended, by phase.",
        Query(
            gauge("podslots_pool_tasks", "phase", 'phase!~"Succeeded|Failed|Cancelled|Expired|Lost"'),
            "{{phase}}",
        ),
        stacked=True,
    ),
    rows(
        "Which Pods hold the most?",
        "The 50 Pods with the most slots in use, as their agents say. The Pod's name leads to its slots.",
        Query(
            f"topk(50, sum by ({BY_POOL}, pod) ({shown('podslots_slots', more=IN_USE)}))",
            "slots in use",
        ),
        links={"pod": THE_POD},
    ),
)

BOARD = Board(
    POOL,
    "podslots / pool",
    "Why has the pool this size? What waits, and what do its Pods hold? Of several clusters, choose one.",
    of_pools(one=True),
    (("Now", _NOW), ("Size", _SIZE), ("Work", _WORK)),
)
