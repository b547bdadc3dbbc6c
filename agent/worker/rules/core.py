"""What a worker does on each answer, each end of a process and at each moment. No threads, no sockets, no files.

The theory. Everything to be said to the agent follows from the state of the steps that this worker keeps: a step that
started and whose start is not yet acknowledged needs a StartedReport, output that the agent lacks needs an upload, an
end needs an ExitReport after its output. So nothing is queued, and nothing can be lost from a queue: whenever a channel
is free, `next_request` looks for what is missing (`Kept.report` in `kept_step`; `kept_steps` has all of them). An
answer that never comes changes nothing, and the same request is made again. The agent answers every repetition as it
did the first time.

A step starts only in `_claim`, after `Disk.claim` made its marker. Whatever else happens, an offer of a step whose
marker exists leads to a report and never to a start. A marker that was read from the disk counts only if it is of the
assignment that is offered: otherwise somebody else wrote it.

The digest of a large plan file takes long, so it is computed in a separate process: before the apply is claimed
(`_check`), and after the plan's commands have ended (`Run.ended`). It can be cancelled like a command.

This module is longer than others: it is one state machine, and its parts share all of its state.
"""

from agent.work_messages import (
    POD_STOPPED,
    Assignment,
    ErrorCode,
    ExitReport,
    Outcome,
    OutputAnswer,
    RegisterRequest,
    Step,
    StepSpec,
    WorkAnswer,
)
from agent.worker.errors import StepRefusedError
from agent.worker.rules.kept_step import Kept
from agent.worker.rules.kept_steps import KeptSteps
from agent.worker.rules.pacing import LAST_RETRY_SECONDS, Line
from agent.worker.rules.ports import (
    Answer,
    Call,
    Channel,
    Clock,
    Disk,
    Ended,
    Jitter,
    Launch,
    Log,
    Request,
    Runner,
    StoredStep,
)
from agent.worker.rules.run import Run

STORM_SECONDS = 0.25
"""The pause after an answer with nothing new, so that an agent that repeats its offer is not asked in a loop."""
STOP_MARGIN_SECONDS = 15.0
"""Left of the Pod's grace for ending the step and reporting it."""
LEAVE_SECONDS = 1.0
"""How much of the Pod's grace is left when the worker ends, even if reports are still missing: a true exit status is
better than SIGKILL."""
LAST_WORD_SECONDS = 2.0
"""Before it leaves, for reporting a step that had to be killed."""

EXIT_SUPERSEDED = 3
CHANGED_REASON = "the plan, or what its apply runs with, changed since it was approved"
LOST_REASON = "the worker ended while the step ran; nothing of it runs any more"


class Worker:
    """The worker of one slot. `exit_status` is set when it is done; until then, see `agent.worker.rules.ports`."""

    def __init__(
        self,
        *,
        instance: str,
        grace_seconds: float,
        disk: Disk,
        runner: Runner,
        clock: Clock,
        jitter: Jitter,
        log: Log,
    ) -> None:
        self.instance = instance
        self.exit_status: int | None = None
        self._grace_seconds = grace_seconds
        self._disk = disk
        self._runner = runner
        self._clock = clock
        self._log = log
        self._lines = {channel: Line(clock, jitter) for channel in Channel}
        self._registered = False
        self._registered_at = float("-inf")
        self._kept = KeptSteps(disk, clock, log)
        self._run: Run | None = None
        self._check: tuple[Assignment, Launch] | None = None
        """An apply that waits until its plan was hashed again. It is not claimed yet."""
        self._runs = 0
        self._stopped_at: float | None = None  # when the Pod's stop began
        self._leave_at: float | None = None  # when the worker ends, whatever is unsaid

    # --- requests and answers ---------------------------------------------------------------------------------------

    def next_request(self, channel: Channel) -> Request | None:
        """What to send now, which then counts as under way; None while there is nothing to say or it is too early."""
        line = self._lines[channel]
        if self.exit_status is not None or not line.free:
            return None
        request = self._work_request() if channel is Channel.WORK else self._report_request()
        if request is not None:
            line.sent(request)
        return request

    def answered(self, channel: Channel, answer: Answer) -> None:
        """The agent took the request under way."""
        line = self._lines[channel]
        request = line.done()
        if request.call is Call.REGISTER:
            self._registered = True
            self._registered_at = self._clock.monotonic()
            self._log("registered with the agent", instance=self.instance, kept=len(self._kept))
            if isinstance(answer, WorkAnswer):
                for each in self._kept:
                    each.agent_has(answer.output)
        else:
            line.healthy()
        kept = self._kept.named(request)
        if isinstance(answer, WorkAnswer):
            self._take(request, answer)
        elif kept and isinstance(answer, OutputAnswer):
            line.pause(kept.uploaded(request, answer.offset, self._clock.monotonic()))
        elif kept and request.call is Call.STARTED:
            kept.started_told = True
        elif kept and request.call is Call.EXIT:
            kept.exit_told = True
            self._disk.exit_told(*kept.key)

    def refused(self, channel: Channel, status: int, code: str) -> None:
        """The agent answered with an error."""
        line = self._lines[channel]
        request = line.done()
        if code == ErrorCode.UNREGISTERED:
            if self._registered:
                self._log("the agent asks to register again")
            self._registered = False
            if self._clock.monotonic() - self._registered_at < LAST_RETRY_SECONDS:
                line.back_off()
            return
        if code == ErrorCode.SUPERSEDED:
            self._log("a newer worker has the slot; leaving it")
            self._runner.kill()
            self.exit_status = EXIT_SUPERSEDED
            return
        if line.is_news(f"{request.call} {status} {code}"):
            self._log("the agent refused", call=request.call.value, status=status, code=code)
        final = 400 <= status < 500 and status not in {401, 403, 408, 429}  # noqa: PLR2004 - HTTP's own numbers
        kept = self._kept.named(request) if channel is Channel.REPORTS else None
        if kept and final:
            kept.settle(request.call, unreadable=status in {400, 413, 422})
            return
        if kept and request.call is Call.OUTPUT:
            kept.output_refused(self._clock.monotonic())
        line.back_off()

    def unanswered(self, channel: Channel, problem: str) -> None:
        """No usable answer came. The request may have taken effect; it will be made again."""
        line = self._lines[channel]
        request = line.done()
        if line.is_news(problem):
            self._log("the agent does not answer; trying on", call=request.call.value, error=problem)
        line.back_off()

    def _work_request(self) -> Request | None:
        if not self._registered:
            kept = self._kept
            tasks = tuple(each.registration() for each in kept)
            message = RegisterRequest(instance=self.instance, tasks=tasks, unread=kept.unread, damaged=kept.damaged)
            return Request(call=Call.REGISTER, message=message)
        if self._stopped_at is not None and self._run is None:
            return None
        params = self._run.kept.params(self.instance) if self._run else {"instance": self.instance}
        return Request(call=Call.POLL, params=params)

    def _report_request(self) -> Request | None:
        if not self._registered:
            return None
        steps = [self._run.kept] if self._run else []
        steps += self._kept
        for kept in steps:
            if request := kept.report(self.instance, self._disk):
                return request
        return None

    # --- what the agent asks for ------------------------------------------------------------------------------------

    def _take(self, request: Request, answer: WorkAnswer) -> None:
        news = False
        for task_id in answer.forget:
            news |= self._forget(task_id)
        if answer.run is not None:
            news |= self._offered(answer.run, cancelled=answer.cancel)
        elif answer.cancel and self._run and self._kept.named(request) in {None, self._run.kept}:
            news |= self._stop_run(Outcome.CANCELLED, "cancelled")
        line = self._lines[Channel.WORK]
        if request.call is Call.POLL and not news and line.age_seconds < 1:
            line.pause(STORM_SECONDS)

    def _forget(self, task_id: str) -> bool:
        kept = self._kept.get(task_id)
        if kept is None:
            return False
        if kept.orphaned or (self._run and self._run.kept is kept):
            self._log("asked to forget a task that still runs; keeping it", task=kept.name)
            return False
        self._kept.forget(kept)
        return True

    def _offered(self, assignment: Assignment, *, cancelled: bool) -> bool:
        """A step was offered. True if that led to anything."""
        kept = self._kept.get(assignment.task_id)
        if kept and kept.is_foreign(assignment):
            self._log("what is kept of a task was written by somebody else", task=kept.name, step=assignment.step.value)
            self._kept.drop(kept)
            kept = None
        if kept and kept.assignment.step is Step.APPLY and assignment.step is Step.PLAN:
            return False  # a late message: the plan is long over
        if kept and kept.assignment.step is assignment.step and kept.started:
            if self._run and self._run.kept is kept:
                return cancelled and self._stop_run(Outcome.CANCELLED, "cancelled")
            kept.offered_again(assignment)
            return False
        if self._check is not None:
            return self._checked_is_offered(assignment, cancelled=cancelled)
        if self._stopped_at is not None or self._run or self._kept.any_orphaned:
            return False
        return self._begin(assignment, cancelled=cancelled)

    def _checked_is_offered(self, assignment: Assignment, *, cancelled: bool) -> bool:
        if self._check is None or not cancelled or self._check[0].task_id != assignment.task_id:
            return False
        self._disk.end_digest()
        self._check = None
        return self._claim(assignment, None, Outcome.CANCELLED, "cancelled before it started")

    def _begin(self, assignment: Assignment, *, cancelled: bool) -> bool:
        run_id = f"{self.instance}-{self._runs}"
        self._runs += 1
        try:
            self._disk.assign(assignment)
            if cancelled:
                return self._claim(assignment, None, Outcome.CANCELLED, "cancelled before it started")
            needs_approval = assignment.step is Step.APPLY and assignment.work.steps.plan is not None
            if needs_approval and assignment.plan_digest is None:
                return self._claim(assignment, None, Outcome.FAILED, "the apply step was not approved")
            launch = self._disk.prepare(assignment, run_id)
            if needs_approval:
                self._disk.begin_digest(assignment)
                self._check = (assignment, launch)
                return True
        except StepRefusedError as error:
            return self._claim(assignment, None, Outcome.FAILED, str(error))
        except OSError as error:
            return self._not_begun(assignment, error)
        return self._claim(assignment, launch)

    def _not_begun(self, assignment: Assignment, error: OSError) -> bool:
        # Nothing ran, so nothing is decided: the agent offers the step again.
        name, step = assignment.work.name, assignment.step.value
        self._log("a step can't be started", task=name, step=step, error=str(error))
        return False

    def _claim(
        self,
        assignment: Assignment,
        launch: Launch | None,
        outcome: Outcome = Outcome.FAILED,
        reason: str = "",
    ) -> bool:
        """Make the step's marker, and start it. Without a launch it has ended with `outcome` and `reason` instead.

        True if that led to anything.
        """
        task_id, step, name = assignment.task_id, assignment.step, assignment.work.name
        now = self._clock.now()
        run_id = launch.run_id if launch is not None else f"{self.instance}-none"
        kept = Kept(StoredStep(assignment=assignment, started=True, start_time=now))
        try:
            if not self._disk.claim(assignment, instance=self.instance, run_id=run_id, start_time=now):
                self._log("a step is offered that was started before", task=name, step=step.value)
                kept.exit = self._disk.stored_exit(task_id, step)
                kept.orphaned = kept.exit is None
                self._kept.put(kept)
                return True
        except OSError as error:
            return self._not_begun(assignment, error)
        kept.begun_here()
        self._kept.put(kept)
        if launch is not None:
            try:
                self._start(kept, launch)
            except StepRefusedError as error:
                outcome, reason = Outcome.FAILED, str(error)
            else:
                return True
        kept.started_told = True
        self._finish(kept, outcome, reason)
        return True

    def _start(self, kept: Kept, launch: Launch) -> None:
        assignment = kept.assignment
        # Logged first: of each step that started the log says so, even if the worker is killed in between.
        self._log(
            "step started",
            task=launch.name,
            task_id=launch.task_id,
            step=launch.step.value,
            attempt=assignment.work.attempt,
            digest=assignment.plan_digest,
        )
        self._runner.start(launch)
        spec = assignment.work.steps.get(assignment.step) or StepSpec(command=launch.commands[-1].argv)
        self._run = Run(kept, spec, launch, self._clock.monotonic())

    def _stop_run(self, outcome: Outcome, reason: str) -> bool:
        """Tell the step to stop. False if it was told before."""
        run = self._run
        if run is None or not run.stop(outcome, reason, self._clock.monotonic()):
            return False
        self._log("stopping the step", task=run.kept.name, reason=reason)
        if run.ended is None:
            self._runner.interrupt(run.spec.stop_signal)
        else:
            self._disk.end_digest()
            self._end(run, run.ended)
        return True

    # --- ends -------------------------------------------------------------------------------------------------------

    def ended(self, ended: Ended) -> None:
        """The running command and all its processes are gone, and its output is in the log."""
        if self._run is None:
            raise RuntimeError("a command ended, but none was running")
        run = self._run
        outcome, _, exit_code = run.result(ended)
        steps = run.kept.assignment.work.steps
        found = outcome is Outcome.SUCCEEDED and run.changed(exit_code) is not False
        problem = None
        if found and run.kept.assignment.step is Step.PLAN:
            try:
                if steps.apply is not None:
                    run.ended = ended
                    self._disk.begin_digest(run.kept.assignment)
                    return
                self._disk.check_plan_file(run.kept.assignment)
            except (StepRefusedError, OSError) as error:
                problem = _no_digest(error)
        self._end(run, ended, problem=problem)

    def _end(self, run: Run, ended: Ended, *, digest: str | None = None, problem: str | None = None) -> None:
        self._run = None
        outcome, reason, exit_code = run.result(ended)
        changed = run.changed(exit_code) if outcome is Outcome.SUCCEEDED else None
        if problem is not None and outcome is Outcome.SUCCEEDED:
            outcome, reason = Outcome.FAILED, problem
        if outcome is Outcome.SUCCEEDED and run.kept.hands_over:
            try:
                self._disk.outputs(run.kept.assignment)
            except (StepRefusedError, OSError) as error:
                reason = str(error)  # what the step did is done: it has succeeded all the same
        self._finish(
            run.kept,
            outcome,
            reason,
            exit_code=exit_code,
            digest=digest,
            log_bytes=ended.output_bytes,
            changed=changed,
        )

    def _look_for_digest(self) -> None:
        """Go on with what waits for a digest, if it is there."""
        run = self._run if self._run is not None and self._run.ended is not None else None
        if run is None and self._check is None:
            return
        digest, problem = None, None
        try:
            digest = self._disk.digest()
        except (StepRefusedError, OSError) as error:
            problem = _no_digest(error)
        if digest is None and problem is None:
            return
        if run is not None and run.ended is not None:
            self._end(run, run.ended, digest=digest, problem=problem)
        elif self._check is not None:
            assignment, launch = self._check
            self._check = None
            if digest == assignment.plan_digest:
                self._claim(assignment, launch)
            else:
                self._claim(assignment, None, Outcome.FAILED, problem or CHANGED_REASON)

    def _finish(
        self,
        kept: Kept,
        outcome: Outcome,
        reason: str | None,
        *,
        exit_code: int | None = None,
        digest: str | None = None,
        log_bytes: int = 0,
        changed: bool | None = None,
    ) -> None:
        kept.exit = ExitReport(
            instance=self.instance,
            task_id=kept.assignment.task_id,
            step=kept.assignment.step,
            fence=kept.assignment.fence,
            outcome=outcome,
            end_time=self._clock.now(),
            start_time=kept.start_time,
            exit_code=exit_code,
            reason=reason[:1024] if reason else None,
            plan_digest=digest,
            log_bytes=log_bytes,
            changed=changed,
            nonce=kept.assignment.nonce,
        )
        kept.orphaned = False
        self._lines[Channel.REPORTS].pause(0.0)
        self._log(
            "step ended",
            task=kept.name,
            task_id=kept.assignment.task_id,
            step=kept.assignment.step.value,
            outcome=outcome.value,
            exit_code=exit_code,
            reason=reason,
            digest=digest,
        )
        self._kept.save(kept)

    # --- time -------------------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """The Pod is being stopped: no new step; the running one may go on until the grace is nearly over."""
        if self._stopped_at is not None:
            return
        self._stopped_at = now = self._clock.monotonic()
        self._leave_at = now + max(LEAVE_SECONDS, self._grace_seconds - LEAVE_SECONDS)
        self._log("asked to stop", running=self._run is not None)
        if self._check is not None:
            # It was not claimed, so it has not begun.
            self._disk.end_digest()
            self._check = None

    def _stop_at(self, run: Run) -> float | None:
        """When the running step is told to stop as its Pod ends: its own grace and some seconds must be left."""
        if self._stopped_at is None:
            return None
        needed = run.spec.cancel_grace_seconds + STOP_MARGIN_SECONDS
        return self._stopped_at + max(0.0, self._grace_seconds - needed)

    def tick(self) -> None:
        """Do what is due."""
        now = self._clock.monotonic()
        self._look_for_digest()
        if self._run:
            self._tick_run(self._run, now)
        if self._kept.look_again(now):
            self._registered = False
        if self._kept.is_due(now):
            for kept in self._kept.reclaimed(now):
                self._finish(kept, Outcome.LOST, LOST_REASON, log_bytes=self._disk.log_bytes(*kept.key))
            self._kept.save_again()
        if self._stopped_at is not None and not self._run:
            told = all(kept.exit_told for kept in self._kept if kept.started)
            if told or (self._leave_at is not None and now >= self._leave_at):
                self.exit_status = 0

    def _tick_run(self, run: Run, now: float) -> None:
        if run.limit_at is not None and now >= run.limit_at:
            run.limit_at = None
            self._stop_run(Outcome.FAILED, run.limit_reason)
        stop_at = self._stop_at(run)
        if stop_at is not None and self._leave_at is not None and now >= stop_at:
            self._stop_run(Outcome.FAILED, POD_STOPPED)
            run.kill_by(self._leave_at - LAST_WORD_SECONDS, now)
        if run.term_at is not None and now >= run.term_at:
            run.term_at = None
            self._runner.terminate()
        if run.kill_at is not None and now >= run.kill_at:
            run.kill_at = now + 1.0
            self._runner.kill()

    def deadline(self) -> float | None:
        """When `tick` or `next_request` may have something to do again, on monotonic time; None: not by itself."""
        now = self._clock.monotonic()
        moments = [self._leave_at, *(line.free_at for line in self._lines.values())]
        if self._run:
            moments += [self._run.limit_at, self._run.term_at, self._run.kill_at, self._stop_at(self._run)]
        due = [moment for moment in moments if moment is not None and moment > now]
        if (moment := self._kept.deadline(now)) is not None:
            due.append(moment)
        return min(due, default=None)


def _no_digest(error: StepRefusedError | OSError) -> str:
    """What is wrong with a plan that can't be approved."""
    return str(error) if isinstance(error, StepRefusedError) else f"the plan's file can't be read: {error}"
