"""The demo's verdict: it passes on a right run, and each thing that can go wrong makes it fail."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from agent.wire import AgentState, Phase, Slot, SlotState, Step
from controller import names
from controller.demo.evidence import (
    AgentHistory,
    Approval,
    AuditEvent,
    Evidence,
    Settled,
    StepRecord,
    parse_audit,
    parse_records,
)
from controller.demo.verdict import Expected, judge

START = datetime(2026, 3, 1, tzinfo=UTC)
EXPECTED = Expected(plans=1, applies=1, pods=1, slots=2)
DIGEST = "sha256:aa"


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def slot(number: int, state: SlotState, since: float, task: str | None = None) -> Slot:
    return Slot(id=number, accepts=("plan",), state=state, fence=1, since=at(since), task_id=task)


def state(*slots: Slot, phase: Phase = Phase.OPEN) -> AgentState:
    return AgentState(
        version="1",
        pod="p",
        pod_uid="uid-p",
        pool="terraform",
        incarnation="i",
        phase=phase,
        drain_id=None,
        revision=1,
        tokens=(),
        slots=slots,
    )


IDLE, RUNNING, RESERVED = SlotState.IDLE, SlotState.RUNNING, SlotState.RESERVED
STATES = [
    state(slot(0, IDLE, 1), slot(1, IDLE, 1), phase=Phase.DRAINED),
    state(slot(0, RUNNING, 2, "a.1"), slot(1, RUNNING, 2, "b.1")),
    state(slot(0, RESERVED, 4, "a.1"), slot(1, IDLE, 4)),
    state(slot(0, RUNNING, 6, "a.1"), slot(1, IDLE, 4)),
    state(slot(0, IDLE, 8), slot(1, IDLE, 4)),
    state(slot(0, IDLE, 8), slot(1, IDLE, 4), phase=Phase.DRAINED),
]


def pod_event(verb: str, seconds: float, **changes: Any) -> AuditEvent:
    event = AuditEvent(
        verb=verb,
        resource="pods",
        subresource="",
        user=names.CONTROLLER_USER,
        name="p",
        uid="uid-p",
        time=at(seconds),
        body={"preconditions": {"uid": "uid-p", "resourceVersion": "7"}},
    )
    return replace(event, **changes)


def approval_event(seconds: float, digest: str = DIGEST, user: str = "demo") -> AuditEvent:
    body = {"spec": {"approval": {"attempt": 1, "planDigest": digest, "by": user}}}
    return pod_event("patch", seconds, resource="slottasks", name="a", uid="uid-a", user=user, body=body)


def record(task: str, step: Step, start: float, end: float | None, **changes: Any) -> StepRecord:
    ended = None if end is None else at(end)
    found = StepRecord(task_id=task, step=step, pod="p", directory="/d", inode=5, started=at(start), ended=ended)
    return replace(found, **changes)


RECORDS = (record("a.1", Step.PLAN, 2, 4), record("b.1", Step.PLAN, 2, 4), record("a.1", Step.APPLY, 6, 8))


def right() -> Evidence:
    return Evidence(
        audit=(pod_event("create", 0), approval_event(5), pod_event("delete", 9)),
        records=RECORDS,
        agents={"uid-p": AgentHistory(pod="p", states=list(STATES))},
        approvals=(Approval(task="a", task_id="a.1", plan_digest=DIGEST),),
        settled=Settled(pods=frozenset({"p"}), reserved=frozenset({"p"})),
        phases={"a": "Succeeded", "b": "Succeeded"},
        pods_left=0,
        seconds=9.04,
    )


def test_a_right_run_passes_with_its_figures() -> None:
    assert judge(right(), EXPECTED).summary() == {
        "tasks": {"Succeeded": 2},
        "pods_max": 1,
        "pods_end": 0,
        "pods_deleted": 1,
        "deletes_while_held": 0,
        "plans_run": 2,
        "applies_run": 1,
        "applies_on_plan_pod": 1,
        "most_running_in_a_pod": [2],
        "seconds": 9.0,
        "ok": True,
    }


def audit(*events: AuditEvent) -> Callable[[Evidence], Evidence]:
    return lambda evidence: replace(evidence, audit=events)


def records(*found: StepRecord) -> Callable[[Evidence], Evidence]:
    return lambda evidence: replace(evidence, records=found)


def agents(*states: AgentState) -> Callable[[Evidence], Evidence]:
    return lambda evidence: replace(evidence, agents={"uid-p": AgentHistory(pod="p", states=list(states))})


CREATE, APPROVE, DELETE = pod_event("create", 0), approval_event(5), pod_event("delete", 9)
PLAN_A, PLAN_B, APPLY_A = RECORDS


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        pytest.param(audit(CREATE, APPROVE, pod_event("delete", 7)), "deleted while slot 0", id="T1-running"),
        pytest.param(audit(CREATE, APPROVE, pod_event("delete", 5.5)), "deleted while slot 0", id="T3-reserved"),
        pytest.param(agents(*STATES[:3]), "deleted while slot 0", id="the hold's end was never seen"),
        pytest.param(agents(*STATES[:5]), "last word was not a drain", id="no drain"),
        pytest.param(agents(), "agent was never heard", id="agent silent"),
        pytest.param(lambda e: replace(e, agents={}), "agent was never heard", id="agent unknown"),
        pytest.param(audit(CREATE, APPROVE, replace(DELETE, body={})), "named no UID", id="unconditional delete"),
        pytest.param(audit(CREATE, APPROVE), "pods_deleted is 0", id="not deleted"),
        pytest.param(audit(CREATE, pod_event("create", 1, name="q"), APPROVE, DELETE), "pods_max is 2", id="too many"),
        pytest.param(audit(CREATE, DELETE), "without an approval", id="T10-no approval"),
        pytest.param(audit(CREATE, approval_event(5, "sha256:bb"), DELETE), "without an approval", id="other plan"),
        pytest.param(
            audit(CREATE, approval_event(5, user=names.CONTROLLER_USER), DELETE), "without an approval", id="self"
        ),
        pytest.param(audit(CREATE, approval_event(7), DELETE), "before its approval", id="T10-early apply"),
        pytest.param(records(PLAN_A, PLAN_B, replace(APPLY_A, pod="q")), "ran on q", id="other Pod"),
        pytest.param(records(PLAN_A, PLAN_B, replace(APPLY_A, inode=6)), "applies_on_plan_pod is 0", id="new folder"),
        pytest.param(records(PLAN_A, PLAN_B, APPLY_A, APPLY_A), "started 2 times", id="T19-twice"),
        pytest.param(records(PLAN_A, PLAN_B, replace(APPLY_A, ended=None)), "never ended", id="unfinished"),
        pytest.param(records(PLAN_A, PLAN_B), "applies_run is 0", id="said to have succeeded, never ran"),
        pytest.param(records(PLAN_A, APPLY_A), "plans_run is 1", id="a plan is missing"),
        pytest.param(lambda e: replace(e, settled=None), "never came down", id="never settled"),
        pytest.param(
            lambda e: replace(e, settled=Settled(pods=frozenset({"p", "q"}), reserved=frozenset({"p"}))),
            "2 Pods were left",
            id="T15-an idle Pod stayed",
        ),
        pytest.param(lambda e: replace(e, pods_left=1), "pods_end is 1", id="left over"),
        pytest.param(lambda e: replace(e, phases={"a": "Failed", "b": "Succeeded"}), "tasks is", id="failed task"),
    ],
)
def test_whatever_does_not_hold_is_said(change: Callable[[Evidence], Evidence], problem: str) -> None:
    summary = judge(change(right()), EXPECTED).summary()
    assert summary["ok"] is False
    assert any(problem in text for text in summary["problems"]), summary["problems"]


def test_a_declined_apply_must_not_run() -> None:
    declined = replace(EXPECTED, declined=1)
    evidence = replace(right(), approvals=(), phases={"a": "Cancelled", "b": "Succeeded"})
    assert "applies_run is 1, not 0" in judge(evidence, declined).problems
    calm = replace(evidence, records=(PLAN_A, PLAN_B))
    assert judge(calm, declined).problems == ()


def test_reserved_after_running_is_one_hold() -> None:
    """T8: from the plan's start to the apply's end the agent's record shows no gap."""
    holds = [hold for hold in AgentHistory(pod="p", states=list(STATES)).holds() if hold.slot == 0]
    assert [(hold.since, hold.until) for hold in holds] == [(at(2), at(8))]


def test_failed_requests_and_torn_lines_are_not_part_of_the_audit() -> None:
    line = (
        '{"verb": "delete", "user": {"username": "u"}, "objectRef": {"resource": "pods", "name": "p", "uid": "x"},'
        ' "responseStatus": {"code": %d}, "requestReceivedTimestamp": "2026-03-01T00:00:00.000000Z"}'
    )
    events = parse_audit([line % 200, line % 409, (line % 200)[:40], '{"verb": "get"}'])
    assert [(event.verb, event.name, event.time) for event in events] == [("delete", "p", START)]


def test_a_second_start_in_a_records_file_is_a_second_record() -> None:
    place = '"pod": "p", "directory": "/d", "inode": 5'
    entry = '{"task": "a.1", "step": "apply", "event": "%s", ' + place + ', "time": 1772323200.%d}'
    text = "\n".join([entry % ("start", 1), entry % ("start", 2), entry % ("end", 3)])
    found = parse_records([text])
    assert [one.ended is not None for one in found] == [False, True]
