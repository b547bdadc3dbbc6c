"""What may never happen as a step is stopped: too early, twice, cut short, going on after it, or said otherwise."""

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from agent.rules.state import State
from agent.wire import POD_STOPPED, TIME_LIMIT, Assignment, ExitReport, Outcome, Step, StepSpec, TaskState
from agent.worker.rules.core import LAST_WORD_SECONDS, LEAVE_SECONDS, STOP_MARGIN_SECONDS
from agent.worker.rules.ports import Ended
from controller.kube.api import Object
from tests.simulation.processes import SIGTERM, Doing, Process

if TYPE_CHECKING:
    from tests.simulation.node import SimPod
    from tests.simulation.rules import Rules
    from tests.simulation.worker import SimWorker
    from tests.simulation.world import World

EPSILON_SECONDS = 0.01
LATE_SECONDS = 2.0
"""A worker that is not paused does by then what is due."""
TERM_SHARE, TERM_SECONDS = 4, 5.0
"""SIGTERM comes a quarter of the grace before its end, or so many seconds if that is less."""
CLEARED_SECONDS = 2.0
"""By then nothing is left of a command whose first process has ended, if it is not being stopped."""


@dataclass
class Run:
    """A step as one worker runs it. Moments are in seconds."""

    assignment: Assignment
    doing: Doing
    worker: "SimWorker"
    breach: "Rules"
    grace_seconds: float
    began: float
    signals: list[tuple[float, str]] = field(default_factory=list)
    command: int = 0
    first_ended: float | None = None
    end: Ended | None = None

    @property
    def key(self) -> str:
        """For people."""
        return f"the {self.assignment.step} of {self.assignment.task_id}"

    @property
    def stop_began(self) -> float | None:
        """When it was sent its stop signal."""
        return next((at for at, name in self.signals if name == "stop"), None)

    def command_begins(self, number: int) -> None:
        """One of its commands is about to run."""
        self.breach.note(f"command {number} of {self.key} begins")
        if self.signals:
            self.breach.breach(f"command {number} of {self.key} began after it was told to stop")
        if number and self.doing.programs[number - 1].code:
            self.breach.breach(f"command {number} of {self.key} began although the one before it had failed")
        self.command, self.first_ended = number, None

    def interrupted(self) -> None:
        """It is sent its stop signal."""
        now = self._note("stop")
        if [name for _, name in self.signals].count("stop") > 1:
            self.breach.breach(f"{self.key} was sent its stop signal twice")
        if self.doing.timeout_seconds is not None and now > self.began + self.doing.timeout_seconds + LATE_SECONDS:
            self._late(f"ran for {now - self.began:.0f} s, and its time limit is {self.doing.timeout_seconds} s")

    def terminated(self) -> None:
        """All of it is sent SIGTERM."""
        self._check_grace("SIGTERM", self._note("SIGTERM"), late=True)

    def killed(self) -> None:
        """All of it is sent SIGKILL."""
        superseded = self.stop_began is None
        now = self._note("SIGKILL")
        if not superseded:
            self._check_grace("SIGKILL", now, late=False)

    def process_ended(self, process: Process, *, first: bool) -> None:
        """One of its processes; `torn`: before it had saved what it did."""
        now = asyncio.get_running_loop().time()
        if first:
            self.first_ended = now
        if not process.torn:
            return
        if self.stop_began is not None and now < self._due(late=process.signal == SIGTERM):
            self.breach.breach(
                f"{self.key} was cut short by signal {process.signal}, {now - self.stop_began:.1f} s into its grace"
                f" of {self.grace_seconds:.0f} s"
            )

    def ended(self, end: Ended) -> None:
        """Nothing of it is left."""
        now = asyncio.get_running_loop().time()
        self.end = end
        if self.signals or self.first_ended is None:
            return
        if now > self.first_ended + CLEARED_SECONDS:
            self._late(f"ended {now - self.first_ended:.1f} s after its first process, and nobody had stopped it")
        due = self.stop_due()
        if due is not None and now > due + LATE_SECONDS:
            self._late(f"ran on for {now - due:.1f} s after it was to be stopped")

    def stop_due(self) -> float | None:
        """When it is to be stopped as its Pod ends; None while nobody has told its worker to end."""
        told = self.worker.stopped_at
        if told is None:
            return None
        return max(self.began, told + max(0.0, self.worker.grace_seconds - self.grace_seconds - STOP_MARGIN_SECONDS))

    def _due(self, *, late: bool) -> float:
        """When its grace is over, or `late` in it."""
        began, told = self.stop_began or 0.0, self.worker.stopped_at
        ends = began + self.grace_seconds
        if told is not None:
            ends = min(ends, told + self.worker.grace_seconds - LEAVE_SECONDS - LAST_WORD_SECONDS)
        early = min(TERM_SECONDS, max(0.0, ends - began) / TERM_SHARE) if late else 0.0
        return ends - early - EPSILON_SECONDS

    def _check_grace(self, name: str, now: float, *, late: bool) -> None:
        if self.stop_began is None or now < self._due(late=late):
            self.breach.breach(f"{self.key} was sent {name} before its grace of {self.grace_seconds:.0f} s was over")

    def _late(self, text: str) -> None:
        if not self.worker.was_paused:
            self.breach.breach(f"{self.key} {text}")

    def _note(self, name: str) -> float:
        now = asyncio.get_running_loop().time()
        self.signals.append((now, name))
        self.breach.note(f"{self.key} is sent {name}")
        return now


class StopRules:
    """Watches all steps."""

    def __init__(self, world: "World", rules: "Rules") -> None:
        self._world = world
        self._rules = rules
        self._ends: dict[tuple[str, Step], tuple[Outcome, str | None]] = {}
        """How each step ended, as was kept first."""

    def begins(self, assignment: Assignment, worker: "SimWorker") -> Run:
        """A worker begins a step."""
        spec = assignment.work.steps.get(assignment.step) or StepSpec(command=("?",))
        now = asyncio.get_running_loop().time()
        return Run(
            assignment, self._world.doing(assignment), worker, self._rules, float(spec.cancel_grace_seconds), now
        )

    def stored(self, report: ExitReport, run: Run | None) -> None:
        """A worker keeps how a step ended."""
        self._rules.note(f"the {report.step} of {report.task_id} ended: {report.outcome} {report.reason}")
        end = report.outcome, report.reason
        first = self._ends.setdefault((report.task_id, report.step), end)
        if first != end:
            self._rules.breach(f"the {report.step} of {report.task_id} ended as {first[0]} ({first[1]}), then as {end}")
        if (
            run is None
            or run.end is None
            or (run.assignment.task_id, run.assignment.step)
            != (
                report.task_id,
                report.step,
            )
        ):
            return
        if run.signals and report.outcome is Outcome.SUCCEEDED:
            self._rules.breach(f"{run.key} was stopped, and is said to have succeeded")
        reason = report.reason or ""
        self._check_cause(run, reason)
        if run.signals:
            return
        last = run.end.command == len(run.doing.programs) - 1
        if report.outcome is Outcome.SUCCEEDED and not last:
            self._rules.breach(f"{run.key} is said to have succeeded, and only its command {run.end.command} has run")
        if report.outcome is Outcome.FAILED and not last and f"before-{run.end.command} ended" not in reason:
            self._rules.breach(f"{run.key} failed in command {run.end.command}, and it is said: {reason}")

    def _check_cause(self, run: Run, reason: str) -> None:
        began, due = run.stop_began, run.stop_due()
        if began is None:
            return
        if reason.startswith(POD_STOPPED) and (due is None or began < due - EPSILON_SECONDS):
            early = "" if due is None else f" {due - began:.0f} s too early"
            self._rules.breach(f"{run.key} was stopped for its Pod's end{early}")
        limit = run.doing.timeout_seconds
        if reason.startswith(TIME_LIMIT) and (limit is None or began < run.began + limit - EPSILON_SECONDS):
            self._rules.breach(f"{run.key} was stopped after {began - run.began:.0f} s for its time limit of {limit} s")

    def pod_ends(self, pod: "SimPod") -> None:
        """The grace of a Pod that was deleted is over: what still runs there was stopped before, if anybody could."""
        for disk, worker in zip(pod.disks, pod.workers, strict=True):
            run = worker.run_of_step if worker is not None else None
            if disk.running is None or run is None or run.end is not None or run.worker.was_paused:
                continue
            if not run.signals:
                self._rules.breach(f"Pod {pod.name} ended, and {run.key} was never stopped")

    def published(self, pod: "SimPod", state: State) -> None:
        """What an agent says of a step's end is what its worker kept."""
        for task in state.tasks.values():
            for step in Step:
                said, kept = task.result_of(step), self._kept(pod, task.task_id, step)
                if said is None or said.outcome is None or kept is None:
                    continue
                reason = kept.reason
                if reason and kept.exit_code == 0 and kept.outcome is not Outcome.SUCCEEDED:
                    reason += " (exit code 0)"  # that what was stopped has ended well all the same
                if (said.outcome, said.reason) != (kept.outcome, reason):
                    self._rules.breach(
                        f"the {step} of {task.task_id} ended as {kept.outcome} ({reason}), and the agent says"
                        f" {said.outcome} ({said.reason})"
                    )
            if task.state is TaskState.ENDED and task.outcome is Outcome.LOST:
                kept = self._kept(pod, task.task_id, task.step)
                # What awaited its approval ended with its reservation, of which the worker keeps nothing.
                planned = kept is not None and kept.outcome is Outcome.SUCCEEDED and kept.plan_digest is not None
                reserved = planned and task.step is Step.PLAN
                if kept is not None and kept.outcome is not Outcome.LOST and not reserved:
                    self._rules.breach(f"{task.task_id} is said to be lost, and its end is kept: {kept.reason}")

    def task_ended(self, task: Object) -> None:
        """A plan that was stopped for its Pod's end says nothing about the plan: it is tried again if it may be."""
        spec, status = task["spec"], task["status"]
        stopped = status.get("phase") == "Failed" and str(status.get("message")).startswith(POD_STOPPED)
        wanted = not spec.get("cancel") and "deletionTimestamp" not in task["metadata"]
        more = status.get("attempt", 1) < (spec.get("retry") or {}).get("planMaxAttempts", 1)
        if stopped and wanted and more and status.get("step") == "plan":
            self._rules.breach(f"task {task['metadata']['name']} was given up for the end of its Pod")

    def _kept(self, pod: "SimPod", task_id: str, step: Step) -> ExitReport | None:
        for disk in pod.disks:
            entry = disk.entries.get((task_id, step))
            if entry is not None and entry.exit is not None:
                return entry.exit
        return None
