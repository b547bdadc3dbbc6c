"""An event loop on a clock of its own: CPU time that was used, and the waits, which are skipped.

So an hour of timers passes at once, what other programs do to the machine is not measured, and work that keeps the loop
busy still makes everybody wait who is on it. For code without real sockets.
"""

import asyncio
import selectors
import time
from typing import Self


class CpuClockLoop(asyncio.SelectorEventLoop):
    """`longest_turn_seconds` is the longest that the loop was kept from looking at its timers."""

    def __init__(self) -> None:
        self._skipped_seconds = 0.0
        self.longest_turn_seconds = 0.0
        super().__init__(_Selector(self))

    def time(self) -> float:
        return time.thread_time() + self._skipped_seconds

    def skip(self, seconds: float) -> None:
        """Nothing is to be done for so long."""
        self._skipped_seconds += seconds


class _Selector(selectors.DefaultSelector):
    def __new__(cls, loop: CpuClockLoop) -> Self:
        del loop
        return super().__new__(cls)

    def __init__(self, loop: CpuClockLoop) -> None:
        super().__init__()
        self._loop = loop
        self._turn_began = time.thread_time()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        loop = self._loop
        loop.longest_turn_seconds = max(loop.longest_turn_seconds, time.thread_time() - self._turn_began)
        if timeout is None:
            raise RuntimeError("deadlock: nothing is ready and no timer is set")
        ready = super().select(0)
        if not ready and timeout > 0:
            loop.skip(timeout)
        self._turn_began = time.thread_time()
        return ready
