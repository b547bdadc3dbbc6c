"""The worker's core against the agent's, over any order of messages, losses, crashes and restarts. In virtual time.

Both cores are the real ones. Between them is a network that loses requests and answers and delivers some requests late;
around them disks that outlive both, and a command that ends when a test says so.
"""

from collections import Counter
from enum import StrEnum

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from agent.errors import Refusal
from agent.rules import recovery, slots, tasks
from agent.rules.state import Decision, apply, initial_state
from agent.wire import (
    Empty,
    ErrorCode,
    ExitReport,
    Outcome,
    OutputAnswer,
    RegisterRequest,
    SlotState,
    StartedReport,
    Step,
    Steps,
    StepSpec,
    TaskState,
    Work,
    WorkAnswer,
    is_older,
)
from agent.worker.rules.core import Worker
from agent.worker.rules.ports import Answer, Call, Channel, Request
from tests.support.worker_world import WorkerWorld

WORK = Work(
    name="team/task", attempt=1, steps=Steps(plan=StepSpec(command=("plan",)), apply=StepSpec(command=("apply",)))
)
LAYOUT = (("plan_and_apply",),)


class Do(StrEnum):
    """What can happen next."""

    ACQUIRE = "acquire"
    APPROVE = "approve"
    APPROVE_OTHER = "approve_other"
    CANCEL = "cancel"
    ACK = "ack"
    DELIVER = "deliver"
    LOSE_REQUEST = "lose_request"
    LOSE_ANSWER = "lose_answer"
    DELIVER_LATE = "deliver_late"
    END_WELL = "end_well"
    END_BADLY = "end_badly"
    CRASH = "crash"
    CRASH_LEAVING_REMAINS = "crash_leaving_remains"
    REMAINS_GONE = "remains_gone"
    RESTART_AGENT = "restart_agent"
    LOSE_JOURNAL = "lose_journal"
    WAIT = "wait"
    DISK = "disk"


class System:
    """One agent, one slot, one worker after the other."""

    def __init__(self) -> None:
        self.world = WorkerWorld()
        self.state = initial_state(LAYOUT, drain_id="born", lost=False, now=self.world.clock.now())
        self.logs: Counter[tuple[str, str]] = Counter()
        self.registered: str | None = None
        self.superseded: set[str] = set()
        self.under_way: dict[Channel, Request] = {}
        self.late: list[Request] = []
        self.process: tuple[str, Step] | None = None
        self.well: set[tuple[str, Step]] = set()
        self.approved: set[str] = set()
        self.number = 0
        self.instances = 0
        self.starts_seen = 0
        self.worker = self._new_worker()

    def _new_worker(self) -> Worker:
        self.instances += 1
        self.under_way = {}
        return self.world.worker(f"{self.instances}-w")

    # --- what happens ----------------------------------------------------------------------------------------------

    def do(self, action: Do) -> None:
        getattr(self, f"_{action.value}")()
        self._turn()
        self.check()

    def _turn(self) -> None:
        """What the worker does by itself."""
        self.worker.tick()
        for channel in Channel:
            if request := self.worker.next_request(channel):
                self.under_way[channel] = request
        for launch in self.world.runner.starts[self.starts_seen :]:
            assert self.process is None, "two commands at once"
            self.process = (launch.task_id, launch.step)
        self.starts_seen = len(self.world.runner.starts)

    def _decide(self, module: object, command: object) -> None:
        try:
            decision: Decision = module.decide(self.state, command, self.world.clock.now())  # type: ignore[attr-defined]
        except Refusal:
            return
        self._apply(decision)

    def _apply(self, decision: Decision) -> None:
        for record in decision.records:
            self.state = apply(self.state, record)

    def _acquire(self) -> None:
        if self.state.drain_id is not None:
            self._decide(slots, slots.Open(drain_id=self.state.drain_id))
        self._decide(slots, slots.Acquire(task_id=f"t{self.number}", task_type="plan_and_apply", work=WORK))
        self.number += 1

    def _approve(self) -> None:
        for task in list(self.state.tasks.values()):
            if task.state is TaskState.RESERVED and task.plan_digest:
                self.approved.add(task.task_id)
                self._decide(tasks, tasks.Approve(task_id=task.task_id, plan_digest=task.plan_digest, attempt=1))

    def _approve_other(self) -> None:
        for task_id in list(self.state.tasks):
            self._decide(tasks, tasks.Approve(task_id=task_id, plan_digest="sha256:other", attempt=1))

    def _cancel(self) -> None:
        for task_id in list(self.state.tasks):
            self._decide(tasks, tasks.Cancel(task_id=task_id))

    def _ack(self) -> None:
        for task_id in self.state.ended:
            self._decide(tasks, tasks.Ack(task_id=task_id))

    def _deliver(self) -> None:
        for channel, request in list(self.under_way.items()):
            answer = self._serve(request)
            if answer is None:
                continue  # a held poll
            del self.under_way[channel]
            if isinstance(answer, Refusal):
                self.worker.refused(channel, 409 if answer.code is not ErrorCode.NOT_FOUND else 404, answer.code)
            else:
                self.worker.answered(channel, answer)

    def _lose_request(self) -> None:
        for channel, request in list(self.under_way.items()):
            del self.under_way[channel]
            self.late = [*self.late, request][-5:]
            self.worker.unanswered(channel, "lost")

    def _lose_answer(self) -> None:
        for channel, request in list(self.under_way.items()):
            self._serve(request)
            del self.under_way[channel]
            self.worker.unanswered(channel, "lost")

    def _deliver_late(self) -> None:
        """Requests that were given up arrive after all; nobody waits for their answers."""
        late, self.late = self.late, []
        for request in late:
            self._serve(request)

    def _end_well(self) -> None:
        if self.process:
            self.well.add(self.process)
            self._end(0)

    def _end_badly(self) -> None:
        if self.process:
            self._end(1)

    def _end(self, code: int) -> None:
        assert self.process
        self.world.disk.entries[self.process].log += b"output"
        self.process = None
        self.worker.ended(self.world.ended(code, 6))
        self.worker.tick()

    def _crash(self) -> None:
        """SIGKILL of the worker, and with it of the command."""
        self.process = None
        self.worker = self._new_worker()

    def _crash_leaving_remains(self) -> None:
        if self.process:
            self.world.disk.remains.add(self.process)
        self._crash()

    def _remains_gone(self) -> None:
        self.world.disk.remains.clear()

    def _restart_agent(self) -> None:
        """Who is registered is not in the journal."""
        self.registered = None
        self.superseded = set()
        self.logs = Counter()
        self.late = []  # they were on connections to the process that is gone

    def _lose_journal(self) -> None:
        self._restart_agent()
        self.state = initial_state(LAYOUT, drain_id="born-again", lost=True, now=self.world.clock.now())

    def _wait(self) -> None:
        self.world.clock.seconds += 2.0

    def _disk(self) -> None:
        self.world.disk.full = not self.world.disk.full

    # --- the agent's side, as its `workers` do it --------------------------------------------------------------------

    def _serve(self, request: Request) -> Answer | Refusal | None:
        try:
            return self._answer(request)
        except Refusal as refusal:
            return refusal

    def _answer(self, request: Request) -> Answer | None:
        now = self.world.clock.now()
        message = request.message
        if isinstance(message, RegisterRequest):
            return self._register(message)
        instance = request.params["instance"]
        if instance in self.superseded:
            raise Refusal(ErrorCode.SUPERSEDED, "")
        if instance != self.registered:
            raise Refusal(ErrorCode.UNREGISTERED, "")
        task_id, step = request.params.get("task_id", ""), request.params.get("step", "")
        if request.call is Call.POLL:
            return self._poll(task_id, step)
        if request.call is Call.OUTPUT:
            if task_id not in self.state.tasks:
                raise Refusal(ErrorCode.NOT_FOUND, "")
            if int(request.params["offset"]) == self.logs[task_id, step]:
                self.logs[task_id, step] += len(request.data)
            return OutputAnswer(offset=self.logs[task_id, step])
        if isinstance(message, StartedReport):
            self._apply(tasks.decide(self.state, tasks.Started(slot=0, report=message), now))
        elif isinstance(message, ExitReport):
            self._apply(tasks.decide(self.state, tasks.Exited(slot=0, report=message), now))
        return Empty()

    def _register(self, message: RegisterRequest) -> WorkAnswer:
        late = self.registered is not None and is_older(message.instance, self.registered)
        if late or message.instance in self.superseded:
            raise Refusal(ErrorCode.SUPERSEDED, "")
        repeated = self.registered == message.instance
        if self.registered and not repeated:
            self.superseded.add(self.registered)
        self.registered = message.instance
        recovered = recovery.recover(self.state, 0, message, self.world.clock.now(), repeated=repeated)
        self._apply(Decision(recovered.records))
        return WorkAnswer(forget=recovered.forget)

    def _poll(self, task_id: str, step: str) -> WorkAnswer | None:
        slot = self.state.slots[0]
        task = self.state.tasks.get(slot.task_id or "")
        if task is None or slot.state is not SlotState.RUNNING:
            return None
        named = task.task_id == task_id and task.step == step
        waiting = task.state is TaskState.WAITING and not named
        run = tasks.assignment_of(self.state, task) if waiting else None
        cancel = task.cancel_requested and (named or run is not None)
        return WorkAnswer(run=run, cancel=cancel) if run or cancel else None

    # --- what must hold -----------------------------------------------------------------------------------------------

    def check(self) -> None:
        starts = Counter((launch.task_id, launch.step) for launch in self.world.runner.starts)
        assert not [start for start, times in starts.items() if times > 1], "a step started twice"
        assert not {task_id for task_id, step in starts if step is Step.APPLY} - self.approved, "apply unapproved"
        alive = {self.process, *self.world.disk.remains} - {None}
        for task in self.state.tasks.values():
            for step in Step:
                result = task.result_of(step)
                if result and result.outcome is Outcome.SUCCEEDED:
                    assert (task.task_id, step) in self.well, "a success that was none"
                if result and result.outcome is not None:
                    assert (task.task_id, step) not in alive, "ended, and its command runs"
            if task.state is TaskState.RESERVED:
                assert (task.task_id, Step.PLAN) in self.well

    def settle(self) -> None:
        """Faults stop: within ten virtual minutes all that was begun is over, and told."""
        self.world.disk.full = False
        self._remains_gone()
        for _ in range(300):
            self._deliver()
            if self.process:
                self._end_well()
            self._wait()
            self._turn()
            self.check()
        assert self.state.slots[0].state is not SlotState.RUNNING, "stuck"
        for (task_id, step), entry in self.world.disk.entries.items():
            task = self.state.tasks.get(task_id)
            if task and entry.exit and task.step is step:
                result = task.result_of(step)
                assert result
                assert result.outcome is not None
        if self.state.slots[0].state is SlotState.RESERVED:
            self.do(Do.APPROVE)
            for _ in range(20):
                self._deliver()
                if self.process:
                    self._end_well()
                self._wait()
                self._turn()
                self.check()
        self._acquire()
        for _ in range(20):
            self._deliver()
            self._wait()
            self._turn()
        assert self.process, "the slot works on"


RUN = [Do.ACQUIRE, Do.DELIVER, Do.WAIT, Do.DELIVER, Do.DELIVER]


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.sampled_from(Do), max_size=60))
@example([*RUN, Do.CRASH, Do.DELIVER, Do.WAIT, Do.DELIVER])
@example([Do.LOSE_REQUEST, Do.CRASH, *RUN, Do.DELIVER_LATE, Do.DELIVER])
@example(
    [*RUN, Do.END_WELL, Do.DELIVER, Do.DELIVER, Do.DELIVER, Do.APPROVE, Do.WAIT, Do.LOSE_ANSWER, Do.CRASH, Do.DELIVER]
)
@example([*RUN, Do.CANCEL, Do.END_WELL, Do.LOSE_ANSWER, Do.RESTART_AGENT, Do.CRASH, Do.DELIVER])
@example([*RUN, Do.LOSE_JOURNAL, Do.DELIVER, Do.END_WELL, Do.CRASH, Do.DELIVER, Do.WAIT, Do.DELIVER])
def test_any_history_starts_each_step_once_tells_the_truth_and_converges(history: list[Do]) -> None:
    """T10, T19, T21, T25, R5: whatever is lost, killed or late, and in whatever order."""
    system = System()
    for action in history:
        system.do(action)
    system.settle()
