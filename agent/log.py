"""The agent's own log: one line per event, JSON, or key=value on a terminal.

A reader that has stopped reading must not stop the agent: lines that would block are dropped, and counted once it
reads again.
"""

import os
import select
import traceback
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import PurePath
from typing import Any, Protocol

import orjson

from agent.rules.state import PhaseChanged, Record, Replaced, SlotChanged, State, TaskAcked, TaskChanged, TaskEntry
from agent.wire import SlotState, TaskState, format_time

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

    Events are gathered for a moment, `later(seconds, flush)` permitting, and made lines together: under load a write
    for each would take as long as the rest of an acquire.
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
        self._events: list[tuple[datetime, str, dict[str, Any]]] = []
        self._dropped = 0
        self._poll = select.poll()
        self._poll.register(fd, select.POLLOUT)

    def event(self, message: str, /, **fields: Any) -> None:
        """Write one line, soon."""
        self._events.append((self._now(), message, fields))
        if len(self._events) == 1 and self._later is not None:
            self._later(GATHER_SECONDS, self.flush)
        elif self._later is None or len(self._events) >= MAX_LINES:
            self.flush()

    def flush(self) -> None:
        """Write what was gathered, as far as the reader takes it."""
        events, self._events = self._events, []
        piece = b""
        for event in events:
            line = self._line(*event)
            if len(piece) + len(line) > PIPE_ATOMIC_BYTES:
                self._write(piece)
                piece = b""
            piece += line
        if piece:
            self._write(piece)

    def _line(self, time: datetime, message: str, fields: Mapping[str, Any]) -> bytes:
        values: dict[str, Any] = {"time": time, "message": message, **self._bound}
        values.update(fields)
        line = _human_line(values) if self._human else orjson.dumps(values, default=str, option=OPTIONS)
        return line if len(line) <= PIPE_ATOMIC_BYTES else line[: PIPE_ATOMIC_BYTES - 1] + b"\n"

    def _write(self, piece: bytes) -> None:
        count = piece.count(b"\n")
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
        self._dropped += count


def place_of(error: Exception) -> list[str]:
    """Where in the code something went wrong. Unlike the error's text it quotes nobody."""
    frames = traceback.extract_tb(error.__traceback__)[-4:]
    return [f"{PurePath(frame.filename).name}:{frame.lineno}" for frame in frames]


def report(log: Log, record: Record, replaced: Replaced) -> None:
    """Log what a record changed. These lines tell what was held at any time, and why."""
    match record:
        case SlotChanged(event=cause, entry=entry):
            old = replaced.slot
            fields = {
                "slot": entry.id,
                "task": entry.task_id or (old.task_id if old else None),
                "from": old.state if old else None,
                "to": entry.state,
                "cause": cause,
                "fence": entry.fence,
            }
            log.event("slot", **fields)
        case TaskChanged(entry=task):
            _report_task(log, task, replaced.task)
        case TaskAcked(task_id=task_id, slot=slot):
            log.event("acknowledged", slot=slot, task=task_id)
        case PhaseChanged(phase=phase):
            log.event("phase", phase=phase, drain_id=record.drain_id or record.opened_id)
        case _:
            pass


def _report_task(log: Log, entry: TaskEntry, old: TaskEntry | None) -> None:
    about: dict[str, Any] = {"slot": entry.slot, "task": entry.task_id}
    if entry.state is TaskState.ENDED:
        log.event("task ended", **about, step=entry.step, outcome=entry.outcome, reason=entry.reason)
    elif entry.state is TaskState.RESERVED:
        log.event("task planned", **about, digest=entry.plan_digest)
    elif entry.cancel_requested and not (old is not None and old.cancel_requested):
        log.event("cancel requested", **about)


def report_restored(log: Log, state: State) -> None:
    """Log what the journal restored. The last lines before a kill may never have been written."""
    log.event(
        "restored",
        phase=state.phase,
        drain_id=state.drain_id or state.opened_id,
        fence=state.fence,
        recovering=list(state.recovering),
    )
    for slot in state.slots:
        if slot.state is not SlotState.IDLE:
            log.event("slot restored", slot=slot.id, task=slot.task_id, state=slot.state, fence=slot.fence)
    for task_id in state.ended:
        log.event("result restored", task=task_id, outcome=state.tasks[task_id].outcome)


def _human_line(values: Mapping[str, Any]) -> bytes:
    pairs = " ".join(f"{key}={value}" for key, value in values.items() if key not in {"time", "message"})
    return f"{format_time(values['time'])} {values['message']} {pairs}\n".encode("utf-8", "replace")
