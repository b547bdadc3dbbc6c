"""Whether a task can ever run in its pool, and the words for people where it can't."""

from dataclasses import replace
from typing import Any

import pytest

from agent.wire import Steps, StepSpec
from controller.decide.scaling.basis import Basis
from controller.decide.tasks.assignment import assign
from controller.objects.acceptance import fits, refusal
from controller.objects.pool import PoolSpec
from controller.objects.task import Task
from controller.objects.task_spec import TaskSpec
from tests.support.pools import pod, pool, task


def with_grace(seconds: int | None) -> PoolSpec:
    spec: dict[str, Any] = {"containers": [{"name": "worker"}]}
    return PoolSpec(template={"spec": spec | ({} if seconds is None else {"terminationGracePeriodSeconds": seconds})})


def stopped_in(plan: int, apply: int) -> Task:
    steps = Steps(
        plan=StepSpec(command=("p",), cancel_grace_seconds=plan),
        apply=StepSpec(command=("a",), cancel_grace_seconds=apply),
    )
    return replace(task("t"), spec=TaskSpec(pool="pool", type="plan_and_apply", steps=steps))


def test_a_task_its_pool_can_never_run_says_why() -> None:
    spec = PoolSpec()
    assert refusal(task("t", "plan"), spec) is None
    assert (refusal(task("t", "render"), spec) or ("",))[0] == "UnknownTaskType"
    assert (refusal(task("t", "plan"), None) or ("",))[0] == "PoolNotFound"


def test_a_task_in_a_pool_whose_program_takes_the_slots_itself_says_so_and_is_no_demand() -> None:
    """It would wait for ever, and Pods would be made for it."""
    spec = PoolSpec(template={"spec": {"containers": [{"name": "terraform"}]}})
    reason, message = refusal(task("t", "plan"), spec) or ("", "")
    assert reason == "NoWorker"
    assert "has no container 'worker'" in message
    assert not fits(spec, task("t", "plan").spec)


@pytest.mark.parametrize(
    ("pods", "plan", "apply", "runs"),
    [(None, 570, 60, True), (None, 571, 60, False), (90, 60, 60, True), (89, 60, 60, False), (90, 0, 61, False)],
)
def test_each_step_and_what_comes_after_it_must_fit_into_the_pods_grace(
    pods: int | None, plan: int, apply: int, runs: bool
) -> None:
    spec, asked = with_grace(pods), stopped_in(plan, apply)
    assert fits(spec, asked.spec) == runs
    assert (refusal(asked, spec) is None) == runs


def test_the_words_have_both_numbers_and_where_they_stand() -> None:
    reason, message = refusal(stopped_in(60, 900), with_grace(120)) or ("", "")
    assert reason == "GraceTooLong"
    for part in ("apply step is 900", "needs 930 s", "SlotPool 'pool' get 120 s (terminationGracePeriodSeconds)"):
        assert part in message


def test_a_task_that_needs_more_grace_gets_no_slot_and_keeps_nobody_from_one() -> None:
    view = pool([pod("p")], [stopped_in(60, 900), task("small", "plan_and_apply")])
    assert [placement.task.name for placement in assign(Basis.of(view))] == ["small"]
