"""The interfaces that the worker's core needs. A simulation can implement them.

The core (`loop.Worker`) is one object without threads, sockets or files. Its caller asks it for requests, passes it
answers and ends of processes, and calls `tick` at its `deadline`.
"""

from collections.abc import Callable
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol

from agent.work_messages import (
    Assignment,
    Empty,
    ExitReport,
    OutputAnswer,
    RegisterRequest,
    StartedReport,
    Step,
    WorkAnswer,
)

if TYPE_CHECKING:
    from dataclasses import dataclass, field
else:
    from agent.record import dataclass, field


class Channel(StrEnum):
    """The two lines to the agent, each with one request under way at most: one waits for work, one reports."""

    WORK = "work"
    REPORTS = "reports"


class Call(StrEnum):
    """The calls below /work."""

    REGISTER = "register"
    POLL = "poll"
    STARTED = "started"
    OUTPUT = "output"
    EXIT = "exit"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A call to the agent. `params` go into the query, `message` or `data` into the body."""

    call: Call
    params: dict[str, str] = field(default_factory=dict)
    message: RegisterRequest | StartedReport | ExitReport | None = None
    data: bytes = b""


Answer = WorkAnswer | OutputAnswer | Empty


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchedCommand:
    """One command, and the folder it runs in, relative to the task's directory."""

    argv: tuple[str, ...]
    working_dir: str = "."


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """What to run after its step was claimed: commands one after the other, as long as each ends with 0.

    `secrets` are the values to mask in their output, `notes` are messages to print beside it.
    """

    task_id: str
    step: Step
    name: str
    run_id: str
    commands: tuple[LaunchedCommand, ...]
    environment: dict[str, str]
    secrets: tuple[bytes, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How the last command that ran ended: its exit code, or the signal that ended it, or why it could not run at all.

    All that descended from it is gone too. `command` says which one it was. `memory` is there if memory ran out
    meanwhile: what to say of it.
    """

    exit_code: int | None
    signal: int | None
    output_bytes: int
    command: int = -1
    problem: str | None = None
    memory: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredStep:
    """What is on the disk of the last step of a task."""

    assignment: Assignment
    started: bool
    start_time: datetime | None = None
    exit: ExitReport | None = None
    exit_told: bool = False


class Clock(Protocol):
    """The time: one clock for durations, one for what people read."""

    def monotonic(self) -> float:
        """Seconds that only rise."""

    def now(self) -> datetime:
        """The wall's time, aware and in UTC."""


class Runner(Protocol):
    """Runs one step at a time, and tells the core by `Worker.ended`."""

    def start(self, launch: Launch) -> None:
        """Start its first command. Raises StepRefusedError if that can't be run at all."""

    def interrupt(self, signal_name: str) -> None:
        """Send the running command's group this signal, once. No other command starts.

        From now on the step ends when none of its processes is left, not when its first process ends.
        """

    def terminate(self) -> None:
        """SIGTERM to all that is left of it."""

    def kill(self) -> None:
        """SIGKILL to all that is left of it."""


class Disk(Protocol):
    """The slot's folder. Raises OSError where the disk fails."""

    unread: tuple[str, ...]
    """Ids of tasks that the last `load` found, and could not read. It may be possible later."""

    damaged: tuple[str, ...]
    """Ids of tasks that the last `load` found with a damaged record. No process of their steps runs."""

    def load(self) -> list[StoredStep]:
        """The last step of every task that can be read."""

    def assign(self, assignment: Assignment) -> None:
        """Keep the assignment, and make the task's directory. What others put in its place is moved out of the way."""

    def prepare(self, assignment: Assignment, run_id: str) -> Launch:
        """Files written and environment resolved. Nothing runs yet. Raises StepRefusedError."""

    def claim(self, assignment: Assignment, *, instance: str, run_id: str, start_time: datetime) -> bool:
        """Make the marker, durably, under the step's lock. False if it was there: the step must not start again."""

    def reclaim(self, task_id: str, step: Step) -> bool:
        """Kill the processes that an earlier worker left of the step. True once none of them can run any more."""

    def stored_exit(self, task_id: str, step: Step) -> ExitReport | None:
        """How the step ended, if that is on disk."""

    def store_exit(self, exit_report: ExitReport) -> None:
        """Keep how the step ended, and let go of its lock."""

    def exit_told(self, task_id: str, step: Step) -> None:
        """Keep that the agent took the end. May be forgotten: it is then told again."""

    def check_plan_file(self, assignment: Assignment) -> None:
        """Raises StepRefusedError if a plan step names a file that it has not written."""

    def begin_digest(self, assignment: Assignment) -> None:
        """Begin to compute the digest that an approval of this plan has to name. Raises StepRefusedError."""

    def digest(self) -> str | None:
        """The digest that was begun; None while it is not ready. Raises StepRefusedError if there can be none."""

    def end_digest(self) -> None:
        """It is not wanted any more."""

    def outputs(self, assignment: Assignment) -> str:
        """The file that the task hands over, in base64. Raises StepRefusedError if it can't be handed over."""

    def log_bytes(self, task_id: str, step: Step) -> int:
        """How much of the step's output is on disk."""

    def read_log(self, task_id: str, step: Step, offset: int, size: int) -> bytes:
        """A part of it."""

    def forget(self, task_id: str) -> None:
        """The task's directory can go."""


class Log(Protocol):
    """Writes a line of log."""

    def __call__(self, event: str, **about: Any) -> None:
        """`event` is a constant text, `about` what it is about."""


Jitter = Callable[[float], float]
"""Turns a delay into a random one that is not longer."""
