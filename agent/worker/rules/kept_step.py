"""A task that the worker keeps: its last step, what the agent knows of it, and so what is to be told next."""

from agent.work_messages import Assignment, ExitReport, KeptTask, Outcome, StartedReport, Step, Work
from agent.worker.errors import StepRefusedError
from agent.worker.rules.ports import Call, Disk, Request, StoredStep

OUTPUT_BYTES = 64 * 1024
"""The most that one upload carries."""
OUTPUT_INTERVAL_SECONDS = 0.05
"""Between uploads that are not full: a chatty command costs twenty requests a second, not one a line."""
STUCK_SECONDS = 0.25
"""Between uploads that the agent answers without taking them."""
PATIENCE_SECONDS = 30.0
"""How long the report of an end waits for an agent that answers, but takes no output."""

NOT_TAKEN = "the agent refused what the worker reported of the step's end"


class Kept:
    """The last step of a task. `orphaned`: an earlier worker started it, and whether all of it is gone is not known."""

    def __init__(self, stored: StoredStep) -> None:
        self.assignment = stored.assignment
        self.started = stored.started
        self.start_time = stored.start_time
        self.exit = stored.exit
        self.orphaned = stored.started and stored.exit is None
        self.started_told = stored.exit is not None
        self.exit_told = stored.exit_told
        self.output_over = False  # the agent has it all, or will never take it
        self._begun_here = False
        self._end_is_bare = False  # the agent could not take what is said of the end
        self._agent_has: int | None = None  # bytes of output; None until it said
        self._resend: dict[Step, int] = {}  # what the agent says it has of output that it had been sent
        self._stuck_since: float | None = None

    @property
    def key(self) -> tuple[str, Step]:
        """The task's id and the step."""
        return self.assignment.task_id, self.assignment.step

    @property
    def name(self) -> str:
        """The task's name, for people."""
        return self.assignment.work.name

    @property
    def hands_over(self) -> bool:
        """Whether a file goes with the end of this step, if it succeeds."""
        work = self.assignment.work
        last = self.assignment.step is Step.APPLY or work.steps.apply is None
        return last and work.outputs_path is not None

    def begun_here(self) -> None:
        """This worker claimed the step. So no other worker has any of it, and the agent has no output of it yet."""
        self.orphaned = False
        self._begun_here = True
        self._agent_has = 0

    def is_foreign(self, offered: Assignment) -> bool:
        """Whether the offered step has this one's name, but what the disk had was of another assignment.

        Then the code of an earlier step wrote it, and neither this worker nor the agent did.
        """
        same = self.assignment.step is offered.step and offered.nonce is not None
        return same and not self._begun_here and self.assignment.nonce != offered.nonce

    def agent_has(self, output: dict[str, int]) -> None:
        """What a registration was answered: how much the agent has of each step's output."""
        task_id, current = self.key
        for step in Step:
            known = output.get(f"{task_id}/{step.value}")
            if known is None:
                continue
            if step is current and not self.exit_told:
                self._agent_has, self.output_over = known, False
            else:
                self._resend[step] = known

    def offered_again(self, assignment: Assignment) -> None:
        """The step is offered with another fence, by an agent that lost its journal: what was done counts for it."""
        self.assignment = assignment
        self.exit_told = False

    def params(self, instance: str) -> dict[str, str]:
        """How a request names this step."""
        task_id, step = self.key
        return {"instance": instance, "task_id": task_id, "step": step.value}

    def report(self, instance: str, disk: Disk) -> Request | None:
        """What the agent lacks: the start, then the output, then the end."""
        if self._resend and not self.orphaned and (again := self._output_again(instance, disk)):
            return again
        if not self.started or self.exit_told or self.orphaned:
            return None
        task_id, step = self.key
        params = self.params(instance)
        if not self.started_told and self.start_time is not None:
            fence = self.assignment.fence
            started = StartedReport(
                instance=instance,
                task_id=task_id,
                step=step,
                fence=fence,
                start_time=self.start_time,
                nonce=self.assignment.nonce,
            )
            return Request(call=Call.STARTED, params=params, message=started)
        if not self.output_over and (output := self._output(params, disk)):
            return output
        if self.exit is not None:
            outputs = self._outputs(disk) if self.exit.outcome is Outcome.SUCCEEDED and self.hands_over else None
            message = _reported(self.exit, instance, self.assignment, outputs)
            if self._end_is_bare:
                message = _bare(message)
            return Request(call=Call.EXIT, params=params, message=message)
        return None

    def _outputs(self, disk: Disk) -> str | None:
        """Send the file that belongs to the end. If there is no file, the end says why."""
        try:
            return disk.outputs(self.assignment)
        except (StepRefusedError, OSError):
            return None

    def _output(self, params: dict[str, str], disk: Disk) -> Request | None:
        """The next part of the output that the agent lacks; an empty one asks it how much it has."""
        if self._agent_has is None:
            return Request(call=Call.OUTPUT, params={**params, "offset": "0"})
        more = disk.log_bytes(*self.key) > self._agent_has
        data = disk.read_log(*self.key, self._agent_has, OUTPUT_BYTES) if more else b""
        if not data:
            self.output_over = self.exit is not None
            return None
        return Request(call=Call.OUTPUT, params={**params, "offset": str(self._agent_has)}, data=data)

    def _output_again(self, instance: str, disk: Disk) -> Request | None:
        """The next part of output that the agent had been sent before and has lost."""
        task_id, _ = self.key
        for step, known in list(self._resend.items()):
            data = disk.read_log(task_id, step, known, OUTPUT_BYTES) if disk.log_bytes(task_id, step) > known else b""
            if data:
                params = {"instance": instance, "task_id": task_id, "step": step.value, "offset": str(known)}
                return Request(call=Call.OUTPUT, params=params, data=data)
            del self._resend[step]
        return None

    def uploaded(self, request: Request, offset: int, now: float) -> float:
        """The agent has `offset` bytes, fewer if it lost some. It goes on from there, after the pause returned."""
        step = Step(request.params["step"])
        if step in self._resend:
            if offset > self._resend[step]:
                self._resend[step] = offset
            else:
                del self._resend[step]  # it takes none
            return 0.0
        progress = self._agent_has is None or offset > self._agent_has
        self._agent_has = offset
        if not progress:
            self.output_refused(now)
            return STUCK_SECONDS
        self._stuck_since = None
        return 0.0 if self.exit is not None or len(request.data) == OUTPUT_BYTES else OUTPUT_INTERVAL_SECONDS

    def output_refused(self, now: float) -> None:
        """The agent answers, but takes no output. After a while the end is reported without it."""
        self._stuck_since = now if self._stuck_since is None else self._stuck_since
        if self.exit is not None and now - self._stuck_since > PATIENCE_SECONDS:
            self.output_over = True

    def settle(self, call: Call, *, unreadable: bool = False) -> None:
        """The agent will never take this report. A registration tells it everything again.

        `unreadable`: it is what the report says that it can't take. Then an end is told once more, with less in it:
        else the task would run for ever.
        """
        if call is Call.OUTPUT and self._resend:
            self._resend.clear()
        elif call is Call.STARTED:
            self.started_told = True
        elif call is Call.OUTPUT:
            self.output_over = True
        elif unreadable and not self._end_is_bare:
            self._end_is_bare = True
        else:
            self.exit_told = True

    def registration(self) -> KeptTask:
        """What registration says of it.

        The files of a started one are in its directory and need not travel again: several tasks' files would be more
        than the agent takes in one request. An end that was not yet told is held back until the agent has all output:
        what it then takes as the step's result includes the output's end. One that a file goes with is only reported.
        """
        known = self.exit if self.exit_told or (self.output_over and not self.hands_over) else None
        assignment = self.assignment
        if self.started:
            work = assignment.work
            bare = Work(
                name=work.name,
                attempt=work.attempt,
                steps=work.steps,
                env=work.env,
                env_from=work.env_from,
                reservation_ttl_seconds=work.reservation_ttl_seconds,
                mask_secrets=work.mask_secrets,
                outputs_path=work.outputs_path,
            )
            assignment = Assignment(
                task_id=assignment.task_id,
                task_type=assignment.task_type,
                step=assignment.step,
                fence=assignment.fence,
                work=bare,
                plan_digest=assignment.plan_digest,
                nonce=assignment.nonce,
            )
        return KeptTask(assignment=assignment, started=self.started, exit=known)


def _bare(report: ExitReport) -> ExitReport:
    """An end without all that an agent may not take: the digest, the file, the reason. So it did not succeed."""
    succeeded = report.outcome is Outcome.SUCCEEDED
    return ExitReport(
        instance=report.instance,
        task_id=report.task_id,
        step=report.step,
        fence=report.fence,
        outcome=Outcome.FAILED if succeeded else report.outcome,
        end_time=report.end_time,
        exit_code=report.exit_code,
        reason=f"{NOT_TAKEN}; it ended as {report.outcome.value}",
        nonce=report.nonce,
    )


def _reported(report: ExitReport, instance: str, assignment: Assignment, outputs: str | None) -> ExitReport:
    """The report as this worker instance makes it: the agent hears only the registered one."""
    return ExitReport(
        instance=instance,
        task_id=report.task_id,
        step=report.step,
        fence=assignment.fence,
        outcome=report.outcome,
        end_time=report.end_time,
        start_time=report.start_time,
        exit_code=report.exit_code,
        reason=report.reason,
        plan_digest=report.plan_digest,
        log_bytes=report.log_bytes,
        outputs=outputs,
        changed=report.changed,
        nonce=assignment.nonce,
    )
