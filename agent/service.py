"""The single writer: decide on the newest state → journal → publish → answer.

Requests are decided one after the other, each on the state that the one before it led to. Their records go to the disk
together, as many as came in while the last write was under way. Only what is on the disk is published and answered; if
the write fails, every decision made since then is dropped, and the callers get an error. Reads never wait: they are
answered from the published state, by bytes that are made once for each revision.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Protocol

import orjson

from agent.addressee import Addressee
from agent.clock import AgentClock
from agent.counters import Counters
from agent.errors import Refusal
from agent.log import Log, report
from agent.rules import slots, tasks
from agent.rules.report import Facts, make_view
from agent.rules.state import ClockNoted, Decision, Event, Record, Replaced, SlotChanged, State, apply, replaced_by
from agent.store.journal import Journal
from agent.store.journal_format import encode_records
from agent.wire import (
    AgentState,
    ErrorCode,
    SlotState,
    WatchLine,
    WatchType,
    WorkerLink,
)

JSON_OPTIONS = orjson.OPT_UTC_Z | orjson.OPT_APPEND_NEWLINE

TICK_SECONDS = 1.0
"""How often the time limits of reservations are checked."""

NEARLY_FULL = "the disk of the journal is full; what is held goes on, new work is refused"

NOTE_SECONDS = 60.0
"""How often the time is journaled while a reservation has a limit. A reboot may prolong a reservation by as much."""

PROBE_SECONDS = 2.0
"""How often a disk that failed is tried again when no request does it."""

Listener = Callable[[State, list[Record]], None]
Decide = Callable[[State, datetime], Decision]


class Submit(Protocol):
    """Has blocking work done off the loop and calls back on it: `DiskThread.submit`, or a simulation's."""

    def __call__(self, work: Callable[[], None], done: Callable[[OSError | None], None], /) -> None:
        """Do `work`, then call `done` with what went wrong."""


@dataclass(slots=True)
class _Batch:
    """The records of one write to the disk. `state` is the state after them, `replaced` what each one replaced."""

    state: State
    records: list[Record] = field(default_factory=list)
    replaced: list[Replaced] = field(default_factory=list)
    gives_work: bool = False
    waiters: list[asyncio.Future[None]] = field(default_factory=list)


class Service:
    """Owns the agent's state. Everything but the disk runs on the event loop."""

    def __init__(
        self,
        *,
        facts: Facts,
        state: State,
        journal: Journal,
        submit: Submit,
        now: Callable[[], datetime],
        clock: AgentClock | None = None,
        counters: Counters,
        log: Log,
        warnings: tuple[str, ...] = (),
    ) -> None:
        self.facts = facts
        self.addressee = Addressee(facts)
        self.counters = counters
        self.state = state
        self.revision = facts.first_revision
        self.watchers = 0
        self.stopping = False
        self.closing_since: float | None = None
        self._journal = journal
        self._failing = journal.broken
        self._submit = submit
        self._now = now
        self._clock = clock
        self._noted_at: float | None = None
        self.shift = timedelta() if clock is None else clock.shift()
        """The difference from the state's time to the wall clock, which people and the controller see."""
        self.log = log
        self._warnings = warnings
        self._tokens: tuple[str, ...] = ()
        self._links: tuple[WorkerLink | None, ...] = (None,) * len(state.slots)
        self._pending = _Batch(state)
        self._in_flight: _Batch | None = None
        self._in_flight_since = 0.0
        self._flush_is_due = False
        self._view: AgentState | None = None
        self._body: bytes | None = None
        self._changed = asyncio.Event()
        self._last_probe = 0.0
        self._on_publish: list[Listener] = []

    # --- writing ----------------------------------------------------------------------------------------------------

    async def execute(self, decide: Decide) -> Any:
        """Decide, journal, publish; return the answer. Raises Refusal, `storage` if it could not be journaled."""
        try:
            decision = decide(self._pending.state, self._now())
        except Refusal:
            # The state that the refusal rests on may not reach the disk. Then the answer is `storage` instead.
            await self._settle()
            raise
        if not decision.records:
            await self._settle()
            return decision.answer
        gives_work = any(
            isinstance(record, SlotChanged) and record.event is Event.ACQUIRE for record in decision.records
        )
        if gives_work and self._journal.short:
            await self._settle()
            raise Refusal(ErrorCode.STORAGE, NEARLY_FULL)
        pending = self._pending
        pending.gives_work = pending.gives_work or gives_work
        for record in decision.records:
            pending.replaced.append(replaced_by(record, pending.state))
            pending.state = apply(pending.state, record)
        pending.records.extend(decision.records)
        loop = asyncio.get_running_loop()
        waiter = loop.create_future()
        pending.waiters.append(waiter)
        if self._in_flight is None and not self._flush_is_due:
            # In the loop's next turn: what else has come in until then goes into the same write.
            self._flush_is_due = True
            loop.call_soon(self._flush)
        await waiter
        return decision.answer

    async def _settle(self) -> None:
        """Wait until everything decided so far is on the disk."""
        batch = self._pending if self._pending.records else self._in_flight
        if batch is not None:
            waiter = asyncio.get_running_loop().create_future()
            batch.waiters.append(waiter)
            await waiter

    def _flush(self) -> None:
        self._flush_is_due = False
        batch = self._pending
        if self._in_flight is not None or not batch.records:
            return
        self._in_flight, self._pending = batch, _Batch(batch.state)
        self._in_flight_since = asyncio.get_running_loop().time()
        payload, base, journal = encode_records(batch.records), self.state, self._journal
        urgent = not batch.gives_work
        self._submit(lambda: journal.commit(payload, base, urgent=urgent), self._flushed)

    def _flushed(self, error: OSError | None) -> None:
        batch, self._in_flight = self._in_flight, None
        if batch is None:
            return
        if error is not None:
            dropped = [*batch.waiters, *self._pending.waiters]
            refusal = self._drop(len(batch.records), error)
            _release(dropped, refusal)
            return
        seconds = asyncio.get_running_loop().time() - self._in_flight_since
        self._publish(batch, seconds)
        _release(batch.waiters, None)
        if self._pending.records:
            self._flush()

    def _publish(self, batch: _Batch, seconds: float) -> None:
        """Make the stored state the published one, and tell who listens."""
        self.state = batch.state
        # A note of the time changes nothing that watchers are shown, so it makes no revision.
        is_news = self._failing or any(not isinstance(record, ClockNoted) for record in batch.records)
        self._failing = False
        self.counters.committed(seconds)
        for record, replaced in zip(batch.records, batch.replaced, strict=True):
            self.counters.recorded(record, replaced)
            report(self.log, record, replaced)
        for listener in self._on_publish:
            listener(batch.state, batch.records)
        if is_news:
            self._bump()

    def _drop(self, records: int, error: OSError) -> Refusal:
        """Drop what was not stored, and all that was decided since, which rests on it."""
        self.counters.commit_failed()
        self.log.event("journal write failed", error=str(error), records=records)
        self._pending = _Batch(self.state)
        self._last_probe = asyncio.get_running_loop().time()
        self._failing = True
        self._bump()
        return Refusal(ErrorCode.STORAGE, f"the journal can't be written: {error.strerror or error}")

    def on_publish(self, listener: Listener) -> None:
        """Have `listener(state, records)` called for all that is published."""
        self._on_publish.append(listener)

    # --- what changes without the journal ---------------------------------------------------------------------------

    def close(self) -> None:
        """Take no new work any more: the Pod is being stopped. What is held goes on."""
        if not self.state.closing:
            self.closing_since = asyncio.get_running_loop().time()
            self.state = replace(self.state, closing=True)
            self._pending.state = replace(self._pending.state, closing=True)
            if self._in_flight is not None:
                self._in_flight.state = replace(self._in_flight.state, closing=True)
            self.log.event("closing")
            self._bump()

    def stop(self) -> None:
        """End the streams: the server is about to stop."""
        self.stopping = True
        self._bump()

    def set_links(self, links: tuple[WorkerLink | None, ...]) -> None:
        """Which workers are there."""
        if links != self._links:
            self._links = links
            self._bump()

    def set_tokens(self, token_ids: tuple[str, ...]) -> None:
        """Which pool tokens are valid."""
        if token_ids != self._tokens:
            self._tokens = token_ids
            self._bump()

    async def tick(self) -> None:
        """Do what is due by the clock. Called every TICK_SECONDS."""
        await self._keep_time()
        now = self._now()
        if any(slot.expires_at is not None and now >= slot.expires_at for slot in self.state.slots):
            await self._expire()
        if self._failing or self._journal.wants_probe:
            self._probe()

    async def _keep_time(self) -> None:
        """Note the time while a limit runs, for the next boot; and see whether the wall clock was set."""
        clock = self._clock
        if clock is None:
            return
        if (shift := clock.shift()) != self.shift:
            self.shift = shift
            self._bump()
        loop_time = asyncio.get_running_loop().time()
        is_known = self.state.clock is not None and self._noted_at is not None
        limited = any(slot.expires_at is not None for slot in self.state.slots)
        if is_known and not (limited and loop_time - (self._noted_at or 0.0) >= NOTE_SECONDS):
            return
        with suppress(Refusal):
            # Storage; the next tick tries again.
            await self.execute(lambda _state, _now: Decision((clock.note(),)))
            self._noted_at = loop_time

    async def _expire(self) -> None:
        try:
            await self.execute(lambda state, now: slots.decide(state, slots.ExpireHolds(), now))
            await self.execute(lambda state, now: tasks.decide(state, tasks.ExpireTasks(), now))
        except Refusal:
            # Storage; the next tick tries again.
            return

    def _probe(self) -> None:
        loop_time = asyncio.get_running_loop().time()
        if self._in_flight is None and loop_time - self._last_probe >= PROBE_SECONDS:
            self._last_probe = loop_time
            self._in_flight = _Batch(self.state)
            base, journal = self.state, self._journal
            self._submit(lambda: journal.probe(base), self._probed)

    def _probed(self, error: OSError | None) -> None:
        batch, self._in_flight = self._in_flight, None
        if error is None and self._failing:
            self._failing = False
            self.log.event("journal can be written again")
        self._bump_if_warned()
        if batch is not None:
            # A probe carries no records: its waiters need only the published state.
            _release(batch.waiters, None)
        self._flush()

    # --- reading ----------------------------------------------------------------------------------------------------

    @property
    def journal_failing(self) -> bool:
        """Whether the last write failed."""
        return self._failing

    @property
    def view(self) -> AgentState:
        """What `GET /slots` says."""
        if self._view is None:
            self._view = self._make_view()
        return self._view

    @property
    def body(self) -> bytes:
        """What `GET /slots` says, as bytes."""
        if self._body is None:
            self._body = orjson.dumps(self.view, option=JSON_OPTIONS)
        return self._body

    def watch_line(self, kind: WatchType) -> bytes:
        """One line of a watch, about the present revision."""
        if kind is WatchType.HEARTBEAT:
            return orjson.dumps({"type": kind, "revision": self.revision}, option=JSON_OPTIONS)
        return orjson.dumps(WatchLine(type=kind, revision=self.revision, state=self.view), option=JSON_OPTIONS)

    async def changed_since(self, revision: int, timeout_seconds: float) -> bool:
        """Wait until the revision is another one; False after the timeout."""
        if self.revision == revision:
            try:
                async with asyncio.timeout(timeout_seconds):
                    await self._changed.wait()
            except TimeoutError:
                return False
        return True

    def render_metrics(self, accept: str) -> tuple[bytes, str]:
        """The answer to a scrape."""
        return self.counters.render(
            accept,
            state=self.state,
            workers=sum(link is not None and link.connected for link in self._links),
            watchers=self.watchers,
            tokens=len(self._tokens),
            journal_bytes=self._journal.size_bytes,
            journal_failing=self._failing,
        )

    @property
    def running(self) -> int:
        """How many slots are running."""
        return sum(slot.state is SlotState.RUNNING for slot in self.state.slots)

    def _bump_if_warned(self) -> None:
        """Make a new revision if the warnings have changed."""
        if self._view is None or self._view.warnings != self._make_view().warnings:
            self._bump()

    def _bump(self) -> None:
        self.revision += 1
        self._view = self._body = None
        self._changed.set()
        self._changed = asyncio.Event()

    def _make_view(self) -> AgentState:
        warnings = self._warnings
        if self._failing:
            warnings = (*warnings, "the journal can't be written; new work is refused")
        elif self._journal.short:
            warnings = (*warnings, NEARLY_FULL)
        return make_view(
            self.facts,
            self.state,
            revision=self.revision,
            tokens=self._tokens,
            links=self._links,
            warnings=warnings,
            shift=self.shift,
        )


def _release(waiters: list[asyncio.Future[None]], refusal: Refusal | None) -> None:
    for waiter in waiters:
        if waiter.done():
            continue
        if refusal is None:
            waiter.set_result(None)
        else:
            # One exception each: they are raised in different tasks.
            waiter.set_exception(Refusal(refusal.code, refusal.message))
