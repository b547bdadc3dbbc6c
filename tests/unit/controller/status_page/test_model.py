"""What the page says, made of frozen views."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import orjson
import pytest

from agent.wire import StepResult
from controller.decide.start_problem import StartProblem
from controller.decide.view import PodState, PodView
from controller.errors import InvalidObject
from controller.objects.conditions import Condition
from controller.objects.task import Task, TaskPhase
from controller.objects.task_spec import Approval
from controller.status_page.model import MOST_TEXT, PodsWanted, PoolKnown
from controller.status_page.pod_entries import pods_said
from controller.status_page.pool_entries import pool_said
from controller.status_page.task_entries import merged_plans, merged_queue, plans_said, queue_said
from tests.support import pools
from tests.support.pools import LONG_AGO, NOW

DIGEST = "sha256:" + "a" * 64


def known(
    *pods: PodView, tasks: tuple[Task, ...] = (), status: dict[str, Any] | None = None, **given: Any
) -> PoolKnown:
    obj = {"metadata": {"namespace": "ns", "name": "pool"}, "status": status or {}}
    spec = pools.pool().spec
    return PoolKnown(
        **{"namespace": "ns", "name": "pool", "obj": obj, "spec": spec, "pods": pods, "tasks": tasks, **given}
    )


def waiting(name: str, *, expires_in: int = 3600, **status: Any) -> Task:
    task = pools.task(name, "plan_and_apply", phase=TaskPhase.AWAITING_APPROVAL, on="p0")
    plan = StepResult(end_time=LONG_AGO, changed=True)
    expires = NOW + timedelta(seconds=expires_in)
    return replace(
        task, status=replace(task.status, plan_digest=DIGEST, plan=plan, expires_at=expires, slot=0, **status)
    )


# --- pools ------------------------------------------------------------------------------------------------------------


def test_slots_are_counted_by_state_and_the_oldest_hold_is_named() -> None:
    young = NOW - timedelta(minutes=1)
    said = pool_said(known(*pools.pods("rR.", "..?"), pools.pod("p9", "r..", since=young)), 1)
    assert said.slots == {"idle": 3, "running": 2, "reserved": 1, "recovering": 3}
    assert (said.running_since, said.reserved_since) == (LONG_AGO, LONG_AGO)
    assert pool_said(known(pools.pod("p9", "r..", since=young)), 1).running_since == young


def test_a_dead_pod_has_no_slots_and_is_counted_apart() -> None:
    said = pool_said(known(pools.pod("p0", "rrr", dead=True), pools.pod("p1", None, state=PodState.STARTING)), 1)
    assert said.slots["running"] == 0
    assert said.pods == {"starting": 1, "active": 0, "draining": 0, "dead": 1}
    assert (said.replicas, said.silent) == (1, 1)


def test_conditions_say_what_is_of_concern() -> None:
    entries = [
        {"type": "Ready", "status": "False", "reason": "NotSettled"},
        {"type": "Degraded", "status": "True", "reason": "ErrImagePull", "message": "m" * 9000},
        {"type": "Progressing", "status": "True", "reason": "QueuedTasks"},
        {"type": "ScalingActive", "status": "False", "reason": "FixedSize"},
        {"type": "ScalingLimited", "status": "False", "reason": "WithinRange"},
        {"type": "Protected", "status": "False", "reason": "NoPolicies"},
        {"type": "AbleToScale", "status": "True", "reason": "Ready"},
    ]
    said = pool_said(known(status={"conditions": entries, "desiredReplicas": 3}), 1)
    assert {one.type for one in said.conditions if one.concern} == {"Ready", "Degraded", "Protected"}
    assert len(said.conditions[1].message) == MOST_TEXT
    assert said.desired == 3


@pytest.mark.parametrize("status", [{"conditions": "nonsense"}, {"conditions": [7]}, {"desiredReplicas": "many"}])
def test_nonsense_in_a_status_is_left_out(status: dict[str, Any]) -> None:
    said = pool_said(known(status=status), 1)
    assert (said.conditions, said.desired) == ((), None)


def test_a_pool_that_cant_be_read_and_one_that_is_not_there_say_so() -> None:
    assert pool_said(known(spec=InvalidObject("spec.slots", "is wrong")), 1).problem == "spec.slots: is wrong"
    assert pool_said(known(obj=None, spec=None), 1).problem == "there is no pool of this name"


# --- plans ------------------------------------------------------------------------------------------------------------


def test_plans_that_await_approval_come_by_their_expiry() -> None:
    tasks = (waiting("later", expires_in=9000), waiting("sooner"), pools.task("queued"))
    listed = plans_said(tasks, 10)
    assert [plan.name for plan in listed.items] == ["sooner", "later"]
    (first, _) = listed.items
    assert (first.command, first.since, first.changes) == ("podslots -n ns approve sooner", LONG_AGO, True)


def test_a_plan_that_is_approved_or_unwanted_waits_no_more() -> None:
    task = waiting("t")
    approved = replace(task, spec=replace(task.spec, approval=Approval(attempt=1, plan_digest=DIGEST)))
    assert plans_said((approved, replace(task, deleting=True)), 10).total == 0


def test_an_approval_that_was_none_is_said() -> None:
    refused = Condition(type="Approved", status="False", reason="OtherPlan", message="it names another plan")
    task = waiting("t", conditions=(refused,))
    task = replace(task, spec=replace(task.spec, approval=Approval(attempt=7, plan_digest=DIGEST)))
    assert plans_said((task,), 10).items[0].problem == "OtherPlan: it names another plan"


def test_a_hostile_name_is_one_word_of_the_command() -> None:
    task = replace(waiting("t"), name="x; rm -rf ~")
    assert plans_said((task,), 10).items[0].command == "podslots -n ns approve 'x; rm -rf ~'"


def test_lists_are_bounded_and_say_how_many_there_are() -> None:
    plans = plans_said([waiting(f"t{number}", expires_in=number) for number in range(50)], 10)
    assert (plans.total, len(plans.items)) == (50, 10)
    merged = merged_plans([plans, plans_said([waiting("first", expires_in=-1)], 10)], 3)
    assert (merged.total, [plan.name for plan in merged.items]) == (51, ["first", "t0", "t1"])


# --- the queue --------------------------------------------------------------------------------------------------------


def test_the_queue_says_what_each_waits_for_in_the_order_they_are_served() -> None:
    word = "for a slot: the pool is at its maxReplicas"
    young, old, urgent = (
        pools.task("young", age_seconds=1),
        pools.task("old", age_seconds=99),
        pools.task("urgent", priority=5),
    )
    old = replace(old, status=replace(old.status, queued_reason=word))
    listed = queue_said([young, old, urgent, waiting("not-queued")], [], 10)
    assert [task.name for task in listed.items] == ["urgent", "old", "young"]
    assert [task.waits for task in listed.items] == [None, word, None]


def test_a_refused_task_says_why_and_one_that_cant_be_read_is_there() -> None:
    said = Condition(type="Accepted", status="False", reason="NoSlotTakesIt", message="no slot takes apply")
    task = pools.task("t")
    task = replace(task, status=replace(task.status, conditions=(said,)))
    obj = {"metadata": {"namespace": "ns", "name": "odd", "creationTimestamp": "2026-03-01T11:00:00Z"}, "spec": 7}
    listed = queue_said([task], [(obj, InvalidObject("spec", "must be an object"))], 10)
    assert [(one.name, one.waits, one.refused) for one in listed.items] == [
        ("odd", "InvalidSpec: spec: must be an object", True),
        ("t", "NoSlotTakesIt: no slot takes apply", True),
    ]


def test_queues_of_pools_are_merged_by_priority_then_age() -> None:
    first = queue_said([pools.task("b", age_seconds=5), pools.task("d", age_seconds=1)], [], 10)
    second = queue_said([pools.task("c", age_seconds=3), pools.task("a", priority=1)], [], 10)
    merged = merged_queue([first, second], 3)
    assert (merged.total, [task.name for task in merged.items]) == (4, ["a", "b", "c"])


# --- Pods -------------------------------------------------------------------------------------------------------------


def test_slots_name_their_tasks() -> None:
    task = pools.task("network", phase=TaskPhase.RUNNING, on="p0")
    pool = known(pools.pod("p0", "rr.", tasks=[task.task_id, "by-hand"]), tasks=(task,))
    (pod,) = pods_said([pool], PodsWanted()).items
    assert [slot.holder for slot in pod.slots] == ["network", "by-hand", None]


def test_pods_are_found_by_state_and_by_the_name_of_what_they_hold() -> None:
    task = pools.task("network", phase=TaskPhase.RUNNING, on="p1")
    pool = known(
        pools.pod("p0", "R.."),
        pools.pod("p1", "r..", tasks=[task.task_id]),
        pools.pod("p2", "...", connected=False),
        pools.pod("p3", None, state=PodState.STARTING),
        tasks=(task,),
    )

    def found(**wanted: Any) -> list[str]:
        return [pod.name for pod in pods_said([pool], PodsWanted(**wanted)).items]

    assert found() == ["p0", "p1", "p2", "p3"]
    assert found(state="reserved") == ["p0"]
    assert found(state="silent") == ["p2", "p3"]
    assert found(text="etwor") == ["p1"]
    assert found(text="p2", state="running") == []


def test_pods_come_by_pages_and_by_age() -> None:
    pods = [pools.pod(f"p{n}", "r..", since=NOW - timedelta(seconds=n)) for n in range(9)]
    pool = known(*pods, pools.pod("idle", "..."))
    page = pods_said([pool], PodsWanted(oldest_first=True, offset=8, limit=5))
    assert (page.total, [pod.name for pod in page.items]) == (10, ["p0", "idle"])
    assert pods_said([pool], PodsWanted(offset=100)).items == ()


def test_what_is_unusual_about_a_pod_is_noted() -> None:
    problem = StartProblem(reason="ErrImagePull", message="no such image")
    starting = pools.pod("p0", None, state=PodState.STARTING, start_problem=problem)
    silent = pools.pod("p1", "r..", connected=False, drain_requested=True, node_cordoned=True)
    first, second = pods_said([known(starting, silent)], PodsWanted()).items
    assert first.notes == ("ErrImagePull: no such image",)
    assert second.notes == ("its agent does not answer", "somebody asked to have it drained", "its node is cordoned")


def test_nothing_of_a_tasks_output_is_in_what_is_said() -> None:
    secret = "hunter2"
    task = waiting("t")
    plan = StepResult(end_time=LONG_AGO, log_tail=secret, changed=True)
    task = replace(task, status=replace(task.status, plan=plan, message=secret))
    pool = known(pools.pod("p0", "R..", tasks=[task.task_id]), tasks=(task,))
    said = [
        pool_said(pool, 1),
        plans_said(pool.tasks, 9),
        queue_said(pool.tasks, [], 9),
        pods_said([pool], PodsWanted()),
    ]
    assert secret not in orjson.dumps(said).decode()
