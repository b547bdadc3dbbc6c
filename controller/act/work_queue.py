"""A queue of keys for a level-based loop: a key waits in it at most once, now or at a later moment.

Time is the running loop's. The time of each key is kept here, because uvloop's timers can't always be asked for it:
they have whole milliseconds, and one of less than a millisecond has no time at all.
"""

import asyncio
from typing import Generic, TypeVar

Key = TypeVar("Key")

LEAST_SECONDS = 0.001
"""A shorter delay rounds to none on uvloop: the key would come back again and again until its moment is there."""


class WorkQueue(Generic[Key]):
    """Keys in the order they were added. Adding one that waits already changes nothing."""

    def __init__(self) -> None:
        self._ready: dict[Key, None] = {}
        self._timers: dict[Key, tuple[float, asyncio.Handle]] = {}
        self._wakeup = asyncio.Event()

    def add(self, key: Key) -> None:
        """Let `key` be processed as soon as possible."""
        self._ready[key] = None
        self._wakeup.set()

    def add_after(self, key: Key, delay_seconds: float) -> None:
        """Let `key` be processed after a delay, unless an earlier moment is set already."""
        loop = asyncio.get_running_loop()
        due = loop.time() + max(delay_seconds, LEAST_SECONDS)
        if known := self._timers.get(key):
            known_due, timer = known
            if known_due <= due:
                return
            timer.cancel()
        self._timers[key] = (due, loop.call_at(due, self._expire, key))

    def _expire(self, key: Key) -> None:
        del self._timers[key]
        self.add(key)

    async def get(self) -> Key:
        """The next key, removed from the queue; waits while there is none."""
        while not self._ready:
            self._wakeup.clear()
            await self._wakeup.wait()
        key = next(iter(self._ready))
        del self._ready[key]
        return key

    def close(self) -> None:
        """Drop every timer."""
        for _, timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
