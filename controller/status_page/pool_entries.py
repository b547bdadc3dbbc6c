"""How a pool and its slots become one entry. Pure."""

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from agent.wire import SlotState
from controller.decide.pools.pool_figures import slot_counts
from controller.decide.pools.pool_status import DEGRADED, PROGRESSING, SCALING_LIMITED
from controller.decide.view import PodState, PodView
from controller.errors import InvalidObject
from controller.objects.conditions import Condition
from controller.objects.fields import Fields
from controller.objects.pool import PoolSpec
from controller.objects.task import TaskPhase
from controller.status_page.model import ConditionSaid, PoolKnown, PoolSaid, short

_GOOD_IF_FALSE = frozenset({DEGRADED, PROGRESSING, SCALING_LIMITED})
_NO_CONCERN = frozenset({PROGRESSING, "ScalingActive"})
"""Conditions that say what is going on, and that nobody need look at."""


def pool_said(known: PoolKnown, revision: int) -> PoolSaid:
    """A pool in one entry."""
    obj = known.obj or {}
    status = obj.get("status") or {}
    spec = known.spec if isinstance(known.spec, PoolSpec) else None
    scaler = spec.autoscaling if spec is not None else None
    present = [pod for pod in known.pods if not pod.dead]
    running_since, reserved_since = _oldest_holds(present)
    desired = status.get("desiredReplicas")
    return PoolSaid(
        namespace=known.namespace,
        name=known.name,
        revision=revision,
        problem=_why_no_spec(known),
        deleting="deletionTimestamp" in (obj.get("metadata") or {}),
        paused=scaler is not None and scaler.paused,
        replicas=len(present),
        ready=sum(pod.ready and pod.connected and pod.state is PodState.ACTIVE for pod in present),
        desired=desired if isinstance(desired, int) else None,
        minimum=scaler.min_replicas if scaler is not None else None,
        maximum=scaler.max_replicas if scaler is not None else None,
        silent=sum(not pod.connected for pod in present),
        pods={
            **dict.fromkeys((*(state.value for state in PodState), "dead"), 0),
            **Counter(p.word for p in known.pods),
        },
        slots=dict(slot_counts((), present)),
        tasks={
            **dict.fromkeys((phase.value for phase in TaskPhase), 0),
            **{p.value: n for p, n in known.phases.items()},
        },
        running_since=running_since,
        reserved_since=reserved_since,
        waiting_since=min((task.created for task in known.tasks if task.queued), default=None),
        conditions=_conditions(status),
    )


def _why_no_spec(known: PoolKnown) -> str | None:
    if known.obj is None:
        return "there is no pool of this name"
    return short(str(known.spec)) if isinstance(known.spec, InvalidObject) else None


def _oldest_holds(pods: Iterable[PodView]) -> tuple[datetime | None, datetime | None]:
    """The earliest start of a running slot, and of a reserved one."""
    running: datetime | None = None
    reserved: datetime | None = None
    for pod in pods:
        for slot in pod.held:
            if slot.state is SlotState.RUNNING:
                running = slot.since if running is None else min(running, slot.since)
            else:
                reserved = slot.since if reserved is None else min(reserved, slot.since)
    return running, reserved


def _conditions(status: Mapping[str, Any]) -> tuple[ConditionSaid, ...]:
    """Those of the status; none if somebody wrote nonsense into it."""
    try:
        found = [Condition.parse(entry) for entry in Fields(dict(status), "status").children("conditions")]
    except InvalidObject:
        return ()
    return tuple(
        ConditionSaid(
            type=short(condition.type),
            status=condition.status,
            reason=short(condition.reason),
            message=short(condition.message),
            since=condition.since,
            concern=_is_concern(condition),
        )
        for condition in found
    )


def _is_concern(condition: Condition) -> bool:
    if condition.type in _NO_CONCERN:
        return False
    return (condition.status == "True") is (condition.type in _GOOD_IF_FALSE)
