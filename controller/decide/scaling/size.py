"""How many Pods a pool should have: one number with its reason.

Up: what waits must fit into what is free or coming, class by class, and a buffer of idle slots on top of that; and
utilisation must not be above its threshold. Down: only if the Pods that hold no reservation are used no more than the
lower threshold says, to the least size into which all of it still fits, and from which nothing would scale up again
(K2). Only Pods that are idle can go, so a smaller size is never asked for than they allow.

That is what the load asks for. Bounds, freeze windows and `behavior` say how far the size goes towards it now.
"""

import math
from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum

from controller.decide.scaling.basis import Basis
from controller.decide.scaling.behavior import Allowed, Asked, allow, settled
from controller.decide.scaling.freeze import frozen_until
from controller.decide.scaling.matching import Matching, SlotClass
from controller.decide.scaling.removal import Removable
from controller.decide.view import PoolView
from controller.objects.autoscaling import Autoscaling
from controller.objects.scaling_history import ScalingHistory

_MOST_NAMED = 5
"""Of those that are waited for: a condition is read by people."""
_MOST_DIGITS = 3
"""Of a percentage after its point: 1 of 30 000 slots is 0.003 %."""


class Reason(StrEnum):
    """The reason for the size."""

    POOL_DELETED = "PoolDeleted"
    FIXED_SIZE = "FixedSize"
    PAUSED = "Paused"
    QUEUED_TASKS = "QueuedTasks"
    IDLE_SLOTS_WANTED = "IdleSlotsWanted"
    UTILIZATION_ABOVE = "UtilizationAbove"
    UTILIZATION_BELOW = "UtilizationBelow"
    NO_POD_IDLE = "NoPodIdle"
    AT_MINIMUM = "AtMinimum"
    AT_MAXIMUM = "AtMaximum"
    WITHIN_THRESHOLDS = "WithinThresholds"
    NOT_SYNCED = "NotSynced"
    SCALE_UP_LIMITED = "ScaleUpLimited"
    SCALE_DOWN_LIMITED = "ScaleDownLimited"
    SCALE_UP_STABILIZED = "ScaleUpStabilized"
    SCALE_DOWN_STABILIZED = "ScaleDownStabilized"
    FROZEN = "Frozen"
    SIGNAL_LOST = "SignalLost"


@dataclass(frozen=True, slots=True)
class Limit:
    """What keeps the size from what the load alone asks for."""

    reason: Reason
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SizeDecision:
    """The size a pool should have.

    `limit`: what kept it from what the load alone asks for. `history` is for the next decision on this pool, which is
    due at `changes_at`, if not for another cause before. The rest are the numbers it rests on: `utilization_percent` is
    of all slots, with what is queued; `missing_pods` are those that the queue and the buffer lack, before bounds.
    `basis` has the counts, for the decisions that follow this one.
    """

    basis: Basis = field(repr=False, compare=False)
    desired: int
    current: int
    reason: Reason
    message: str
    limit: Limit | None = None
    history: ScalingHistory = field(default_factory=ScalingHistory)
    changes_at: datetime | None = None
    total_slots: int = 0
    running_slots: int = 0
    reserved_slots: int = 0
    promised_slots: int = 0
    free_slots: int = 0
    queued_tasks: int = 0
    blocked_tasks: int = 0
    missing_pods: int = 0
    utilization_percent: float = 0.0

    @property
    def limited(self) -> bool:
        """Whether the load alone asks for another size."""
        return self.limit is not None


def decide_size(view: PoolView) -> SizeDecision:
    """The size that the pool should have now."""
    basis = Basis.of(view)
    size = basis.census.size
    if view.deleting:
        text = f"the pool is being deleted: {_pods(size)} to drain{_held_words(view)}"
        return _decision(basis, 0, Reason.POOL_DELETED, text)
    scaler = view.spec.scaler
    if scaler is None:
        paused = view.spec.autoscaling is not None
        fixed = view.spec.fixed_size(size)
        text = f"the size stays {size}" if paused and view.spec.replicas is None else f"spec.replicas is {fixed}"
        return _decision(
            basis,
            fixed,
            Reason.PAUSED if paused else Reason.FIXED_SIZE,
            f"autoscaling is paused; {text}" if paused else text,
        )
    return _autoscaled(basis, scaler)


def _held_words(view: PoolView) -> str:
    """What a pool that is being deleted waits for, by name as far as it is known."""
    known: dict[str | None, str] = {task.task_id: task.name for task in view.tasks}
    held = [
        f"{known.get(slot.task_id) or slot.task_id} ({slot.state.value} on {pod.name})"
        for pod in view.pods
        if not pod.dead
        for slot in pod.held
    ]
    if not held:
        return ""
    more = f" and {len(held) - _MOST_NAMED} more" if len(held) > _MOST_NAMED else ""
    return f"; waiting for {', '.join(sorted(held)[:_MOST_NAMED])}{more}"


def _autoscaled(basis: Basis, scaler: Autoscaling) -> SizeDecision:
    """What the load asks for, as far as bounds, freeze windows and `behavior` let the size go."""
    view, size = basis.view, basis.census.size
    load = _load(basis, scaler)

    def within(pods: int) -> int:
        return min(max(pods, scaler.min_replicas), scaler.max_replicas)

    asked = Asked(pods=within(load.pods), at_once=within(load.at_once), size=size)
    end = frozen_until(scaler.freeze, view.now)
    if end is not None:
        pods = within(size if view.history.desired is None else max(view.history.desired, size))
        limit = Limit(Reason.FROZEN, f"the size is frozen until {_moment(end)}") if pods != asked.pods else None
        history = settled(view.history, pods)
    else:
        allowed = allow(scaler.behavior, view.history, asked, view.now)
        pods, end = within(allowed.pods), allowed.until
        limit = _limit(allowed, asked, scaler)
        history = settled(allowed.history, pods)
    reason = load.reason
    if limit is None and load.pods > scaler.max_replicas:
        reason, limit = Reason.AT_MAXIMUM, Limit(Reason.AT_MAXIMUM, f"maxReplicas is {scaler.max_replicas}")
    elif limit is None and load.pods < scaler.min_replicas:
        reason, limit = Reason.AT_MINIMUM, Limit(Reason.AT_MINIMUM, f"minReplicas is {scaler.min_replicas}")
    elif limit is not None and pods == size:
        reason = limit.reason
    message = load.message if limit is None else f"{load.message}; {limit.message}"
    return _decision(basis, pods, reason, message, limit=limit, missing=load.missing, history=history, changes_at=end)


def _limit(allowed: Allowed, asked: Asked, scaler: Autoscaling) -> Limit | None:
    """How `behavior` holds the size, in words."""
    if not (allowed.limited or allowed.stabilized):
        return None
    up = asked.pods > allowed.pods
    field_name = "behavior.scaleUp" if up else "behavior.scaleDown"
    wait = "" if allowed.until is None else f", until {_moment(allowed.until)}"
    if allowed.stabilized:
        rules = scaler.behavior.scale_up if up else scaler.behavior.scale_down
        reason = Reason.SCALE_UP_STABILIZED if up else Reason.SCALE_DOWN_STABILIZED
        text = f"{allowed.pods} was enough" if up else f"{allowed.pods} were needed"
        return Limit(
            reason, f"{text} in the last {rules.stabilization_window_seconds} s: {field_name} waits for that{wait}"
        )
    reason = Reason.SCALE_UP_LIMITED if up else Reason.SCALE_DOWN_LIMITED
    return Limit(reason, f"{field_name} allows {allowed.pods}, not the {asked.pods} asked for{wait}")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Load:
    """What the load asks for, with nothing said about bounds. `at_once` is for what waits, and for idle slots wanted.

    `missing` Pods are those that queue and buffer lack.
    """

    pods: int
    at_once: int
    reason: Reason
    message: str
    missing: int


def _load(basis: Basis, scaler: Autoscaling) -> _Load:
    """Up if anything asks for it, else down if nothing speaks against it."""
    size = basis.census.size
    found = _up(basis, scaler)
    if found.pods > size:
        return found
    if basis.signal.held and basis.signal.problem is not None:
        pods = max(size, basis.view.history.desired or 0)
        message = f"{_pods(pods)} stay, as the signal can't be used: {basis.signal.problem.message}"
        return replace(found, pods=pods, reason=Reason.SIGNAL_LOST, message=message)
    if basis.view.synced:
        pods, reason, message = _down(basis, scaler)
    else:
        pods, reason = size, Reason.NOT_SYNCED
        message = f"not everything is known yet: {_pods(size)} at least stay"
    return replace(found, pods=pods, reason=reason, message=message)


def _up(basis: Basis, scaler: Autoscaling) -> _Load:
    """The size that queue, buffer and upper threshold ask for; never below the current one."""
    census, layout = basis.census, basis.view.spec.layout
    size = census.size
    matching = Matching(census.capacity)
    for_queue = matching.further_pods(basis.demand, layout)
    missing = for_queue + matching.further_pods(_buffer(basis, scaler), layout)
    for_utilization = _for_utilization(basis, scaler)
    if for_queue:
        count = basis.demand.total()
        reason = Reason.QUEUED_TASKS
        tasks, them = ("task", "it") if count == 1 else ("tasks", "them")
        message = f"{count} queued {tasks}; {_more(for_queue)} needed for {them}"
    elif missing >= for_utilization:
        reason = Reason.IDLE_SLOTS_WANTED
        text = ", ".join(f"{count} for {name}" for name, count in scaler.idle_slots.items())
        message = f"idle slots wanted: {text}"
    else:
        reason = Reason.UTILIZATION_ABOVE
        bound = scaler.grows_above_percent
        message = f"{_beside(_percent(basis), bound)} % of slots are used, above {bound:g} %"
    return _Load(
        pods=size + max(missing, for_utilization),
        at_once=size + missing,
        reason=reason,
        message=message,
        missing=missing,
    )


def _for_utilization(basis: Basis, scaler: Autoscaling) -> int:
    """The least number of further Pods with used <= threshold * (total + further * slots per Pod)."""
    census, bound = basis.census, scaler.upper_percent
    if basis.signal.held or not basis.active or basis.used * 100 <= scaler.grows_above_percent * census.total_slots:
        return 0
    lacking = basis.used * 100 - bound * census.total_slots
    return max(0, math.ceil(lacking / (bound * len(basis.view.spec.layout))))


def _down(basis: Basis, scaler: Autoscaling) -> tuple[int, Reason, str]:
    """The least size into which everything fits, if the load is low enough; else the current one."""
    census = basis.census
    size = census.size
    rest_used = basis.rest_used
    bound = scaler.shrinks_to_percent
    if not size:
        return 0, Reason.WITHIN_THRESHOLDS, "nothing is queued and there is no Pod"
    if not census.rest_slots:
        return size, Reason.NO_POD_IDLE, "every Pod holds a reservation"
    percent = 100 * rest_used / census.rest_slots
    used = f"{_beside(percent, bound)} % of the slots of Pods without a reservation are used"
    if rest_used * 100 > bound * census.rest_slots:
        return size, Reason.WITHIN_THRESHOLDS, f"{used}: above {bound:g} %"
    candidates = basis.removable
    fewer = _surplus(basis, scaler, candidates)
    if fewer:
        return size - fewer, Reason.UTILIZATION_BELOW, f"{used}: no more than {bound:g} %"
    if candidates.count:
        return size, Reason.WITHIN_THRESHOLDS, f"{used}, but one Pod fewer would be too few"
    return size, Reason.NO_POD_IDLE, f"{used}, but no Pod has been idle for {scaler.min_idle_seconds} s"


def _surplus(basis: Basis, scaler: Autoscaling, candidates: Removable) -> int:
    """How many Pods can go, in the candidates' order, so that the rest need not grow again at once."""
    offered = candidates.offered(basis.view.spec.layout)
    wanted = basis.demand + _buffer(basis, scaler)
    capacity = basis.census.capacity

    def suffices(fewer: int) -> bool:
        gone: Counter[SlotClass] = Counter()
        slots = 0
        for size, classes, places in offered:
            count = bisect_left(places, fewer)
            slots += count * size
            for slot_class in classes:
                gone[slot_class] += count
        left = basis.census.total_slots - slots
        if basis.active and basis.used * 100 > scaler.upper_percent * left:
            return False
        matching = Matching(capacity - gone)
        return all(matching.add(name, count) == count for name, count in wanted.items())

    low, high = 0, candidates.count
    while low < high:
        middle = (low + high + 1) // 2
        if suffices(middle):
            low = middle
        else:
            high = middle - 1
    return low


def _buffer(basis: Basis, scaler: Autoscaling) -> Counter[str]:
    return Counter({name: count for name, count in scaler.idle_slots.items() if basis.view.spec.accepts(name)})


def _percent(basis: Basis) -> float:
    total = basis.census.total_slots
    return 100 * basis.used / total if total else 0.0


def _beside(percent: float, bound: float) -> str:
    """A percentage, as exact as it takes to see on which side of a bound it is."""
    texts = [f"{percent:.{digits}f}" for digits in range(_MOST_DIGITS + 1)]
    return next((text for text in texts if (float(text) > bound) is (percent > bound)), texts[-1])


def _more(pods: int) -> str:
    return f"{pods} more Pod{'s' * (pods != 1)} {'is' if pods == 1 else 'are'}"


def _pods(count: int) -> str:
    return f"{count} Pod{'s' * (count != 1)}"


def _moment(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _decision(
    basis: Basis,
    desired: int,
    reason: Reason,
    message: str,
    *,
    limit: Limit | None = None,
    missing: int = 0,
    history: ScalingHistory | None = None,
    changes_at: datetime | None = None,
) -> SizeDecision:
    census = basis.census
    return SizeDecision(
        basis=basis,
        desired=desired,
        current=census.size,
        reason=reason,
        message=message,
        limit=limit,
        history=settled(basis.view.history, desired) if history is None else history,
        changes_at=changes_at,
        total_slots=census.total_slots,
        running_slots=census.running,
        reserved_slots=census.reserved,
        promised_slots=census.promised,
        free_slots=census.capacity.total(),
        queued_tasks=basis.queue.total(),
        blocked_tasks=len(basis.view.blocked),
        missing_pods=missing,
        utilization_percent=_percent(basis),
    )
