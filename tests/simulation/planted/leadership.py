"""Mistakes of who leads."""

import asyncio
from typing import Any
from unittest.mock import patch

from controller.agents import fleet as fleets
from controller.leader import election, lease
from tests.simulation.faults import leases_fail
from tests.simulation.planted.registry import Plant, bug
from tests.simulation.replica import clock_of_process


class _WallClockLoop:
    """A loop whose time is the wall clock of the process that asks."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def time(self) -> float:
        return self._loop.time() + self._off()

    def call_at(self, when: float, callback: Any, *args: Any) -> asyncio.Handle:
        return self._loop.call_at(when - self._off(), callback, *args)

    @staticmethod
    def _off() -> float:
        replica = clock_of_process.get(None)
        return replica.clock_off_seconds if replica else 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)


@bug("lease on the wall clock", theme="leaders that take over", seed=2)
def _() -> Plant:
    class Shim:
        def __getattr__(self, name: str) -> Any:
            return getattr(asyncio, name)

        @staticmethod
        def get_running_loop() -> Any:
            return _WallClockLoop(asyncio.get_running_loop())

    return patch.object(election, "asyncio", Shim())


bug("a leader acts past its deadline", seed=1)(leases_fail)


@bug("a lease taken without waiting", seed=1)
def _() -> Plant:
    return patch.object(lease, "is_free", lambda _standing, seen, now: now - seen.since > 2.0)


@bug("a silent agent is never asked again", seed=6)
def _() -> Plant:
    async def run(self: Any) -> None:
        for _ in range(10**6):
            delay = await self._round()
            await asyncio.sleep(delay if self._failures <= 3 else 10**6)

    return patch.object(fleets._Follower, "run", run)
