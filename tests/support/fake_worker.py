"""A worker that says what a test wants it to say, to a real agent's /work."""

import itertools
from datetime import UTC, datetime
from typing import Any

from agent.wire import (
    Assignment,
    ExitReport,
    KeptTask,
    Outcome,
    RegisterRequest,
    StartedReport,
    Step,
    Steps,
    StepSpec,
    Work,
    WorkAnswer,
    decode,
)
from tests.support.agent_process import AgentProcess, wait_for

DIGEST = "sha256:" + "0" * 64

_instances = itertools.count(1)


def two_steps(name: str = "default/task", *, attempt: int = 1, ttl_seconds: int = 3600) -> Work:
    """A plan, an approval, an apply."""
    steps = Steps(plan=StepSpec(command=("plan",), plan_file="tfplan"), apply=StepSpec(command=("apply",)))
    return Work(name=name, attempt=attempt, steps=steps, reservation_ttl_seconds=ttl_seconds)


def one_step(name: str = "default/task") -> Work:
    """A plan that nothing follows."""
    return Work(name=name, attempt=1, steps=Steps(plan=StepSpec(command=("plan",))))


class FakeWorker:
    """The worker of one slot. It keeps in `kept` what a real one has on its disk."""

    def __init__(self, agent: AgentProcess, slot: int, *, kept: dict[str, KeptTask] | None = None) -> None:
        self.agent = agent
        self.slot = slot
        self.instance = f"instance-{next(_instances)}"
        self.kept: dict[str, KeptTask] = kept if kept is not None else {}

    def successor(self, *, forget: bool = False) -> "FakeWorker":
        """The instance after this one's container restarted; with `forget` its volume is empty."""
        return FakeWorker(self.agent, self.slot, kept={} if forget else self.kept)

    def register(self) -> WorkAnswer:
        request = RegisterRequest(instance=self.instance, tasks=tuple(self.kept.values()))
        answer = decode(WorkAnswer, self._post("/work/register", request))
        for task_id in answer.forget:
            self.kept.pop(task_id, None)
        return answer

    def poll(self, running: Assignment | None = None) -> WorkAnswer:
        """One poll; held by the agent until there is something to say."""
        query = f"instance={self.instance}"
        if running is not None:
            query += f"&task_id={running.task_id}&step={running.step}"
        answer = decode(WorkAnswer, self.agent.get(f"/work?{query}", token=self._token))
        for task_id in answer.forget:
            self.kept.pop(task_id, None)
        return answer

    def take(self) -> Assignment:
        """Poll until a step is offered, and keep it."""

        def offered() -> Assignment | None:
            return self.poll().run

        assignment: Assignment = wait_for(offered, f"slot {self.slot} is offered a step")
        self.kept[assignment.task_id] = KeptTask(assignment=assignment, started=False)
        return assignment

    def start(self, assignment: Assignment, *, report: bool = True) -> None:
        """Make the started marker, and say so."""
        self.kept[assignment.task_id] = KeptTask(assignment=assignment, started=True)
        if report:
            self._post("/work/started", self.started_report(assignment))

    def end(self, assignment: Assignment, outcome: Outcome = Outcome.SUCCEEDED, *, report: bool = True) -> ExitReport:
        """Write down how the step ended, and say so."""
        exit_report = self.exit_report(assignment, outcome)
        self.kept[assignment.task_id] = KeptTask(assignment=assignment, started=True, exit=exit_report)
        if report:
            self.send_exit(exit_report)
        return exit_report

    def send_exit(self, report: ExitReport) -> None:
        self._post("/work/exit", report)

    def run(self, outcome: Outcome = Outcome.SUCCEEDED) -> Assignment:
        """Take the next step, start it, end it."""
        assignment = self.take()
        self.start(assignment)
        self.end(assignment, outcome)
        return assignment

    def output(self, assignment: Assignment, offset: int, data: bytes) -> int:
        """Upload output; returns how much the agent has."""
        query = f"instance={self.instance}&task_id={assignment.task_id}&step={assignment.step}&offset={offset}"
        answer = self._post(f"/work/output?{query}", data)
        have: int = answer["offset"]
        return have

    def started_report(self, assignment: Assignment) -> StartedReport:
        return StartedReport(
            instance=self.instance,
            task_id=assignment.task_id,
            step=assignment.step,
            fence=assignment.fence,
            start_time=datetime.now(UTC),
            nonce=assignment.nonce,
        )

    def exit_report(self, assignment: Assignment, outcome: Outcome) -> ExitReport:
        planned = (
            assignment.step is Step.PLAN
            and outcome is Outcome.SUCCEEDED
            and assignment.work.steps.get(Step.APPLY) is not None
        )
        return ExitReport(
            instance=self.instance,
            task_id=assignment.task_id,
            step=assignment.step,
            fence=assignment.fence,
            outcome=outcome,
            start_time=datetime.now(UTC),
            end_time=datetime.now(UTC),
            exit_code=0 if outcome is Outcome.SUCCEEDED else 1,
            plan_digest=DIGEST if planned else None,
            nonce=assignment.nonce,
        )

    @property
    def _token(self) -> str:
        return self.agent.credential(str(self.slot))

    def _post(self, path: str, body: Any) -> Any:
        return self.agent.post(path, body, token=self._token)
