"""Mistakes of how a step is stopped, and of what comes of the commands before it."""

from typing import Any
from unittest.mock import patch

from agent.wire import Outcome
from agent.wire import Task as KnownTask
from agent.worker.rules import run as stopping
from agent.worker.rules.core import Worker
from agent.worker.rules.ports import StoredStep
from agent.worker.rules.run import Run
from agent.worker.step.course import Course, Then
from controller.act import tasks
from controller.decide.tasks.task_actions import Retry
from controller.decide.tasks.trying_again import after_end
from controller.objects.task import Task
from tests.simulation.planted.registry import Plant, bug
from tests.simulation.worker import SlotDisk

THEME = "steps that are stopped"


@bug("the first process' end taken for the end while stopping", theme=THEME)
def _() -> Plant:
    def interrupt(self: Course) -> None:
        self._last = True

    return patch.object(Course, "interrupt", interrupt)


@bug("a step that is not stopped waits for what its command left", theme=THEME, seed=5)
def _() -> Plant:
    original = Course.then

    def then(self: Course, *, alone: bool) -> Then:
        found = original(self, alone=alone)
        return Then.WAIT if found is Then.CLEAR else found

    return patch.object(Course, "then", then)


@bug("a command before the step's own is started after the stop", theme=THEME, seed=2)
def _() -> Plant:
    def interrupt(self: Course) -> None:
        self.patient = True

    return patch.object(Course, "interrupt", interrupt)


@bug("a failing command before the step's own does not end it", theme=THEME)
def _() -> Plant:
    original = Course.ended

    def ended(self: Course, *, well: bool) -> None:
        original(self, well=well or self.command + 1 < self._commands)

    return patch.object(Course, "ended", ended)


@bug("the stop signal is sent again at each word of the cancel", theme=THEME, seed=0)
def _() -> Plant:
    original = Run.stop

    def stop(self: Run, outcome: Outcome, reason: str, now: float) -> bool:
        return original(self, outcome, reason, now) or outcome is Outcome.CANCELLED

    return patch.object(Run, "stop", stop)


@bug("SIGTERM follows the stop signal at once", theme=THEME)
def _() -> Plant:
    return patch.object(stopping, "_term_at", lambda kill_at, grace_seconds: kill_at - grace_seconds)


@bug("SIGKILL comes at half of the grace", theme=THEME)
def _() -> Plant:
    original = Run.stop

    def stop(self: Run, outcome: Outcome, reason: str, now: float) -> bool:
        told = original(self, outcome, reason, now)
        if told and self.kill_at is not None:
            self.kill_at -= self.spec.cancel_grace_seconds / 2
        return told

    return patch.object(Run, "stop", stop)


@bug("a stopped step that ends with 0 has succeeded", theme=THEME, seed=1)
def _() -> Plant:
    original = Run.result

    def result(self: Run, ended: Any) -> tuple[Outcome, str | None, int | None]:
        found = original(self, ended)
        return (Outcome.SUCCEEDED, None, 0) if ended.exit_code == 0 else found

    return patch.object(Run, "result", result)


@bug("a step is stopped as soon as its Pod is deleted", theme=THEME)
def _() -> Plant:
    return patch.object(Worker, "_stop_at", lambda self, _run: self._stopped_at)


@bug("a step is not stopped as its Pod ends", theme=THEME)
def _() -> Plant:
    return patch.object(Worker, "_stop_at", lambda _self, _run: None)


@bug("a step's end is forgotten as its worker restarts", theme=THEME, seed=1)
def _() -> Plant:
    """It is kept on the disk, and the next worker does not look: what was stopped for its Pod's end is lost then."""
    original = SlotDisk.load

    def load(self: SlotDisk) -> list[StoredStep]:
        return [
            StoredStep(assignment=kept.assignment, started=kept.started, start_time=kept.start_time)
            for kept in original(self)
        ]

    return patch.object(SlotDisk, "load", load)


@bug("a plan that was stopped for its Pod's end has failed", theme=THEME, seed=1)
def _() -> Plant:
    def given_up(task: Task, known: KnownTask, now: Any) -> Retry | None:
        found = after_end(task, known, now)
        return None if found is not None and found.reason == "PodStopped" else found

    return patch.object(tasks, "after_end", given_up)
