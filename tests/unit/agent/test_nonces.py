"""A report is of the step that was assigned, or it is not believed."""

from dataclasses import replace

import pytest

from agent.errors import Refusal
from agent.nonces import Nonces
from agent.rules.state import TaskEntry
from agent.wire import Assignment, ExitReport, KeptTask, Outcome, Step, Steps, StepSpec, TaskState, Work
from tests.support.worker_world import EPOCH

TASK = TaskEntry(
    task_id="t.1",
    task_type="apply",
    name="n/t",
    attempt=1,
    slot=0,
    state=TaskState.WAITING,
    step=Step.APPLY,
    plan_fence=3,
    apply_fence=5,
)
NONCES = Nonces("secret")


def _report(nonce: str | None) -> ExitReport:
    return ExitReport(
        instance="1-w",
        task_id="t.1",
        step=Step.APPLY,
        fence=5,
        outcome=Outcome.SUCCEEDED,
        end_time=EPOCH,
        nonce=nonce,
    )


def test_each_step_and_each_agent_has_other_nonces_and_a_restart_has_the_same() -> None:
    given = NONCES.of(TASK, Step.APPLY)
    assert given == Nonces("secret").of(TASK, Step.APPLY)
    others = {
        NONCES.of(TASK, Step.PLAN),
        NONCES.of(replace(TASK, apply_fence=6), Step.APPLY),
        NONCES.of(replace(TASK, task_id="t.2"), Step.APPLY),
        Nonces("other").of(TASK, Step.APPLY),
    }
    assert len(others | {given}) == 5


def test_a_nonce_that_a_worker_brought_back_goes_on_for_that_step_alone() -> None:
    adopted = replace(TASK, nonce="brought")
    assert NONCES.of(adopted, Step.APPLY) == "brought"
    assert NONCES.of(adopted, Step.PLAN) == NONCES.of(TASK, Step.PLAN)


@pytest.mark.parametrize("nonce", [None, "", "guessed", NONCES.of(TASK, Step.PLAN)])
def test_an_end_without_the_nonce_is_refused_and_a_kept_one_is_not_believed(nonce: str | None) -> None:
    with pytest.raises(Refusal):
        NONCES.check(TASK, _report(nonce))
    work = Work(name="n/t", attempt=1, steps=Steps(apply=StepSpec(command=("x",))))
    given = Assignment(task_id="t.1", task_type="apply", step=Step.APPLY, fence=5, work=work, nonce=nonce)
    believed = NONCES.believed(TASK, KeptTask(assignment=given, started=True, exit=_report(nonce)))
    assert (believed.started, believed.exit) == (False, None)


def test_an_end_with_the_nonce_is_taken() -> None:
    NONCES.check(TASK, _report(NONCES.of(TASK, Step.APPLY)))
