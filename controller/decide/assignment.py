"""Which queued task goes to which Pod, and which ones wait for a lockKey.

First by class of slots, over the whole pool: as many tasks as fit at all, in the order in which they are served. Then
by Pod: the fullest one that has such a slot, so that idle Pods stay idle and can go. Which slot of the Pod it will be
is the agent's to choose.
"""

import heapq
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from controller.decide.basis import Basis
from controller.decide.capacity import take_promised, waiting
from controller.decide.matching import Matching, SlotClass, agents_choice, restriction
from controller.decide.view import Offer, PodView
from controller.objects.task import Task

_Entry = tuple[tuple[int, str], int]
"""A room's rank when the entry was made, and its index."""


@dataclass(frozen=True, slots=True)
class Placement:
    """A task and the Pod that is to run it."""

    task: Task
    pod: PodView


def blocked(tasks: Iterable[Task], locks: Mapping[str, str]) -> frozenset[str]:
    """UIDs of queued tasks that have to wait for their lockKey.

    `tasks` are all of the namespace that are not final, of any pool; leave out those that can't run at all, or they
    hold up the ones behind them. `locks` maps lockKeys to the UID of the task that holds the lock.

    Tasks that may change things take turns: the holder of the lock first, else one that was already given to a Pod,
    else the first in order. A task without an apply step changes nothing and never waits.
    """
    rivals: dict[str, list[Task]] = {}
    for task in tasks:
        if task.spec.lock_key is not None and task.may_change and not task.final:
            rivals.setdefault(task.spec.lock_key, []).append(task)
    late: set[str] = set()
    for key, group in rivals.items():
        turn = _turn(group, locks.get(key))
        late.update(task.uid for task in group if task.queued and task.uid != turn)
    return frozenset(late)


def next_in_turn(blocked_tasks: Iterable[Task]) -> frozenset[str]:
    """UIDs of those that come next for their lockKeys, of tasks that wait for them."""
    first: dict[str | None, Task] = {}
    for task in blocked_tasks:
        known = first.get(task.spec.lock_key)
        if known is None or task.order < known.order:
            first[task.spec.lock_key] = task
    return frozenset(task.uid for task in first.values())


def _turn(group: list[Task], holder: str | None) -> str | None:
    if holder is not None:
        return holder
    wanted = [task for task in group if task.placed or not task.unwanted]
    first = min(wanted, key=lambda task: (task.queued, task.order), default=None)
    return first.uid if first else None


def assign(basis: Basis, excluded: frozenset[str] = frozenset()) -> tuple[Placement, ...]:
    """Tasks that can be given to a Pod now. `excluded` are UIDs of Pods that are about to be taken away."""
    view = basis.view
    tasks = [] if view.deleting else sorted(waiting(view), key=lambda task: task.order)
    if not tasks:
        return ()
    rooms = _rooms(basis, excluded)
    capacity: Counter[SlotClass] = Counter()
    for room in rooms:
        capacity.update(room.free)
    matching = Matching(capacity)
    full: set[str] = set()
    placed: list[Task] = []
    for task in tasks:
        # A type that found no place finds none later: others were only added since.
        if task.spec.type in full:
            continue
        if matching.add(task.spec.type):
            placed.append(task)
        else:
            full.add(task.spec.type)
    return _on_pods(placed, matching.placed(), rooms)


class _Room:
    """A Pod with free slots."""

    def __init__(self, pod: PodView, free: list[SlotClass]) -> None:
        self.pod = pod
        self.free = free

    @property
    def rank(self) -> tuple[int, str]:
        """Sorts the fullest first."""
        return len(self.free), self.pod.name


def _rooms(basis: Basis, excluded: frozenset[str]) -> list[_Room]:
    rooms: list[_Room] = []
    for pod in basis.view.pods:
        if pod.offer is not Offer.NOW or pod.uid in excluded:
            continue
        free = list(pod.load.free)
        take_promised(free, basis.promised.get(pod.uid, ()))
        if free:
            rooms.append(_Room(pod, free))
    return rooms


def _on_pods(
    tasks: Iterable[Task], placed: Mapping[SlotClass, Counter[str]], rooms: list[_Room]
) -> tuple[Placement, ...]:
    """Turn places in classes into Pods, the fullest first.

    Where classes overlap without one containing the other, an agent may choose another slot than the matching did.
    What is short of a slot then waits for the next pass, which sees what became of it.
    """
    left = {slot_class: Counter(types) for slot_class, types in placed.items()}
    order = sorted(left, key=restriction)
    heaps: dict[SlotClass, list[_Entry]] = {slot_class: [] for slot_class in left}
    for index, room in enumerate(rooms):
        for slot_class in set(room.free):
            heaps[slot_class].append((room.rank, index))
    for heap in heaps.values():
        heapq.heapify(heap)
    result: list[Placement] = []
    for task in tasks:
        slot_class = next(item for item in order if left[item][task.spec.type] > 0)
        left[slot_class][task.spec.type] -= 1
        found = _fullest(heaps[slot_class], slot_class, rooms)
        if found is None:
            continue
        room = rooms[found]
        room.free.remove(agents_choice(room.free, task.spec.type) or slot_class)
        for other in set(room.free):
            heapq.heappush(heaps[other], (room.rank, found))
        result.append(Placement(task, room.pod))
    return tuple(result)


def _fullest(heap: list[_Entry], slot_class: SlotClass, rooms: list[_Room]) -> int | None:
    """The fullest room with a free slot of the class. Entries that are no longer true are dropped on the way."""
    while heap:
        rank, index = heapq.heappop(heap)
        if rooms[index].rank == rank and slot_class in rooms[index].free:
            return index
    return None
