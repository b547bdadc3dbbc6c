"""Approvals: what awaits a person, since when, until when, and what the waiting holds."""

from manifests.dashboards.panels import BLUE, RED, YELLOW, Board, Query, course, figure, rows
from manifests.dashboards.places import APPROVALS, THE_POOL, of_pools
from manifests.dashboards.queries import (
    BY_POOL,
    BY_STATE,
    HOUR,
    RANGE,
    RESERVED,
    counted,
    gauge,
    quantile,
    shown,
    total,
)

_WAITS = 'phase="AwaitingApproval"'
_EXPIRY = f"min by ({BY_POOL}) ({shown('podslots_pool_next_expiry_timestamp_seconds')})"
_ANSWERED = "podslots_pool_approval_wait_seconds"

_NOW = (
    figure(
        "Plans to approve",
        "Plans that await a person now. `podslots plans` lists them, with the command to approve each.",
        Query(total("podslots_pool_tasks", _WAITS)),
        steps={1: BLUE},
        width=4,
    ),
    figure(
        "Waiting for the longest",
        "How long the oldest plan has awaited its approval.",
        Query(f"max({gauge('podslots_pool_oldest_approval_age_seconds')})"),
        unit="s",
        steps={4 * 3600: YELLOW, 24 * 3600: RED},
        width=4,
    ),
    figure(
        "Next to expire, in",
        "When the first reservation ends by its limit, unless it is approved. Then its plan has to be made again.",
        Query(f"min({_EXPIRY}) - time()"),
        unit="s",
        steps={-1e9: RED, 3600: YELLOW, 4 * 3600: "green"},
        width=4,
    ),
    figure(
        "Slots held by waiting",
        "The share of all slots that is reserved.",
        Query(f"{total('podslots_pool_slots', RESERVED, BY_STATE)} / {total('podslots_pool_slots', labels=BY_STATE)}"),
        unit="percentunit",
        steps={0.5: YELLOW, 0.8: RED},
        width=4,
    ),
    figure(
        "Half are approved within",
        "Of the plans that were approved in the time shown.",
        Query(quantile(0.5, _ANSWERED, window=RANGE)),
        unit="s",
        width=4,
    ),
    figure(
        "90 % are approved within",
        "Of the plans that were approved in the time shown.",
        Query(quantile(0.9, _ANSWERED, window=RANGE)),
        unit="s",
        width=4,
    ),
    rows(
        "Where do plans wait?",
        "A row for each pool that has some: how many, since when, and when the first expires. The pool's name leads to "
        "its own dashboard.",
        Query(f"{gauge('podslots_pool_tasks', more=_WAITS)} > 0", "plans"),
        Query(f"{gauge('podslots_pool_oldest_approval_age_seconds')} > 0", "oldest"),
        Query(f"{_EXPIRY} - time()", "first expires in"),
        units={"oldest": "s", "first expires in": "s"},
        steps={"oldest": {4 * 3600: YELLOW, 24 * 3600: RED}},
        links={"pool": THE_POOL},
    ),
)

_TIME = (
    course(
        "When do plans wait?",
        "Plans that await a person, by pool.",
        Query(gauge("podslots_pool_tasks", more=_WAITS), "{{namespace}}/{{pool}}"),
        stacked=True,
    ),
    course(
        "How long do approvals take?",
        "Of plans approved within the last hour, from the plan's end to the approval.",
        Query(quantile(0.5, _ANSWERED, window=HOUR), "half of them: at most"),
        Query(quantile(0.9, _ANSWERED, window=HOUR), "90 %: at most"),
        unit="s",
    ),
    course(
        "How do reservations end?",
        "`expired`: nobody answered in time. `lost`: the Pod, or its directory, is gone.",
        Query(counted("podslots_pool_reservations_ended_total", "how"), "{{how}}"),
        bars=True,
    ),
    course(
        "Do plans find changes?",
        "Tasks by what their plan found. Plans without changes need no approval.",
        Query(total("podslots_pool_plans", labels=f"{BY_POOL}, found", by="found"), "{{found}}"),
        stacked=True,
    ),
    course(
        "Do lost tasks hold locks?",
        "lockKeys of lost tasks of which nobody knows whether they still run: others wait until a person says so.",
        Query(gauge("podslots_pool_lost_task_locks"), "{{namespace}}/{{pool}}"),
        steps={1: RED},
    ),
    course(
        "What holds applies up?",
        "Slots that would take a task of a type now, and tasks of the type that wait. None free while some wait: "
        "reservations may hold them all.",
        Query(total("podslots_pool_free_type_slots", labels=f"{BY_POOL}, type", by="type"), "{{type}}: free slots"),
        Query(
            total("podslots_pool_queued_type_tasks", labels=f"{BY_POOL}, type", by="type"), "{{type}}: tasks waiting"
        ),
    ),
)

BOARD = Board(
    APPROVALS,
    "podslots / approvals",
    "What awaits a person, since when and until when? How long do people take, and what does waiting hold?",
    of_pools(),
    (("Now", _NOW), ("Over time", _TIME)),
)
