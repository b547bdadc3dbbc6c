"""`podslots logs -f`: a task's output as it grows, until the task has ended.

The theory. Of each run (one step of one attempt) it is known how many bytes of it were shown. A running step is read
from its container's log, which can end at any moment: the Pod goes, the worker is started anew, the log is rotated, the
API server is away. So what was shown is never taken from what was read last, but counted: the log is read again from
its beginning and that many bytes are passed over. When the step has ended the controller keeps its output in an object,
and what was not shown yet is shown from there. A log whose beginning is gone can't be counted; that is said.
"""

import queue
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from controller.cli.cluster.session import Connection
from controller.cli.show import terminal
from controller.cli.show.sink import Sink
from controller.cli.show.tables import FINAL_PHASES, phase
from controller.cli.task import outputs
from controller.cli.task.marks import Kind, Line, RunLines
from controller.cli.task.seeing import CouldNotSee, Watched, ended_otherwise, seeing
from controller.cli.verbs.logs.command import show_seen
from controller.errors import ApiError, ApiUnavailable
from controller.kube.api import Object

POLL_SECONDS = 0.5
QUIET_SECONDS = 1.0
"""Once a step is over, its log is left after this much silence: the rest is elsewhere, if there is any."""
MOST_NOTE = 400
SUCCEEDED = frozenset({"Succeeded"})


@dataclass(slots=True)
class Run:
    """What was shown of one step of one attempt.

    `counted` is False once the log did not begin at the beginning, which was `told`. `log_over`: the log had its end.
    `finished`: there is nothing more to show.
    """

    attempt: int
    step: str
    shown_bytes: int = 0
    counted: bool = True
    told: bool = False
    log_over: bool = False
    finished: bool = False
    notes: set[str] = field(default_factory=set)


class Follower:
    """Follows one task."""

    def __init__(self, connection: Connection, name: str, *, step: str | None, sink: Sink) -> None:
        self._connection = connection
        self._name = name
        self._step = step
        self._sink = sink
        self._watched = Watched(connection, name, sink.say)
        self._runs: dict[tuple[int, str], Run] = {}
        self._attempt = 0

    def run(self) -> None:
        """To the task's end. Raises EndedOtherwise if that is not success, CouldNotSee if it can't be seen."""
        while True:
            task = self._watched.read()
            self._next_attempt(task)
            for step in self._steps(task):
                self._follow_step(task, step)
            self._watched.say_obstacle(task)  # last: a long plan would move it off the screen
            if phase(task) in FINAL_PHASES:
                break
            time.sleep(POLL_SECONDS)
        if self._attempt == 0:
            raise ended_otherwise(task, SUCCEEDED) or CouldNotSee(f"{self._name} has not run")
        if (error := ended_otherwise(task, SUCCEEDED)) is not None:
            raise error

    def _steps(self, task: Object) -> list[str]:
        """The steps that have begun, in order, and are to be shown."""
        return [step for step in outputs.steps_of(task) if self._step in {None, step} and outputs.begun(task, step)]

    def _next_attempt(self, task: Object) -> None:
        """An attempt that is over, as another has come: show what is left of it, and say so."""
        now = outputs.attempt_of(task)
        while self._attempt < now:
            if self._attempt:
                for step in outputs.steps_of(task):
                    if self._step in {None, step}:
                        self._finish_earlier(task, self._attempt, step)
                self._sink.say(f"attempt {self._attempt} ended here{_why_retried(task)}; attempt {self._attempt + 1}:")
            self._attempt += 1

    def _finish_earlier(self, task: Object, attempt: int, step: str) -> None:
        run = self._run(attempt, step)
        if run.finished:
            return
        run.finished = True
        with seeing():
            seen = outputs.stored(self._connection, task, attempt, step)
        if seen is not None:
            self._show_rest(run, seen)
        elif run.shown_bytes:
            self._sink.say(f"the rest of attempt {attempt}'s {step} step was not kept")

    def _follow_step(self, task: Object, step: str) -> None:
        run = self._run(outputs.attempt_of(task), step)
        if run.finished:
            return
        if not _over(task, run):
            if not run.log_over:
                self._stream(task, run)
            return
        run.finished = True
        with seeing():
            seen = outputs.of_last_attempt(self._connection, task, step)
        if seen is not None:
            self._show_rest(run, seen)
        elif not run.shown_bytes and not run.told:
            self._sink.say(f"the output of the {step} step is not in the container's log, nor anywhere else")

    def _show_rest(self, run: Run, seen: outputs.Seen) -> None:
        """What was not shown yet."""
        size = seen.output.size_bytes
        if run.counted:
            if size > run.shown_bytes or (seen.note and not run.shown_bytes):
                show_seen(seen, run.step, self._sink, run.shown_bytes)
            run.shown_bytes = max(size, run.shown_bytes)
        elif size > run.shown_bytes:
            missing = f"{size - run.shown_bytes:,} of its {size:,} bytes were not in the container's log"
            kept = self._connection.cluster.podslots("logs", self._name)
            self._sink.say(f"{run.step} step: {missing}; {kept} shows what was kept")

    def _stream(self, task: Object, run: Run) -> None:
        """The container's log as it grows, until the run is over or the log ends."""
        place = outputs.place_of(task)
        if place is None:
            return
        try:
            log = self._connection.api.pod_log(self._connection.namespace, place.pod, place.container, follow=True)
        except (ApiError, ApiUnavailable):
            return  # whether the API server is away or the log, the next look at the task tells
        reader = _Reader(log, outputs.run_lines(task, run.attempt, run.step))
        try:
            self._show_lines(run, reader)
        finally:
            self._sink.end()
            log.close()
            reader.finish()

    def _show_lines(self, run: Run, reader: "_Reader") -> None:
        passed = 0
        first, over = True, False
        while True:
            try:
                line = reader.next(QUIET_SECONDS if over else POLL_SECONDS)
            except queue.Empty:
                if over:
                    return
                over = _over(self._watched.read(), run)
                continue
            if line is None:
                return
            if first and line.kind is not Kind.BEGINS:
                self._say_cut(run)
            first = False
            if line.kind is Kind.ENDED:
                run.log_over = True
                return
            if line.kind is Kind.NOTE:
                if (text := terminal.one_line(line.text.decode(errors="replace"), MOST_NOTE)) not in run.notes:
                    run.notes.add(text)
                    self._sink.say(f"{run.step} step: {text}")
                continue
            skipped = min(len(line.text), max(0, run.shown_bytes - passed)) if run.counted else 0
            passed += len(line.text)
            self._sink.write(line.text[skipped:])
            run.shown_bytes += len(line.text) - skipped

    def _say_cut(self, run: Run) -> None:
        run.counted = False
        if not run.told:
            run.told = True
            text = "the container's log no longer has its beginning; some lines may be missing, or shown twice"
            self._sink.say(f"{run.step} step: {text}")

    def _run(self, attempt: int, step: str) -> Run:
        return self._runs.setdefault((attempt, step), Run(attempt, step))


def _over(task: Object, run: Run) -> bool:
    """Whether the run has ended, as far as the status knows."""
    if outputs.attempt_of(task) != run.attempt or phase(task) in FINAL_PHASES or phase(task) == "Queued":
        return True
    return bool(outputs.result_of(task, run.step).get("endTime"))


def _why_retried(task: Object) -> str:
    for entry in (task.get("status") or {}).get("conditions") or ():
        if entry.get("type") == "Retried":
            return f" ({entry.get('message') or entry.get('reason')})"
    return ""


class _Reader:
    """Reads a followed log in a thread of its own, for a log may be silent and a task go on all the same."""

    def __init__(self, log: Iterable[bytes], lines: RunLines) -> None:
        self._log = log
        self._lines = lines
        self._read: queue.Queue[Line | None] = queue.Queue(maxsize=1000)
        self._over = False
        threading.Thread(target=self._run, name="follow a log", daemon=True).start()

    def next(self, timeout_seconds: float) -> Line | None:
        """The next line of the run; None at the log's end. Raises queue.Empty after a silence of so long."""
        line = self._read.get(timeout=timeout_seconds)
        self._over = line is None
        return line

    def finish(self) -> None:
        """Let the thread come to its end, once the log is closed."""
        while not self._over:
            self._over = self._read.get() is None

    def _run(self) -> None:
        try:
            for raw in self._log:
                if (line := self._lines.read(raw)) is not None:
                    self._read.put(line)
        except (ApiError, ApiUnavailable):
            pass  # as with its end: the next look at the task tells what has become of it
        finally:
            self._read.put(None)
