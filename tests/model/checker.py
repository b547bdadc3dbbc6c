"""Explores every state that a protocol can reach, breadth first, and shows the shortest way to what must not be.

A protocol is anything that has `initial`, `successors`, `wrong`, `good` and `tell` (see `Protocol`). States are
hashable and written in one way only: what is the same up to the names of Pods and tasks is one state.

Two questions are answered. *Safety*: does a state, or a step into one, break a rule? *Liveness*: can a good state be
reached from every reachable one by steps that come by themselves, without any fault? In a finite graph that means
that a run in which faults stop, and in which no step that stays possible is put off for ever, ends in a good state:
every cycle of fault-free steps has a way out, and no state is stuck.
"""

import time
from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field
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
    complete: bool = True
    good: int = 0
    counter_example: CounterExample | None = None
    actions: dict[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        extent = "all" if self.complete else "the first"
        return (
            f"{extent} {self.states:,} states, {self.transitions:,} transitions, "
            f"{self.depth} steps deep, {self.seconds:.1f} s"
        )


def check(
    system: System[S], *, max_states: int | None = None, max_seconds: float | None = None, liveness: bool = True
) -> Findings:
    """Explore until something is wrong, everything was seen, or a limit is reached."""
    began = time.perf_counter()
    found = Findings()
    first = system.canonical(system.initial())
    number: dict[S, int] = {first: 0}
    order: list[S] = [first]
    parents = array("I", [0])
    sources, targets = array("I"), array("I")
    good = bytearray([system.good(first)])
    here, level_end = 0, 1
    successors, canonical, is_wrong, is_good = system.successors, system.canonical, system.wrong, system.good
    while here < len(order):
        if here == level_end:
            found.depth += 1
            level_end = len(order)
            if max_seconds is not None and time.perf_counter() - began > max_seconds:
                found.complete = False
                break
        state = order[here]
        for text, fair, reached, wrong in successors(state):
            found.transitions += 1
            reached = canonical(reached)
            known = number.get(reached)
            if known is None:
                known = len(order)
                number[reached] = known
                order.append(reached)
                parents.append(here)
                good.append(is_good(reached))
                wrong = wrong or is_wrong(reached)
            if wrong is not None:
                path = _path(order, parents, here)
                found.counter_example = CounterExample(wrong, (*replay(system, path), text))
                break
            if fair and liveness:
                sources.append(here)
                targets.append(known)
        here += 1
        if found.counter_example is not None:
            break
        if max_states is not None and len(order) >= max_states:
            found.complete = False
            break
    found.states = len(order)
    found.good = sum(good)
    if found.counter_example is None and found.complete and liveness:
        stuck = _cannot_reach(good, sources, targets)
        if stuck is not None:
            trace = replay(system, _path(order, parents, stuck))
            what = "no way leads from here to an end of all work without a fault"
            found.counter_example = CounterExample(what, tuple(trace))
    found.seconds = time.perf_counter() - began
    return found


def _path(order: list[S], parents: "array[int]", last: int) -> list[S]:
    path = [order[last]]
    while last:
        last = parents[last]
        path.append(order[last])
    return path[::-1]


def replay(system: System[S], path: list[S]) -> list[str]:
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
    return texts


def _cannot_reach(good: bytearray, sources: "array[int]", targets: "array[int]") -> int | None:
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
