"""Tasks and pools are read from their objects without loss, and what does not fit is refused by its path."""

from dataclasses import fields, replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.wire import Command, EnvFrom, EnvVar, ExitCodes, File, KeyRef, Outcome, Step, StepResult, Steps, StepSpec
from controller.errors import InvalidObject
from controller.objects.conditions import Condition, find, put
from controller.objects.fields import Fields
from controller.objects.task import Task, TaskPhase, TaskStatus
from controller.objects.task_spec import Approval, HandedOver, TaskSpec
from tests.support.pools import LONG_AGO, NOW, task

DIGEST = "sha256:" + "1" * 64

OBJECT: dict[str, Any] = {
    "metadata": {
        "namespace": "ns",
        "name": "vpc",
        "uid": "u-1",
        "resourceVersion": "7",
        "generation": 3,
        "creationTimestamp": "2026-03-01T12:00:00Z",
        "deletionTimestamp": "2026-03-01T13:00:00Z",
        "finalizers": ["podslots.dev/task"],
    },
    "spec": {
        "pool": "terraform",
        "type": "plan_and_apply",
        "lockKey": "vpc-prod",
        "priority": 5,
        "files": {"main.tf": "x", "run.sh": {"text": "y", "mode": "0755"}, "key": {"base64": "AA==", "mode": 384}},
        "env": [
            {"name": "A", "value": "1"},
            {"name": "B", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
            {"name": "C", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "k", "optional": True}}},
        ],
        "envFrom": [{"prefix": "P_", "secretRef": {"name": "s"}}, {"configMapRef": {"name": "c", "optional": True}}],
        "steps": {
            "plan": {
                "before": [{"command": ["git", "clone"]}, {"command": ["init"], "workingDir": "src"}],
                "command": ["terraform", "plan"],
                "workingDir": "src/live",
                "planFile": "a/tfplan",
                "exitCodes": {"changed": [2], "unchanged": [0]},
                "timeoutSeconds": 60,
                "stopSignal": "SIGTERM",
                "cancelGraceSeconds": 5,
            },
            "apply": {"command": ["terraform", "apply"], "workingDir": "."},
        },
        "approvalPolicy": "Auto",
        "approval": {"attempt": 2, "planDigest": DIGEST, "by": "anna"},
        "onLostReservation": "Replan",
        "retry": {"planMaxAttempts": 4, "planExitCodes": [1]},
        "keepOutput": "Waiting",
        "maskSecrets": False,
        "outputs": {"path": "out.json", "secretName": "vpc-outputs"},
        "cancel": True,
        "ttlSecondsAfterFinished": 9,
    },
}


def test_a_task_is_read_field_by_field() -> None:
    """T33: each field of the spec has a value other than its default here, and arrives."""
    parsed = Task.parse(OBJECT)
    assert parsed.created == NOW
    assert (parsed.namespace, parsed.name, parsed.uid, parsed.resource_version) == ("ns", "vpc", "u-1", "7")
    assert parsed.deleting
    assert parsed.generation == 3
    assert parsed.finalizers == ("podslots.dev/task",)
    assert parsed.spec == TaskSpec(
        pool="terraform",
        type="plan_and_apply",
        lock_key="vpc-prod",
        priority=5,
        files={"main.tf": "x", "run.sh": File(text="y", mode=0o755), "key": File(base64="AA==", mode=0o600)},
        env=(
            EnvVar(name="A", value="1"),
            EnvVar(name="B", secret=KeyRef(name="s", key="k")),
            EnvVar(name="C", config_map=KeyRef(name="c", key="k", optional=True)),
        ),
        env_from=(EnvFrom(prefix="P_", secret="s"), EnvFrom(config_map="c", optional=True)),
        steps=Steps(
            plan=StepSpec(
                before=(
                    Command(command=("git", "clone")),
                    Command(command=("init",), working_dir="src"),
                ),
                command=("terraform", "plan"),
                working_dir="src/live",
                plan_file="a/tfplan",
                exit_codes=ExitCodes(changed=(2,), unchanged=(0,)),
                timeout_seconds=60,
                stop_signal="SIGTERM",
                cancel_grace_seconds=5,
            ),
            apply=StepSpec(command=("terraform", "apply"), working_dir="."),
        ),
        approval_policy=parsed.spec.approval_policy,
        approval=Approval(attempt=2, plan_digest=DIGEST, by="anna"),
        on_lost_reservation=parsed.spec.on_lost_reservation,
        plan_max_attempts=4,
        keep_output=parsed.spec.keep_output,
        mask_secrets=False,
        outputs=HandedOver(path="out.json", secret="vpc-outputs"),
        plan_exit_codes=(1,),
        cancel=True,
        ttl_seconds_after_finished=9,
    )
    assert parsed.spec.approval_policy == "Auto"
    assert parsed.spec.on_lost_reservation == "Replan"
    assert parsed.spec.keep_output == "Waiting"
    default = TaskSpec(pool="", type="", steps=Steps())
    assert all(getattr(parsed.spec, field.name) != getattr(default, field.name) for field in fields(TaskSpec))


def test_a_task_nobody_looked_at_is_queued_and_was_never_assigned() -> None:
    parsed = Task.parse(OBJECT)
    assert parsed.queued
    assert parsed.status == TaskStatus()
    assert parsed.status.attempt == 0


times = st.datetimes(timezones=st.just(UTC), min_value=datetime(2000, 1, 1), max_value=datetime(2100, 1, 1))  # noqa: DTZ001 - hypothesis adds the zone
texts = st.text(max_size=20)
results = st.builds(
    StepResult,
    start_time=st.none() | times,
    end_time=st.none() | times,
    outcome=st.none() | st.sampled_from(Outcome),
    exit_code=st.none() | st.integers(-64, 255),
    reason=st.none() | texts,
    log_bytes=st.integers(0, 2**40),
    log_tail=texts,
)
conditions = st.builds(
    Condition,
    type=st.text("AB", min_size=1, max_size=3),
    status=st.sampled_from(["True", "False", "Unknown"]),
    reason=texts,
    message=texts,
    since=st.none() | times,
    observed_generation=st.none() | st.integers(0, 99),
)
statuses = st.builds(
    TaskStatus,
    phase=st.sampled_from(TaskPhase),
    step=st.none() | st.sampled_from(Step),
    pod=st.none() | texts,
    pod_uid=st.none() | texts,
    slot=st.none() | st.integers(0, 15),
    attempt=st.integers(0, 9),
    plan_digest=st.none() | texts,
    expires_at=st.none() | times,
    reason=st.none() | texts,
    message=st.none() | texts,
    queued_reason=st.none() | texts,
    plan=st.none() | results,
    apply=st.none() | results,
    conditions=st.lists(conditions, max_size=2).map(tuple),
    observed_generation=st.none() | st.integers(0, 99),
    started_at=st.none() | times,
    finished_at=st.none() | times,
)


def test_a_steps_output_is_named_beside_its_result() -> None:
    status = TaskStatus(plan=StepResult(log_bytes=3), apply=StepResult(), plan_output="vpc-1-plan")
    assert status.to_json()["steps"]["plan"]["output"] == "vpc-1-plan"
    assert "output" not in status.to_json()["steps"]["apply"]
    assert TaskStatus.parse(Fields(status.to_json(), "status")) == status
    assert status.outputs == {Step.PLAN: "vpc-1-plan"}


@given(statuses)
def test_a_status_comes_back_as_it_was_written(status: TaskStatus) -> None:
    """T33, T32: nothing is lost between the two mappings, times included."""
    assert TaskStatus.parse(Fields(status.to_json(), "status")) == status


BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "no steps": ({"steps": None}, "spec.steps: is required"),
    "a step too many": ({"type": "plan"}, "spec.steps: a task of type 'plan' has plan, and nothing else"),
    "no command": ({"steps": {"plan": {}, "apply": {"command": ["x"]}}}, "spec.steps.plan.command"),
    "a number as text": ({"priority": "5"}, "spec.priority: must be an integer"),
    "true as a number": ({"priority": True}, "spec.priority: must be an integer"),
    "text as a flag": ({"cancel": "no"}, "spec.cancel: must be true or false"),
    "a list as an object": ({"files": []}, "spec.files: must be an object"),
    "a file that is no text": ({"files": {"a": 1}}, "spec.files[a]: must be a text, or an object"),
    "an unknown policy": ({"approvalPolicy": "Never"}, "spec.approvalPolicy: must be one of Manual, Auto"),
    "no attempt": ({"approval": {"planDigest": "d"}}, "spec.approval.attempt: is required"),
    "a variable without a name": ({"env": [{"value": "1"}]}, "spec.env[0].name: is required"),
    "value and reference": (
        {"env": [{"name": "A", "value": "1", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]},
        "spec.env[0].valueFrom: is given beside a value",
    ),
    "a reference to nothing": ({"envFrom": [{}]}, "spec.envFrom[0]: must have either"),
}


@pytest.mark.parametrize(("change", "problem"), BROKEN.values(), ids=BROKEN)
def test_what_does_not_fit_is_refused_by_its_path(change: dict[str, Any], problem: str) -> None:
    with pytest.raises(InvalidObject) as caught:
        Task.parse({**OBJECT, "spec": {**OBJECT["spec"], **change}})
    assert problem in str(caught.value)


def test_a_status_that_makes_no_sense_is_refused() -> None:
    for status in ({"phase": "Done"}, {"attempt": "1"}, {"startTime": "yesterday"}, {"startTime": "2026-01-01T00:00"}):
        with pytest.raises(InvalidObject):
            Task.parse({**OBJECT, "status": status})


def test_an_attempt_is_part_of_what_the_agent_knows_a_task_by() -> None:
    assert task("t", phase=TaskPhase.ASSIGNED, attempt=3).task_id == "t.3"


def test_a_plan_file_is_given_on_as_it_was_named() -> None:
    """Without a name the worker looks for the usual one, and goes without if there is none."""
    both = task("t", "plan_and_apply")
    work = both.to_work(60)
    assert work.steps.plan is not None
    assert work.steps.plan.plan_file is None
    assert work.name == "ns/t"
    assert work.mask_secrets is None
    assert both.spec.mask_secrets
    assert work.reservation_ttl_seconds == 60
    chosen = replace(both.spec.steps, plan=StepSpec(command=("x",), plan_file="out"))
    kept = replace(both, spec=replace(both.spec, steps=chosen)).to_work(60).steps.plan
    assert kept is not None
    assert kept.plan_file == "out"
    alone = task("t", "plan").to_work(60).steps.plan
    assert alone is not None
    assert alone.plan_file is None


def test_only_an_approval_of_this_very_plan_and_attempt_counts() -> None:
    """T10."""
    waiting = replace(
        task("t", "plan_and_apply", phase=TaskPhase.AWAITING_APPROVAL, on="p", attempt=2),
        status=TaskStatus(phase=TaskPhase.AWAITING_APPROVAL, attempt=2, plan_digest="d"),
    )
    approvals = {(2, "d"): True, (1, "d"): False, (2, "e"): False}
    for (attempt, digest), counts in approvals.items():
        approval = Approval(attempt=attempt, plan_digest=digest)
        assert replace(waiting, spec=replace(waiting.spec, approval=approval)).approved == counts
    assert not waiting.approved


def test_a_condition_keeps_its_time_until_its_status_changes() -> None:
    first = put((), Condition(type="Ready", status="True", reason="A"), LONG_AGO)
    second = put(first, Condition(type="Ready", status="True", reason="B"), NOW)
    third = put(second, Condition(type="Ready", status="False", reason="B"), NOW)
    assert [(find(item, "Ready") or first[0]).since for item in (first, second, third)] == [LONG_AGO, LONG_AGO, NOW]
    assert len(third) == 1
