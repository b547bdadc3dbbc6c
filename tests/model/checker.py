"""Explores every state that a protocol can reach, breadth first, and shows the shortest way to what must not be.

A protocol is anything that has `initial`, `successors`, `wrong`, `good` and `tell` (see `Protocol`). States are
hashable and written in one way only: what is the same up to the names of Pods and tasks is one state.

Two questions are answered. *Safety*: does a state, or a step into one, break a rule? *Liveness*: can a good state be
reached from every reachable one by steps that come by themselves, without any fault? In a finite graph that means
that a run in which faults stop, and in which no step that stays possible is put off for ever, ends in a good state:
every cycle of fault-free steps has a way out, and no state is stuck.
"""

import sys
import time
from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Generic, NamedTuple, Protocol, TypeVar

S = TypeVar("S")


class Move(NamedTuple, Generic[S]):
    """One step. `fair`: it comes by itself if it stays possible. `wrong`: the rule that it breaks."""

    text: str
    fair: bool
    state: S
    wrong: str | None = None


class System(Protocol[S]):
    """What can be checked."""

    def initial(self) -> S:
        """The state in which everything begins."""
        ...

    def successors(self, state: S) -> Iterable[Move[S]]:
        """The steps from a state."""
        ...

    def wrong(self, state: S) -> str | None:
        """The rule that a state breaks."""
        ...

    def good(self, state: S) -> bool:
        """Whether everything has come to its end."""
        ...

    def canonical(self, state: S) -> S:
        """The one way to write a state down."""
        ...


@dataclass(frozen=True)
class CounterExample:
    """What went wrong, and the shortest way to it."""

    what: str
    trace: tuple[str, ...]

    def __str__(self) -> str:
        steps = "\n".join(f"{number:4}. {text}" for number, text in enumerate(self.trace, 1))
        return f"{self.what}, after\n{steps}"


@dataclass
class Findings:
    """What was explored. `complete`: every reachable state was."""

    states: int = 0
    transitions: int = 0
    depth: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    complete: bool = True
    good: int = 0
    counter_example: CounterExample | None = None

    def __str__(self) -> str:
        extent = "all" if self.complete else "the first"
        return (
            f"{extent} {self.states:,} states, {self.transitions:,} transitions, "
            f"{self.depth} steps deep, {self.seconds:.1f} s ({self.cpu_seconds:.1f} s of CPU)"
        )


def check(
    system: System[S], *, max_states: int | None = None, max_seconds: float | None = None, liveness: bool = True
) -> Findings:
    """Explore until something is wrong, everything was seen, or a limit is reached."""
    return _Exploration(system, liveness=liveness).run(max_states or sys.maxsize, max_seconds or float("inf"))


class _Exploration(Generic[S]):
    """States by their number, in the order in which they were found; the first step to each, and the fair steps."""

    def __init__(self, system: System[S], *, liveness: bool) -> None:
        self._system = system
        self._liveness = liveness
        first = system.canonical(system.initial())
        self._number: dict[S, int] = {first: 0}
        self._order: list[S] = [first]
        self._parents = array("I", [0])
        self._good = bytearray([system.good(first)])
        self._sources, self._targets = array("I"), array("I")

    def run(self, max_states: int, max_seconds: float) -> Findings:
        began, cpu = time.perf_counter(), time.process_time()
        found = Findings()
        here, level_end, order = 0, 1, self._order
        while here < len(order) and found.counter_example is None:
            if here == level_end:
                found.depth += 1
                level_end = len(order)
            found.counter_example = self._step_from(here, found)
            here += 1
            if len(order) >= max_states or time.perf_counter() - began > max_seconds:
                found.complete = False
                break
        found.states, found.good = len(order), sum(self._good)
        found.complete = found.complete and found.counter_example is None
        if found.complete and self._liveness:
            found.counter_example = self._stuck()
        found.seconds, found.cpu_seconds = time.perf_counter() - began, time.process_time() - cpu
        return found

    def _step_from(self, here: int, found: Findings) -> CounterExample | None:
        system, number, order = self._system, self._number, self._order
        for _, fair, state, wrong in system.successors(order[here]):
            found.transitions += 1
            reached = system.canonical(state)
            known = number.get(reached)
            breaks = wrong
            if known is None:
                known = number[reached] = len(order)
                order.append(reached)
                self._parents.append(here)
                self._good.append(system.good(reached))
                breaks = wrong or system.wrong(reached)
            if breaks is not None:
                return self._explain(here)
            if fair and self._liveness:
                self._sources.append(here)
                self._targets.append(known)
        return None

    def _explain(self, last: int) -> CounterExample:
        """The way to a state from which a step breaks a rule, and that step."""
        trace, state = replay(self._system, self._path(last))
        for move in self._system.successors(state):
            breaks = move.wrong or self._system.wrong(move.state)
            if breaks is not None:
                return CounterExample(breaks, (*trace, move.text))
        raise AssertionError("a step that can't be told again: the protocol is not symmetrical")

    def _path(self, last: int) -> list[S]:
        path = [self._order[last]]
        while last:
            last = self._parents[last]
            path.append(self._order[last])
        return path[::-1]

    def _stuck(self) -> CounterExample | None:
        found = cannot_reach(self._good, self._sources, self._targets)
        if found is None:
            return None
        trace, _ = replay(self._system, self._path(found))
        return CounterExample("no way leads from here to an end of all work without a fault", tuple(trace))


def replay(system: System[S], path: list[S]) -> tuple[list[str], S]:
    """The steps along a path of canonical states, told in the names that things had at the beginning."""
    state = system.initial()
    texts: list[str] = []
    for goal in path[1:]:
        for move in system.successors(state):
            if system.canonical(move.state) == goal:
                texts.append(move.text)
                state = move.state
                break
        else:
            raise AssertionError("a path that can't be walked: the protocol is not symmetrical")
    return texts, state


def cannot_reach(good: bytearray, sources: "array[int]", targets: "array[int]") -> int | None:
    """The first state from which no good one can be reached along these edges."""
    count = len(good)
    starts = array("I", bytes(4 * (count + 1)))
    for target in targets:
        starts[target + 1] += 1
    for index in range(count):
        starts[index + 1] += starts[index]
    filled = array("I", starts)
    before = array("I", bytes(4 * len(sources)))
    for source, target in zip(sources, targets, strict=True):
        before[filled[target]] = source
        filled[target] += 1
    reaches = bytearray(good)
    todo = [index for index in range(count) if good[index]]
    while todo:
        target = todo.pop()
        for source in before[starts[target] : starts[target + 1]]:
            if not reaches[source]:
                reaches[source] = 1
                todo.append(source)
    found = reaches.find(0)
    return None if found < 0 else found
