"""Splits long work: it lets the loop do other things every few milliseconds."""

import asyncio
from collections.abc import Callable

SLICE_SECONDS = 0.01
"""How long the loop is held at a time: streams, the Lease and the probes are to wait for no list."""

Stopwatch = Callable[[], float]
"""Seconds, finer than the loop's own time: that has whole milliseconds on uvloop, and most passes take less."""


class Rest:
    """Await it after each small part of the work: it pauses when a slice of time is over."""

    def __init__(self, stopwatch: Stopwatch) -> None:
        self._stopwatch = stopwatch
        self._until = stopwatch() + SLICE_SECONDS

    async def __call__(self) -> None:
        """Pause, if it is time to."""
        if self._stopwatch() >= self._until:
            await asyncio.sleep(0)
            self._until = self._stopwatch() + SLICE_SECONDS
