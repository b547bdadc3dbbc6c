"""An event loop whose clock jumps to the next timer instead of waiting for it: hours of delays in milliseconds.

For code without real sockets. If nothing is ready and no timer is set, nothing can ever happen again: that is said
as an error, instead of hanging. So is a loop in which something is ready again and again while no time passes.

Its timers are those of uvloop, on which the product runs: the clock and the delays have whole milliseconds. So a timer
may fire up to half a millisecond before its moment, and a delay that rounds to nothing gives a plain handle, which
has no `when()`.
"""

import asyncio
import contextvars
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, Self, TypeVar

T = TypeVar("T")

LEAST_MICROSECONDS = 100
"""What passes with each `SOME_TURNS` turns of the loop, as work takes time: who waits for the rest to a deadline, which
is nothing after rounding, would otherwise wait for that for ever."""
SOME_TURNS = 64
MOST_TURNS = 200_000
"""How often the loop may turn without waiting: far more than any burst of work needs."""
MOST_LATE_MICROSECONDS = 700
MOST_DELAY_SECONDS = 100 * 365 * 86400.0


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """A loop on virtual time."""

    def __init__(self) -> None:
        self._now_microseconds = 1_000_000_000
        self._tasks_made = 0
        self._late = 1
        self.wakes_late = False
        """Whether each wait takes some microseconds more, as it does on a machine."""
        super().__init__(_Selector(self))
        self.set_task_factory(_numbered)

    def time(self) -> float:
        return self._now_microseconds // 1000 / 1000

    def microseconds(self) -> int:
        """What a clock shows that is finer than the loop's, as a machine's wall clock is."""
        return self._now_microseconds

    def call_later(  # type: ignore[override]  # as in uvloop, it is not always a timer
        self, delay: float, callback: Callable[..., Any], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        milliseconds = round(min(max(delay, 0.0), MOST_DELAY_SECONDS) * 1000)
        if not milliseconds:
            return self.call_soon(callback, *args, context=context)
        when = (self._now_microseconds // 1000 + milliseconds) / 1000
        return super().call_at(when, callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., Any], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        return self.call_later(when - self.time(), callback, *args, context=context)

    def next_task_number(self) -> int:
        """Of the tasks made in this loop."""
        self._tasks_made += 1
        return self._tasks_made

    def skip(self, seconds: float) -> None:
        """Move the clock."""
        self._now_microseconds += max(round(seconds * 1e6), LEAST_MICROSECONDS)
        if self.wakes_late:
            self._late = (self._late * 75 + 74) % 65537  # any numbers do that are the same in each run
            self._now_microseconds += self._late % MOST_LATE_MICROSECONDS


class NumberedTask(asyncio.Task[Any]):
    """A task whose hash is its number and not its address: sets of tasks come in the same order in each run."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._number: int = kwargs["loop"].next_task_number()
        super().__init__(*args, **kwargs)

    def __hash__(self) -> int:
        return self._number


def _numbered(loop: asyncio.AbstractEventLoop, coroutine: Any, **kwargs: Any) -> asyncio.Task[Any]:
    return NumberedTask(coroutine, loop=loop, **kwargs)


class _Selector(selectors.DefaultSelector):
    loop: VirtualTimeLoop

    def __new__(cls, loop: VirtualTimeLoop) -> Self:
        del loop
        return super().__new__(cls)

    def __init__(self, loop: VirtualTimeLoop) -> None:
        super().__init__()
        self.loop = loop
        self.turns = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready:
            if timeout is None:
                raise RuntimeError("deadlock: nothing is ready and no timer is set")
            self.turns += 1
            due: list[object] = list(self.loop._ready)  # type: ignore[attr-defined]
            if timeout > 0 or not due:
                self.loop.skip(timeout)
            elif self.turns % SOME_TURNS == 0:
                self.loop.skip(0.0)
            if timeout * 1e6 > LEAST_MICROSECONDS:
                self.turns = 0
            elif self.turns > MOST_TURNS:
                self.turns = 0
                raise RuntimeError(f"a loop without a pause: {MOST_TURNS} turns, and always due are {due}")
        return ready


def run(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run `main()` on virtual time. Tasks it leaves behind are an error."""

    async def checked() -> T:
        result = await main()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left, f"tasks left behind: {left}"
        return result

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(checked())
