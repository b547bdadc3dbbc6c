"""Deployment mode: what becomes of decisions about Pods, and of which size the Deployments are to be."""

from dataclasses import replace
from typing import Any

import pytest

from agent.wire import Phase
from controller import names
from controller.decide.pods.deployment_mode import (
    DropDeployment,
    DropReplicaSet,
    MakeDeployment,
    MarkPod,
    PauseDeployment,
    ScaleDeployment,
    TakeBackMark,
    for_deployments,
    for_pods,
    observe_deployments,
    replica_problem,
    to_come,
)
from controller.decide.pods.pod_actions import CreatePods, DrainPod, OpenPod, SetOwner, pod_actions
from controller.decide.scaling.size import decide_size
from controller.decide.view import DeploymentView, PodState, PodView, PoolView
from controller.objects.deployment import REVISION
from controller.objects.pool import Mode
from tests.support.pools import pod, pool, tasks

STARTING, ACTIVE, DRAINING = PodState.STARTING, PodState.ACTIVE, PodState.DRAINING


def deployment(name: str = "d", replicas: int = 0, **given: Any) -> DeploymentView:
    view = DeploymentView(
        name=name,
        uid=f"uid-{name}",
        template_hash="now",
        replicas=replicas,
        known=True,
        paused=True,
        replica_sets=((f"uid-{name}-rs", f"{name}-rs"),),
    )
    return replace(view, **given)


def replica(name: str, slots: str | None = "...", of: str = "d", **given: Any) -> PodView:
    """A Pod that a Deployment's ReplicaSet manages."""
    owned = {"deployment": of, "replica_set": f"uid-{of}-rs", "template_hash": "now", "token_secret": "uid-secret"}
    return pod(name, slots, **{**owned, **given})


def site(*pods: PodView, of: tuple[DeploymentView, ...] = (), mode: Mode = Mode.DEPLOYMENT, **given: Any) -> PoolView:
    """A pool of a fixed size unless said otherwise."""
    orphaned = given.pop("orphaned_sets", ())
    view = pool(pods, **{"replicas": len(pods), **given})
    view = replace(view, spec=replace(view.spec, mode=mode), template_hash="now", token_secret="uid-secret")
    view = replace(view, deployments=of, orphaned_sets=orphaned)
    return replace(view, creating=to_come(view))


def on_pods(view: PoolView) -> tuple[Any, ...]:
    return for_pods(view, pod_actions(view, decide_size(view)))


def on_deployments(view: PoolView) -> tuple[Any, ...]:
    decision = decide_size(view)
    wanted = sum(action.count for action in pod_actions(view, decision) if isinstance(action, CreatePods))
    return for_deployments(view, decision, wanted)


def test_pods_come_from_a_deployment_that_is_made_paused_and_then_given_its_size() -> None:
    assert on_pods(site(replicas=2)) == ()
    assert on_deployments(site(replicas=2)) == (MakeDeployment(),)
    unknown = deployment(known=False, paused=False, replica_sets=())
    assert on_deployments(site(replicas=2, of=(unknown,))) == (), "it has no ReplicaSet yet"
    made = deployment(paused=False)
    assert on_deployments(site(replicas=2, of=(made,))) == (PauseDeployment(made),)
    ready = deployment()
    assert on_deployments(site(replicas=2, of=(ready,))) == (ScaleDeployment(ready, 2, ()),)


def test_pods_that_it_was_told_to_have_are_on_their_way() -> None:
    """A3: none is asked for twice, and what is not there yet is the first to be given up."""
    told = deployment(replicas=3)
    view = site(replica("a"), replicas=3, of=(told,))
    assert view.creating == 2
    assert on_deployments(view) == ()
    assert on_deployments(site(replica("a"), replicas=2, of=(told,))) == (ScaleDeployment(told, 2, ()),)


def test_a_pod_is_drained_and_marked_before_the_size_is_lowered() -> None:
    found = deployment(replicas=2)
    one, two = replica("a"), replica("b")
    view = site(one, two, replicas=1, of=(found,))
    (mark,) = on_pods(view)
    assert isinstance(mark, MarkPod)
    assert not mark.starting
    assert on_deployments(view) == (), "no Pod is marked yet"
    marked = replica("a", state=DRAINING)
    view = site(marked, two, replicas=1, of=(found,))
    assert on_pods(view) == ()
    assert on_deployments(view) == (ScaleDeployment(found, 1, (marked,)),)


@pytest.mark.parametrize("slots", ["r..", "R..", "rRr"])
def test_a_pod_that_holds_something_is_never_marked(slots: str) -> None:
    """T1."""
    found = deployment(replicas=1)
    view = site(replica("a", slots), replicas=0, of=(found,))
    assert on_pods(view) == ()
    assert on_deployments(view) == ()


def test_a_size_that_somebody_else_has_set_is_put_right() -> None:
    found = deployment(replicas=0)
    view = site(replica("a", "R.."), replica("b"), of=(found,))
    assert on_deployments(view) == (ScaleDeployment(found, 2, ()),)
    more = deployment(replicas=9)
    view = site(replica("a", "R.."), replica("b"), of=(more,))
    assert on_deployments(view) == (ScaleDeployment(more, 2, ()),)


def test_pods_that_were_never_opened_go_first_and_need_no_drain() -> None:
    """D2."""
    found = deployment(replicas=2)
    fresh = replica("b", None, state=STARTING)
    assert on_pods(site(replica("a"), fresh, replicas=1, of=(found,))) == (MarkPod(fresh, starting=True),)


def test_no_pod_is_opened_before_it_has_its_second_owner() -> None:
    """N3: its ReplicaSet makes it without, and the garbage collector would take it along."""
    found = deployment(replicas=1)
    bare = replica("a", state=STARTING, token_secret=None)
    assert on_pods(site(bare, of=(found,))) == (SetOwner(bare, "uid-secret"),)
    of_before = replica("a", state=STARTING, token_secret="uid-before")
    assert on_pods(site(of_before, of=(found,))) == (SetOwner(of_before, "uid-secret"),)
    owned = replica("a", state=STARTING)
    assert on_pods(site(owned, of=(found,))) == (OpenPod(owned),)


def test_a_pod_that_served_is_opened_again_only_as_one_whose_drain_is_taken_back() -> None:
    """T1, T11: a smaller size that was decided before may be on its way: it fails once the Deployment was written."""
    found, again = deployment(replicas=1), replica("a", phase=Phase.DRAINED)
    assert on_pods(site(again, of=(found,))) == (TakeBackMark(again, found, needed=False),)
    unheld = replica("a", tracked=False)
    assert on_pods(site(unheld, of=(found,))) == (OpenPod(unheld),), "its agent is open: that is no drain"
    told_to_go = deployment(replicas=0)
    assert on_pods(site(again, of=(told_to_go,))) == ()
    assert on_deployments(site(again, of=(told_to_go,))) == (ScaleDeployment(told_to_go, 1, ()),)


def test_a_drain_is_taken_back_while_nothing_has_been_told_to_go() -> None:
    """O1; after that the ReplicaSet may delete it at any moment, and another is made instead."""
    marked = replica("a", state=DRAINING)
    free = deployment(replicas=1)
    assert on_pods(site(marked, of=(free,))) == (TakeBackMark(marked, free, needed=False),)
    told = deployment(replicas=0)
    assert on_pods(site(marked, of=(told,))) == ()
    holding = replica("a", "r..", state=DRAINING)
    assert on_pods(site(holding, of=(told,))) == (TakeBackMark(holding, told, needed=True),)


def test_a_marked_pod_is_deleted_by_the_controller_where_its_replica_set_insists_on_another() -> None:
    marked = replica("a", state=DRAINING)
    refused = deployment(replicas=1, failure=("FailedDelete", "Pod b is active"))
    view = site(marked, replica("b", "R.."), replicas=1, of=(refused,))
    assert on_pods(view) == (DrainPod(marked),)
    assert replica_problem(view) is None


def test_a_quota_that_lets_no_pod_be_made_is_a_problem() -> None:
    """R8."""
    refused = deployment(replicas=2, failure=("FailedCreate", "exceeded quota: pods"))
    problem = replica_problem(site(replicas=2, of=(refused,)))
    assert problem is not None
    assert problem.reason == "QuotaExceeded"


def test_the_deployment_of_another_template_only_shrinks_and_goes_at_last() -> None:
    """T16: also in Pods mode, for the one of before."""
    old = deployment(replicas=2, template_hash="before")
    busy = replica("a", "R..", template_hash="before")
    for mode in Mode:
        view = site(busy, replicas=1, of=(old,), mode=mode)
        assert ScaleDeployment(old, 1, ()) in on_deployments(view)
        assert not any(isinstance(action, DropDeployment) for action in on_deployments(view))
    empty = replace(old, replicas=0)
    assert on_deployments(site(replicas=0, of=(empty,), mode=Mode.PODS)) == (DropDeployment(empty),)


def test_pods_of_pods_mode_are_the_controllers_own() -> None:
    own = pod("p", template_hash="other", token_secret="uid-secret")
    found = deployment()
    view = site(own, replicas=0, of=(found,))
    assert on_pods(view) == (DrainPod(own),)


BROKEN = {
    "its ReplicaSet was deleted": {"replica_sets": ()},
    "somebody has rolled out another template": {"replica_sets": (("1", "x"), ("2", "y"))},
}


@pytest.mark.parametrize("change", BROKEN.values(), ids=BROKEN)
def test_one_that_is_not_as_it_was_made_is_let_go_of_and_another_made(change: dict[str, Any]) -> None:
    broken = deployment(replicas=2, **change)
    orphan = replica("a", "R..", replica_set="")
    view = site(orphan, replicas=2, of=(broken,))
    assert on_deployments(view) == (DropDeployment(broken), MakeDeployment())


def test_replica_sets_that_nobody_scales_are_let_go_of() -> None:
    """Those of a Deployment that was deleted without them, or that can't go for somebody's finalizer."""
    left = (("uid-d-rs", "d-rs"),)
    held = replica("a", "R..")
    assert DropReplicaSet(*left[0]) in on_deployments(site(held, orphaned_sets=left))
    going = deployment(replicas=1, deleting=True)
    assert on_pods(site(replica("a"), replicas=0, of=(going,))) == ()
    assert DropReplicaSet(*left[0]) in on_deployments(site(held, of=(going,)))


def test_what_lost_its_manager_is_drained_and_deleted_by_the_controller() -> None:
    orphan = replica("a", replica_set="")
    assert on_pods(site(orphan, replicas=0)) == (DrainPod(orphan),)


def test_a_deleted_pool_waits_for_its_deployments() -> None:
    """T30."""
    found = deployment()
    view = site(of=(found,), deleting=True)
    assert on_pods(view) == ()
    assert on_deployments(view) == (DropDeployment(found),)


def test_nothing_shrinks_while_not_everything_is_known() -> None:
    marked = replica("a", state=DRAINING)
    view = site(marked, replicas=0, of=(deployment(replicas=1),), synced=False)
    assert on_deployments(view) == ()


def test_demand_makes_replicas() -> None:
    """T4: from none."""
    found = deployment()
    view = replace(site(of=(found,), replicas=None, max_replicas=5), tasks=tasks("apply", 3))
    assert on_deployments(view) == (ScaleDeployment(found, 3, ()),)


def test_objects_are_read_with_whose_they_are() -> None:
    def obj(name: str, owner: str, **parts: Any) -> dict[str, Any]:
        owners = [{"kind": "X", "name": owner, "uid": f"uid-{owner}", "controller": True}] if owner else []
        metadata = {"name": name, "uid": f"uid-{name}", "creationTimestamp": "t", "ownerReferences": owners}
        return {"metadata": {**metadata, **parts.pop("metadata", {})}, **parts}

    notes = {"annotations": {names.TEMPLATE_HASH: "now", REVISION: "1"}}
    failing = {"conditions": [{"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "no"}]}
    mine = obj("d", "pool", metadata=notes, spec={"replicas": 2, "paused": True}, status=failing)
    earlier = obj("e", "before", spec={})
    sets = [
        obj("rs", "d"),
        obj("of-earlier", "e"),
        obj("left", ""),
        obj("gone", "d", metadata={"deletionTimestamp": "t"}),
    ]
    (found,), orphans = observe_deployments([mine, earlier], sets, "uid-pool")
    assert found == deployment(replicas=2, replica_sets=(("uid-rs", "rs"),), failure=("FailedCreate", "no"))
    assert orphans == (("uid-left", "left"),)
    nobodys = obj("n", "", metadata=notes, spec={"selector": {"matchLabels": {names.DEPLOYMENT_LABEL: "n"}}})
    somebodys = obj("s", "", metadata=notes, spec={"selector": {"matchLabels": {"app": "s"}}})
    (found,), _ = observe_deployments([nobodys, somebodys], (), "uid-pool")
    assert (found.name, found.template_hash) == ("n", ""), "ours, and to be replaced"
