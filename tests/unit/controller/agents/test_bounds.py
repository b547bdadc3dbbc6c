"""What is taken of what an agent says of a task can be written to the task's status."""

import copy
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
import yaml
from hypothesis import event, given
from hypothesis import strategies as st

from agent.wire import Outcome, Step, StepResult, Task, TaskState, WireError
from controller.agents.bounds import EXIT_CODES, MAX_REASON_LENGTH, MAX_TAIL_LENGTH, check_task
from controller.crds import folder
from controller.local.apiserver.schema.structural import CustomSchema
from controller.local.apiserver.schema.validation import validate
from controller.objects.task import TaskPhase, TaskStatus
from tests.support.dispatch_site import task_object
from tests.support.machine_agent import DIGEST

SCHEMA = CustomSchema.compile(yaml.safe_load((folder() / "slottasks.yaml").read_text())["spec"]["versions"][0])
EDGES = [0, 1, -1, 15, 16, 255, EXIT_CODES.start - 1, EXIT_CODES.start, EXIT_CODES.stop - 1, EXIT_CODES.stop, 2**63 - 1]
TEXTS = ["", "x", "\0\x1b[2J\n", "x" * MAX_TAIL_LENGTH, "x" * MAX_REASON_LENGTH, "x" * (MAX_REASON_LENGTH + 1)]

moments = st.datetimes(timezones=st.just(UTC))
texts = st.sampled_from(TEXTS)
results = st.builds(
    StepResult,
    start_time=st.none() | moments,
    end_time=st.none() | moments,
    outcome=st.none() | st.sampled_from(Outcome),
    exit_code=st.none() | st.sampled_from(EDGES),
    reason=st.none() | texts,
    log_bytes=st.sampled_from(EDGES),
    log_tail=texts,
)
tasks = st.builds(
    Task,
    task_id=st.sampled_from(["t.1", "t.2"]),
    task_type=texts,
    name=texts,
    attempt=st.integers(),
    slot=st.sampled_from(EDGES),
    state=st.sampled_from(TaskState),
    step=st.sampled_from(Step),
    plan=st.none() | results,
    apply=st.none() | results,
    outcome=st.none() | st.sampled_from(Outcome),
    reason=st.none() | texts,
    plan_digest=st.none() | st.sampled_from([DIGEST, DIGEST + "\n", DIGEST.upper(), "", "sha256:x"]),
    expires_at=st.none() | moments,
)


def refusal(task: Task) -> list[Any]:
    """Why the cluster would not store it."""
    status = TaskStatus(
        phase=TaskPhase.RUNNING,
        slot=task.slot,
        step=task.step,
        plan_digest=task.plan_digest,
        expires_at=task.expires_at,
        message=task.reason,
        plan=task.plan,
        apply=task.apply,
    )
    stored = {**task_object(status=status.to_json())}
    stored["metadata"]["resourceVersion"] = "1"
    return list(validate(SCHEMA, SCHEMA.default(stored), copy.deepcopy(SCHEMA.default(stored))))


@given(tasks)
def test_what_is_believed_of_a_task_can_be_stored(task: Task) -> None:
    try:
        check_task(task, "t.1")
    except WireError:
        event("refused")
        return
    event("believed")
    assert not refusal(task)
    assert task.plan_digest in {None, DIGEST}
    assert task.task_id == "t.1"


def known(**changes: Any) -> Task:
    moment = datetime(2026, 3, 1, tzinfo=UTC)
    result = {"start_time": moment, "end_time": moment, "outcome": Outcome.SUCCEEDED, "exit_code": 0}
    plan = StepResult(**{**result, **changes.pop("plan", {})})
    given = {"task_id": "t.1", "task_type": "plan", "name": "n", "attempt": 1, "slot": 0, "state": TaskState.ENDED}
    return Task(**{**given, "step": Step.PLAN, "plan": plan, **changes})


@pytest.mark.parametrize(
    "change",
    [
        lambda: known(task_id="t.2"),
        lambda: known(slot=16),
        lambda: known(slot=-1),
        lambda: known(plan_digest="sha256:x"),
        lambda: known(plan_digest=DIGEST + "\n"),
        lambda: known(reason="x" * (MAX_REASON_LENGTH + 1)),
        lambda: known(plan={"exit_code": 2**31}),
        lambda: known(plan={"log_bytes": -1}),
        lambda: known(plan={"log_tail": "x" * (MAX_TAIL_LENGTH + 1)}),
    ],
)
def test_what_no_agent_says_is_not_believed(change: Callable[[], Task]) -> None:
    check_task(known(plan_digest=DIGEST), "t.1")
    with pytest.raises(WireError):
        check_task(change(), "t.1")
