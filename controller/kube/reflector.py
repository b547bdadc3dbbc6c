"""Keep a cache equal to the API server: list, watch from there, list again when the watch can't go on.

        ┌────────► list ──── complete ───► watch ◄─┐
        │           │ ▲                     │  │   │ ended, idle, broken: go on from the last version seen
   410, │     fails │ │ back-off            │  └───┘
   empty│           └─┘                     │
   again└───────────────────────────────────┘

Two steps, each of which ends in the next one and a delay. A failing list takes nothing out of the cache. A list is read
without a resourceVersion, so it is never older than anything seen before. Its pages are taken in as they come, as
events would be; what it lacks is gone only when its last page is there. Every `relist_seconds` a list is read anyway:
so an event that a server or a proxy has lost is noticed then. A watch may be any time behind; `refresh` is for who must
not act on that.
"""

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from controller.breaks import Breaks
from controller.errors import ApiError, ApiUnavailable, Forbidden, Gone, PodslotsError, TooManyRequests
from controller.kube.api import Api, Object
from controller.kube.cache import Cache
from controller.kube.rest import Rest, Stopwatch

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReflectorSettings:
    """Delays in seconds.

    A stream that ends within `quick_end_seconds` without an event is an empty one; each of them in a row doubles the
    delay, and after `max_empty_streams` the version is given up and the list read again.
    """

    min_backoff_seconds: float = 0.2
    max_backoff_seconds: float = 30.0
    quick_end_seconds: float = 5.0
    max_empty_streams: int = 4
    relist_seconds: float = 1800.0
    page_limit: int = 500
    forbidden_seconds: float = 60.0
    """How long until something optional is tried again that this replica may not list."""


class Phase(StrEnum):
    """What a reflector does next."""

    LIST = "list"
    WATCH = "watch"


class Reflector:
    """Keeps one `Cache`. `run` never ends by itself."""

    def __init__(
        self,
        api: Api,
        cache: Cache,
        rng: random.Random,
        *,
        namespace: str | None = None,
        label_selector: str = "",
        optional: bool = False,
        settings: ReflectorSettings | None = None,
        stopwatch: Stopwatch = time.perf_counter,
        page_kept: Callable[[], object] = lambda: None,
    ) -> None:
        """`page_kept()` is called after each page of the first list, whose objects are there to stay.

        `optional`: what this replica may not list counts as read, and stays as it was known; it is tried again.
        """
        self.cache = cache
        self._page_kept = page_kept
        self._stopwatch = stopwatch
        self._api = api
        self._rng = rng
        self._namespace = namespace
        self._optional = optional
        self._selector = label_selector
        self._settings = settings or ReflectorSettings()
        self._phase = Phase.LIST
        self._version = ""
        self._breaks = Breaks(log, "reading the API broke")
        self._failures = {Phase.LIST: 0, Phase.WATCH: 0}
        self._relist_at = 0.0
        self._synced = asyncio.Event()
        self._stepping: asyncio.Task[float] | None = None
        self._refresh = asyncio.Event()
        self._refreshed: list[asyncio.Future[None]] = []

    async def wait_synced(self) -> None:
        """Wait for the first complete list."""
        await self._synced.wait()

    async def refresh(self) -> None:
        """Read the list anew: when this returns, the cache has all that was written before the call. Needs `run`."""
        done = asyncio.get_running_loop().create_future()
        self._refreshed.append(done)
        self._refresh.set()
        if self._stepping is not None:
            self._stepping.cancel()
        await done

    async def run(self) -> None:
        """Go from phase to phase for ever."""
        while True:
            if self._refresh.is_set():
                self._refresh.clear()
                self._phase = Phase.LIST
            self._stepping = asyncio.create_task(self.step(), name=f"step {self.cache.resource.plural}")
            try:
                await asyncio.wait({self._stepping})
            except asyncio.CancelledError:
                self._stepping.cancel()
                await asyncio.gather(self._stepping, return_exceptions=True)
                raise
            delay = self._ended(self._stepping)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await self._refresh.wait()

    def _ended(self, step: asyncio.Task[float]) -> float:
        """Seconds to wait after a step. One that broke is said, and begins anew with a list."""
        if step.cancelled():
            return 0.0
        error = step.exception()
        if error is None:
            return step.result()
        if not isinstance(error, Exception):
            raise error
        self._breaks.say(error, kind=self.cache.resource.kind)
        phase, self._phase = self._phase, Phase.LIST
        self._failures[phase] += 1
        return self._backoff(phase)

    async def step(self) -> float:
        """One list, or one watch stream to its end. Returns the seconds to wait before the next step."""
        phase = self._phase
        started = asyncio.get_running_loop().time()
        try:
            if phase is Phase.LIST:
                await self._list()
                return 0.0
            return await self._watch()
        except Gone:
            # Once is the rule of the API. Several in a row, as from a server whose history is shorter than a list
            # takes, must not become a loop of lists without a pause.
            self._phase = Phase.LIST
            self._failures[phase] += 1
            return 0.0 if self._failures[phase] == 1 else self._backoff(phase)
        except (ApiError, ApiUnavailable) as error:
            if self._optional and isinstance(error, Forbidden):
                return self._do_without(str(error))
            worked = asyncio.get_running_loop().time() - started >= self._settings.quick_end_seconds
            if phase is Phase.WATCH and worked:
                self._failures[phase] = 0  # it did work for a while, or was merely silent
            self._failures[phase] += 1
            if phase is Phase.WATCH and self._is_version_doubtful():
                self._phase = Phase.LIST
            delay = self._backoff(phase)
            if isinstance(error, TooManyRequests) and error.retry_after_seconds:
                delay = max(delay, error.retry_after_seconds)
            # Where nothing changes there are no bookmarks, and the stream ends for being silent: no news.
            self._say(logging.DEBUG if phase is Phase.WATCH and worked else logging.WARNING, phase, error, delay)
            return delay

    def _is_version_doubtful(self) -> bool:
        """Whether watches from the version last seen have failed for long enough to read a list.

        A server that was put back to an older backup refuses a version that it has not come to yet, or is silent.
        """
        tries = self._settings.max_empty_streams
        overdue = asyncio.get_running_loop().time() >= self._relist_at
        return overdue or self._failures[Phase.WATCH] % tries == 0

    def _do_without(self, error: str) -> float:
        if not self._synced.is_set():
            log.warning("done without", extra={"kind": self.cache.resource.kind, "error": error})
            for _ in self.cache.end_list(set(), "0"):
                pass
            self._synced.set()
        self._phase = Phase.LIST
        self._tell_refreshed(len(self._refreshed))
        return self._settings.forbidden_seconds

    async def _list(self) -> None:
        listed: set[str] = set()
        token = ""
        rest = Rest(self._stopwatch)
        asked = len(self._refreshed)
        while True:
            page = await self._api.list_page(
                self.cache.resource,
                self._namespace,
                label_selector=self._selector,
                limit=self._settings.page_limit,
                continue_token=token,
            )
            now = asyncio.get_running_loop().time()
            for obj in page.get("items") or ():
                listed.add(obj["metadata"]["uid"])
                self.cache.note(obj)
                await rest()
            if not self._synced.is_set():
                self._page_kept()
            token = page["metadata"].get("continue") or ""
            if not token:
                break
        self._version = page["metadata"]["resourceVersion"]
        for _ in self.cache.end_list(listed, self._version):
            await rest()
        self._phase = Phase.WATCH
        self._failures[Phase.LIST] = 0
        self._relist_at = now + self._settings.relist_seconds * self._rng.uniform(0.8, 1.2)
        self._synced.set()
        self._tell_refreshed(asked)

    def _tell_refreshed(self, asked: int) -> None:
        for done in self._refreshed[:asked]:
            if not done.done():
                done.set_result(None)
        del self._refreshed[:asked]

    async def _watch(self) -> float:
        started = asyncio.get_running_loop().time()
        stream = self._api.watch(
            self.cache.resource, self._namespace, resource_version=self._version, label_selector=self._selector
        )
        events = 0
        try:
            async for event in stream:
                events += 1
                self._failures[Phase.WATCH] = 0
                self._apply(event)
        finally:
            if close := getattr(stream, "aclose", None):
                await close()
        now = asyncio.get_running_loop().time()
        if now >= self._relist_at:
            self._phase = Phase.LIST
        if events or now - started >= self._settings.quick_end_seconds:
            self._failures[Phase.WATCH] = 0
            return 0.0 if events else self._rng.uniform(0.0, self._settings.min_backoff_seconds)
        self._failures[Phase.WATCH] += 1
        if self._failures[Phase.WATCH] % self._settings.max_empty_streams == 0:
            self._phase = Phase.LIST
        return self._backoff(Phase.WATCH)

    def _apply(self, event: Object) -> None:
        obj = event["object"]
        match event["type"]:
            case "ADDED" | "MODIFIED":
                self.cache.note(obj)
            case "DELETED":
                self.cache.apply_deleted(obj)
            case "BOOKMARK":
                pass
            case _:
                return
        self._version = obj["metadata"]["resourceVersion"]

    def _backoff(self, phase: Phase) -> float:
        doubled = self._settings.min_backoff_seconds * 2.0 ** min(self._failures[phase] - 1, 16)
        return min(doubled, self._settings.max_backoff_seconds) * self._rng.uniform(0.5, 1.0)

    def _say(self, level: int, phase: Phase, error: PodslotsError, delay: float) -> None:
        log.log(
            level,
            "reading the API failed",
            extra={
                "kind": self.cache.resource.kind,
                "phase": phase,
                "error": str(error),
                "delay_seconds": round(delay, 2),
            },
        )
