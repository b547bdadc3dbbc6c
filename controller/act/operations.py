"""Operations: the controller's writes, each a short coroutine under a key, at most one a key at a time.

A pass starts operations and never waits for them, so that a slow agent delays only its own operations. What failed is
not retried here: the end of an operation wakes its pool, whose next reconcile decides anew on what is then true. A key
that fails again and again is held back for a while, doubling from 0.5 s to 30 s, with jitter. Operations that were
begun together and fail of one cause are one failure: the delay doubles when one fails that was begun after it.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from enum import StrEnum

from controller.act.turns import Turns, Urgency
from controller.errors import AgentRefused, AgentUnreachable, ApiError, ApiUnavailable, Conflict, NotFound, NotLeader

log = logging.getLogger(__name__)

_FIRST_DELAY_SECONDS = 0.5
_CONFLICT_DELAY_SECONDS = 0.05
_LONGEST_DELAY_SECONDS = 30.0
_NOT_LEADING_DELAY_SECONDS = 1.0


Ended = Callable[[str, "Result"], None]
"""Told of the end of each operation, by its key."""


class Result(StrEnum):
    """How an operation can end."""

    DONE = "done"
    CONFLICT = "conflict"
    FAILED = "failed"
    NOT_LEADER = "not_leader"
    BROKEN = "broken"
    CANCELLED = "cancelled"


@dataclass(slots=True)
class _Failures:
    """`until`: when the key may start again. What was begun by `since` fails of what is known already."""

    count: int
    since: float
    until: float


@dataclass(slots=True, eq=False)
class _Flight:
    """One operation in flight, and whom to tell of its end."""

    done: Callable[[float], None]
    task: asyncio.Task[None] | None = None


class Operations:
    """The operations in flight. `limit` bounds how many run at once; of the others the most urgent is next."""

    def __init__(self, rng: random.Random, *, ended: Ended | None = None, limit: int = 64) -> None:
        self._rng = rng
        self._ended = ended
        self._running: dict[str, _Flight] = {}
        self._failures: dict[str, _Failures] = {}
        self._turns = Turns(limit)

    def __len__(self) -> int:
        return len(self._running)

    def __contains__(self, key: str) -> bool:
        return key in self._running

    def held_back_seconds(self, key: str) -> float:
        """How long `key` is still held back after failures; 0 if it may start."""
        failures = self._failures.get(key)
        return max(0.0, failures.until - asyncio.get_running_loop().time()) if failures else 0.0

    def start(
        self,
        key: str,
        operation: Callable[[], Coroutine[None, None, None]],
        done: Callable[[float], None],
        *,
        backoff: str = "",
        urgency: Urgency = Urgency.WORK,
    ) -> bool:
        """Start `operation` unless `key` is in flight or held back; tell whether it was started.

        `done(delay_seconds)` is called when it ended, with the time to wait before the pool looks again (0: now); also
        when it was cancelled before its first step. Operations that share a `backoff` are held back together (default:
        each key for itself).
        """
        backoff = backoff or key
        if key in self._running:
            return False
        if delay := self.held_back_seconds(backoff):
            done(delay)
            return False
        flight = self._running[key] = _Flight(done)
        flight.task = asyncio.create_task(self._run(key, backoff, operation, flight, urgency), name=f"operation {key}")
        # A task that is cancelled before its first step runs none of its code, `finally` included.
        flight.task.add_done_callback(lambda _: self._end(key, flight, Result.CANCELLED, 0.0))
        return True

    async def _run(
        self,
        key: str,
        backoff: str,
        operation: Callable[[], Coroutine[None, None, None]],
        flight: _Flight,
        urgency: Urgency,
    ) -> None:
        delay = 0.0
        begun = asyncio.get_running_loop().time()
        result = Result.CANCELLED
        try:
            async with self._turns.turn(urgency):
                begun = asyncio.get_running_loop().time()
                await operation()
            result = Result.DONE
            self._failures.pop(backoff, None)
        except NotLeader:
            result = Result.NOT_LEADER
            log.info("not leading: operation dropped", extra={"operation": key})
            delay = _NOT_LEADING_DELAY_SECONDS
        except Conflict as error:
            result = Result.CONFLICT
            # The object moved on under us: its new version is, or will soon be, in the cache.
            log.debug("conflict", extra={"operation": key, "error": str(error)})
            delay = self._hold_back(backoff, begun, first_seconds=_CONFLICT_DELAY_SECONDS)
        except NotFound as error:
            result = Result.FAILED
            # Its object was deleted meanwhile, as when a person deletes a task.
            log.debug("gone", extra={"operation": key, "error": str(error)})
            delay = self._hold_back(backoff, begun)
        except (ApiError, ApiUnavailable, AgentRefused, AgentUnreachable) as error:
            result = Result.FAILED
            delay = self._hold_back(backoff, begun, getattr(error, "retry_after_seconds", None))
            log.warning("operation failed", extra={"operation": key, "error": str(error), "retry_seconds": delay})
        except Exception:
            result = Result.BROKEN
            delay = self._hold_back(backoff, begun)
            log.exception("operation broke", extra={"operation": key})
        finally:
            self._end(key, flight, result, delay)

    def _end(self, key: str, flight: _Flight, result: Result, delay_seconds: float) -> None:
        if self._running.get(key) is not flight:
            return
        del self._running[key]
        try:
            if self._ended is not None:
                self._ended(key, result)
        except Exception:
            log.exception("the end of an operation was not counted", extra={"operation": key})
        try:
            flight.done(delay_seconds)
        except Exception:
            log.exception("the end of an operation was not told", extra={"operation": key})

    def _hold_back(
        self,
        key: str,
        begun: float,
        retry_after_seconds: float | None = None,
        *,
        first_seconds: float = _FIRST_DELAY_SECONDS,
    ) -> float:
        now = asyncio.get_running_loop().time()
        known = self._failures.get(key)
        if known is not None and begun <= known.since:
            known.until = max(known.until, now + (retry_after_seconds or 0.0))
            return max(0.0, known.until - now)
        count = known.count + 1 if known is not None else 1
        delay = min(_LONGEST_DELAY_SECONDS, first_seconds * 2.0 ** min(count - 1, 10))
        delay = max(delay * self._rng.uniform(0.5, 1.0), retry_after_seconds or 0.0)
        self._failures[key] = _Failures(count, now, now + delay)
        self._forget_old(now)
        return delay

    def _forget_old(self, now: float) -> None:
        """Keys of objects that are gone are never asked for again: drop what is long past."""
        old = [key for key, failures in self._failures.items() if failures.until + 10 * _LONGEST_DELAY_SECONDS < now]
        for key in old:
            del self._failures[key]

    async def stop(self) -> None:
        """Cancel what is in flight and wait for its end."""
        tasks = [flight.task for flight in self._running.values() if flight.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
