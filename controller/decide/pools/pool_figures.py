"""A pool's metrics, and its slots counted by state, from what a pass saw and decided. Pure."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from agent.wire import RECOVERING, SlotState
from controller.decide.pools.rotation import Rotation, TokensStand
from controller.decide.scaling.size import SizeDecision
from controller.decide.tasks.task_figures import queued_since, reserved_since
from controller.decide.view import Alike, PodState, PodView, PoolView
from controller.objects.task import Task, TaskPhase
from metrics.figures import PoolFigures


def slot_counts(serving: Iterable[Alike], others: Iterable[PodView]) -> Counter[str]:
    """How many slots these Pods have in each state.

    Slots whose state is not known count as recovering, not as idle.
    """
    idle = all_running = all_reserved = recovering = 0
    for load, pods in serving:
        all_running += len(pods) * load.running
        all_reserved += len(pods) * load.reserved
        idle += len(pods) * len(load.free)
    for pod in others:
        running, reserved, free = pod.load
        all_running += running
        all_reserved += reserved
        if pod.agent is not None and pod.agent.recovering:
            recovering += len(free)
        else:
            idle += len(free)
    return Counter(
        {
            SlotState.IDLE.value: idle,
            SlotState.RUNNING.value: all_running,
            SlotState.RESERVED.value: all_reserved,
            RECOVERING: recovering,
        }
    )


@dataclass(frozen=True, slots=True)
class TaskCounts:
    """A pool's tasks, those that have ended too: by phase, and by whether their plan found something to change.

    `lost_locks` are the lockKeys that lost ones hold.
    """

    phases: Mapping[TaskPhase, int] = field(default_factory=dict)
    plans: Mapping[bool, int] = field(default_factory=dict)
    lost_locks: int = 0


def pool_figures(
    view: PoolView,
    decision: SizeDecision,
    counts: TaskCounts,
    tokens: Rotation | None = None,
    *,
    starts_fail: bool = False,
) -> PoolFigures:
    """The pool's metrics. `starts_fail`: the last Pods of the present template did not start, and were deleted."""
    slots = Counter({state.value: 0 for state in SlotState} | {RECOVERING: 0})
    slots.update(slot_counts(view.serving, (pod for pod in view.others if not pod.dead)))
    serving = sum(len(pods) for _, pods in view.serving)
    pods = Counter({state.value: 0 for state in PodState} | {"dead": 0})
    pods.update({PodState.ACTIVE.value: serving})
    pods.update([pod.word for pod in view.others])
    phases = Counter({phase.value: 0 for phase in TaskPhase})
    phases.update({phase.value: count for phase, count in counts.phases.items()})
    scaler = view.spec.scaler
    fixed = decision.desired if scaler is None else 0
    present = [pod for pod in view.others if pod.alive]
    census, queue = decision.basis.census, decision.basis.queue
    types = dict.fromkeys(name for accepts in view.spec.layout for name in accepts)
    waits = _waiting_since(view, decision.basis.waits)
    failed = sum(pod.start_problem is not None and (pod.counts or pod.dead) for pod in view.others)
    return PoolFigures(
        desired=decision.desired,
        current=decision.current,
        least=scaler.min_replicas if scaler is not None else fixed,
        most=scaler.max_replicas if scaler is not None else fixed,
        unreachable_agents=sum(
            pod.state is PodState.ACTIVE and not (pod.connected or pod.contacting) for pod in present
        ),
        not_starting_pods=max(failed, int(starts_fail and decision.desired > serving)),
        leaving_pods=sum(pod.leaving and pod.state is PodState.ACTIVE for pod in present),
        lost_locks=counts.lost_locks,
        class_slots=_class_slots(view),
        free_slots={name: sum(count for accepts, count in census.now.items() if name in accepts) for name in types},
        queue=dict.fromkeys((*types, _OTHER), 0)
        | _summed((name if name in types else _OTHER, count) for name, count in queue.items()),
        **waits,
        utilization_ratio=decision.utilization_percent / 100,
        queued_tasks=decision.queued_tasks,
        blocked_tasks=decision.blocked_tasks,
        connected_agents=serving + sum(pod.connected for pod in view.others),
        pods=pods,
        slots=slots,
        tasks=phases,
        rotation={stand.value: int(stand is tokens.reason) for stand in TokensStand} if tokens else {},
        token_since=tokens.since.timestamp() if tokens and tokens.since else None,
        plans={"changed": counts.plans.get(True, 0), "unchanged": counts.plans.get(False, 0)},
    )


_OTHER = "other"
"""The name for classes and types that are not in the pool's present layout."""


def class_name(accepts: Sequence[str]) -> str:
    """What a class of slots is called in metrics."""
    return "+".join(accepts)


def _class_slots(view: PoolView) -> dict[tuple[str, str], int]:
    """How many slots of each class are in each state. Only the layout's own classes have a name."""
    known = {accepts: class_name(accepts) for accepts in view.spec.layout}
    found = {(name, state.value): 0 for name in (*known.values(), _OTHER) for state in SlotState}
    unheard = [pod for pod in view.others if not pod.dead]
    free = Counter(dict.fromkeys(known, 0))
    for load, pods in view.serving:
        for accepts in load.free:
            free[accepts] += len(pods)
    for pod in unheard:
        if pod.agent is None or not pod.agent.recovering:
            free.update(pod.load.free)
    busy = [pods for load, pods in view.serving if load.running or load.reserved]
    taken = Counter([pod.taken for pods in (*busy, unheard) for pod in pods])
    for accepts, count in free.items():
        found[known.get(accepts, _OTHER), SlotState.IDLE.value] += count
    for slots, count in taken.items():
        for accepts, state in slots:
            found[known.get(accepts, _OTHER), state.value] += count
    return found


def _summed(pairs: Iterable[tuple[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for name, count in pairs:
        total[name] += count
    return dict(total)


def _waiting_since(view: PoolView, waits: Sequence[Task]) -> dict[str, float | None]:
    """Since when the oldest task waits for a slot, and the oldest plan for its approval; when the first one expires."""
    queued = [queued_since(task) for task in waits]
    plans = [task for task in view.tasks if task.status.phase is TaskPhase.AWAITING_APPROVAL]
    reserved = [since for task in plans if (since := reserved_since(task)) is not None]
    ends = [task.status.expires_at for task in plans if task.status.expires_at is not None]
    return {
        "oldest_queued": _timestamp(min(queued, default=None)),
        "oldest_approval": _timestamp(min(reserved, default=None)),
        "next_expiry": _timestamp(min(ends, default=None)),
    }


def _timestamp(moment: datetime | None) -> float | None:
    return moment.timestamp() if moment is not None else None
