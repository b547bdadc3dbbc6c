"""The agent's own log: one line per event, JSON, or key=value on a terminal.

A reader that has stopped reading must not stop the agent: lines that would block are dropped, and counted once it
reads again.
"""

import os
import select
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Protocol

import orjson

from agent.wire import format_time

PIPE_ATOMIC_BYTES = 4096
"""A pipe that polls writable takes this much without blocking (POSIX PIPE_BUF on Linux)."""

GATHER_SECONDS = 0.02
MAX_LINES = 256

OPTIONS = orjson.OPT_UTC_Z | orjson.OPT_APPEND_NEWLINE


class Log(Protocol):
    """Where events go."""

    def event(self, message: str, /, **fields: Any) -> None:
        """Write one line. Never a token, never a task's environment."""


class StreamLog:
    """Lines on a file descriptor, usually standard error.

    Lines are gathered for a moment, `later(seconds, flush)` permitting: under load a write for each would take as long
    as the rest of an acquire.
    """

    def __init__(
        self,
        fd: int,
        now: Callable[[], datetime],
        bound: Mapping[str, str],
        later: Callable[[float, Callable[[], None]], object] | None = None,
    ) -> None:
        self._fd = fd
        self._now = now
        self._bound = dict(bound)
        self._later = later
        self._human = os.isatty(fd)
        self._lines: list[bytes] = []
        self._dropped = 0
        self._poll = select.poll()
        self._poll.register(fd, select.POLLOUT)

    def event(self, message: str, /, **fields: Any) -> None:
        """Write one line, soon."""
        values = {"time": self._now(), "message": message, **self._bound, **fields}
        line = _human_line(values) if self._human else orjson.dumps(values, default=str, option=OPTIONS)
        if len(line) > PIPE_ATOMIC_BYTES:
            line = line[: PIPE_ATOMIC_BYTES - 1] + b"\n"
        self._lines.append(line)
        if len(self._lines) == 1 and self._later is not None:
            self._later(GATHER_SECONDS, self.flush)
        elif self._later is None or len(self._lines) >= MAX_LINES:
            self.flush()

    def flush(self) -> None:
        """Write what was gathered, as far as the reader takes it."""
        lines, self._lines = self._lines, []
        piece = b""
        for line in lines:
            if len(piece) + len(line) > PIPE_ATOMIC_BYTES:
                self._write(piece)
                piece = b""
            piece += line
        if piece:
            self._write(piece)

    def _write(self, piece: bytes) -> None:
        if self._dropped:
            lost = orjson.dumps({"message": "log lines dropped", "lines": self._dropped}, option=OPTIONS)
            if len(piece) + len(lost) <= PIPE_ATOMIC_BYTES:
                piece = lost + piece
        try:
            if self._poll.poll(0):
                os.write(self._fd, piece)
                self._dropped = 0
                return
        except OSError:
            # A closed log is no reason to stop.
            pass
        self._dropped += piece.count(b"\n")


class NoLog:
    """Keeps nothing; for simulations."""

    def event(self, message: str, /, **fields: Any) -> None:
        """Do nothing."""


def _human_line(values: Mapping[str, Any]) -> bytes:
    pairs = " ".join(f"{key}={value}" for key, value in values.items() if key not in {"time", "message"})
    return f"{format_time(values['time'])} {values['message']} {pairs}\n".encode("utf-8", "replace")
