"""A plan that failed as its task foresees, or because its Pod ended, is tried again; an apply never."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from agent.wire import Outcome, Step, StepResult, TaskState
from agent.wire import Task as KnownTask
from controller.decide.scaling.basis import Basis
from controller.decide.scaling.capacity import waiting
from controller.decide.tasks.task_actions import pause_left_seconds
from controller.decide.tasks.trying_again import after_end, pause_seconds
from controller.objects.task import Task, TaskPhase
from tests.support.pools import NOW, pod, pool, task


def planned(attempt: int = 1, kind: str = "plan", **spec: object) -> Task:
    given: dict[str, Any] = {"plan_exit_codes": (7, 137), "plan_max_attempts": 3, **spec}
    made = task("t", kind, phase=TaskPhase.RUNNING, on="p", attempt=attempt, **given)
    return replace(made, status=replace(made.status, step=Step.APPLY if kind == "apply" else Step.PLAN))


def ended(code: int | None, reason: str | None = None, outcome: Outcome = Outcome.FAILED) -> KnownTask:
    return KnownTask(
        task_id="t.1",
        task_type="plan",
        name="ns/t",
        attempt=1,
        slot=0,
        state=TaskState.ENDED,
        step=Step.PLAN,
        plan=StepResult(outcome=outcome, exit_code=code, reason=reason),
        outcome=outcome,
        reason=reason,
    )


@pytest.mark.parametrize(
    ("known", "reason", "pauses"),
    [
        (ended(7, "exit code 7"), "PlanFailed", True),
        (ended(7, "terraform init ended with 7"), "PlanFailed", True),
        (ended(137, "ended by signal 9; memory ran out"), "PlanFailed", True),
        (ended(8, "exit code 8"), None, False),
        (ended(None, "the command can't be started"), None, False),
        (ended(7, "time limit of 60 s exceeded"), None, False),
        (ended(7, "cancelled", Outcome.CANCELLED), None, False),
        (ended(7, None, Outcome.EXPIRED), None, False),
        (ended(1, "Pod stopped"), "PodStopped", False),
        (ended(0, "Pod stopped (exit code 0)"), "PodStopped", False),
        (ended(None, "the worker ended", Outcome.LOST), "WorkerLost", False),
        (ended(0, None, Outcome.SUCCEEDED), None, False),
    ],
)
def test_what_an_end_of_a_plan_leads_to(known: KnownTask, reason: str | None, pauses: bool) -> None:
    again = after_end(planned(), known, NOW)
    assert (again.reason if again else None) == reason
    assert (again is not None and again.not_before is not None) == pauses


@pytest.mark.parametrize("known", [ended(7, "exit code 7"), ended(1, "Pod stopped"), ended(None, None, Outcome.LOST)])
def test_an_apply_is_never_tried_again_and_a_plan_only_while_attempts_are_left(known: KnownTask) -> None:
    apply = replace(known, step=Step.APPLY, apply=known.plan)
    assert after_end(planned(kind="plan_and_apply"), apply, NOW) is None
    assert after_end(planned(kind="apply"), replace(apply, plan=None), NOW) is None
    assert after_end(planned(attempt=2), known, NOW) is not None
    assert after_end(planned(attempt=3), known, NOW) is None
    assert after_end(planned(cancel=True), known, NOW) is None


def test_pauses_double_up_to_five_minutes() -> None:
    assert [pause_seconds(attempt) for attempt in (1, 2, 3, 5, 6, 10)] == [10, 20, 40, 160, 300, 300]
    again = after_end(planned(attempt=2), ended(7, "exit code 7"), NOW)
    assert again is not None
    assert again.not_before == NOW + timedelta(seconds=20)


def test_a_task_waits_for_no_slot_until_its_pause_is_over() -> None:
    made = task("t")
    kept_back = replace(made, status=replace(made.status, not_before=NOW + timedelta(seconds=5)))
    for seconds, expected in ((0, []), (4.9, []), (5, ["t"])):
        view = pool([pod("p")], [kept_back], now=NOW + timedelta(seconds=seconds))
        assert [item.name for item in waiting(view)] == expected
        assert Basis.of(view).queue.total() == len(expected)
    assert (pause_left_seconds(kept_back, NOW), pause_left_seconds(made, NOW)) == (5.0, 0.0)
