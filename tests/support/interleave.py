"""Every order in which the steps of several coroutines can follow each other.

A coroutine pauses by `await step()`; what runs between two pauses is one indivisible step. `explore` runs a scenario
again and again from its beginning, each time with another choice of who goes next, until every choice was made. There
is no event loop: code under test may await nothing but `step()` and what ends at once.
"""

import random
from collections.abc import Awaitable, Callable, Coroutine, Generator, Sequence
from dataclasses import dataclass
from typing import Any


class _Step:
    def __await__(self) -> Generator[None, None, None]:
        yield


class _Chance:
    def __await__(self) -> Generator[str, str, str]:
        return (yield "?")


def step() -> Awaitable[None]:
    """Let anybody else go first."""
    return _Step()


async def chance() -> bool:
    """True in one run and False in another that is the same until here."""
    return await _Chance() == "yes"


@dataclass
class Scenario:
    """Actors by name, each a coroutine made anew for the run, and what must hold at the end of it."""

    actors: dict[str, Coroutine[Any, Any, Any]]
    check: Callable[[], None]


Choose = Callable[[Sequence[str]], str]


def play(scenario: Scenario, choose: Choose) -> list[str]:
    """One run; the order that was taken. What an actor raises is raised."""
    going = dict(scenario.actors)
    order: list[str] = []
    try:
        while going:
            name = choose(tuple(going)) if len(going) > 1 else next(iter(going))
            order.append(name)
            try:
                asked = going[name].send(None)
                while asked is not None:
                    order.append(answer := choose(("no", "yes")))
                    asked = going[name].send(answer)
            except StopIteration:
                del going[name]
        scenario.check()
    except BaseException as error:
        error.add_note(f"in the order {' '.join(order)}")
        raise
    finally:
        for coroutine in scenario.actors.values():
            coroutine.close()
    return order


class _Tree:
    """Goes through a tree of choices depth first: each run follows `prefix`, then always takes the first branch."""

    def __init__(self) -> None:
        self.prefix: list[int] = []
        self.taken: list[tuple[int, int]] = []

    def choose(self, names: Sequence[str]) -> str:
        depth = len(self.taken)
        index = self.prefix[depth] if depth < len(self.prefix) else 0
        self.taken.append((index, len(names)))
        return names[index]

    def next(self) -> bool:
        """Turn to the next run; False after the last."""
        while self.taken and self.taken[-1][0] + 1 == self.taken[-1][1]:
            self.taken.pop()
        if not self.taken:
            return False
        self.prefix = [index for index, _ in self.taken]
        self.prefix[-1] += 1
        self.taken = []
        return True


def explore(make: Callable[[], Scenario], *, most: int = 100_000) -> int:
    """Every order; how many there were. More than `most` is an error."""
    tree = _Tree()
    for count in range(1, most + 1):
        play(make(), tree.choose)
        if not tree.next():
            return count
    raise AssertionError("too many orders: make the scenario smaller")


def sample(make: Callable[[], Scenario], runs: int, seed: int = 0) -> None:
    """Random orders, where there are too many for all of them."""
    for run in range(runs):
        rng = random.Random(f"{seed}/{run}")
        try:
            play(make(), rng.choice)
        except BaseException as error:
            error.add_note(f"run {run}")
            raise
