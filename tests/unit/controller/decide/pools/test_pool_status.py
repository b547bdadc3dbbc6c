"""What a pool's status says of it."""

from dataclasses import replace
from typing import Any

import pytest

from agent.wire import Origin, Step, format_time
from controller.act.pools import differs
from controller.cli.show import tables
from controller.decide.pools.pool_deletion import deletion_waits
from controller.decide.pools.pool_status import Before, invalid_pool_status, pool_status
from controller.decide.pools.protection import Finding, finding
from controller.decide.problem import Problem, Problems
from controller.decide.scaling.size import decide_size
from controller.decide.view import PodState, PodView, PoolView, Rollout, RolloutStand
from controller.objects.pool import DeletionPolicy
from controller.objects.task import TaskPhase
from tests.support.pools import NOW, pod, pool, task, tasks

NOTHING_BEFORE = Before(generation=3)


def status(view: PoolView, before: Before = NOTHING_BEFORE, problems: Problems | None = None) -> dict[str, Any]:
    return pool_status(view, decide_size(view), before=before, problems=problems or Problems())


def conditions(document: dict[str, Any]) -> dict[str, tuple[str, str]]:
    return {entry["type"]: (entry["status"], entry["reason"]) for entry in document["conditions"]}


def test_slots_are_counted_from_the_agents_of_open_pods() -> None:
    """T7: never from labels or tasks; a Pod that starts offers nothing yet."""
    view = pool([pod("a", "rR."), pod("b", "..."), pod("c", "...", state=PodState.STARTING)], replicas=3)
    document = status(view)
    assert document["slots"] == {"total": 6, "idle": 4, "running": 1, "reserved": 1}
    assert (document["replicas"], document["readyReplicas"], document["desiredReplicas"]) == (3, 2, 3)
    assert document["selector"] == "podslots.dev/pool=pool"
    assert document["observedGeneration"] == 3


def test_a_settled_pool_is_ready() -> None:
    found = conditions(status(pool([pod("a", "r..")], replicas=1)))
    assert found["Ready"] == ("True", "Settled")
    assert found["Progressing"][0] == "False"
    assert found["Degraded"] == ("False", "AsExpected")
    assert found["AbleToScale"][0] == "True"
    assert found["ScalingActive"] == ("False", "FixedSize")


def test_a_pool_on_its_way_says_why() -> None:
    found = conditions(status(pool([], tasks("plan", 2))))
    assert found["Progressing"] == ("True", "QueuedTasks")
    assert found["Ready"][0] == "False"
    assert found["ScalingActive"][0] == "True"


def test_a_silent_agent_degrades_its_pool() -> None:
    """D1: after the moment in which it may just be about to answer."""
    silent = pod("a", "r..", connected=False)
    assert conditions(status(pool([silent], replicas=1)))["Degraded"] == ("True", "AgentsUnreachable")
    young = replace(silent, contacting=True)
    assert conditions(status(pool([young], replicas=1)))["Degraded"][0] == "False"


def holding(name: str, origin: Origin) -> PodView:
    view = pod(name, "r..", tasks=("job-7",))
    assert view.agent is not None
    slots = (replace(view.agent.slots[0], origin=origin, step=None if origin is Origin.LOCAL else Step.PLAN),)
    return replace(view, agent=replace(view.agent, slots=(*slots, *view.agent.slots[1:])))


@pytest.mark.parametrize("policy", list(DeletionPolicy))
def test_a_deleted_pool_says_whom_it_waits_for_without_end_and_what_to_do(policy: DeletionPolicy) -> None:
    """The controller never releases what a program of the Pod holds, and no answer is not idle: somebody must act."""
    works, mine = holding("works", Origin.CONTROLLER), holding("mine", Origin.LOCAL)
    silent, lost = pod("silent", "r..", connected=False), pod("lost", "?..")
    assert deletion_waits(pool([mine, silent, lost])) is None, "of a pool that stays nobody has to go"
    assert deletion_waits(pool([works, replace(silent, contacting=True)], deleting=True)) is None
    found = deletion_waits(pool([works, mine, silent, lost], deleting=True, deletion_policy=policy))
    assert found is not None
    for part in ("Pod mine: ", "slot 0 (job-7)", "podslots forget silent", "Pod lost: "):
        assert part in found.message
    # The policies refuse anybody an active Pod, unless break-glass came first.
    assert "podslots break-glass mine --reason WHY, then kubectl delete pod mine" in found.message
    assert "works" not in found.message
    document = status(pool([mine], deleting=True, deletion_policy=policy))
    ready = next(entry for entry in document["conditions"] if entry["type"] == "Ready")
    assert (ready["status"], ready["reason"]) == ("False", "DeletionWaits")
    assert "slot 0 (job-7)" in ready["message"]
    assert conditions(document)["Degraded"] == ("True", "DeletionWaits")
    listed = tables.pools([{"metadata": {"name": "x"}, "status": document}], NOW, namespaces=False).text()
    assert "slot 0 (job-7) and has to release that" in listed


def test_an_agent_that_is_never_heard_degrades_its_pool_once_its_pod_runs() -> None:
    """As where the controller does not take its certificate: nothing else would say so."""
    silent = pod("a", None, state=PodState.STARTING)
    assert conditions(status(pool([silent], replicas=1)))["Degraded"][0] == "False"
    running = replace(silent, running=True)
    assert conditions(status(pool([running], replicas=1)))["Degraded"] == ("True", "AgentsUnreachable")


def test_what_keeps_a_pool_from_growing_stands_in_its_conditions() -> None:
    """R8: a quota, in the API server's words."""
    problem = Problem(reason="QuotaExceeded", message="exceeded quota: pods")
    document = status(pool([], tasks("plan", 1)), problems=Problems(unable_to_scale=problem))
    assert conditions(document)["AbleToScale"] == ("False", "QuotaExceeded")


def test_the_upper_bound_is_told() -> None:
    found = conditions(status(pool([], tasks("plan", 90), max_replicas=2)))
    assert found["ScalingLimited"] == ("True", "AtMaximum")


def test_dead_pods_are_not_counted() -> None:
    """T27."""
    assert status(pool([pod("a", dead=True), pod("b")], replicas=1))["replicas"] == 1


def test_the_time_of_a_change_of_size_is_kept() -> None:
    view = pool([], tasks("plan", 2))
    first = status(view, Before(generation=1, desired=0))
    assert first["lastScaleTime"] == format_time(NOW)
    again = status(view, Before(generation=1, desired=first["desiredReplicas"], last_scale_time="2026-01-01T00:00:00Z"))
    assert again["lastScaleTime"] == "2026-01-01T00:00:00Z"


@pytest.mark.parametrize(
    ("stand", "progressing"),
    [(RolloutStand.ROLLING, "True"), (RolloutStand.PAUSED, "False"), (RolloutStand.STUCK, "False")],
)
def test_a_rollout_says_how_far_it_is(stand: RolloutStand, progressing: str) -> None:
    rollout = Rollout(stand=stand, why="why", updated=1, total=2)
    document = status(replace(pool([pod("a"), pod("b")], replicas=2), rollout=rollout))
    assert document["updatedReplicas"] == 1
    assert conditions(document)["Progressing"] == (progressing, stand.value)
    (entry,) = [entry for entry in document["conditions"] if entry["type"] == "Progressing"]
    assert entry["message"] == "1 of 2 Pods have the present template; why."


def test_a_pod_that_retires_is_ready_but_no_part_of_the_size() -> None:
    document = status(pool([pod("a"), pod("b", retiring=True)], replicas=1))
    assert (document["replicas"], document["readyReplicas"]) == (2, 2)
    assert conditions(document)["Ready"] == ("True", "Settled")


@pytest.mark.parametrize("replicas", [None, 2])
def test_the_same_view_gives_the_same_status(replicas: int | None) -> None:
    """B1: what was written and read back differs in nothing, or it would be written for ever."""
    view = pool([pod("a", "r.R"), pod("b", connected=False)], tasks("plan", 3), replicas=replicas)
    first = status(view)
    stored = {
        "metadata": {"generation": 3},
        "status": {name: value for name, value in first.items() if value is not None},
    }
    assert not differs(stored, first)
    later = replace(view, now=NOW.replace(hour=13))
    again = status(later, Before.of(stored))
    assert [entry["lastTransitionTime"] for entry in again["conditions"]] == [
        entry["lastTransitionTime"] for entry in first["conditions"]
    ]
    assert not differs(stored, again)


def test_an_unusable_spec_is_said_and_changes_nothing_else() -> None:
    problem = Problem(reason="InvalidSpec", message="spec.autoscaling.maxReplicas: is required")
    document = invalid_pool_status(problem, before=NOTHING_BEFORE, now=NOW)
    found = conditions(document)
    assert found["Degraded"] == ("True", "InvalidSpec")
    assert found["ScalingActive"] == ("False", "InvalidSpec")
    assert "replicas" not in document


def test_whether_others_are_kept_from_the_pods_is_said_once_it_is_known() -> None:
    view = pool([pod("a", "r..")], replicas=1)
    assert "Protected" not in conditions(status(view))
    for found, word in ((finding([], []), "False"), (Finding(protected=True, reason="PoliciesInForce"), "True")):
        document = pool_status(view, decide_size(view), before=NOTHING_BEFORE, problems=Problems(), protection=found)
        assert conditions(document)["Protected"] == (word, found.reason)
        assert conditions(document)["Ready"] == ("True", "Settled"), "the pool works all the same"


def test_a_pool_that_is_being_deleted_says_what_it_waits_for() -> None:
    waiting = task("vpc", "plan_and_apply", phase=TaskPhase.AWAITING_APPROVAL, on="a", attempt=1)
    view = pool([pod("a", "R..", tasks=["vpc.1"]), pod("b", "...")], [waiting], replicas=2, deleting=True)
    (message,) = (c["message"] for c in status(view)["conditions"] if c["type"] == "Progressing")
    assert message == "The pool is being deleted: 2 Pods to drain; waiting for vpc (reserved on a)."


@pytest.mark.parametrize(
    "nonsense",
    [
        None,
        [],
        {"desiredReplicas": -1},
        {"desiredReplicas": "x"},
        {"lastScaleTime": 7},
        {"conditions": "x"},
        {"conditions": [{}]},
        {"conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "9999-12-31T23:59:59-23:59"}]},
    ],
    ids=str,
)
def test_what_somebody_wrote_into_the_status_is_overwritten(nonsense: Any) -> None:
    """It ended each pass of the pool once."""
    stored = {"metadata": {"generation": 3}, "status": nonsense}
    assert Before.of(stored) == Before(generation=3)
