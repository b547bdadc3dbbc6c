"""Random sequences of everything that can happen to an agent, against the rules that may never break."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from agent.errors import Refusal
from agent.rules import slots, tasks
from agent.rules.recovery import recover
from agent.rules.slots import TRANSITIONS
from agent.rules.state import (
    Event,
    PhaseChanged,
    Record,
    SlotChanged,
    State,
    TaskChanged,
    apply,
    initial_state,
    snapshot_of,
)
from agent.store.journal_format import MAGIC, Header, encode_frame, encode_records, new_file, replay
from agent.wire import (
    Assignment,
    ExitReport,
    KeptTask,
    Origin,
    Outcome,
    Phase,
    RegisterRequest,
    SlotState,
    StartedReport,
    Step,
    Steps,
    StepSpec,
    TaskState,
    Work,
)

LAYOUT = (("plan", "apply", "plan_and_apply"), ("plan",), ("plan", "apply"))
START = datetime(2026, 3, 1, tzinfo=UTC)
DIGEST = "sha256:right"
STEP = StepSpec(command=("x",))
WORKS = (
    None,
    Work(name="n/plan", attempt=1, steps=Steps(plan=STEP), reservation_ttl_seconds=100),
    Work(name="n/apply", attempt=1, steps=Steps(apply=STEP), reservation_ttl_seconds=100),
    Work(name="n/both", attempt=1, steps=Steps(plan=STEP, apply=STEP), reservation_ttl_seconds=100),
    Work(name="n/both", attempt=2, steps=Steps(plan=STEP, apply=STEP), reservation_ttl_seconds=100),
)

TASK_IDS = st.sampled_from(["a", "b", "c", "d", "e"])
TYPES = st.sampled_from([*["plan", "apply", "plan_and_apply"] * 4, "other"])
ORIGINS = st.sampled_from([Origin.CONTROLLER] * 4 + [Origin.LOCAL])
DRAIN_IDS = st.sampled_from(["d1", "d2", "born"])
OUTCOMES = st.sampled_from([*[Outcome.SUCCEEDED] * 5, Outcome.FAILED, Outcome.CANCELLED, Outcome.LOST])
MOSTLY = st.sampled_from([True, True, True, True, False])
SELDOM = st.sampled_from([False] * 19 + [True])
SLOTS = st.integers(0, len(LAYOUT) - 1)
STALE = st.integers(-3, 0)


class AgentMachine(RuleBasedStateMachine):
    """One agent and the workers of its slots. `kept` is what each worker's disk holds."""

    def __init__(self) -> None:
        super().__init__()
        self.now = START
        self.state = initial_state(LAYOUT, drain_id="born", lost=False, now=START)
        self.header = Header(pod_uid="u", journal_id="j", slots=len(LAYOUT))
        self.journal = b""
        self.kept: list[dict[str, KeptTask]] = [{} for _ in LAYOUT]
        self.instances = [0] * len(LAYOUT)
        self.registered = [False] * len(LAYOUT)
        self.approved: set[tuple[str, str, int]] = set()
        self.applied: dict[str, int] = {}
        self.acked: set[str] = set()
        self.lost_once = False

    @initialize(lost=SELDOM, opened=MOSTLY)
    def begin(self, lost: bool, opened: bool) -> None:
        self.state = initial_state(LAYOUT, drain_id="born", lost=lost, now=START)
        self.lost_once = lost
        self.journal = new_file(self.header, self.state)
        if opened:
            self.decide(slots.decide, slots.Open(drain_id="born"))
            for slot in range(len(LAYOUT)):
                self.worker_registers(slot=slot, new=False, wiped=False)

    # --- how a decision takes effect --------------------------------------------------------------------------------

    def decide(self, call: Any, command: Any) -> bool:
        """Whether the agent agreed. A refusal must leave everything as it was."""
        before = encode_records([snapshot_of(self.state)])
        try:
            decision = call(self.state, command, self.now)
        except Refusal:
            assert encode_records([snapshot_of(self.state)]) == before
            return False
        assert encode_records([snapshot_of(self.state)]) == before, "deciding changes nothing"
        self.commit(decision.records, command)
        return True

    def commit(self, records: tuple[Record, ...], command: Any) -> None:
        if not records:
            return
        self.journal += encode_frame(encode_records(records))
        for record in records:
            before = self.state
            self.state = apply(self.state, record)
            if isinstance(record, SlotChanged):
                self.check_slot(before, record, command)
            elif isinstance(record, TaskChanged):
                self.check_task(before, record)
            elif isinstance(record, PhaseChanged) and record.phase is Phase.DRAINED:
                assert all(slot.state is SlotState.IDLE for slot in before.slots), "drained only if idle"
                assert not before.ended, "drained only if every result is stored"
                assert not before.recovering

    def check_slot(self, before: State, record: SlotChanged, command: Any) -> None:
        old, new = before.slots[record.entry.id], record.entry
        assert TRANSITIONS[old.state, record.event] is new.state, "only what the table has"
        assert new.fence > before.fence, "fences rise"
        if old.state is SlotState.RESERVED:
            match record.event:
                case Event.APPROVE:
                    assert isinstance(command, tasks.Approve)
                    assert old.expires_at is None or self.now < old.expires_at
                case Event.CANCEL:
                    assert isinstance(command, tasks.Cancel)
                case Event.EXPIRE:
                    assert old.expires_at is not None
                    assert self.now >= old.expires_at
                case Event.LOSE:
                    assert isinstance(command, RegisterRequest)
                    assert old.task_id not in {kept.assignment.task_id for kept in command.tasks}
                case Event.RESUME | Event.RELEASE:
                    assert not old.managed
                case _:
                    raise AssertionError(record.event)
        if old.state is SlotState.IDLE and record.event is Event.ACQUIRE:
            assert before.phase is Phase.OPEN
            assert not before.closing
            assert not before.recovering
            assert new.task_id not in self.acked, "what was acknowledged never runs again"

    def check_task(self, before: State, record: TaskChanged) -> None:
        old, new = before.tasks.get(record.entry.task_id), record.entry
        if old is None:
            return
        assert old.state is not TaskState.ENDED, "final states never change"
        if old.step is Step.PLAN and new.step is Step.APPLY:
            assert old.state is TaskState.RESERVED
            assert (new.task_id, new.plan_digest, new.attempt) in self.approved
            self.applied[new.task_id] = self.applied.get(new.task_id, 0) + 1
            assert self.applied[new.task_id] == 1, "an apply is assigned once"

    # --- what can happen --------------------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([1, 1, 1, 30, 30, 99, 101]))
    def time_passes(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)

    @rule()
    def clock_ticks(self) -> None:
        self.decide(slots.decide, slots.ExpireHolds())
        self.decide(tasks.decide, tasks.ExpireTasks())
        assert all(slot.expires_at is None or self.now < slot.expires_at for slot in self.state.slots)

    @rule(task_id=TASK_IDS, task_type=TYPES, work=st.sampled_from([*WORKS, *WORKS[3:] * 3]), origin=ORIGINS)
    def acquire(self, task_id: str, task_type: str, work: Work | None, origin: Origin) -> None:
        held = self.state.held_by(task_id)
        command = slots.Acquire(task_id=task_id, task_type=task_type, work=work, origin=origin)
        granted = self.decide(slots.decide, command)
        after = self.state.held_by(task_id)
        if held is not None:
            assert after == held, "the same task again changes nothing"
            assert granted == (held.origin is origin)
        elif granted:
            assert after is not None
            assert task_type in LAYOUT[after.id]

    @rule(
        call=st.sampled_from([Event.RESERVE, Event.RESUME, Event.RELEASE]),
        slot=SLOTS,
        task_id=TASK_IDS,
        stale=STALE,
        origin=ORIGINS,
        right=st.booleans(),
    )
    def hold(self, *, call: Event, slot: int, task_id: str, stale: int, origin: Origin, right: bool) -> None:
        entry = self.state.slots[slot]
        if right and entry.task_id is not None:
            task_id, stale, origin = entry.task_id, 0, entry.origin or origin
        command = slots.Hold(
            call=call, slot=slot, task_id=task_id, fence=entry.fence + stale, origin=origin, ttl_seconds=50
        )
        if self.decide(slots.decide, command):
            before = self.state
            assert self.decide(slots.decide, command), "the same call again is answered"
            assert self.state == before, "and changes nothing"

    @rule(drain_id=DRAIN_IDS, stays=SELDOM)
    def drain(self, drain_id: str, stays: bool) -> None:
        if self.decide(slots.decide, slots.Drain(drain_id=drain_id)) and not stays:
            assert self.decide(slots.decide, slots.Open(drain_id=drain_id))

    @rule(drain_id=DRAIN_IDS, right=st.booleans())
    def open(self, drain_id: str, right: bool) -> None:
        if right and self.state.drain_id is not None:
            drain_id = self.state.drain_id
        in_force = self.state.drain_id
        if self.decide(slots.decide, slots.Open(drain_id=drain_id)):
            assert drain_id in {in_force, self.state.opened_id}

    @rule(task_id=TASK_IDS, digest=st.sampled_from([DIGEST, "sha256:wrong"]), attempt=st.integers(1, 2), right=MOSTLY)
    def approve(self, task_id: str, digest: str, attempt: int, right: bool) -> None:
        reserved = [task for task in self.state.tasks.values() if task.state is TaskState.RESERVED]
        if right and reserved:
            task_id, digest, attempt = reserved[0].task_id, DIGEST, reserved[0].attempt
        task = self.state.tasks.get(task_id)
        if task is not None and (digest, attempt) == (task.plan_digest, task.attempt):
            self.approved.add((task_id, digest, attempt))
        before = self.state
        agreed = self.decide(tasks.decide, tasks.Approve(task_id=task_id, plan_digest=digest, attempt=attempt))
        if agreed and before.tasks[task_id].state is TaskState.RESERVED:
            held = self.state.held_by(task_id)
            assert held is not None
            assert held.id == before.tasks[task_id].slot, "in its own slot"

    @rule(task_id=TASK_IDS)
    def cancel(self, task_id: str) -> None:
        self.decide(tasks.decide, tasks.Cancel(task_id=task_id))

    @rule(task_id=TASK_IDS, right=st.booleans())
    def ack(self, task_id: str, right: bool) -> None:
        if right and self.state.ended:
            task_id = self.state.ended[0]
        known = task_id in self.state.tasks
        if self.decide(tasks.decide, tasks.Ack(task_id=task_id)) and known:
            assert task_id not in self.state.tasks
            self.acked.add(task_id)

    @rule(outcome=OUTCOMES, told=MOSTLY, digest=MOSTLY, steps=st.integers(1, 3))
    def workers_go_on(self, *, outcome: Outcome, told: bool, digest: bool, steps: int) -> None:
        """Take what is offered, start what was taken, end what was started."""
        for slot in [slot for slot in range(len(LAYOUT)) for _ in range(steps)]:
            going = [kept for kept in self.kept[slot].values() if kept.exit is None]
            if going and going[0].started:
                self.end(slot, going[0], self.exit_report(slot, going[0].assignment, outcome, digest), told=told)
            elif going:
                self.kept[slot][going[0].assignment.task_id] = replace(going[0], started=True)
                if told:
                    self.report_start(slot, going[0].assignment)
            elif self.registered[slot] and (assignment := self.offered(slot)):
                self.kept[slot][assignment.task_id] = KeptTask(assignment=assignment, started=False)

    def end(self, slot: int, kept: KeptTask, report: ExitReport, *, told: bool) -> None:
        self.kept[slot][report.task_id] = replace(kept, exit=report)
        if told:
            self.decide(tasks.decide, tasks.Exited(slot=slot, report=report))

    @rule(slot=SLOTS, task_id=TASK_IDS, what=st.sampled_from(["start", "exit"]), at=SLOTS)
    def old_reports_come_again(self, slot: int, task_id: str, what: str, at: int) -> None:
        """Repeated, late, and from a slot that does not have the task."""
        kept = self.kept[slot].get(task_id)
        if kept is None or not kept.started:
            return
        if what == "start":
            self.report_start(at, kept.assignment)
        elif kept.exit is not None:
            self.decide(tasks.decide, tasks.Exited(slot=at, report=kept.exit))

    @rule()
    def workers_register(self) -> None:
        for slot in range(len(LAYOUT)):
            self.worker_registers(slot=slot, new=False, wiped=False)

    @rule(slot=SLOTS, task_id=TASK_IDS, outcome=OUTCOMES, fence=st.integers(0, 40), step=st.sampled_from(list(Step)))
    def a_worker_lies(self, slot: int, task_id: str, outcome: Outcome, fence: int, step: Step) -> None:
        report = ExitReport(
            instance="liar", task_id=task_id, step=step, fence=fence, outcome=outcome, end_time=self.now
        )
        task = self.state.tasks.get(task_id)
        agreed = self.decide(tasks.decide, tasks.Exited(slot=slot, report=report))
        if agreed:
            assert task is not None
            assert task.slot == slot, "a worker ends the tasks of its own slot only"
            assert task.fence_of(step) == fence

    @rule(slot=SLOTS, new=st.booleans(), wiped=SELDOM)
    def worker_registers(self, slot: int, new: bool, wiped: bool) -> None:
        if new or not self.registered[slot]:
            self.instances[slot] += 1
            self.registered[slot] = False
            if wiped:
                self.kept[slot] = {}
        held = self.state.slots[slot]
        request = RegisterRequest(instance=self.instance(slot), tasks=tuple(self.kept[slot].values()))
        recovered = recover(self.state, slot, request, self.now, repeated=self.registered[slot])
        self.commit(recovered.records, request)
        self.registered[slot] = True
        for task_id in recovered.forget:
            assert self.state.held_by(task_id) is None or self.state.tasks[task_id].slot != slot
            del self.kept[slot][task_id]
        if held.managed and held.task_id in self.kept[slot]:
            assert self.state.slots[slot].task_id == held.task_id or held.task_id in self.state.tasks, (
                "what a worker has is never forgotten"
            )

    @precondition(lambda self: self.journal)
    @rule()
    def agent_restarts(self) -> None:
        self.state = replay(self.journal, initial_state(LAYOUT, drain_id="x", lost=False, now=START)).state
        self.registered = [False] * len(LAYOUT)

    @precondition(lambda self: self.journal)
    @rule()
    def journal_is_compacted(self) -> None:
        self.journal = new_file(self.header, self.state)

    @rule(really=SELDOM)
    def journal_is_lost(self, really: bool) -> None:
        """The agent starts over; what its workers keep is all there is. Holds of others are gone with it."""
        if not really:
            return
        self.now += timedelta(seconds=1)
        self.state = initial_state(LAYOUT, drain_id="born", lost=True, now=self.now)
        self.journal = new_file(self.header, self.state)
        self.registered = [False] * len(LAYOUT)
        self.lost_once = True
        self.acked.clear()
        # A step that was approved in the life before is so in this one too, if its worker took it.
        self.applied.clear()

    # --- the workers' side ------------------------------------------------------------------------------------------

    def instance(self, slot: int) -> str:
        return f"w{slot}-{self.instances[slot]}"

    def offered(self, slot: int) -> Assignment | None:
        entry = self.state.slots[slot]
        task = self.state.tasks.get(entry.task_id or "")
        if task is None or task.slot != slot or task.state is not TaskState.WAITING:
            return None
        assignment = tasks.assignment_of(self.state, task)
        assert assignment is not None
        return assignment

    def report_start(self, slot: int, assignment: Assignment) -> None:
        report = StartedReport(
            instance=self.instance(slot),
            task_id=assignment.task_id,
            step=assignment.step,
            fence=assignment.fence,
            start_time=self.now,
        )
        self.decide(tasks.decide, tasks.Started(slot=slot, report=report))

    def exit_report(self, slot: int, assignment: Assignment, outcome: Outcome, digest: bool) -> ExitReport:
        return ExitReport(
            instance=self.instance(slot),
            task_id=assignment.task_id,
            step=assignment.step,
            fence=assignment.fence,
            outcome=outcome,
            end_time=self.now,
            plan_digest=DIGEST if digest and assignment.step is Step.PLAN else None,
        )

    # --- what always holds ------------------------------------------------------------------------------------------

    @invariant()
    def no_task_is_in_two_places(self) -> None:
        held = [slot.task_id for slot in self.state.slots if slot.state is not SlotState.IDLE]
        assert None not in held
        assert len(held) == len(set(held))
        assert not set(held) & set(self.state.ended)

    @invariant()
    def slots_and_tasks_agree(self) -> None:
        for slot in self.state.slots:
            if slot.state is SlotState.IDLE:
                assert (slot.task_id, slot.step, slot.expires_at, slot.managed) == (None, None, None, False)
                continue
            assert (slot.expires_at is not None) == (slot.state is SlotState.RESERVED)
            if slot.managed:
                task = self.state.tasks[slot.task_id or ""]
                assert task.slot == slot.id
                assert (task.state is TaskState.RESERVED) == (slot.state is SlotState.RESERVED)
                assert task.step is slot.step
                assert task.task_id in self.state.works
        for task in self.state.tasks.values():
            held = self.state.held_by(task.task_id)
            assert (held is None) == (task.state is TaskState.ENDED)
            assert (task.outcome is not None) == (task.state is TaskState.ENDED)
            assert (task.task_id in self.state.works) == (task.state is not TaskState.ENDED)

    @invariant()
    def a_drain_that_was_granted_holds(self) -> None:
        if self.state.phase is Phase.DRAINED and not self.lost_once:
            assert all(slot.state is SlotState.IDLE for slot in self.state.slots)
            assert not self.state.ended

    @invariant()
    def the_journal_says_the_same(self) -> None:
        if self.journal:
            found = replay(self.journal, initial_state(LAYOUT, drain_id="x", lost=False, now=START))
            assert found.state == self.state
            assert found.torn_bytes == 0
            assert self.journal.startswith(MAGIC)


TestAgentMachine = AgentMachine.TestCase
TestAgentMachine.settings = settings(
    max_examples=150, stateful_step_count=80, deadline=None, suppress_health_check=list(HealthCheck)
)
