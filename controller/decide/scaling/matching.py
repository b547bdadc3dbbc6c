"""Which tasks fit into which slots: matching of task types to classes of slots.

A class is the set of types that a slot accepts. So all slots of a class are one node with a capacity, and all tasks of
a type one node with a demand. What is left is a flow over a handful of nodes, however large the pool is.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import pairwise

SlotClass = tuple[str, ...]
"""What a slot accepts."""


def restriction(slot_class: SlotClass) -> tuple[int, SlotClass]:
    """Sorts the most restricted class first: a `plan` leaves the slots alone that only an apply can use."""
    return len(slot_class), slot_class


def agents_choice(free: Iterable[SlotClass], task_type: str) -> SlotClass | None:
    """What an agent gives a task: of the free slots (by rising id) that accept it, the first most restricted one."""
    return min((accepts for accepts in free if task_type in accepts), key=len, default=None)


class Matching:
    """Tasks placed in classes of slots; adding a task may move others to another class, but never removes one.

    Each step is one augmenting path from a type to a class with room, found breadth-first.
    """

    def __init__(self, capacity: Mapping[SlotClass, int]) -> None:
        self._free: dict[SlotClass, int] = {}
        self._placed: dict[SlotClass, Counter[str]] = {}
        self._accepting: dict[str, list[SlotClass]] = {}
        self.extend(capacity)

    def extend(self, capacity: Mapping[SlotClass, int], times: int = 1) -> None:
        """Add free slots: so many of each class, `times` over."""
        for slot_class, count in capacity.items():
            if slot_class not in self._free:
                self._free[slot_class] = 0
                self._placed[slot_class] = Counter()
                self._accepting.clear()
            self._free[slot_class] += count * times

    def add(self, task_type: str, count: int = 1) -> int:
        """Place as many of `count` more tasks as fit; how many that were."""
        left = count
        while left:
            path, _ = self._search(task_type)
            if not path:
                break
            left -= self._augment(path, left)
        return count - left

    def placed(self) -> dict[SlotClass, Counter[str]]:
        """How many tasks of each type are in each class."""
        return self._placed

    def further_pods(self, demand: Mapping[str, int], layout: Iterable[SlotClass]) -> int:
        """Place all of `demand`, adding the least number of Pods of this layout that makes that possible.

        When a type can't be placed, the types that were reached from it fill every slot that any of them could use
        (Hall's condition fails for them). Each Pod adds only its slots for those types: the quotient is a lower bound,
        so that adding just that many Pods and going on ends with the least. Raises ValueError if no slot of the layout
        accepts a type.
        """
        pod = Counter(layout)
        pods = 0
        for task_type, count in demand.items():
            left = count - self.add(task_type, count)
            while left:
                _, reached = self._search(task_type)
                useful = sum(number for accepts, number in pod.items() if not reached.isdisjoint(accepts))
                if not useful:
                    raise ValueError(f"no slot accepts {task_type!r}")
                more = -(-left // useful)
                self.extend(pod, more)
                pods += more
                left -= self.add(task_type, left)
        return pods

    def _classes(self, task_type: str) -> list[SlotClass]:
        known = self._accepting.get(task_type)
        if known is None:
            known = sorted((accepts for accepts in self._free if task_type in accepts), key=restriction)
            self._accepting[task_type] = known
        return known

    def _search(self, task_type: str) -> tuple[list[tuple[str, SlotClass]], set[str]]:
        """A path to a class with room, as (type, the class it moves into), last move first; and the types reached.

        The path is empty if there is none.
        """
        came: dict[SlotClass, str] = {}
        moved_from: dict[str, SlotClass] = {}
        reached = {task_type}
        queue = [task_type]
        for current in queue:
            for slot_class in self._classes(current):
                if slot_class in came:
                    continue
                came[slot_class] = current
                if self._free[slot_class] > 0:
                    return _path(slot_class, came, moved_from), reached
                for other, count in self._placed[slot_class].items():
                    if count and other not in reached:
                        reached.add(other)
                        moved_from[other] = slot_class
                        queue.append(other)
        return [], reached

    def _augment(self, path: list[tuple[str, SlotClass]], most: int) -> int:
        """Move along a path as often as it bears, at most `most` times; how often that was."""
        moves = [(mover, source) for (mover, _), (_, source) in pairwise(path)]
        times = min(most, self._free[path[0][1]], *(self._placed[source][mover] for mover, source in moves))
        self._free[path[0][1]] -= times
        for mover, target in path:
            self._placed[target][mover] += times
        for mover, source in moves:
            self._placed[source][mover] -= times
        return times


def _path(
    slot_class: SlotClass, came: Mapping[SlotClass, str], moved_from: Mapping[str, SlotClass]
) -> list[tuple[str, SlotClass]]:
    path = [(came[slot_class], slot_class)]
    while (source := moved_from.get(path[-1][0])) is not None:
        path.append((came[source], source))
    return path
