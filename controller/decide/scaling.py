"""How many Pods a pool should have: one number with its reason.

Up: what waits must fit into what is free or coming, class by class, and a buffer of idle slots on top of that; and
utilisation must not be above its threshold. Down: only if the Pods that hold no reservation are used no more than the
lower threshold says, to the least size into which all of it still fits, and from which nothing would scale up again
(K2). Only Pods that are idle can go, so a smaller size is never asked for than they allow.
"""

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum

from controller.decide.basis import Basis
from controller.decide.matching import Matching, SlotClass
from controller.decide.removal import Removable
from controller.decide.view import PoolView
from controller.objects.pool import Autoscaling

_MOST_NAMED = 5
"""Of those that are waited for: a condition is read by people."""


class Reason(StrEnum):
    """Why the size is what it is: the machine's word."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class SizeDecision:
    """The size a pool should have.

    `limited`: a bound kept it from what the load alone asks for. The rest are the numbers it rests on:
    `utilization_percent` is of all slots, with what is queued; `missing_pods` are those that the queue and the buffer
    lack, before bounds. `basis` is what was counted, for whoever goes on from this decision.
    """

    basis: Basis = field(repr=False, compare=False)
    desired: int
    current: int
    reason: Reason
    message: str
    limited: bool = False
    total_slots: int = 0
    running_slots: int = 0
    reserved_slots: int = 0
    promised_slots: int = 0
    free_slots: int = 0
    queued_tasks: int = 0
    blocked_tasks: int = 0
    missing_pods: int = 0
    utilization_percent: float = 0.0


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
    """Up if anything asks for it, else down if nothing speaks against it; within the bounds in any case."""
    size = basis.census.size
    wanted, reason, message, missing = _up(basis, scaler)
    if wanted == size and basis.view.synced:
        wanted, reason, message = _down(basis, scaler)
    elif wanted == size:
        reason, message = Reason.NOT_SYNCED, f"not everything is known yet: {_pods(size)} at least stay"
    desired = min(max(wanted, scaler.min_replicas), scaler.max_replicas)
    if wanted > scaler.max_replicas:
        message = f"{message}; maxReplicas is {scaler.max_replicas}"
        reason = Reason.AT_MAXIMUM
    elif wanted < scaler.min_replicas:
        message = f"{message}; minReplicas is {scaler.min_replicas}"
        reason = Reason.AT_MINIMUM
    return _decision(basis, desired, reason, message, limited=desired != wanted, missing=missing)


def _up(basis: Basis, scaler: Autoscaling) -> tuple[int, Reason, str, int]:
    """The size that queue, buffer and upper threshold ask for; never below the current one. And what is missing."""
    census, layout = basis.census, basis.view.spec.layout
    size = census.size
    matching = Matching(census.capacity)
    for_queue = matching.further_pods(basis.queue, layout)
    missing = for_queue + matching.further_pods(_buffer(basis, scaler), layout)
    # The least `further` with used <= threshold * (total + further * slots per Pod).
    lacking = basis.used * 100 - scaler.scale_up_utilization_percent * census.total_slots
    per_pod = scaler.scale_up_utilization_percent * len(layout)
    for_utilization = max(0, -(-lacking // per_pod)) if basis.active else 0
    wanted = size + max(missing, for_utilization)
    if for_queue:
        count = basis.queue.total()
        message = f"{count} queued task{'s' * (count != 1)}; {_more(for_queue)} needed for them"
        return wanted, Reason.QUEUED_TASKS, message, missing
    if missing >= for_utilization:
        text = ", ".join(f"{count} for {name}" for name, count in scaler.idle_slots.items())
        return wanted, Reason.IDLE_SLOTS_WANTED, f"idle slots wanted: {text}", missing
    message = f"{_percent(basis):.0f} % of slots are used, above {scaler.scale_up_utilization_percent} %"
    return wanted, Reason.UTILIZATION_ABOVE, message, missing


def _down(basis: Basis, scaler: Autoscaling) -> tuple[int, Reason, str]:
    """The least size into which everything fits, if the load is low enough; else the current one."""
    census = basis.census
    size = census.size
    rest_used = census.rest_used + basis.queue.total()
    bound = scaler.scale_down_utilization_percent
    if not size:
        return 0, Reason.WITHIN_THRESHOLDS, "nothing is queued and there is no Pod"
    if not census.rest_slots:
        return size, Reason.NO_POD_IDLE, "every Pod holds a reservation"
    percent = 100 * rest_used / census.rest_slots
    used = f"{percent:.0f} % of the slots of Pods without a reservation are used"
    if rest_used * 100 > bound * census.rest_slots:
        return size, Reason.WITHIN_THRESHOLDS, f"{used}: above {bound} %"
    candidates = basis.removable
    fewer = _surplus(basis, scaler, candidates)
    if fewer:
        return size - fewer, Reason.UTILIZATION_BELOW, f"{used}: no more than {bound} %"
    if candidates.count:
        return size, Reason.WITHIN_THRESHOLDS, f"{used}, but one Pod fewer would be too few"
    return size, Reason.NO_POD_IDLE, f"{used}, but no Pod has been idle for {scaler.min_idle_seconds} s"


def _surplus(basis: Basis, scaler: Autoscaling, candidates: Removable) -> int:
    """How many Pods can go, in the candidates' order, so that the rest need not grow again at once."""
    offered = candidates.offered(basis.view.spec.layout)
    wanted = basis.queue + _buffer(basis, scaler)
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
        if basis.active and basis.used * 100 > scaler.scale_up_utilization_percent * left:
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


def _more(pods: int) -> str:
    return f"{pods} more Pod{'s' * (pods != 1)} {'is' if pods == 1 else 'are'}"


def _pods(count: int) -> str:
    return f"{count} Pod{'s' * (count != 1)}"


def _decision(
    basis: Basis, desired: int, reason: Reason, message: str, *, limited: bool = False, missing: int = 0
) -> SizeDecision:
    census = basis.census
    return SizeDecision(
        basis=basis,
        desired=desired,
        current=census.size,
        reason=reason,
        message=message,
        limited=limited,
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
