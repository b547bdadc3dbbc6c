"""What a registration proves, case by case; the random histories are in properties/."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from agent.errors import Refusal
from agent.rules import slots, tasks
from agent.rules.recovery import MAX_FENCE_JUMP, MAX_KEPT_TASKS, MAX_LOST_FENCE, Dropped, recover, vouch
from agent.rules.state import Event, SlotRecovered, State, apply, initial_state
from agent.wire import (
    Assignment,
    ExitReport,
    KeptTask,
    Outcome,
    RegisterRequest,
    SlotState,
    StartedReport,
    Step,
    Steps,
    StepSpec,
    TaskState,
    Work,
)

NOW = datetime(2026, 3, 1, tzinfo=UTC)
LAYOUT = (("plan_and_apply",), ("plan_and_apply",))
STEP = StepSpec(command=("x",))
BOTH = Work(name="n/t", attempt=1, steps=Steps(plan=STEP, apply=STEP), reservation_ttl_seconds=60)
DIGEST = "sha256:d"


def do(state: State, module: Any, command: Any) -> State:
    for record in module.decide(state, command, NOW).records:
        state = apply(state, record)
    return state


def acquired() -> State:
    state = initial_state(LAYOUT, drain_id="born", lost=False, now=NOW)
    state = do(state, slots, slots.Open(drain_id="born"))
    return do(state, slots, slots.Acquire(task_id="t", task_type="plan_and_apply", work=BOTH))


def assignment(state: State) -> Assignment:
    found = tasks.assignment_of(state, state.tasks["t"])
    assert found is not None
    return found


def started(state: State, instance: str = "1") -> State:
    report = StartedReport(
        instance=instance,
        task_id="t",
        step=state.tasks["t"].step,
        fence=assignment(state).fence,
        start_time=NOW,
    )
    return do(state, tasks, tasks.Started(slot=0, report=report))


def exit_of(state: State, outcome: Outcome = Outcome.SUCCEEDED) -> ExitReport:
    return exit_for(assignment(state), outcome)


def exit_for(given: Assignment, outcome: Outcome = Outcome.SUCCEEDED) -> ExitReport:
    return ExitReport(
        instance="1",
        task_id="t",
        step=given.step,
        fence=given.fence,
        outcome=outcome,
        end_time=NOW,
        plan_digest=DIGEST if given.step is Step.PLAN and outcome is Outcome.SUCCEEDED else None,
    )


def reserved() -> State:
    state = started(acquired())
    return do(state, tasks, tasks.Exited(slot=0, report=exit_of(state)))


def approved() -> State:
    return do(reserved(), tasks, tasks.Approve(task_id="t", plan_digest=DIGEST, attempt=1))


def registered(
    state: State,
    *kept: KeptTask,
    instance: str = "2",
    repeated: bool = False,
    unread: tuple[str, ...] = (),
    damaged: tuple[str, ...] = (),
) -> tuple[State, tuple[str, ...]]:
    request = RegisterRequest(instance=instance, tasks=kept, unread=unread, damaged=damaged)
    found = recover(state, 0, request, NOW, repeated=repeated)
    for record in found.records:
        state = apply(state, record)
    return state, found.forget


def test_a_kept_step_is_left_to_its_worker() -> None:
    for state in (acquired(), started(acquired()), reserved(), approved()):
        kept = KeptTask(assignment=assignment(state), started=True)
        assert registered(state, kept) == (state, ())


def test_a_running_step_without_its_directory_is_lost_if_the_instance_is_another() -> None:
    state = started(acquired(), instance="1")
    assert registered(state, instance="1")[0] == state
    assert registered(state, instance="2", repeated=True)[0] == state
    lost, _ = registered(state, instance="2")
    assert (lost.tasks["t"].outcome, lost.slots[0].state) == (Outcome.LOST, SlotState.IDLE)
    assert lost.tasks["t"].plan is not None
    assert lost.tasks["t"].plan.outcome is Outcome.LOST
    assert lost.tasks["t"].reason


def test_a_waiting_plan_is_offered_again_to_whoever_comes() -> None:
    assert registered(acquired(), instance="2")[0] == acquired()


def test_a_plans_directory_that_is_gone_loses_the_reservation_and_the_approved_apply() -> None:
    """R5: with the directory goes the plan that was approved; another one must not be applied in its place."""
    for state in (reserved(), approved()):
        lost, _ = registered(state, instance="2")
        assert lost.tasks["t"].outcome is Outcome.LOST
        assert lost.slots[0].state is SlotState.IDLE


def test_an_exit_that_was_never_reported_is_taken() -> None:
    """T21."""
    state = started(acquired())
    kept = KeptTask(assignment=assignment(state), started=True, exit=exit_of(state))
    after, _ = registered(state, kept)
    assert after.slots[0].state is SlotState.RESERVED
    assert registered(after, kept, instance="3")[0] == after, "and again, without effect"


def test_what_the_agent_knows_nothing_of_is_forgotten() -> None:
    state = acquired()
    kept = KeptTask(assignment=assignment(state), started=True)
    done = do(started(state), tasks, tasks.Exited(slot=0, report=exit_of(state, Outcome.FAILED)))
    acked = do(done, tasks, tasks.Ack(task_id="t"))
    assert registered(acked, kept) == (acked, ("t",))
    assert registered(done, kept) == (done, ()), "until its ack the directory stays"


def lost_state() -> State:
    return initial_state(LAYOUT, drain_id="born-2", lost=True, now=NOW)


def test_after_a_loss_running_steps_reservations_and_ends_are_adopted() -> None:
    """T3: what the worker holds is the truth then."""
    given = assignment(acquired())
    running, _ = registered(lost_state(), KeptTask(assignment=given, started=True))
    assert (running.slots[0].state, running.tasks["t"].state) == (SlotState.RUNNING, TaskState.RUNNING)
    waiting, _ = registered(lost_state(), KeptTask(assignment=given, started=False))
    assert waiting.tasks["t"].state is TaskState.WAITING
    held, _ = registered(lost_state(), KeptTask(assignment=given, started=True, exit=exit_for(given)))
    assert held.slots[0].state is SlotState.RESERVED
    assert held.slots[0].expires_at == NOW + timedelta(seconds=60)
    assert held.tasks["t"].plan_digest == DIGEST
    failed = KeptTask(assignment=given, started=True, exit=exit_for(given, Outcome.FAILED))
    ended, _ = registered(lost_state(), failed)
    assert (ended.slots[0].state, ended.ended) == (SlotState.IDLE, ("t",))
    for state in (running, waiting, held, ended):
        assert state.recovering == (1,)
        assert all(slot.fence == 0 or slot.fence > given.fence for slot in state.slots)


def test_an_adopted_apply_still_knows_what_was_approved() -> None:
    """T10."""
    given = assignment(approved())
    state, _ = registered(lost_state(), KeptTask(assignment=given, started=False))
    again = assignment(state)
    assert (again.step, again.plan_digest, again.fence) == (Step.APPLY, DIGEST, given.fence)


def test_a_fence_from_the_future_is_proof_that_the_journal_forgot() -> None:
    """Not flagged as lost, and yet: this agent never gave out such a fence. Then its worker must know better."""
    given = assignment(acquired())
    state = do(initial_state(LAYOUT, drain_id="b", lost=False, now=NOW), slots, slots.Open(drain_id="b"))
    adopted, forget = registered(state, KeptTask(assignment=given, started=True))
    assert forget == ()
    assert adopted.slots[0].task_id == "t"


def test_all_recovered_means_all_slots() -> None:
    state, _ = registered(lost_state())
    assert state.recovering == (1,)
    found = recover(state, 1, RegisterRequest(instance="x"), NOW, repeated=False)
    for record in found.records:
        state = apply(state, record)
    assert state.recovering == ()


def test_a_directory_that_cannot_be_read_is_not_one_that_is_gone() -> None:
    for state in (acquired(), started(acquired()), reserved(), approved(), started(approved())):
        assert registered(state, unread=("t",)) == (state, ())


def test_a_damaged_record_ends_a_step_that_ran_and_no_reservation() -> None:
    for state in (acquired(), reserved(), approved()):
        assert registered(state, damaged=("t",)) == (state, ())
    for state in (started(acquired()), started(approved())):
        after, _ = registered(state, damaged=("t",))
        assert (after.tasks["t"].outcome, after.slots[0].state) == (Outcome.LOST, SlotState.IDLE)
        assert "damaged" in (after.tasks["t"].reason or "")


def test_after_a_lost_journal_a_slot_with_an_unreadable_directory_is_still_to_be_known() -> None:
    lost = initial_state(LAYOUT, drain_id="again", lost=True, now=NOW)
    assert registered(lost, unread=("t",))[0].recovering == (0, 1)
    assert registered(lost, damaged=("t",))[0].recovering == (1,)


def test_the_nonce_of_an_adopted_step_is_the_one_its_worker_brought_and_its_apply_has_another() -> None:
    lost = initial_state(LAYOUT, drain_id="again", lost=True, now=NOW)
    kept = KeptTask(
        assignment=replace(assignment(started(acquired())), nonce="n"), started=True, exit=exit_of(started(acquired()))
    )
    state, _ = registered(lost, kept)
    assert state.tasks["t"].nonce == "n"
    state = do(state, tasks, tasks.Approve(task_id="t", plan_digest=DIGEST, attempt=1))
    assert assignment(state).nonce is None


def test_a_plan_without_changes_ends_its_task_and_asks_nobody() -> None:
    running = started(acquired())
    report = replace(exit_of(running), changed=False, plan_digest=None)
    ended = do(running, tasks, tasks.Exited(slot=0, report=report))
    task = ended.tasks["t"]
    assert (task.state, task.outcome, task.reason) == (TaskState.ENDED, Outcome.SUCCEEDED, "NoChanges")
    assert (ended.slots[0].state, task.plan and task.plan.changed) == (SlotState.IDLE, False)
    adopted, _ = registered(
        initial_state(LAYOUT, drain_id="again", lost=True, now=NOW),
        KeptTask(assignment=assignment(running), started=True, exit=report),
    )
    assert (adopted.tasks["t"].outcome, adopted.tasks["t"].reason) == (Outcome.SUCCEEDED, "NoChanges")
    assert adopted.slots[0].state is SlotState.IDLE


def test_a_plan_with_changes_awaits_its_approval() -> None:
    running = started(acquired())
    after = do(running, tasks, tasks.Exited(slot=0, report=replace(exit_of(running), changed=True, exit_code=2)))
    task = after.tasks["t"]
    assert (task.state, task.plan and task.plan.changed) == (TaskState.RESERVED, True)


def far(fence: int, task_id: str = "far") -> KeptTask:
    given = Assignment(task_id=task_id, task_type="plan_and_apply", step=Step.PLAN, fence=fence, work=BOTH)
    return KeptTask(assignment=given, started=True)


def ignored(state: State, *kept: KeptTask) -> tuple[State, list[str]]:
    """The state after a registration, and what of it was not looked at."""
    request = RegisterRequest(instance="2", tasks=kept)
    recovered = recover(state, 0, request, NOW, repeated=False)
    for record in recovered.records:
        state = apply(state, record)
    return state, [each.task_id for each in recovered.dropped]


def test_a_fence_that_nobody_can_have_given_moves_nothing_and_keeps_nothing_else_out() -> None:
    """Otherwise one worker could use up the fences of all slots, or one bad record lock it out."""
    state = acquired()
    running = started(state)
    true = KeptTask(assignment=assignment(running), started=True, exit=exit_of(running))
    after, dropped = ignored(running, far(state.fence + MAX_FENCE_JUMP + 1), true)
    assert dropped == ["far"]
    assert (after.fence, "far" in after.tasks) == (running.fence + 1, False)
    assert after.tasks["t"].state is TaskState.RESERVED, "the rest is taken"
    lost = initial_state(LAYOUT, drain_id="born", lost=True, now=NOW)
    assert registered(lost, far(lost.fence * 2))[0].slots[0].task_id == "far", "the clock was wrong at the loss before"
    after, dropped = ignored(lost, far(MAX_LOST_FENCE + 1))
    assert (dropped, after.fence, after.recovering) == (["far"], lost.fence, (1,))
    hold = slots.Hold(call=Event.RESERVE, slot=0, task_id="t", fence=MAX_LOST_FENCE + 1)
    with pytest.raises(Refusal):
        vouch(lost, hold, NOW)


def test_a_task_that_is_named_amiss_is_not_taken_for_one_that_is_gone() -> None:
    """A new instance that does not have a task's directory is proof of its loss; a bad record of it proves nothing."""
    running = started(acquired())
    fence = running.fence + MAX_FENCE_JUMP + 1
    assert ignored(running)[0].tasks["t"].outcome is Outcome.LOST
    assert ignored(running, far(fence, "t")) == (running, ["t"])
    unread = (Dropped("t", "is no record", may_run=True),)
    empty = RegisterRequest(instance="2")
    assert recover(running, 0, empty, NOW, repeated=False, unusable=unread).records == ()
    lost = initial_state(LAYOUT, drain_id="born", lost=True, now=NOW)
    assert recover(lost, 0, empty, NOW, repeated=False, unusable=unread).records == (), "it may run: nothing is idle"
    over_there = (Dropped("t", "is no record"),)
    assert recover(lost, 0, empty, NOW, repeated=False, unusable=over_there).records == (SlotRecovered(slot=0),)


def test_a_slot_has_a_bounded_number_of_tasks_however_often_its_worker_registers() -> None:
    lost = initial_state(LAYOUT, drain_id="born", lost=True, now=NOW)
    kept = [over(far(1 + number, f"t{number}")) for number in range(MAX_KEPT_TASKS + 1)]
    full, dropped = ignored(lost, *kept)
    assert (len(full.tasks), dropped) == (MAX_KEPT_TASKS, ["t0"]), "the newest are taken"
    fence = full.fence + 1
    more = [over(far(fence + number, f"u{number}")) for number in range(3)]
    again, dropped = ignored(full, *more)
    assert (len(again.tasks), sorted(dropped)) == (MAX_KEPT_TASKS, ["u0", "u1", "u2"])


def test_of_too_many_tasks_those_that_are_known_and_those_that_may_run_are_taken() -> None:
    """A task that stole its slot's credential makes up newer ones: what runs is not hidden behind them."""
    running = started(acquired())
    true = KeptTask(assignment=assignment(running), started=True, exit=exit_of(running))
    made_up = [over(far(running.fence + 1 + number, f"x{number}")) for number in range(2 * MAX_KEPT_TASKS)]
    after, dropped = ignored(running, *made_up, true)
    assert after.tasks["t"].state is TaskState.RESERVED
    assert len(dropped) == MAX_KEPT_TASKS + 1
    lost = initial_state(LAYOUT, drain_id="born", lost=True, now=NOW)
    after, _ = ignored(lost, *(over(far(2 + number, f"x{number}")) for number in range(MAX_KEPT_TASKS)), far(500, "r"))
    assert after.slots[0].task_id == "r"


def over(kept: KeptTask) -> KeptTask:
    given = kept.assignment
    report = ExitReport(
        instance="1", task_id=given.task_id, step=given.step, fence=given.fence, outcome=Outcome.FAILED, end_time=NOW
    )
    return KeptTask(assignment=given, started=True, exit=report)


def test_an_apply_that_was_stopped_and_ended_with_0_says_both() -> None:
    state = started(approved())
    given = assignment(state)
    report = ExitReport(
        instance="1",
        task_id="t",
        step=Step.APPLY,
        fence=given.fence,
        outcome=Outcome.CANCELLED,
        reason="cancelled",
        exit_code=0,
        end_time=NOW,
    )
    ended = do(state, tasks, tasks.Exited(slot=0, report=report)).tasks["t"]
    assert (ended.outcome, ended.reason) == (Outcome.CANCELLED, "cancelled (exit code 0)")
    assert ended.apply is not None
    assert ended.apply.exit_code == 0
