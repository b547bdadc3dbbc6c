"""One answer to "does this Pod take work now", whoever asks: the size, the actions on Pods, the assignment of tasks."""

import itertools
from dataclasses import replace

import pytest

from agent.wire import Phase
from controller.decide.pods.pod_actions import DrainPod, pod_actions
from controller.decide.scaling.size import decide_size
from controller.decide.tasks.assignment import assign
from controller.decide.view import Offer, PodOperation, PodState, PodView
from tests.support.pools import pod, pool, tasks


def too_old(view: PodView) -> PodView:
    assert view.agent is not None
    return replace(view, agent=replace(view.agent, version="0.0.9"))


UNUSABLE = {
    "its agent is too old": too_old(pod("a", "...")),
    "it is an earlier pool's of the name": pod("a", "...", disowned=True),
    "a person wants it gone": pod("a", "...", drain_requested=True),
    "its node is cordoned": pod("a", "...", node_cordoned=True),
}


@pytest.mark.parametrize("why", UNUSABLE)
def test_what_gets_no_task_is_no_free_capacity(why: str) -> None:
    """Else what waits would wait for ever: the size counts on slots that the assignment never gives away."""
    view = pool([UNUSABLE[why]], tasks("plan", 1), max_replicas=2)
    decision = decide_size(view)
    assert assign(decision.basis) == ()
    assert decision.free_slots == 0
    assert decision.desired == 2


@pytest.mark.parametrize("why", UNUSABLE)
def test_an_idle_pod_that_gets_no_task_makes_room_for_one_that_does(why: str) -> None:
    """A pool at its maximum has no other way to a Pod that works."""
    view = pool([UNUSABLE[why]], tasks("plan", 1), max_replicas=1)
    assert DrainPod(UNUSABLE[why]) in pod_actions(view, decide_size(view))


@pytest.mark.parametrize("why", UNUSABLE)
def test_a_pod_that_gets_no_task_keeps_what_it_holds(why: str) -> None:
    busy = replace(UNUSABLE[why], agent=pod("a", "r..").agent)
    if why == "its agent is too old":
        busy = too_old(busy)
    view = pool([busy], tasks("plan", 1), max_replicas=1)
    assert not [action for action in pod_actions(view, decide_size(view)) if isinstance(action, DrainPod)]


def test_the_size_and_the_assignment_agree_on_every_pod() -> None:
    """Free slots that the decision counts as there now are those that tasks get, whatever is known of a Pod."""
    for state, phase, operation, *flags in itertools.product(
        PodState, Phase, (None, *PodOperation), *((False, True) for _ in range(8))
    ):
        connected, contacting, closing, old, drain, cordoned, disowned, deleting = flags
        view = pod("a", "...", state=state, phase=phase, closing=closing, connected=connected, contacting=contacting)
        view = replace(
            too_old(view) if old else view,
            in_flight=operation,
            drain_requested=drain,
            node_cordoned=cordoned,
            disowned=disowned,
            deleting=deleting,
        )
        whole = pool([view], tasks("plan", 3))
        decision = decide_size(whole)
        given = assign(decision.basis)
        assert decision.basis.census.now.total() == len(given), view
        assert bool(given) is (view.offer is Offer.NOW), view
