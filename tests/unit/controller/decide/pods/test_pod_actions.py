"""What is done about Pods: which are opened, taken back, drained, deleted, created; and which are left alone."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from agent.wire import Phase
from controller.decide.pods.pod_actions import (
    CancelTask,
    CreatePods,
    DeleteDead,
    DeleteStarting,
    DrainPod,
    FinishDeletion,
    OpenPod,
    PodAction,
    SetOwner,
    TakeBack,
    pod_actions,
    removed,
)
from controller.decide.scaling.size import decide_size
from controller.decide.view import PodOperation, PodState, PodView, PoolView
from controller.objects.pool import DeletionPolicy
from controller.objects.task import TaskPhase
from tests.support.pools import NOW, pod, pods, pool, task, tasks

STARTING, DRAINING = PodState.STARTING, PodState.DRAINING
SIDECAR: dict[str, Any] = {"spec": {"containers": [{"name": "app", "image": "i"}]}}


def actions(view: PoolView) -> tuple[PodAction, ...]:
    return pod_actions(view, decide_size(view))


def shown(view: PoolView) -> list[str]:
    """Each action as a word and the Pod's name, or the number."""
    return [
        f"{type(action).__name__} {action.count if isinstance(action, CreatePods) else action.pod.name}"
        for action in actions(view)
        if isinstance(action, CreatePods | OpenPod | TakeBack | DrainPod | DeleteStarting | DeleteDead)
    ]


def test_what_is_missing_is_created_at_once() -> None:
    assert actions(pool((), tasks("apply", 3))) == (CreatePods(3),)
    assert actions(pool((), tasks("apply", 3), creating=2)) == (CreatePods(1),)
    assert actions(pool((), tasks("apply", 3), creating=3)) == ()


NOT_READY: dict[str, PodView] = {
    "not running": pod("p", "...", state=STARTING, running=False),
    "its agent is not heard": pod("p", "...", state=STARTING, connected=False),
    "its agent was never heard": pod("p", None, state=STARTING, running=True),
    "a worker is missing": pod("p", "...", state=STARTING, workers=False),
    "it is being stopped": pod("p", "...", state=STARTING, closing=True),
    "it is being opened": pod("p", "...", state=STARTING, in_flight=PodOperation.OPEN),
    "it is being deleted": pod("p", "...", state=STARTING, deleting=True),
    "it is dead": pod("p", "...", state=STARTING, dead=True),
}


def test_a_pod_is_opened_once_its_agent_and_every_worker_are_there() -> None:
    """T6."""
    assert shown(pool((pod("p", "...", state=STARTING),), tasks("plan", 1))) == ["OpenPod p"]


@pytest.mark.parametrize("given", NOT_READY.values(), ids=NOT_READY)
def test_a_pod_that_is_not_ready_is_not_opened(given: PodView) -> None:
    """T6."""
    assert "OpenPod p" not in shown(pool((given,), tasks("plan", 1)))


def test_no_new_pod_is_opened_before_its_budget_is_there() -> None:
    """An eviction of an active Pod that runs is left to the budget: without one it would take a Pod that has work."""
    new, active = pod("p", "...", state=STARTING), pod("q", "r..", phase=Phase.DRAINED)
    assert shown(pool((new, active), replicas=2, unguarded=True)) == ["OpenPod q"]
    assert shown(pool((new, active), replicas=2)) == ["OpenPod p", "OpenPod q"]


def test_without_workers_none_is_waited_for() -> None:
    """Sidecar mode: the workload itself comes for slots."""
    lonely = pod("p", "...", state=STARTING, workers=False)
    assert shown(pool((lonely,), tasks("plan", 1), template=SIDECAR)) == ["OpenPod p"]


def test_an_active_pod_whose_agent_came_back_drained_is_opened_again() -> None:
    """A journal was lost, or an open was interrupted between the label and the agent."""
    assert shown(pool((pod("p", "...", phase=Phase.DRAINED),), tasks("plan", 1))) == ["OpenPod p"]
    assert shown(pool((pod("p", "r..", phase=Phase.DRAINED),))) == ["OpenPod p"]


def test_idle_pods_go_longest_idle_first() -> None:
    ages = {"young": 100, "old": 3000, "middle": 1000}
    idle = tuple(pod(name, "...", since=NOW - timedelta(seconds=age)) for name, age in ages.items())
    assert shown(pool((*idle, *pods("r..")), min_replicas=2)) == ["DrainPod old", "DrainPod middle"]


def test_pods_that_never_served_go_first() -> None:
    """D2."""
    present = (pod("p", "..."), pod("s", None, state=STARTING), pod("t", "...", state=STARTING))
    assert shown(pool(present, replicas=1)) == ["DeleteStarting t", "DeleteStarting s"]
    assert shown(pool(present, replicas=0)) == ["DeleteStarting t", "DeleteStarting s", "DrainPod p"]


def test_while_pods_are_being_created_no_serving_one_goes_in_their_place() -> None:
    """D2."""
    assert shown(pool(pods("..."), replicas=1, creating=1)) == []
    assert shown(pool(pods("..."), replicas=0, creating=1)) == ["DrainPod p0"]


PROTECTED: dict[str, PodView] = {
    "a slot runs": pod("p", "..r"),
    "a slot is reserved": pod("p", "R.."),
    "its agent is not heard (D1)": pod("p", "...", connected=False),
    "its agent was never heard (D1)": pod("p", None, running=True),
    "a result waits for its ack": pod("p", "...", ended=("t.1",)),
    "a dispatch is under way (R2)": pod("p", "...", in_flight=PodOperation.DISPATCH),
    "it is being opened": pod("p", "...", in_flight=PodOperation.OPEN),
    "it is being drained already": pod("p", "...", in_flight=PodOperation.REMOVE),
    "starting, but its agent has taken work": pod("p", "r..", state=STARTING),
    "starting, but its agent is open": pod("p", "...", state=STARTING, phase=Phase.OPEN),
}


@pytest.mark.parametrize("given", PROTECTED.values(), ids=PROTECTED)
@pytest.mark.parametrize("wish", ["size", "deletion", "cordon", "request"])
def test_a_pod_that_could_lose_something_is_never_taken_away(given: PodView, wish: str) -> None:
    """T1, T3, T16, D1: whatever asks for it."""
    wanted = replace(given, node_cordoned=wish == "cordon", drain_requested=wish == "request")
    view = pool((wanted,), replicas=0, deleting=wish == "deletion")
    assert not removed(actions(view))
    assert not any(isinstance(action, DeleteDead) for action in actions(view))


def test_a_pod_that_a_task_is_on_its_way_to_is_left_alone() -> None:
    """R2."""
    assigned = task("t", phase=TaskPhase.ASSIGNED, on="p0")
    assert shown(pool(pods("..."), (assigned,), replicas=0)) == []
    assert shown(pool(pods("..."), (task("t"),), replicas=0, dispatching={"t": "uid-p0"})) == []


def test_a_minimum_idle_time_holds_only_with_autoscaling() -> None:
    """R2."""
    young = pod("p", "...", since=NOW)
    assert shown(pool((young,), min_idle_seconds=60)) == []
    assert shown(pool((young,), replicas=0)) == ["DrainPod p"]


def test_nothing_goes_while_not_everything_is_known() -> None:
    """T4, R3."""
    present = (
        pod("p", "..."),
        pod("s", None, state=STARTING),
        pod("d", "...", state=DRAINING),
        pod("x", "...", dead=True),
        pod("c", "...", node_cordoned=True),
    )
    assert shown(pool(present, replicas=0, synced=False)) == []
    assert shown(pool((), replicas=0, synced=False, deleting=True)) == []


def test_a_node_being_emptied_gets_its_pods_drained_as_they_fall_idle() -> None:
    """And one that somebody asked to drain; whatever the size should be. Others are made once those are gone."""
    present = (
        pod("c", "...", node_cordoned=True),
        pod("q", "...", drain_requested=True),
        pod("r", "r..", node_cordoned=True),
    )
    assert shown(pool(present, replicas=3)) == ["DrainPod c", "DrainPod q"]
    gone = tuple(replace(item, in_flight=PodOperation.REMOVE) for item in present[:2])
    assert shown(pool((*gone, present[2]), replicas=3)) == ["CreatePods 2"]


def test_a_starting_pod_on_a_cordoned_node_is_not_opened() -> None:
    assert shown(pool((pod("s", "...", state=STARTING, node_cordoned=True),), replicas=1)) == ["DeleteStarting s"]


def test_a_drain_under_way_goes_on() -> None:
    assert shown(pool((pod("d", "...", state=DRAINING),))) == ["DrainPod d"]


def test_a_drain_is_taken_back_when_the_size_wants_the_pod_again() -> None:
    """O1: before any Pod is created."""
    draining = (pod("d", "...", state=DRAINING), pod("e", "...", state=DRAINING))
    assert shown(pool(draining, tasks("plan", 1))) == ["TakeBack d", "DrainPod e"]
    assert shown(pool(draining, tasks("apply", 3))) == ["TakeBack d", "TakeBack e", "CreatePods 1"]


def test_a_draining_pod_that_holds_something_is_taken_back() -> None:
    """O1, T1: its journal was lost and a worker still ran; or somebody edited the label. It is protected again."""
    assert shown(pool((pod("d", "r..", state=DRAINING),))) == ["TakeBack d"]
    assert shown(pool((pod("d", "...", state=DRAINING, ended=("t.1",)),))) == ["TakeBack d"]


@pytest.mark.parametrize(
    "given",
    [
        pod("d", "...", state=DRAINING, connected=False),
        pod("d", None, state=DRAINING),
        pod("d", "...", state=DRAINING, in_flight=PodOperation.REMOVE),
        pod("d", "...", state=DRAINING, deleting=True),
    ],
    ids=["silent", "never heard", "in flight", "deleting"],
)
def test_a_drain_that_can_not_be_confirmed_waits(given: PodView) -> None:
    """No answer is not "idle"."""
    assert shown(pool((given,))) == []


def test_pods_on_their_way_out_take_up_room_below_the_maximum() -> None:
    silent = pod("d", "...", state=DRAINING, connected=False)
    going = pod("e", "...", in_flight=PodOperation.REMOVE)
    assert shown(pool((silent, going), tasks("apply", 5), max_replicas=3)) == ["CreatePods 1"]
    assert shown(pool((replace(silent, dead=True),), tasks("apply", 5), max_replicas=3)) == [
        "DeleteDead d",
        "CreatePods 3",
    ]


def test_an_open_pod_without_our_finalizer_gets_it_back() -> None:
    """N5: somebody took it off, or an older controller opened the Pod. What it holds goes on meanwhile."""
    bare = pod("b", "r..", tracked=False)
    assert shown(pool((bare, pod("p", "r..")))) == ["OpenPod b"]
    assert shown(pool((replace(bare, drain_requested=True),))) == ["OpenPod b"]
    for left in (
        replace(bare, deleting=True),
        replace(bare, connected=False),
        replace(bare, dead=True),
        replace(bare, in_flight=PodOperation.OPEN),
    ):
        assert not any(word.startswith("OpenPod") for word in shown(pool((left,))))


def test_dead_pods_are_deleted_once_no_task_needs_them_as_proof() -> None:
    """T27, R7."""
    dead = pod("x", "...", dead=True, tracked=False)
    running = task("t", phase=TaskPhase.RUNNING, on="x")
    assert shown(pool((dead,), (running,))) == []
    assert shown(pool((dead,), (task("t"),), dispatching={"t": "uid-x"})) == []
    assert shown(pool((dead,))) == ["DeleteDead x"]
    assert shown(pool((replace(dead, in_flight=PodOperation.REMOVE),))) == []
    assert actions(pool((dead,))) == (DeleteDead(dead, force=False),)
    view = pool((dead,))
    in_time = replace(dead, deleting=True, gone_by=view.now - timedelta(seconds=29))
    assert actions(pool((in_time,))) == ()  # its kubelet finishes the deletion
    overdue = replace(dead, deleting=True, gone_by=view.now - timedelta(seconds=30))
    assert actions(pool((overdue,))) == (DeleteDead(overdue, force=True),)


def test_a_deleted_pool_drains_and_then_leaves_nothing() -> None:
    """T30."""
    present = (pod("i", "...", since=NOW), pod("s", "...", state=STARTING, created=NOW), pod("r", "r.."))
    held = task("t", phase=TaskPhase.RUNNING, on="r")
    assert shown(pool(present, (held,), deleting=True, min_replicas=2)) == ["DeleteStarting s", "DrainPod i"]
    assert actions(pool((present[2],), (held,), deleting=True)) == ()
    assert actions(pool((replace(present[2], deleting=True),), deleting=True)) == ()
    assert actions(pool((), deleting=True, creating=1)) == ()
    assert actions(pool((), deleting=True)) == (FinishDeletion(),)


def test_force_cancels_what_runs_and_still_drains() -> None:
    """T30."""
    held, queued = task("t", phase=TaskPhase.RUNNING, on="p0"), task("q")
    view = pool(pods("r.."), (held, queued), deleting=True, deletion_policy=DeletionPolicy.FORCE)
    assert actions(view) == (CancelTask(held),)


def test_a_change_of_the_template_takes_nothing_away() -> None:
    """T16."""
    other = replace(pod("p", "r.."), template_hash="other")
    assert shown(pool((other,))) == []


def test_before_anything_else_pods_get_the_token_secret_that_is_there_as_their_owner() -> None:
    """It was deleted and made anew: with the pool as its only owner a Pod goes with it, whatever it holds."""
    owned, other, none = (pod(name, "R..", token_secret=uid) for name, uid in (("a", "new"), ("b", "old"), ("c", None)))
    view = replace(pool((owned, other, none)), token_secret="new")
    for given in (view, replace(view, deleting=True)):
        assert actions(given)[:2] == (SetOwner(other, "new"), SetOwner(none, "new"))
        assert not [action for action in actions(given)[2:] if isinstance(action, SetOwner)]
    assert not [action for action in actions(replace(view, token_secret=None)) if isinstance(action, SetOwner)]
