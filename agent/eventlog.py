"""The agent's own log: one line per event, JSON, or key=value on a terminal.

A reader that has stopped reading must not stop the agent: a line that would block is dropped, and counted in the next
one that gets through.
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


class Log(Protocol):
    """Where events go."""

    def event(self, message: str, /, **fields: Any) -> None:
        """Write one line. Never a token, never a task's environment."""


class StreamLog:
    """Lines on a file descriptor, usually standard error."""

    def __init__(self, fd: int, now: Callable[[], datetime], bound: Mapping[str, str]) -> None:
        self._fd = fd
        self._now = now
        self._bound = dict(bound)
        self._human = os.isatty(fd)
        self._dropped = 0
        self._poll = select.poll()
        self._poll.register(fd, select.POLLOUT)

    def event(self, message: str, /, **fields: Any) -> None:
        """Write one line, unless that would block."""
        values = {"time": format_time(self._now()), "message": message, **self._bound, **fields}
        if self._dropped:
            values["dropped_lines"] = self._dropped
        line = (
            _human_line(values) if self._human else orjson.dumps(values, default=str, option=orjson.OPT_APPEND_NEWLINE)
        )
        if len(line) > PIPE_ATOMIC_BYTES:
            line = line[: PIPE_ATOMIC_BYTES - 1] + b"\n"
        try:
            if self._poll.poll(0):
                os.write(self._fd, line)
                self._dropped = 0
                return
        except OSError:
            # A closed log is no reason to stop.
            pass
        self._dropped += 1


class NoLog:
    """Keeps nothing; for simulations."""

    def event(self, message: str, /, **fields: Any) -> None:
        """Do nothing."""


def _human_line(values: Mapping[str, Any]) -> bytes:
    pairs = " ".join(f"{key}={value}" for key, value in values.items() if key not in {"time", "message"})
    return f"{values['time']} {values['message']} {pairs}\n".encode("utf-8", "replace")
