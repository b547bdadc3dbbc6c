"""When the lines of a container's log were written: for `kubectl logs --timestamps` and `--since`.

A container writes into its log itself, so no line has a time of its own. Each second the kubelet notes how long the
log is and when it was last written, in a file beside it: a line is known to the second, and one that nobody has noted
yet by the log's own last change.
"""

from __future__ import annotations

import asyncio
import os
from bisect import bisect_left
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path

NOTE_SECONDS = 1.0


def notes(log: Path) -> Path:
    """Where the times of a log are."""
    return log.with_suffix(".times")


class LogClock:
    """Notes how logs grow."""

    def __init__(self, live_logs: Callable[[], Iterable[Path]]) -> None:
        self._live_logs = live_logs
        self._noted: dict[Path, int] = {}

    async def run(self) -> None:
        """Notes for ever."""
        while True:
            self.note()
            await asyncio.sleep(NOTE_SECONDS)

    def note(self) -> None:
        """Takes note of every log that has grown."""
        noted: dict[Path, int] = {}
        for log in self._live_logs():
            try:
                state = log.stat()
            except FileNotFoundError:
                continue
            noted[log] = state.st_size
            if state.st_size > self._noted.get(log, 0):
                self._append(log, f"{state.st_size} {state.st_mtime_ns}\n")
        self._noted = noted

    def _append(self, log: Path, line: str) -> None:
        descriptor = os.open(notes(log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
        try:
            os.write(descriptor, line.encode())
        finally:
            os.close(descriptor)


class LineTimes:
    """The times of one log's lines, as far as they are known now."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._sizes: list[int] = []
        self._times: list[int] = []
        self._load()

    def _load(self) -> None:
        try:
            lines = notes(self._log).read_text().splitlines()
        except FileNotFoundError:
            return
        pairs = [tuple(map(int, line.split())) for line in lines if line.count(" ") == 1]
        self._sizes, self._times = [size for size, _ in pairs], [time for _, time in pairs]

    def at(self, end: int) -> int:
        """When the line that ends at this offset had been written, in nanoseconds since 1970."""
        if not self._sizes or end > self._sizes[-1]:
            self._load()
        place = bisect_left(self._sizes, end)
        return self._times[place] if place < len(self._sizes) else self._log.stat().st_mtime_ns


def stamp(nanoseconds: int) -> bytes:
    """A time as the kubelet writes it before a line."""
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09d}Z ".encode()
