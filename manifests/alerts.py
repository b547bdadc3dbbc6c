"""The alert rules: one table, of which manifests/monitoring/rules is written (`python -m manifests.rules`).

In the manner of kubernetes-mixin. Expressions are about a pool, wherever its figures come from: the replica that leads
is aggregated away, so that an alert goes on when another one takes over. `cluster` is a label that a Prometheus of
several clusters has; where there is none, nothing changes.
"""

from dataclasses import dataclass
from enum import StrEnum

POOL = "cluster, namespace, pool"
TYPE = f"{POOL}, type"
APPLIES = '{type=~".*apply.*"}'
WHERE = "{{ $labels.namespace }}/{{ $labels.pool }}"


class Severity(StrEnum):
    """`critical`: work stands still or may be lost. `warning`: it soon will. `info`: a person is asked."""

    CRITICAL = "critical"
    WARNING = "warning"
    INFO = "info"


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """One rule. `after` is how long it must hold, as Prometheus writes durations."""

    name: str
    severity: Severity
    after: str
    expr: str
    summary: str
    description: str


def most(metric: str, by: str = POOL) -> str:
    """A gauge of a pool, whichever replica shows it."""
    return f"max by ({by}) ({metric})"


def happened(metric: str, minutes: int) -> str:
    """That something has happened to a pool lately, by a counter of the replica that leads.

    `increase` sees nothing in the first value of a series. What a leader had counted before its first scrape is all of
    it: counters begin at 0 with each leader. So the value itself counts, for as long as the leader is that young. That
    the series is young would not do: a single scrape that failed makes it so, and a count of long ago would be news.
    """
    window = f"{minutes}m"
    counted = f"sum by ({POOL}) (increase({metric}[{window}])) > 0"
    young = (
        f"time() - process_start_time_seconds < {minutes} * 60"
        f' or increase(podslots_controller_leadership_changes_total{{change="gained"}}[{window}]) > 0'
    )
    return f"{counted}\nor sum by ({POOL}) ({metric} and on (cluster, job, instance) ({young})) > 0"


ALERTS = (
    Alert(
        name="SlotPoolMaxedOut",
        severity=Severity.WARNING,
        after="15m",
        expr=(
            f"{most('podslots_pool_current_pods')} >= {most('podslots_pool_max_pods')}\n"
            f"and {most('podslots_pool_max_pods')} != {most('podslots_pool_min_pods')}\n"
            f"and {most('podslots_pool_queued_tasks')} > 0"
        ),
        summary="A pool is at its maximum, and tasks wait.",
        description=f"Pool {WHERE} has had {{{{ $value }}}} Pods, as many as it may or more, for 15 minutes "
        "while tasks wait.",
    ),
    Alert(
        name="SlotPoolReplicasMismatch",
        severity=Severity.WARNING,
        after="15m",
        expr=(
            f"{most('podslots_pool_desired_pods')} > {most('podslots_pool_current_pods')}\n"
            f"and {most('changes(podslots_pool_current_pods[15m])')} == 0"
        ),
        summary="A pool does not get the Pods that were decided on.",
        description=f"Pool {WHERE} is to have {{{{ $value }}}} Pods, has fewer, and has got none for 15 minutes.",
    ),
    Alert(
        name="NoApplyCapacity",
        severity=Severity.WARNING,
        after="10m",
        expr=(
            most(f"podslots_pool_queued_type_tasks{APPLIES}", TYPE)
            + " > 0\nand "
            + most(f"podslots_pool_free_type_slots{APPLIES}", TYPE)
            + " == 0"
        ),
        summary="No slot takes an apply, and some wait.",
        description=f"{{{{ $value }}}} tasks of type {{{{ $labels.type }}}} wait in pool {WHERE}; no slot that takes "
        "them has been free for 10 minutes. Reservations may hold them all.",
    ),
    Alert(
        name="StuckAtZeroWithDemand",
        severity=Severity.CRITICAL,
        after="5m",
        expr=f"{most('podslots_pool_queued_tasks')} > 0\nand {most('podslots_pool_current_pods')} == 0",
        summary="Tasks wait, and their pool has no Pod.",
        description=f"{{{{ $value }}}} tasks wait in pool {WHERE}, which has had no Pod for 5 minutes.",
    ),
    Alert(
        name="QueueWaitHigh",
        severity=Severity.WARNING,
        after="5m",
        expr=f"{most('podslots_pool_oldest_queued_age_seconds')} > 15 * 60",
        summary="Tasks wait long for a slot.",
        description=f"The oldest task that waits for a slot of pool {WHERE} has waited "
        "{{ $value | humanizeDuration }}.",
    ),
    Alert(
        name="PodsNotStarting",
        severity=Severity.WARNING,
        after="10m",
        expr=f"{most('podslots_pool_not_starting_pods')} > 0",
        summary="Pods of a pool do not start.",
        description=f"{{{{ $value }}}} Pods of pool {WHERE} have not started for 10 minutes.",
    ),
    Alert(
        name="PlanAwaitsApproval",
        severity=Severity.INFO,
        after="1m",
        expr=most('podslots_pool_tasks{phase="AwaitingApproval"}') + " > 0",
        summary="A plan awaits its approval.",
        description=f"{{{{ $value }}}} plans of pool {WHERE} await an approval: "
        "podslots plans --namespace {{ $labels.namespace }}",
    ),
    Alert(
        name="ReservationExpiresSoon",
        severity=Severity.WARNING,
        after="1m",
        expr="min by (cluster, namespace, pool) (podslots_pool_next_expiry_timestamp_seconds) - time() < 60 * 60",
        summary="A plan soon expires without an approval.",
        description=f"A plan of pool {WHERE} expires in {{{{ $value | humanizeDuration }}}} unless it is approved.",
    ),
    Alert(
        name="ReservationLost",
        severity=Severity.CRITICAL,
        after="0m",
        expr=happened('podslots_pool_reservations_ended_total{how="lost"}', 15),
        summary="A plan that awaited its approval was lost.",
        description=f"A reservation of pool {WHERE} ended without a decision: its Pod, or its directory, is gone.",
    ),
    Alert(
        name="TaskLost",
        severity=Severity.CRITICAL,
        after="0m",
        expr=happened('podslots_pool_tasks_ended_total{phase="Lost"}', 30),
        summary="A task was lost: nobody knows how far it came.",
        description=f"A task of pool {WHERE} was lost with its Pod. If it applied, its state has to be looked at.",
    ),
    Alert(
        name="LockHeldByLostTask",
        severity=Severity.CRITICAL,
        after="5m",
        expr=f"{most('podslots_pool_lost_task_locks')} > 0",
        summary="A lost task holds its lockKey: others wait for a person.",
        description=f"{{{{ $value }}}} lockKeys in pool {WHERE} are held by lost tasks whose applies may still run.",
    ),
    Alert(
        name="AgentUnreachable",
        severity=Severity.WARNING,
        after="5m",
        expr=f"{most('podslots_pool_agents_unreachable')} > 0",
        summary="Agents do not answer the controller.",
        description=f"{{{{ $value }}}} agents of pool {WHERE} have not answered for 5 minutes: their Pods get nothing "
        "new, and are not deleted.",
    ),
    Alert(
        name="DrainRefusedTooLong",
        severity=Severity.WARNING,
        after="6h",
        expr=(
            f"{most('podslots_pool_leaving_pods')} > 0\n"
            f'or sum by ({POOL}) (increase(podslots_pool_drains_total{{result="refused"}}[1h])) > 0\n'
            f'unless sum by ({POOL}) (increase(podslots_pool_drains_total{{result="granted"}}[1h])) > 0'
        ),
        summary="Pods that are to go have not been drained for hours.",
        description=f"Pods of pool {WHERE} that somebody wants gone have held work for 6 hours.",
    ),
    Alert(
        name="TokenRotationStuck",
        severity=Severity.WARNING,
        after="30m",
        expr=most('podslots_pool_token_rotation{reason!="InUse"}') + " == 1",
        summary="A rotation of a pool's token does not end.",
        description=f"The tokens of pool {WHERE} have not been in sync for 30 minutes.",
    ),
    Alert(
        name="ControllerDown",
        severity=Severity.CRITICAL,
        after="5m",
        expr=(
            "group by (cluster) (podslots_agent_build_info)\n"
            "unless group by (cluster) (podslots_controller_build_info)\n"
            "or on () absent(podslots_controller_build_info)"
        ),
        summary="No controller is scraped.",
        description="No replica of the podslots controller has been scraped for 5 minutes: nothing is dispatched, "
        "nothing scales. What runs goes on.",
    ),
    Alert(
        name="LeaderMissing",
        severity=Severity.CRITICAL,
        after="2m",
        expr="max by (cluster, namespace, job) (podslots_controller_leader) == 0",
        summary="No replica of the controller leads.",
        description="Replicas of the podslots controller run, and none has led for 2 minutes: nothing is dispatched, "
        "nothing scales. What runs goes on.",
    ),
    Alert(
        name="JournalFailing",
        severity=Severity.CRITICAL,
        after="1m",
        expr="max by (cluster, namespace, pool, pod) (podslots_agent_journal_failing) == 1",
        summary="An agent can't write its journal.",
        description="The agent of Pod {{ $labels.namespace }}/{{ $labels.pod }} of pool {{ $labels.pool }} "
        "can't write its journal: it keeps what it holds, and refuses new work.",
    ),
)
