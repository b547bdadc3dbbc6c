"""The loop over pools: one pass after the other, each over one pool.

A pool gets a pass when something about it changed (its objects, Pods, tasks, an agent's state, the end of an
operation), when a time that it waits for has come, and every `resync_seconds` in any case. An exception in one pool's
pass is logged, and the loop goes on.
"""

import asyncio
import logging
from dataclasses import dataclass
from typing import Protocol

from controller.act.work_queue import WorkQueue
from controller.kube.rest import Stopwatch
from controller.passes.reconcile import Reconciler
from controller.world.index import Key
from controller.world.world import World

log = logging.getLogger(__name__)

CHUNK = 100
"""Views made anew between two turns of the loop: some 10 ms."""

GAP_FACTOR = 3.0
"""A pool rests this many times as long as its last pass took: one with thousands of Pods leaves time to others."""

SHORT_SECONDS = 0.002
"""A pass that took no longer needs no rest."""

LONGEST_GAP_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Settings:
    """How often a pool is looked at without a cause, in seconds."""

    resync_seconds: float = 30.0


class Observe(Protocol):
    """Told of each pass that is over: how long it took, and whether it broke."""

    def __call__(self, seconds: float, *, broken: bool) -> None:
        """A pass is over."""


class Loop:
    """Makes the passes."""

    def __init__(
        self,
        reconciler: Reconciler,
        queue: WorkQueue[Key],
        world: World,
        *,
        observe: Observe,
        settings: Settings,
        stopwatch: Stopwatch,
    ) -> None:
        self._reconciler = reconciler
        self._queue = queue
        self._index = world.index
        self._views = world.views
        self._observe = observe
        self._settings = settings
        self._stopwatch = stopwatch
        self._rests_until: dict[Key, float] = {}
        self.last_pass: float | None = None
        """When the last pass ended, in loop time."""

    async def run(self) -> None:
        """Make passes for ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._tick(), name="resync")
            while True:
                await self._pass(await self._queue.get())

    async def _tick(self) -> None:
        while True:
            try:
                for key in self._index.pool_keys():
                    self._queue.add(key)
            except Exception:
                log.exception("the list of pools can't be read")
            await asyncio.sleep(self._settings.resync_seconds)

    async def _pass(self, key: Key) -> None:
        """Look at a pool. Nothing that breaks here ends the loop: every pool is looked at again with the next tick."""
        try:
            await self._look_at(key)
        except Exception:
            log.exception("a pass broke", extra={"pool": "/".join(key)})
        await asyncio.sleep(0)

    async def _look_at(self, key: Key) -> None:
        loop = asyncio.get_running_loop()
        if (rest := self._rests_until.get(key, 0.0) - loop.time()) > 0:
            self._queue.add_after(key, rest)
            return
        while self._views.stale(key) > CHUNK:
            self._views.freshen(key, CHUNK)
            await asyncio.sleep(0)
        started, broken = self._stopwatch(), True
        try:
            self._reconciler.reconcile(key)
            broken = False
        finally:
            self.last_pass = loop.time()
            seconds = self._stopwatch() - started
            self._rests_until.pop(key, None)
            if seconds > SHORT_SECONDS:
                self._rests_until[key] = self.last_pass + min(GAP_FACTOR * seconds, LONGEST_GAP_SECONDS)
            self._observe(seconds, broken=broken)
