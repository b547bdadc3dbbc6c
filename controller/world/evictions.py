"""The Evictions that ask for Pods of ours, where the API server has them (Kubernetes 1.37, an alpha API).

Where it has none, one request now and then is all that it sees of this: they are watched only as long as listing them
works. So a Pod names us as its responder only where we can answer.
"""

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable, Mapping

from controller.decide.pods.eviction import Eviction
from controller.errors import ApiError, ApiUnavailable, Forbidden, NotFound
from controller.kube.api import EVICTIONS, Api, Object
from controller.kube.cache import Cache
from controller.kube.reflector import Reflector

log = logging.getLogger(__name__)

LOOK_SECONDS = 600.0
AGAIN_SECONDS = 30.0
"""After an answer that tells nothing: the API server could not be reached."""

_FIRST_LIST_SECONDS = 10.0
"""How long the first list is waited for, so that the first Pods name us already."""

Key = tuple[str, str]
"""Namespace and name of a pool."""


class Evictions:
    """Those that name us, by their Pod."""

    def __init__(
        self, api: Api, rng: random.Random, *, namespace: str | None, on_change: Callable[[str], object]
    ) -> None:
        """`on_change(pod_uid)`: something is asked of a Pod, or no longer, or was answered."""
        self._api = api
        self._rng = rng
        self._namespace = namespace
        self._on_change = on_change
        self._cache: Cache | None = None
        self._watching: asyncio.Task[None] | None = None
        self._by_pod: dict[str, dict[str, Eviction]] = {}
        self._refused = False
        self.looked = asyncio.Event()
        """Set once it is known whether the API server has them, or that this can't be told for now."""
        self._pools: dict[str, Key] = {}
        """Of the Pods that are asked for, the pool of each: an answer is due when the Pod is gone, too."""

    @property
    def answering(self) -> bool:
        """Whether Pods made now are to name us: Evictions are read, so they get an answer."""
        return self._cache is not None and self._cache.synced

    def asks_for(self, pod_uid: str) -> bool:
        """Whether a Pod is wanted gone."""
        return any(eviction.asks for eviction in self._by_pod.get(pod_uid, {}).values())

    def of_pool(self, key: Key, pods: Mapping[str, object]) -> list[Eviction]:
        """The Evictions of Pods of a pool, of those that are there (by UID) and of those that were."""
        for uid in self._by_pod:
            if uid in pods:
                self._pools[uid] = key
        uids = [uid for uid, pool in self._pools.items() if pool == key]
        return [eviction for uid in uids for eviction in self._by_pod[uid].values()]

    def pool_of(self, pod_uid: str) -> Key | None:
        """The pool of a Pod that is asked for, if that is known."""
        return self._pools.get(pod_uid)

    def note(self, obj: Object) -> None:
        """Take in what a write answered with."""
        if self._cache is not None:
            self._cache.note(obj)

    async def run(self) -> None:
        """Look for ever whether the API server has them, and follow them while it does."""
        try:
            while True:
                delay = await self.look()
                self.looked.set()
                await asyncio.sleep(delay)
        finally:
            await self._stop()

    async def look(self) -> float:
        """Look once; the seconds until the next time. What can't be reached stays as it was."""
        try:
            await self._api.list_page(EVICTIONS, self._namespace, limit=1)
        except (NotFound, Forbidden) as error:
            if isinstance(error, Forbidden) and not self._refused:
                log.warning("evictions can't be read, so no Pod names us as responder", extra={"error": str(error)})
            self._refused = isinstance(error, Forbidden)
            await self._stop()
            return LOOK_SECONDS
        except (ApiError, ApiUnavailable):
            return AGAIN_SECONDS
        self._refused = False
        if self._watching is None:
            reflector = self._start()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_FIRST_LIST_SECONDS):
                    await reflector.wait_synced()
        return LOOK_SECONDS

    def _start(self) -> Reflector:
        self._cache = Cache(EVICTIONS)
        self._cache.subscribe(self._changed)
        reflector = Reflector(self._api, self._cache, self._rng, namespace=self._namespace)
        self._watching = asyncio.create_task(reflector.run(), name="watch evictions")
        return reflector

    async def _stop(self) -> None:
        """Follow them no more, and forget what they ask for."""
        watching, self._watching, self._cache = self._watching, None, None
        if watching is not None:
            watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watching
        pods = list(self._by_pod)
        self._by_pod.clear()
        for uid in pods:
            self._on_change(uid)
        self._pools.clear()

    def _changed(self, old: Object | None, new: Object | None) -> None:
        before = Eviction.parse(old) if old is not None else None
        now = Eviction.parse(new) if new is not None else None
        if before is not None:
            self._forget(before)
        if now is not None:
            self._by_pod.setdefault(now.pod_uid, {})[now.uid] = now
        for uid in {eviction.pod_uid for eviction in (before, now) if eviction is not None}:
            self._on_change(uid)
            if uid not in self._by_pod:
                self._pools.pop(uid, None)

    def _forget(self, eviction: Eviction) -> None:
        known = self._by_pod.get(eviction.pod_uid, {})
        known.pop(eviction.uid, None)
        if not known:
            self._by_pod.pop(eviction.pod_uid, None)
