"""Keeps objects on disk: a change is durable before its answer is sent and before any watcher hears of it.

SQLite with a write-ahead log and synchronous=FULL: a commit returns once the log is synced. Changes that arrive while
one commit runs go into the next one together (group commit), so many writers share the cost of one sync.
"""

from __future__ import annotations

import asyncio
import fcntl
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import orjson

from controller.local.apiserver.store.versions import Change, ChangeType

Json = dict[str, Any]
Stored = tuple[str, int, Json]
OnDurable = Callable[[Sequence[Change]], None]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS objects (
    resource TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL, version INTEGER NOT NULL, body BLOB NOT NULL,
    PRIMARY KEY (resource, namespace, name)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS counter (id INTEGER PRIMARY KEY CHECK (id = 0), version INTEGER NOT NULL);
"""


class JournalError(RuntimeError):
    """The disk refused a change that the store has already made: the process can't go on."""


class Persistence(Protocol):
    """Where changes are made durable."""

    def load(self) -> tuple[int, Iterable[Stored]]:
        """The last version and every object."""

    async def commit(self, changes: Sequence[Change]) -> None:
        """Returns once the changes are durable and published. Raises JournalError."""

    async def settled(self) -> None:
        """Returns once every change made so far is durable. Raises JournalError."""

    async def close(self) -> None:
        """Finishes what is under way."""


class Volatile:
    """Keeps nothing: for tests and simulations."""

    def __init__(self, on_durable: OnDurable) -> None:
        self._on_durable = on_durable

    def load(self) -> tuple[int, Iterable[Stored]]:
        """Nothing."""
        return 0, ()

    async def commit(self, changes: Sequence[Change]) -> None:
        """Publishes at once."""
        self._on_durable(changes)

    async def settled(self) -> None:
        """Always so."""

    async def close(self) -> None:
        """Nothing to do."""


class SqliteJournal:
    """A directory with one database file, used by one process at a time."""

    def __init__(self, directory: Path, on_durable: OnDurable) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._on_durable = on_durable
        # A second server on the same directory is refused; the lock goes with the process, however it ends.
        self._lock = (directory / "lock").open("a")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            raise RuntimeError(f"{directory} is in use by another process") from None
        self._database = sqlite3.connect(directory / "objects.sqlite3", isolation_level=None, check_same_thread=False)
        # Nobody else reads the database, so its index of the log needs no shared memory.
        self._database.execute("PRAGMA locking_mode=EXCLUSIVE")
        self._database.execute("PRAGMA journal_mode=WAL")
        self._database.execute("PRAGMA synchronous=FULL")
        self._database.executescript(_SCHEMA)
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="journal")
        self._pending: list[tuple[Sequence[Change], asyncio.Future[None]]] = []
        self._writer: asyncio.Task[None] | None = None
        self._failure: Exception | None = None

    def load(self) -> tuple[int, Iterable[Stored]]:
        """The last version and every object."""
        row = self._database.execute("SELECT version FROM counter").fetchone()
        rows = self._database.execute("SELECT resource, version, body FROM objects ORDER BY resource, namespace, name")
        return (row[0] if row else 0), [(resource, version, orjson.loads(body)) for resource, version, body in rows]

    async def commit(self, changes: Sequence[Change]) -> None:
        """Returns once the changes are on disk and published."""
        if self._failure is not None:
            raise JournalError(str(self._failure)) from self._failure
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._pending.append((changes, future))
        if self._writer is None:
            self._writer = asyncio.create_task(self._write_all(), name="journal")
        # A caller that is cancelled must not take the others' commit with it.
        await asyncio.shield(future)

    async def settled(self) -> None:
        """Returns once everything handed in before is on disk."""
        if self._failure is not None:
            raise JournalError(str(self._failure)) from self._failure
        if self._writer is not None:
            await self.commit(())

    async def _write_all(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._pending and self._failure is None:
                batch, self._pending = self._pending, []
                changes = [change for part, _ in batch for change in part]
                try:
                    if changes:
                        await loop.run_in_executor(self._executor, self._write, changes)
                except sqlite3.Error as error:
                    self._failure = error
                    self._pending = batch + self._pending
                    break
                self._on_durable(changes)
                for _, future in batch:
                    if not future.done():
                        future.set_result(None)
        finally:
            self._writer = None
            refused, self._pending = (self._pending, []) if self._failure is not None else ([], self._pending)
            for _, future in refused:
                if not future.done():
                    future.set_exception(JournalError(str(self._failure)))

    def _write(self, changes: Sequence[Change]) -> None:
        """One transaction; of several versions of an object the last one counts. Runs in the journal's thread."""
        last = {(change.record.resource, change.record.key): change for change in changes}
        rows, gone = [], []
        for (resource, (namespace, name)), change in last.items():
            if change.type is ChangeType.DELETED:
                gone.append((resource, namespace, name))
            else:
                # Encoded for the answer already, as a rule; bodies never change, so any thread may encode them.
                rows.append((resource, namespace, name, change.version, change.record.encoded()))
        self._database.execute("BEGIN IMMEDIATE")
        try:
            self._database.executemany("INSERT OR REPLACE INTO objects VALUES (?, ?, ?, ?, ?)", rows)
            self._database.executemany("DELETE FROM objects WHERE resource=? AND namespace=? AND name=?", gone)
            self._database.execute("INSERT OR REPLACE INTO counter VALUES (0, ?)", (changes[-1].version,))
            self._database.execute("COMMIT")
        except sqlite3.Error:
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")
            raise

    async def close(self) -> None:
        """Finishes the commits under way and closes the database."""
        while self._writer is not None:
            await asyncio.wait([self._writer])
        self._executor.shutdown(wait=True)
        self._database.close()
        self._lock.close()
