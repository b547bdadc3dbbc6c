"""Runs what the controllers of a cluster do by themselves: after changes, and now and then."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime

from controller.local.apiserver.persistence import JournalError, Persistence
from controller.local.apiserver.store.controllers.pod_collection import PodCollector
from controller.local.apiserver.store.controllers.workloads import Workloads
from controller.local.apiserver.store.store import Store
from controller.local.apiserver.store.suspects import BUDGETS
from controller.local.apiserver.store.versions import Change

# Between two looks at what time alone brings about.
_ROUND_SECONDS = 20.0


class ControllerLoop:
    """One task for all of them."""

    def __init__(
        self,
        store: Store,
        journal: Persistence,
        now: Callable[[], datetime],
        pods: PodCollector | None,
        workloads: Workloads,
        *,
        audited: Callable[[Change, bool], None] = lambda _, __: None,
    ) -> None:
        """`audited(change, complete)`: takes note of a write of the workloads' controllers, before and after."""
        self._store = store
        self._journal = journal
        self._now = now
        self._pods = pods
        self._workloads = workloads
        self._audited = audited
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """Something has changed."""
        self._woken.set()

    async def run(self) -> None:
        """Runs until it is cancelled, or the journal fails."""
        loop = asyncio.get_running_loop()
        next_round = loop.time()
        self.wake()
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._pause_seconds()):
                    await self._woken.wait()
            self._woken.clear()
            try:
                await self._settle()
                if loop.time() >= next_round:
                    next_round = loop.time() + _ROUND_SECONDS
                    await self._look_around()
            except JournalError:
                return  # every answer says so from now on

    async def _settle(self) -> None:
        """Each has its turn until nothing is left to do."""
        while True:
            while changes := self._store.collect(self._now()):
                await self._journal.commit(changes)
            if not (changes := self._workloads.sync(self._now())):
                return
            for change in changes:
                self._audited(change, False)
            await self._journal.commit(changes)
            for change in changes:
                self._audited(change, True)

    def _pause_seconds(self) -> float:
        """How long nothing need be looked at, unless something changes."""
        due = self._workloads.next_try()
        return _ROUND_SECONDS if due is None else min(_ROUND_SECONDS, max(0.0, (due - self._now()).total_seconds()))

    async def _look_around(self) -> None:
        await self._commit(self._store.expire_events(self._now()))
        if self._pods is not None:
            await self._commit(self._pods.collect(self._now()))
        budgets = self._store.versions.collection(BUDGETS).current("")
        self._store.garbage.retry({budget.namespace for budget in budgets})
        if self._store.garbage:
            self.wake()

    async def _commit(self, changes: tuple[Change, ...]) -> None:
        if changes:
            await self._journal.commit(changes)
