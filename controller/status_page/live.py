"""The newest status, for all readers: made at most once a second, and only while there are readers.

A status has parts (`replica`, `pools`, `plans`, `queue`, `decisions`), and each part the number of the status in which
it last changed. So nothing is queued for a reader: a slow one later gets the newest state of the parts that changed
since the last one it got.
"""

import asyncio
import logging
import secrets
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from datetime import datetime

import orjson

from controller.app import Controller
from controller.breaks import Breaks
from controller.passes.loop import CHUNK
from controller.status_page.model import MOST_LISTED, Listed, PlanSaid, PoolKnown, PoolSaid, Replica, WaitingSaid
from controller.status_page.pool_entries import pool_said
from controller.status_page.task_entries import merged_plans, merged_queue, plans_said, queue_said
from controller.world.index import Key

log = logging.getLogger(__name__)

FORMAT = orjson.OPT_UTC_Z | orjson.OPT_OMIT_MICROSECONDS

RETRY_MS = 2000
"""How long a browser waits before it asks again for a stream that broke."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """`period_seconds`: how often a status is made, at most. A stream says something every `beat_seconds`.

    `most_readers`: streams at once.
    """

    period_seconds: float = 1.0
    beat_seconds: float = 15.0
    most_readers: int = 200


class TooManyReaders(Exception):
    """There are as many streams as may be."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The parts as JSON, and when each last changed. `number` counts the statuses that differ."""

    instance: str
    number: int
    parts: Mapping[str, bytes]
    changed: Mapping[str, int]

    @property
    def version(self) -> str:
        """Its name: no other status has it, of no other process either."""
        return f"{self.instance}.{self.number}"

    def since(self, version: str | None) -> int:
        """The number of an earlier version; 0 if it is not of this process."""
        instance, _, number = (version or "").rpartition(".")
        known = instance == self.instance and number.isascii() and number.isdecimal() and len(number) <= len("1" * 15)
        return min(int(number), self.number) if known else 0

    def body(self, now: datetime, since: int = 0) -> bytes:
        """One JSON object with the parts that changed after `since`."""
        parts = {name: orjson.Fragment(text) for name, text in self.parts.items() if self.changed[name] > since}
        return orjson.dumps({"version": self.version, "now": now, **parts}, option=FORMAT)


@dataclass(slots=True)
class _Known:
    """A pool as it was looked at last, and what was said of it."""

    pool: PoolKnown
    said: PoolSaid
    plans: Listed[PlanSaid]
    queue: Listed[WaitingSaid]


class Live:
    """Makes statuses of what a controller knows, and hands them to readers."""

    def __init__(self, controller: Controller, settings: Settings | None = None) -> None:
        self._controller = controller
        self._settings = settings or Settings()
        self._known: dict[Key, _Known] = {}
        self._snapshot = Snapshot(secrets.token_hex(6), 0, {}, {})
        self._taken_at = float("-inf")
        self._taking = asyncio.Lock()
        self._news = asyncio.Event()
        self._ticking: asyncio.Task[None] | None = None
        self._closed = False
        self._breaks = Breaks(log, "the status could not be made")
        self.readers = 0
        """How many streams are open."""

    @property
    def now(self) -> datetime:
        """The controller's wall clock."""
        return self._controller.world.views.now()

    async def latest(self) -> Snapshot:
        """A status that is no older than a period."""
        async with self._taking:
            loop = asyncio.get_running_loop()
            if loop.time() - self._taken_at >= self._settings.period_seconds:
                await self._take()
                self._taken_at = loop.time()
            return self._snapshot

    async def pools(self, keys: set[Key] | None = None) -> list[PoolKnown]:
        """Pools with their Pods and tasks as they are now: these, or all."""
        chosen = sorted(self._keys() if keys is None else keys & self._keys())
        return [await self._look_at(key) for key in chosen]

    # --- making a status ----------------------------------------------------------------------------------------------

    def _keys(self) -> set[Key]:
        """Every pool there is, that has Pods, or that a task names."""
        world = self._controller.world
        there = {
            (obj["metadata"]["namespace"], obj["metadata"]["name"]) for obj in self._controller.caches.pools.items()
        }
        return there | world.views.keys() | world.index.task_keys()

    async def _look_at(self, key: Key) -> PoolKnown:
        """One pool. A replica that stands by makes no views itself: a few at a time, so that the loop gets to run."""
        world = self._controller.world
        while world.views.stale(key) > CHUNK:
            world.views.freshen(key, CHUNK)
            await asyncio.sleep(0)
        return PoolKnown(
            namespace=key[0],
            name=key[1],
            obj=self._controller.caches.pools.get(*key),
            spec=world.index.spec(key),
            pods=list(world.views.pods(key).values()),
            tasks=list(world.index.live(key).values()),
            unreadable=list(world.index.unreadable(key)),
            phases=dict(world.index.phases(key)),
        )

    async def _take(self) -> None:
        keys = sorted(self._keys())
        for key in self._known.keys() - set(keys):
            del self._known[key]
        for key in keys:
            self._note(key, await self._look_at(key))
            await asyncio.sleep(0)
        known = [self._known[key] for key in keys]
        decisions = self._controller.events.recent.newest_first()
        pools = tuple(entry.said for entry in known[:MOST_LISTED])
        self._put(
            {
                "replica": self._replica(),
                "pools": Listed(total=len(known), items=pools),
                "plans": merged_plans((entry.plans for entry in known), MOST_LISTED),
                "queue": merged_queue((entry.queue for entry in known), MOST_LISTED),
                "decisions": Listed(total=len(decisions), items=tuple(decisions[:MOST_LISTED])),
            }
        )

    def _note(self, key: Key, pool: PoolKnown) -> None:
        """Say of a pool what has changed. What is as it was is compared by identity, mostly, and made once."""
        before, revision = self._known.get(key), 1
        plans, queue = None, None
        if before is not None:
            then = before.pool
            same_pods = then.pods == pool.pods
            same_tasks = then.tasks == pool.tasks and then.unreadable == pool.unreadable
            if same_pods and same_tasks and then.obj is pool.obj and then.phases == pool.phases:
                return
            revision = before.said.revision + (not same_pods)
            plans, queue = (before.plans, before.queue) if same_tasks else (None, None)
        self._known[key] = _Known(
            pool,
            pool_said(pool, revision),
            plans or plans_said(pool.tasks, MOST_LISTED),
            queue or queue_said(pool.tasks, pool.unreadable, MOST_LISTED),
        )

    def _replica(self) -> Replica:
        election = self._controller.election
        return Replica(
            identity=election.identity,
            leads=election.may_act(),
            leader=election.holder,
            synced=self._controller.synced,
            namespace=self._controller.watches,
        )

    def _put(self, parts: Mapping[str, object]) -> None:
        before = self._snapshot
        made = {name: orjson.dumps(part, option=FORMAT) for name, part in parts.items()}
        number = before.number + 1
        changed = {
            name: before.changed[name] if text == before.parts.get(name) else number for name, text in made.items()
        }
        if number in changed.values():
            self._snapshot = Snapshot(before.instance, number, made, changed)
            self._tell()

    def _tell(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()

    # --- readers ------------------------------------------------------------------------------------------------------

    async def follow(self, version: str | None) -> AsyncGenerator[bytes, None]:
        """Server-sent events, until `close`: what changed after a version, and then at each change. None: everything.

        Raises TooManyReaders at once.
        """
        if self.readers >= self._settings.most_readers:
            raise TooManyReaders(f"{self.readers} streams are open, and that is the most")
        self.readers += 1
        try:
            sent = (await self.latest()).since(version)
            if self._ticking is None:
                self._ticking = asyncio.create_task(self._tick(), name="status page")
            yield b"retry: %d\n\n" % RETRY_MS
            while not self._closed:
                news, snapshot = self._news, self._snapshot
                if snapshot.number > sent:
                    yield _event("status", snapshot.version, snapshot.body(self.now, sent))
                    sent = snapshot.number
                    continue
                try:
                    async with asyncio.timeout(self._settings.beat_seconds):
                        await news.wait()
                except TimeoutError:
                    yield _event("beat", snapshot.version, orjson.dumps({"now": self.now}, option=FORMAT))
        finally:
            self.readers -= 1
            if not self.readers and self._ticking is not None:
                self._ticking.cancel()
                self._ticking = None

    async def _tick(self) -> None:
        """Make statuses for as long as somebody reads."""
        while True:
            await asyncio.sleep(self._settings.period_seconds)
            try:
                await self.latest()
            except Exception as error:  # noqa: BLE001 - the page is not worth the controller
                self._breaks.say(error)

    def close(self) -> None:
        """End every stream."""
        self._closed = True
        self._tell()


def _event(kind: str, version: str, data: bytes) -> bytes:
    """JSON has no line breaks of its own."""
    return b"event: %s\nid: %s\ndata: %s\n\n" % (kind.encode(), version.encode(), data)
