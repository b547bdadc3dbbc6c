"""Limits how many operations run at once. Of those that wait, the most urgent goes first, then the oldest."""

import asyncio
import heapq
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import IntEnum
from itertools import count


class Urgency(IntEnum):
    """What an operation is for. The lower number goes first."""

    WORK = 0
    """Somebody waits for it: a task that could run, a Pod that is opened or drained, a result that is to be stored."""
    UPKEEP = 1
    """It must be done, and nobody waits for it at this moment."""
    WORDS = 2
    """It only says why something waits."""


class Turns:
    """At most `limit` at once."""

    def __init__(self, limit: int) -> None:
        self._free = limit
        self._waiting: list[tuple[Urgency, int, asyncio.Future[None]]] = []
        self._arrivals = count()

    @asynccontextmanager
    async def turn(self, urgency: Urgency) -> AsyncIterator[None]:
        """Wait for a turn, and give it on at the end."""
        if self._free:
            self._free -= 1
        else:
            await self._wait(urgency)
        try:
            yield
        finally:
            self._give()

    async def _wait(self, urgency: Urgency) -> None:
        turn = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (urgency, next(self._arrivals), turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._give()  # it had come, in the instant of the cancellation
            raise

    def _give(self) -> None:
        while self._waiting:
            _, _, turn = heapq.heappop(self._waiting)
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1
