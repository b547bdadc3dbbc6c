"""The fleet: whether anything is wrong, how the pools stand, how the controller and the agents are."""

from manifests.alerts import ALERTS, Severity
from manifests.dashboards.figures import plans_to_approve, silent_agents, waiting_tasks
from manifests.dashboards.panels import (
    BLUE,
    GREEN,
    GREY,
    RED,
    YELLOW,
    Board,
    Query,
    course,
    figure,
    matrix,
    rows,
)
from manifests.dashboards.places import FLEET, THE_POOL, of_pools
from manifests.dashboards.queries import (
    BY_POOL,
    BY_STATE,
    HOUR,
    IN_CLUSTER,
    IN_USE,
    RANGE,
    counted,
    gauge,
    per_second,
    quantile,
    shown,
    total,
)

_ALERTS = "|".join(alert.name for alert in ALERTS if alert.severity is not Severity.INFO)
_FIRING = shown("ALERTS", IN_CLUSTER, f'alertstate="firing", alertname=~"{_ALERTS}"')
_JOURNAL = "pool_le:podslots_agent_journal_commit_duration_seconds_bucket:rate5m"

_WRONG = (
    figure(
        "Does a controller lead?",
        "Whether each installation has a replica that leads; no, if none is scraped. Without one nothing is dispatched "
        "and nothing scales; what runs goes on.",
        Query(
            f"min(max by (cluster, namespace, job) ({shown('podslots_controller_leader', IN_CLUSTER)})) or vector(0)"
        ),
        words={"0": ("no", RED), "1": ("yes", GREEN)},
    ),
    figure(
        "Alerts that fire",
        "Alerts of podslots that fire, but for those that tell of a plan to approve. They are listed below.",
        Query(f"count({_FIRING}) or vector(0)"),
        steps={1: RED},
    ),
    figure(
        "Pods",
        "Pods that make up the pools' sizes: neither dead nor on their way out.",
        Query(total("podslots_pool_current_pods")),
    ),
    figure(
        "Pods too few",
        "How many more Pods were decided on than there are. If it stays above 0, Pods do not start, or a quota holds "
        "them back.",
        Query(f"sum(clamp_min({gauge('podslots_pool_desired_pods')} - {gauge('podslots_pool_current_pods')}, 0))"),
        steps={1: YELLOW},
    ),
    figure(
        "Slots in use",
        "The share of slots that run something or are reserved.",
        Query(f"{total('podslots_pool_slots', IN_USE, BY_STATE)} / {total('podslots_pool_slots', labels=BY_STATE)}"),
        unit="percentunit",
    ),
    waiting_tasks(),
    plans_to_approve(),
    silent_agents(),
    rows(
        "Which alerts fire?",
        "Each has its page in docs/runbooks.md: what it means, what to look at, what to do.",
        Query(
            f"max by (alertname, severity, {BY_POOL}) ({_FIRING})",
            "firing",
        ),
        links={"pool": THE_POOL},
        hidden=("Value",),
    ),
)

_POOLS = (
    rows(
        "How do the pools stand?",
        "A row for each pool: its size, the size decided on and its most, what waits, and what does not work. The "
        "pool's name leads to its own dashboard.",
        Query(gauge("podslots_pool_current_pods"), "Pods"),
        Query(gauge("podslots_pool_desired_pods"), "decided on"),
        Query(gauge("podslots_pool_max_pods"), "most"),
        Query(gauge("podslots_pool_utilization_ratio"), "in use"),
        Query(gauge("podslots_pool_queued_tasks"), "tasks waiting"),
        Query(gauge("podslots_pool_oldest_queued_age_seconds"), "longest wait"),
        Query(gauge("podslots_pool_tasks", more='phase="AwaitingApproval"'), "plans to approve"),
        Query(gauge("podslots_pool_not_starting_pods"), "Pods not starting"),
        Query(gauge("podslots_pool_agents_unreachable"), "agents silent"),
        units={"in use": "percentunit", "longest wait": "s"},
        steps={
            "longest wait": {300: YELLOW, 900: RED},
            "Pods not starting": {1: RED},
            "agents silent": {1: RED},
        },
        links={"pool": THE_POOL},
    ),
    matrix(
        "Which conditions do the pools have?",
        "The conditions of each SlotPool, as in its status. Degraded and ScalingLimited are better not there, the "
        "others are. The reasons, in words: kubectl describe slotpool, or the controller's page.",
        Query(
            f'max by (of, condition) (label_join({shown("podslots_pool_condition")}, "of", "/", "namespace", "pool"))'
        ),
        row="of",
        column="condition",
        words={"0": ("False", GREY), "1": ("True", BLUE)},
        width=14,
    ),
    rows(
        "What has changed their sizes?",
        "Decisions on another size in the time shown, by reason. docs/reasons.md says what each means.",
        Query(
            f"round({counted('podslots_pool_size_decisions_total', f'{BY_POOL}, reason', window=RANGE)}) > 0",
            "decisions",
        ),
        links={"pool": THE_POOL},
        width=10,
    ),
)

_WORK = (
    course(
        "Are there slots enough?",
        "Slots by state, of all chosen pools. `reserved` hold a plan that awaits its approval.",
        Query(total("podslots_pool_slots", labels=BY_STATE, by="state"), "{{state}}"),
        stacked=True,
    ),
    course(
        "Where does the queue grow?",
        "Tasks that wait for a slot, by pool. A queue that lasts at a pool's most Pods asks for a greater maxReplicas.",
        Query(gauge("podslots_pool_queued_tasks"), "{{namespace}}/{{pool}}"),
        stacked=True,
    ),
    course(
        "How long do tasks wait for a slot?",
        "Of those that got one within the last hour. Waiting for a lockKey counts too.",
        Query(quantile(0.5, "podslots_pool_slot_wait_seconds", window=HOUR), "half of them: at most"),
        Query(quantile(0.95, "podslots_pool_slot_wait_seconds", window=HOUR), "95 %: at most"),
        unit="s",
        steps={900: RED},
    ),
    course(
        "How do tasks end?",
        "Tasks that ended, by phase. Lost: nobody knows how far they came.",
        Query(counted("podslots_pool_tasks_ended_total", "phase"), "{{phase}}"),
        bars=True,
    ),
)

_CONTROLLER = (
    course(
        "How long does a pass take?",
        "Of one look at one pool. A hundredth of a second is much.",
        Query(
            quantile(0.5, "podslots_controller_reconcile_duration_seconds", where=IN_CLUSTER), "half of them: at most"
        ),
        Query(quantile(0.99, "podslots_controller_reconcile_duration_seconds", where=IN_CLUSTER), "99 %: at most"),
        unit="s",
        width=8,
    ),
    course(
        "Do passes or operations fail?",
        "`broken` is an error of podslots: its log has it. Conflicts are a part of normal work.",
        Query(
            counted("podslots_controller_passes_total", "result", IN_CLUSTER, 'result="broken"'), "passes: {{result}}"
        ),
        Query(
            counted("podslots_controller_operations_total", "kind, result", IN_CLUSTER, 'result!="done"') + " > 0",
            "{{kind}}: {{result}}",
        ),
        bars=True,
        width=8,
    ),
    course(
        "Does leadership change?",
        "Once at a roll-out of the controller. More often: it can't renew its Lease, or restarts.",
        Query(counted("podslots_controller_leadership_changes_total", "change", IN_CLUSTER), "{{change}}"),
        bars=True,
        width=8,
    ),
    course(
        "What does it ask of the Kubernetes API?",
        "Calls by HTTP status; `none`: no answer came. Many 429: the API server, or PODSLOTS_KUBE_QPS, holds it back.",
        Query(per_second("podslots_controller_kubernetes_requests_total", "code", IN_CLUSTER), "{{code}}"),
        unit="reqps",
        stacked=True,
    ),
    course(
        "What does it ask of agents?",
        "Calls by HTTP status; `none`: no answer came. Some 409 are a part of normal work: they refuse what is late.",
        Query(per_second("podslots_controller_agent_requests_total", "code", IN_CLUSTER), "{{code}}"),
        unit="reqps",
        stacked=True,
    ),
)

_AGENTS = (
    course(
        "What do the agents say of their slots?",
        "As scraped from the agents themselves. If it differs from the controller's picture above for more than a "
        "minute, agents are not scraped, or the controller does not hear them.",
        Query(f"sum by (state) ({shown('pool_state:podslots_slots:sum')})", "{{state}}"),
        stacked=True,
    ),
    course(
        "How long does a write to a journal take?",
        "Each change of a slot waits for it. Tenths of a second are a disk in trouble.",
        Query(f"histogram_quantile(0.5, sum by (le) ({shown(_JOURNAL)}))", "half of them: at most"),
        Query(f"histogram_quantile(0.99, sum by (le) ({shown(_JOURNAL)}))", "99 %: at most"),
        unit="s",
        steps={0.1: RED},
    ),
    course(
        "Can agents write their journals?",
        "Agents that take new work, and those whose last write failed: they keep what they hold and refuse the rest.",
        Query(f"sum({shown('pool:podslots_agent_open:sum')})", "open"),
        Query(f"sum({shown('pool:podslots_agent_journal_failing:sum')})", "can't write"),
        width=8,
    ),
    course(
        "What do agents refuse?",
        "Requests by error. `drained` and `no_free_slot` are a part of normal work; `unauthorized` is a token that is "
        "not theirs.",
        Query(f"sum by (error) ({shown('pool_error:podslots_agent_refusals:rate5m')}) > 0", "{{error}}"),
        unit="reqps",
        stacked=True,
        width=8,
    ),
    course(
        "Which versions run?",
        "Agents by version. Pods that hold work keep theirs until it is done.",
        Query(f"sum by (version) ({shown('pool_version:podslots_agent_build_info:count')})", "{{version}}"),
        stacked=True,
        width=8,
    ),
)

BOARD = Board(
    FLEET,
    "podslots / fleet",
    "Is anything wrong? How do the pools stand, and how are the controller and the agents?",
    of_pools(),
    (
        ("Is anything wrong?", _WRONG),
        ("Pools", _POOLS),
        ("Work", _WORK),
        ("The controller", _CONTROLLER),
        ("Agents", _AGENTS),
    ),
)
