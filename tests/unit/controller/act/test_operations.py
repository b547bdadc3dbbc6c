"""One operation a key, whatever ends it; what fails is held back, and every end is told once."""

import asyncio
import random
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop

from controller.act.operations import Operations, Result
from controller.act.turns import Turns, Urgency
from controller.errors import AgentUnreachable, ApiUnavailable, Conflict, Forbidden, NotLeader, TooManyRequests
from tests.support import virtual_time

Main = Callable[[Operations, list[float]], Coroutine[Any, Any, None]]


def run(main: Main, **options: Any) -> None:
    async def prepared() -> None:
        operations = Operations(random.Random(0), **options)
        await main(operations, [])
        await operations.stop()
        assert len(operations) == 0

    virtual_time.run(prepared)


def raising(error: Exception) -> Callable[[], Coroutine[None, None, None]]:
    async def operation() -> None:
        raise error

    return operation


async def nothing() -> None:
    pass


async def ages() -> None:
    await asyncio.sleep(1e6)


def test_a_key_in_flight_is_not_started_again() -> None:
    """T28: retries of one thing never overlap."""

    async def main(operations: Operations, ends: list[float]) -> None:
        assert operations.start("k", ages, ends.append)
        assert not operations.start("k", ages, ends.append)
        assert operations.start("other", nothing, ends.append)
        assert "k" in operations
        await asyncio.sleep(1)
        assert ends == [0.0]

    run(main)


@pytest.mark.parametrize(
    ("error", "least", "most"),
    [
        (Conflict(409, "Conflict", ""), 0.025, 0.05),
        (Forbidden(403, "Forbidden", "exceeded quota"), 0.25, 0.5),
        (ApiUnavailable(""), 0.25, 0.5),
        (AgentUnreachable(""), 0.25, 0.5),
        (TooManyRequests(429, "TooManyRequests", "", 7.0), 7.0, 7.0),
        (RuntimeError("a mistake"), 0.25, 0.5),
    ],
)
def test_what_failed_is_held_back(error: Exception, least: float, most: float) -> None:
    """R8: by a time that grows, up to half a minute; success ends that."""

    async def main(operations: Operations, ends: list[float]) -> None:
        operations.start("k", raising(error), ends.append)
        await asyncio.sleep(0.001)
        assert least <= ends[0] <= most
        assert not operations.start("k", nothing, ends.append)
        assert 0 < ends[1] <= ends[0]
        for _ in range(12):
            await asyncio.sleep(operations.held_back_seconds("k") + 0.001)  # timers may be half a millisecond early
            assert operations.start("k", raising(error), ends.append)
            await asyncio.sleep(0.001)
        assert 15 <= ends[-1] <= 30
        await asyncio.sleep(operations.held_back_seconds("k"))
        assert operations.start("k", nothing, ends.append)
        await asyncio.sleep(0.001)
        assert operations.held_back_seconds("k") == 0

    run(main)


def test_operations_that_share_a_backoff_are_held_back_together() -> None:
    """T26: a Pod has a new name each time; what fails is the pool."""

    async def main(operations: Operations, ends: list[float]) -> None:
        operations.start("create/1", raising(ApiUnavailable("")), ends.append, backoff="create")
        await asyncio.sleep(0.001)
        assert not operations.start("create/2", nothing, ends.append, backoff="create")

    run(main)


def test_a_former_leaders_operation_is_dropped_with_a_pause() -> None:
    async def main(operations: Operations, ends: list[float]) -> None:
        operations.start("k", raising(NotLeader("")), ends.append)
        await asyncio.sleep(0.001)
        assert ends == [1.0]
        assert operations.start("k", nothing, ends.append)

    run(main)


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_a_stop_ends_every_operation_and_tells_of_each(steps: int) -> None:
    """B1: also of those that had not begun, and those that waited for their turn. Their keys can be used again."""
    results: list[tuple[str, Result]] = []

    async def main(operations: Operations, ends: list[float]) -> None:
        for number in range(5):
            operations.start(f"k{number}", ages, ends.append)
        for _ in range(steps):
            await asyncio.sleep(0)
        await operations.stop()
        assert len(ends) == 5
        assert len(operations) == 0
        assert sorted(results) == [(f"k{number}", Result.CANCELLED) for number in range(5)]
        assert all(operations.start(f"k{number}", nothing, ends.append) for number in range(5))
        await asyncio.sleep(1)
        assert len(ends) == 10

    run(main, limit=2, ended=lambda key, result: results.append((key, result)))


def test_no_more_than_the_limit_run_at_once() -> None:
    running = 0
    most = 0

    async def one() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(1)
        running -= 1

    async def main(operations: Operations, ends: list[float]) -> None:
        for number in range(20):
            operations.start(f"k{number}", one, ends.append)
        await asyncio.sleep(60)
        assert len(ends) == 20
        assert most == 4

    run(main, limit=4)


def test_failures_of_keys_that_are_gone_are_forgotten() -> None:
    """B1: a Pod's name never comes back."""

    async def main(operations: Operations, ends: list[float]) -> None:
        for number in range(50):
            operations.start(f"pod/{number}", raising(ApiUnavailable("")), ends.append)
            await asyncio.sleep(60)
        assert len(operations._failures) < 10

    run(main)


def test_an_end_is_told_when_its_key_is_free_again() -> None:
    """T21: so that whoever is told can start the next operation on it."""
    started: list[bool] = []

    async def main(operations: Operations, ends: list[float]) -> None:
        operations.start("k", nothing, lambda _: started.append(operations.start("k", nothing, ends.append)))
        await asyncio.sleep(1)
        assert started == [True]
        assert ends == [0.0]

    run(main)


def test_what_fails_together_is_one_failure() -> None:
    """Twenty creates that one outage fails hold back the next by half a second, not by half a minute."""

    async def main(operations: Operations, ends: list[float]) -> None:
        for number in range(20):
            operations.start(f"create/{number}", raising(ApiUnavailable("")), ends.append, backoff="create")
        await asyncio.sleep(0.001)
        assert 0.25 <= max(ends) <= 0.5
        await asyncio.sleep(operations.held_back_seconds("create") + 0.01)
        operations.start("create/again", raising(ApiUnavailable("")), ends.append, backoff="create")
        await asyncio.sleep(0.001)
        assert 0.5 <= ends[-1] <= 1.0, "the next wave is another failure"

    run(main)


def test_what_somebody_waits_for_comes_before_words() -> None:
    order: list[str] = []

    def noting(name: str) -> Callable[[], Coroutine[None, None, None]]:
        async def operation() -> None:
            order.append(name)
            await asyncio.sleep(0.1)

        return operation

    async def main(operations: Operations, ends: list[float]) -> None:
        for number in range(3):
            operations.start(f"word/{number}", noting("word"), ends.append, urgency=Urgency.WORDS)
        operations.start("upkeep", noting("upkeep"), ends.append, urgency=Urgency.UPKEEP)
        await asyncio.sleep(0.01)
        operations.start("work", noting("work"), ends.append)
        await asyncio.sleep(1)
        assert order == ["word", "work", "upkeep", "word", "word"]

    run(main, limit=1)


def test_a_turn_that_comes_in_the_instant_of_a_cancellation_is_given_on() -> None:
    async def main(operations: Operations, ends: list[float]) -> None:
        del operations, ends
        turns = Turns(1)
        reached: list[str] = []

        async def holds(name: str, seconds: float) -> None:
            async with turns.turn(Urgency.WORK):
                reached.append(name)
                await asyncio.sleep(seconds)

        first, second, third = (asyncio.create_task(holds(name, 1)) for name in "abc")
        await asyncio.sleep(0.5)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        second.cancel()
        await asyncio.wait({second, third})
        assert reached[-1] == "c"

    run(main)


@pytest.mark.parametrize("factory", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_who_breaks_as_he_is_told_of_an_end_keeps_nobody_else_from_it(
    factory: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a mistake")

    async def main() -> None:
        unhandled: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: unhandled.append(context))
        operations = Operations(random.Random(0), ended=broken)
        woken = asyncio.Event()
        operations.start("k", nothing, lambda _: woken.set())
        operations.start("other", nothing, broken)
        async with asyncio.timeout(60):
            await woken.wait()
        assert operations.start("k", nothing, lambda _: None), "it may be started again"
        await operations.stop()
        assert len(operations) == 0
        assert not unhandled

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main())
