"""Which queued task goes to which Pod, and which ones wait for a lockKey.

First by class of slots, over the whole pool: as many tasks as fit at all, in the order in which they are served. Then
by Pod: the fullest one that has such a slot, so that idle Pods stay idle and can go. Which slot of the Pod it will be
is the agent's to choose.
"""

import heapq
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import groupby

from controller.decide.scaling.basis import Basis
from controller.decide.scaling.capacity import take_promised
from controller.decide.scaling.matching import Matching, SlotClass, agents_choice, restriction
from controller.decide.view import Offer, PodView
from controller.objects.pool import Layout
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
    tasks = [] if view.deleting else sorted(basis.waits, key=lambda task: task.order)
    if not tasks:
        return ()
    rooms = _Rooms(basis, excluded)
    matching = Matching(rooms.capacity)
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
    return _on_pods(placed, matching.placed(), rooms.first(len(placed)))


class _Room:
    """A Pod with free slots."""

    def __init__(self, pod: PodView, free: Layout) -> None:
        self.pod = pod
        self.free = list(free)

    @property
    def rank(self) -> tuple[int, str]:
        """Sorts the fullest first."""
        return len(self.free), self.pod.name


class _Rooms:
    """Pods with free slots. Those with the same ones are kept together: of thousands only the first few are needed."""

    def __init__(self, basis: Basis, excluded: frozenset[str]) -> None:
        self.capacity: Counter[SlotClass] = Counter()
        self._alike: dict[Layout, list[PodView]] = {}
        for load, pods in basis.view.serving:
            self._add(basis, load.free, [pod for pod in pods if pod.uid not in excluded] if excluded else pods)
        for pod in basis.view.others:
            if pod.offer is Offer.NOW and pod.uid not in excluded:
                self._add(basis, pod.load.free, [pod])

    def _add(self, basis: Basis, free: Layout, pods: list[PodView]) -> None:
        if basis.promised:
            for pod in pods:
                if pod.uid in basis.promised:
                    left = list(free)
                    take_promised(left, basis.promised[pod.uid])
                    self._keep(tuple(left), [pod])
            pods = [pod for pod in pods if pod.uid not in basis.promised]
        self._keep(free, pods)

    def _keep(self, free: Layout, pods: list[PodView]) -> None:
        if free and pods:
            self._alike.setdefault(free, []).extend(pods)
            for slot_class in free:
                self.capacity[slot_class] += len(pods)

    def first(self, count: int) -> list[_Room]:
        """All that `count` tasks can need: of each class the first `count` Pods by rank, and maybe more.

        A task takes a slot of one Pod, so that of the first `count` one is always as it was.
        """
        found: dict[str, _Room] = {}
        for slot_class in self.capacity:
            fitting = sorted((free for free in self._alike if slot_class in free), key=len)
            enough = 0
            for _, alike in groupby(fitting, key=len):
                if enough >= count:
                    break
                for free in alike:
                    pods = heapq.nsmallest(count, self._alike[free], key=_name)
                    enough += len(pods)
                    found.update((pod.uid, _Room(pod, free)) for pod in pods if pod.uid not in found)
        return list(found.values())


def _name(pod: PodView) -> str:
    return pod.name


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
