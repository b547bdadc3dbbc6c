"""States in numbers. A state is a row of small numbers; the values that they stand for are kept once, in tables.

So a step is worked out once for all states that are alike in what it looks at, and a state takes little room.
"""

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from controller.decide.tasks.task_actions import keeps_lock
from controller.objects.ended_task import EndedTask
from controller.objects.task import TaskPhase
from tests.model.effects import Op, Rules
from tests.model.objects import PodObject, TaskObject, parsed
from tests.model.site import DEAD, Site, fresh_site

V = TypeVar("V", bound=Hashable)
T = TypeVar("T")


DELETION = "deletion"
"""Somebody deletes a Pod that works, past all protection. No part of `KINDS`: only where steps are stopped."""
KINDS = frozenset({"answer", "message", "leader", "report", "worker", "agent", "journal", "node", "vanish"})
"""An answer is lost; a message is held up; the leader is replaced; a worker's report of a start is held up; a worker is
killed; an agent restarts; it does so without its journal; a Pod dies with its node; it is gone from the API alone."""


@dataclass(frozen=True)
class Config:
    """The size of what is explored.

    `operations`: how many of the leader's are in flight at once. `faults`: how many of all kinds a run has. `late`: how
    many messages are on their way without a sender that waits for them. `lease` False: a leader that was replaced goes
    on with all that it had in flight, as if nothing told it. `kinds`: the kinds of fault, see `KINDS`. `bugs`: mistakes
    that are planted. `trying_again`: a plan that failed may be tried again, as its exit code says. `stopping`: a step
    has a command before its own one and a time limit, and what is told to stop takes its time.
    """

    pods: int = 2
    slots: int = 2
    tasks: int = 2
    controllers: int = 2
    operations: int = 1
    faults: int = 1
    late: int = 1
    lease: bool = True
    kinds: frozenset[str] = KINDS
    trying_again: bool = False
    stopping: bool = False
    bugs: frozenset[str] = frozenset()


class State(NamedTuple):
    """Numbers stand for values, see `Tables`. `ops` and `late` are sorted; `lock` is the task that holds it."""

    pods: tuple[int, ...]
    sites: tuple[int, ...]
    tasks: tuple[int, ...]
    lock: int | None
    faults: int
    ops: tuple[int, ...]
    late: tuple[int, ...]


class Numbers(dict[V, int]):
    """Numbers for values, in the order in which they are met."""

    def __init__(self) -> None:
        super().__init__()
        self._values: list[V] = []

    def __missing__(self, value: V) -> int:
        number = len(self._values)
        self[value] = number
        self._values.append(value)
        return number

    def of(self, number: int) -> V:
        """The value that a number stands for."""
        return self._values[number]


class Tables:
    """All values that were met, and what was worked out about them."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.rules = Rules(config.bugs, trying_again=config.trying_again)
        self.pods: Numbers[PodObject] = Numbers()
        self.sites: Numbers[Site] = Numbers()
        self.tasks: Numbers[TaskObject] = Numbers()
        self.ops: Numbers[Op] = Numbers()
        self.dead = self.sites[DEAD]
        self.fresh = self.sites[fresh_site(config.slots)]
        self._memo: dict[tuple[Any, ...], Any] = {}

    def remember(self, make: Callable[..., T], *key: Any) -> T:
        """`make(*key)`, worked out once."""
        place = (make.__name__, *key)
        try:
            found: T = self._memo[place]
        except KeyError:
            found = self._memo[place] = make(*key)
        return found

    def kept_for_good(self, state: State) -> bool:
        """Whether the lockKey stays held until a person says otherwise."""
        if state.lock is None:
            return False
        task = self.tasks.of(state.tasks[state.lock])
        return task.final and not task.gone and keeps_lock(EndedTask.of(parsed(task, state.lock)))

    def needed(self, state: State) -> bool:
        """Whether a task waits for a Pod."""
        if self.kept_for_good(state):
            return False
        return any((task := self.tasks.of(n)).phase is TaskPhase.QUEUED and not task.cancel for n in state.tasks)


def put(values: tuple[int, ...], place: int, value: int) -> tuple[int, ...]:
    """The values with another one in a place."""
    if values[place] == value:
        return values
    return (*values[:place], value, *values[place + 1 :])
