"""What comes next for one task: rules that hold over every combination of what is known, then single cases by name."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from types import NoneType
from typing import Any

import pytest

from agent.wire import Slot, SlotState, Step
from controller.decide.tasks.task_actions import (
    CANCELLING,
    Ack,
    Acquire,
    AddFinalizer,
    Approve,
    Assign,
    Cancel,
    DeleteTask,
    Finish,
    Follow,
    GiveUpLock,
    RejectApproval,
    ReleaseLock,
    RemoveFinalizer,
    Retry,
    TaskAction,
    Whereabouts,
    apply_may_have_started,
    cancel_message,
    cancelling,
    next_action,
)
from controller.decide.view import PodView
from controller.names import TASK_FINALIZER
from controller.objects.conditions import Condition
from controller.objects.task import FINAL_PHASES, Task, TaskPhase
from controller.objects.task_spec import Approval, ApprovalPolicy, OnLostReservation
from tests.support.pools import NOW, pod, task

DIGEST = "sha256:aa"
RIGHT = Approval(attempt=1, plan_digest=DIGEST, by="anna")
WRONG = (
    Approval(attempt=1, plan_digest="sha256:bb", by="anna"),
    Approval(attempt=2, plan_digest=DIGEST, by="anna"),
)
APPLYING = (TaskPhase.RUNNING, Step.APPLY)


@dataclass(frozen=True)
class Case:
    """One combination."""

    task: Task
    where: Whereabouts
    lock_held: bool

    @property
    def action(self) -> TaskAction | None:
        return next_action(self.task, self.where, lock_held=self.lock_held, now=NOW)

    @property
    def slot(self) -> Slot | None:
        """The slot in which a fresh report shows the task."""
        if not self.where.answers or self.where.pod is None:
            return None
        return next((slot for slot in self.where.pod.held if slot.task_id == self.task.task_id), None)


# Kinds with the phases and steps that a status can have.
PLACED = {
    "plan": [
        (TaskPhase.ASSIGNED, None),
        (TaskPhase.RUNNING, Step.PLAN),
    ],
    "apply": [(TaskPhase.ASSIGNED, None), APPLYING],
    "plan_and_apply": [
        (TaskPhase.ASSIGNED, None),
        (TaskPhase.RUNNING, Step.PLAN),
        (TaskPhase.AWAITING_APPROVAL, Step.PLAN),
        APPLYING,
    ],
}


def a_task(
    kind: str = "plan_and_apply",
    phase: TaskPhase = TaskPhase.AWAITING_APPROVAL,
    step: Step | None = Step.PLAN,
    *,
    finalizer: bool = True,
    **given: Any,
) -> Task:
    """A task on Pod `p`, or queued."""
    on = None if phase is TaskPhase.QUEUED else "p"
    made = task("t", kind, phase=phase, on=on, **{"attempt": 1, **given})
    digest = DIGEST if phase is TaskPhase.AWAITING_APPROVAL or (step is Step.APPLY and kind != "apply") else None
    status = replace(made.status, step=step, plan_digest=digest)
    return replace(made, status=status, finalizers=(TASK_FINALIZER,) if finalizer else ())


def report(slot: tuple[SlotState, Step] | str | None, *, attempt: int = 1, incarnation: str = "i") -> PodView:
    """Pod `p` with an agent that reports the task in slot 0, `ended`, or not at all."""
    if slot is None or slot == "ended":
        view = pod("p", ended=(f"t.{attempt}",) if slot else ())
    else:
        letter = "r" if slot[0] is SlotState.RUNNING else "R"
        view = pod("p", f"{letter}..", tasks=(f"t.{attempt}",))
    assert view.agent is not None
    slots = view.agent.slots
    if isinstance(slot, tuple):
        slots = (replace(slots[0], step=slot[1]), *slots[1:])
    return replace(view, agent=replace(view.agent, slots=slots, incarnation=incarnation))


def told(a: Task, view: PodView) -> Task:
    """The task with the condition that this agent was told to cancel it."""
    said = Condition(type=CANCELLING, status="True", reason="Cancelled", message=cancel_message(a, view))
    return replace(a, status=replace(a.status, conditions=(said,)))


REPORTS = (
    None,
    "ended",
    (SlotState.RUNNING, Step.PLAN),
    (SlotState.RUNNING, Step.APPLY),
    (SlotState.RESERVED, Step.PLAN),
)


def places() -> Iterator[Whereabouts]:
    for slot in REPORTS:
        yield Whereabouts(pod=report(slot))
        yield Whereabouts(pod=replace(report(slot), connected=False))
    yield Whereabouts(pod=replace(report(None), connected=False, agent=None))
    yield Whereabouts(pod=replace(report(None), connected=False, dead=True))
    yield Whereabouts(pod=replace(report((SlotState.RUNNING, Step.PLAN)), dead=True))
    yield Whereabouts(pod=None)
    yield Whereabouts(pod=None, synced=False)
    yield Whereabouts(pod=None, buried=True)


def placed_tasks() -> Iterator[Task]:
    for kind, states in PLACED.items():
        for (phase, step), cancel, deleting, approval, policy, on_lost, attempt in itertools.product(
            states,
            (False, True),
            (False, True),
            (None, RIGHT, *WRONG),
            ApprovalPolicy,
            OnLostReservation,
            (1, 2),
        ):
            yield a_task(
                kind,
                phase,
                step,
                cancel=cancel,
                deleting=deleting,
                approval=replace(approval, attempt=approval.attempt + attempt - 1) if approval else None,
                approval_policy=policy,
                on_lost_reservation=on_lost,
                attempt=attempt,
            )


def cases() -> Iterator[Case]:
    everywhere = tuple(places())
    for a in placed_tasks():
        for where in everywhere:
            if a.status.attempt == 2 and where.pod is not None and where.pod.agent is not None:
                where = replace(where, pod=_second(where.pod))  # noqa: PLW2901 - the same place, at the second attempt
            yield Case(a, where, lock_held=False)
            if where.answers and where.pod is not None:
                yield Case(told(a, where.pod), where, lock_held=False)


def _second(view: PodView) -> PodView:
    assert view.agent is not None
    slots = tuple(replace(slot, task_id="t.2") if slot.task_id == "t.1" else slot for slot in view.agent.slots)
    ended = ("t.2",) if view.agent.ended else ()
    return replace(view, agent=replace(view.agent, slots=slots, ended=ended))


@pytest.fixture(scope="module")
def every_case() -> list[tuple[Case, TaskAction | None]]:
    return [(case, case.action) for case in cases()]


def test_silence_concludes_nothing(every_case: list[tuple[Case, TaskAction | None]]) -> None:
    """T25: an agent that does not answer leaves its tasks as they are, unless its Pod is dead or gone."""
    for case, action in every_case:
        pod_view = case.where.pod
        if not case.where.answers and not case.where.dead and (pod_view is not None or not case.where.synced):
            assert action is None, case


def test_an_apply_is_let_go_only_by_an_approval_of_this_very_plan(
    every_case: list[tuple[Case, TaskAction | None]],
) -> None:
    """T10: with status, report and approval in any combination."""
    for case, action in every_case:
        if not isinstance(action, Approve):
            continue
        assert case.slot is not None, case
        assert case.slot.state is SlotState.RESERVED, case
        status, spec = case.task.status, case.task.spec
        if (status.phase, status.step) == APPLYING:
            continue  # it was approved, and the agent may not have heard of it
        assert status.phase is TaskPhase.AWAITING_APPROVAL, case
        if spec.approval_policy is ApprovalPolicy.MANUAL:
            assert spec.approval is not None, case
            assert (spec.approval.attempt, spec.approval.plan_digest) == (status.attempt, status.plan_digest), case


def test_an_approved_apply_is_let_go(every_case: list[tuple[Case, TaskAction | None]]) -> None:
    """T2, T11: whatever else is known, a reserved slot and its approval lead to the apply in that very slot."""
    seen = 0
    for case, action in every_case:
        slot, a = case.slot, case.task
        if slot is None or slot.state is not SlotState.RESERVED or case.where.dead:
            continue
        if a.spec.cancel or a.deleting or (case.where.pod and cancelling(a, case.where.pod)):
            continue
        approved = a.approved or a.spec.approval_policy is ApprovalPolicy.AUTO
        waits = a.status.phase is TaskPhase.AWAITING_APPROVAL
        if (waits and approved) or (a.status.phase, a.status.step) == APPLYING:
            assert isinstance(action, Approve), case
            seen += 1
    assert seen


def test_only_what_certainly_ended_is_tried_again(every_case: list[tuple[Case, TaskAction | None]]) -> None:
    """A second attempt needs proof that the first one's processes are over, and never follows an apply."""
    for case, action in every_case:
        if isinstance(action, Retry):
            assert case.where.dead, case
            assert not apply_may_have_started(case.task), case
            assert case.task.status.attempt < case.task.spec.plan_max_attempts, case
            assert not case.task.unwanted, case


def test_a_pod_that_is_missing_is_looked_for_before_anything_is_concluded(
    every_case: list[tuple[Case, TaskAction | None]],
) -> None:
    """T22, T3: a cache that lacks a Pod may just be late."""
    for case, action in every_case:
        if isinstance(action, Finish) and not case.where.dead:
            assert action.if_pod_gone, case
            assert action.phase is TaskPhase.LOST, case


def test_a_cancelled_task_is_cancelled_where_it_runs(every_case: list[tuple[Case, TaskAction | None]]) -> None:
    """T24: the agent is told; once, and again when it came back. A delete waits for a running apply."""
    for case, action in every_case:
        slot, a, view = case.slot, case.task, case.where.pod
        if slot is None or view is None or case.where.dead or not (a.spec.cancel or a.deleting):
            continue
        waits_for_apply = not a.spec.cancel and (slot.step is Step.APPLY or (a.status.phase, a.status.step) == APPLYING)
        if waits_for_apply:
            assert not isinstance(action, Cancel), case
        elif cancelling(a, view):
            assert not isinstance(action, Cancel), case
            restarted = replace(view, agent=replace(view.agent, incarnation="j") if view.agent else None)
            again = next_action(a, Whereabouts(pod=restarted), lock_held=False, now=NOW)
            assert isinstance(again, Cancel), case
        else:
            assert isinstance(action, Cancel), case


def test_a_slot_is_asked_for_only_where_the_intent_says_so(every_case: list[tuple[Case, TaskAction | None]]) -> None:
    """T19, T20: one that an agent reports is never asked for again, elsewhere or there."""
    for case, action in every_case:
        if isinstance(action, Acquire):
            assert case.task.status.phase is TaskPhase.ASSIGNED, case
            assert case.where.answers, case
            assert case.slot is None, case
        assert not isinstance(action, Assign), case


def test_what_the_agent_knows_better_is_read_from_it(every_case: list[tuple[Case, TaskAction | None]]) -> None:
    """T21: a report that differs from the status is never left at that."""
    for case, action in every_case:
        a, view = case.task, case.where.pod
        if not case.where.answers or case.where.dead or view is None or view.agent is None:
            continue
        if a.task_id in view.agent.ended:
            assert isinstance(action, Follow), case
        slot = case.slot
        as_reported = slot is not None and {
            SlotState.RUNNING: a.status.phase is TaskPhase.RUNNING and a.status.step is slot.step,
            SlotState.RESERVED: a.status.phase is TaskPhase.AWAITING_APPROVAL,
            SlotState.IDLE: False,
        }.get(slot.state, False)
        if not as_reported:
            assert action is not None or (view is not None and cancelling(a, view)), case


@pytest.mark.parametrize("phase", sorted(FINAL_PHASES))
def test_a_final_phase_is_followed_by_nothing_but_tidying(phase: TaskPhase) -> None:
    """T23: over every place, report, wish and lock."""
    tidying = (NoneType, Ack, ReleaseLock, RemoveFinalizer, DeleteTask)
    for where, cancel, deleting, step, lock_held in itertools.product(
        places(), (False, True), (False, True), (Step.PLAN, Step.APPLY), (False, True)
    ):
        a = a_task("plan_and_apply", phase, step, cancel=cancel, deleting=deleting, approval=RIGHT)
        for finished in (None, NOW, NOW - timedelta(days=2)):
            ended = replace(a, status=replace(a.status, finished_at=finished))
            action = next_action(ended, where, lock_held=lock_held, now=NOW)
            assert isinstance(action, tidying), (ended, where)
            if isinstance(action, ReleaseLock):
                certain = where.dead or phase is not TaskPhase.LOST or step is not Step.APPLY
                assert certain, (ended, where)
            if where.answers and where.pod and where.pod.agent and where.pod.agent.ended:
                assert isinstance(action, Ack)


def test_a_queued_task_gets_its_finalizer_before_a_pod() -> None:
    assert isinstance(next_queued(finalizer=False), AddFinalizer)
    assert isinstance(next_queued(), Assign)


@pytest.mark.parametrize("wish", ["cancel", "deleting"])
def test_a_queued_task_that_nobody_wants_ends_without_a_pod(wish: str) -> None:
    for finalizer in (True, False):
        action = next_queued(finalizer=finalizer, **{wish: True})
        assert isinstance(action, Finish)
        assert action.phase is TaskPhase.CANCELLED


def next_queued(*, finalizer: bool = True, **given: Any) -> TaskAction | None:
    queued = a_task("plan", TaskPhase.QUEUED, None, finalizer=finalizer, **given)
    return next_action(queued, Whereabouts(pod=None), lock_held=False, now=NOW)


@pytest.mark.parametrize("approval", WRONG)
def test_an_approval_of_another_plan_or_attempt_is_refused_once(approval: Approval) -> None:
    """T10: and said, with what waits and what was approved."""
    waiting, where = a_task(approval=approval), Whereabouts(pod=report((SlotState.RESERVED, Step.PLAN)))
    action = next_action(waiting, where, lock_held=False, now=NOW)
    assert isinstance(action, RejectApproval)
    assert DIGEST in action.message
    assert approval.plan_digest in action.message
    said = Condition(type="Approved", status="False", reason=action.reason, message=action.message)
    waiting = replace(waiting, status=replace(waiting.status, conditions=(said,)))
    assert next_action(waiting, where, lock_held=False, now=NOW) is None
    # The plan was made anew under the same approval: that is another refusal.
    other = replace(waiting, status=replace(waiting.status, plan_digest="sha256:cc"))
    assert isinstance(next_action(other, where, lock_held=False, now=NOW), RejectApproval)


def test_an_approval_before_the_plan_is_none() -> None:
    """T10: a reservation whose digest the status does not know is read first."""
    early = a_task("plan_and_apply", TaskPhase.RUNNING, Step.PLAN, approval=RIGHT)
    where = Whereabouts(pod=report((SlotState.RESERVED, Step.PLAN)))
    assert isinstance(next_action(early, where, lock_held=False, now=NOW), Follow)


@pytest.mark.parametrize(
    ("on_lost", "attempt", "expected"),
    [
        (OnLostReservation.FAIL, 1, TaskPhase.FAILED),
        (OnLostReservation.REPLAN, 1, None),
        (OnLostReservation.REPLAN, 2, TaskPhase.FAILED),
    ],
)
def test_a_reservation_lost_with_its_pod_fails_or_is_planned_anew(
    on_lost: OnLostReservation, attempt: int, expected: TaskPhase | None
) -> None:
    waiting = a_task(on_lost_reservation=on_lost, attempt=attempt)
    action = next_action(waiting, Whereabouts(pod=None, buried=True), lock_held=False, now=NOW)
    assert isinstance(action, Finish if expected else Retry)
    assert getattr(action, "phase", None) is expected


@pytest.mark.parametrize(
    ("kind", "phase", "step"),
    [
        ("plan_and_apply", TaskPhase.RUNNING, Step.APPLY),
        ("apply", TaskPhase.RUNNING, Step.APPLY),
        ("apply", TaskPhase.ASSIGNED, None),
    ],
)
@pytest.mark.parametrize("cancel", [False, True])
def test_an_apply_lost_with_its_pod_is_lost(kind: str, phase: TaskPhase, step: Step | None, cancel: bool) -> None:
    """Never tried again, never called cancelled: nobody knows how far it came. Its lockKey goes with the proof."""
    applying = a_task(kind, phase, step, cancel=cancel)
    for where in (Whereabouts(pod=None, buried=True), Whereabouts(pod=None)):
        action = next_action(applying, where, lock_held=True, now=NOW)
        assert isinstance(action, Finish)
        assert action.phase is TaskPhase.LOST
        lost = replace(applying, status=replace(applying.status, phase=TaskPhase.LOST, finished_at=NOW))
        after = next_action(lost, where, lock_held=True, now=NOW)
        assert after == (ReleaseLock() if where.dead else RemoveFinalizer())
        let_go = replace(lost, finalizers=())
        assert next_action(let_go, where, lock_held=True, now=NOW) == (ReleaseLock() if where.dead else None)


def test_a_running_apply_keeps_a_deleted_task() -> None:
    applying = a_task("apply", *APPLYING, deleting=True)
    where = Whereabouts(pod=report((SlotState.RUNNING, Step.APPLY)))
    assert next_action(applying, where, lock_held=True, now=NOW) is None


@pytest.mark.parametrize("phase", sorted(FINAL_PHASES))
def test_an_ended_task_is_let_go_once_no_agent_has_it(phase: TaskPhase) -> None:
    """So that whoever deletes it later needs no controller. An agent that has it, or is silent, keeps it."""
    ended = a_task("plan", phase, Step.PLAN)
    other = report((SlotState.RUNNING, Step.PLAN))
    has_it = replace(other, agent=replace(other.agent, ended=(ended.task_id,), slots=())) if other.agent else other
    forgot = replace(other, agent=replace(other.agent, ended=(), slots=())) if other.agent else other
    silent = replace(forgot, connected=False, agent=None)
    for where, expected in (
        (Whereabouts(pod=other), None),  # an old report: it still shows the task in its slot
        (Whereabouts(pod=has_it), Ack()),
        (Whereabouts(pod=silent), None),
        (Whereabouts(pod=None, synced=False), None),
        (Whereabouts(pod=forgot), RemoveFinalizer()),
        (Whereabouts(pod=None), RemoveFinalizer()),
        (Whereabouts(pod=None, buried=True), RemoveFinalizer()),
    ):
        assert next_action(ended, where, lock_held=False, now=NOW) == expected, where
        let_go = next_action(replace(ended, finalizers=()), where, lock_held=False, now=NOW)
        assert let_go == (Ack() if expected == Ack() else None)


def test_the_lock_goes_before_the_finalizer_unless_it_is_kept() -> None:
    done = a_task("apply", TaskPhase.SUCCEEDED, Step.APPLY)
    assert next_action(done, Whereabouts(pod=None), lock_held=True, now=NOW) == ReleaseLock()
    lost = a_task("apply", TaskPhase.LOST, Step.APPLY)
    assert next_action(lost, Whereabouts(pod=None), lock_held=True, now=NOW) == RemoveFinalizer()
    old = replace(lost, finalizers=(), status=replace(lost.status, finished_at=NOW - timedelta(days=9)))
    assert next_action(old, Whereabouts(pod=None), lock_held=True, now=NOW) is None


def test_a_finished_task_is_deleted_after_its_time_and_not_before() -> None:
    ended = a_task("plan", TaskPhase.SUCCEEDED, Step.PLAN, finalizer=False, ttl_seconds_after_finished=60)
    where = Whereabouts(pod=None)
    for seconds, expected in ((59, None), (60, DeleteTask())):
        done = replace(ended, status=replace(ended.status, finished_at=NOW - timedelta(seconds=seconds)))
        assert next_action(done, where, lock_held=False, now=NOW) == expected


def test_a_second_attempt_is_told_of_a_cancel_too() -> None:
    """T24: what the agent of the first one was told does not count for the second."""
    view = report((SlotState.RUNNING, Step.PLAN))
    first = told(a_task("plan", TaskPhase.RUNNING, Step.PLAN, cancel=True), view)
    second = replace(first, status=replace(first.status, attempt=2))
    again = report((SlotState.RUNNING, Step.PLAN), attempt=2)
    assert next_action(first, Whereabouts(pod=view), lock_held=False, now=NOW) is None
    assert isinstance(next_action(second, Whereabouts(pod=again), lock_held=False, now=NOW), Cancel)


def test_a_queued_task_that_can_not_run_gives_up_its_lock_and_no_other_does() -> None:
    waits = a_task(phase=TaskPhase.QUEUED, step=None)
    refused = replace(
        waits, status=replace(waits.status, conditions=(Condition(type="Accepted", status="False", reason="R"),))
    )
    nowhere = Whereabouts(pod=None)
    assert isinstance(next_action(refused, nowhere, lock_held=True, now=NOW), GiveUpLock)
    assert isinstance(next_action(refused, nowhere, lock_held=False, now=NOW), Assign)
    assert isinstance(next_action(waits, nowhere, lock_held=True, now=NOW), Assign)
    placed = replace(refused, status=replace(refused.status, phase=TaskPhase.ASSIGNED, pod="p", pod_uid="uid-p"))
    assert not isinstance(
        next_action(placed, Whereabouts(pod=report(None)), lock_held=True, now=NOW), GiveUpLock | ReleaseLock
    )
