"""Tells watchers that there is something new, once it is durable; and cuts them off on request.

Watchers read the store's history themselves, so a hub holds no events: a slow watcher costs nothing but its place.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from controller.local.apiserver.store.versions import Change


class WatchHub:
    """Where watchers wait."""

    def __init__(self, version: int = 0) -> None:
        # The last version that may be seen.
        self.published = version
        # Rises when all watches are to be cut.
        self.epoch = 0
        self._waiting: dict[str, set[asyncio.Future[None]]] = {}

    def publish(self, changes: Iterable[Change]) -> None:
        """Lets watchers see these changes. Called in version order."""
        resources = set()
        for change in changes:
            self.published = max(self.published, change.version)
            resources.add(change.record.resource)
        for resource in resources:
            self._wake(resource)

    def drop_watches(self) -> int:
        """Cuts every watch; the number of those that were idle."""
        self.epoch += 1
        idle = self.waiting
        for resource in list(self._waiting):
            self._wake(resource)
        return idle

    @property
    def waiting(self) -> int:
        """How many watches are idle."""
        return sum(len(waiting) for waiting in self._waiting.values())

    def _wake(self, resource: str) -> None:
        for future in self._waiting.pop(resource, ()):
            if not future.done():
                future.set_result(None)

    async def changed(self, resource: str, timeout_seconds: float) -> None:
        """Returns at the next publication for the resource, or when the time is over."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(resource, set()).add(future)
        try:
            async with asyncio.timeout(timeout_seconds):
                await future
        except TimeoutError:
            pass
        finally:
            waiting = self._waiting.get(resource)
            if waiting is not None:
                waiting.discard(future)
                if not waiting:
                    del self._waiting[resource]
