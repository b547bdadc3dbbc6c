"""Pods of an earlier template are replaced as they fall idle, within bounds; what they hold is never touched."""

import random
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.wire import Phase
from controller.decide.pods.pod_actions import (
    CreatePods,
    DeleteStarting,
    DrainPod,
    OpenPod,
    TakeBack,
    pod_actions,
    removed,
    surplus,
)
from controller.decide.pods.rollout import Starts, roll_out
from controller.decide.scaling.size import SizeDecision, decide_size
from controller.decide.start_problem import StartProblem
from controller.decide.view import Offer, PodOperation, PodState, PodView, PoolView, RolloutStand
from controller.objects.pool import UpdateStrategy, UpdateType
from tests.support.pools import NOW, agent, pod, pool, task

NO_IMAGE = StartProblem(reason="ErrImagePull", message="no such image")
PROVEN = Starts(proven=True)


def old(name: str, slots: str = "...", **given_: Any) -> PodView:
    return pod(name, slots, template_hash="old", **given_)


def new(name: str, slots: str | None = "...", **given_: Any) -> PodView:
    return pod(name, slots, template_hash="new", **given_)


def rolled(*pods: PodView, starts: Starts = PROVEN, update: UpdateStrategy | None = None, **given_: Any) -> PoolView:
    """The view of a pool whose template is `new`."""
    view = pool(pods, **given_)
    spec = replace(view.spec, update=update or UpdateStrategy())
    return roll_out(replace(view, spec=spec, template_hash="new"), starts)


def retiring(view: PoolView) -> set[str]:
    return {pod_.name for pod_ in view.pods if pod_.retiring}


def act(view: PoolView) -> tuple[Any, ...]:
    return pod_actions(view, decide_size(view))


def test_a_pool_without_outdated_pods_is_left_alone() -> None:
    view = rolled(new("a"), new("b", "r.."), replicas=2)
    assert not retiring(view)
    assert (view.rollout.stand, view.rollout.updated, view.rollout.total) == (RolloutStand.NONE, 2, 2)


def test_the_pod_that_holds_least_retires_and_its_replacement_is_made_at_once() -> None:
    view = rolled(old("a", "R.."), old("b", "r.."), old("c", "rr."), replicas=3)
    assert retiring(view) == {"b"}
    assert act(view) == (CreatePods(1),)


def test_a_retiring_pod_takes_nothing_new_and_is_drained_once_it_is_idle() -> None:
    view = rolled(old("a"), old("b", "R.."), new("c"), replicas=3)
    (gone,) = [pod_ for pod_ in view.pods if pod_.retiring]
    assert gone.name == "a"
    assert gone.offer is Offer.NOTHING
    assert DrainPod(gone) in act(view)


def test_no_more_retire_than_may_be_unavailable() -> None:
    pods = [old(name, "r..") for name in "abcdef"]
    assert len(retiring(rolled(*pods, replicas=6))) == 1
    assert len(retiring(rolled(*pods, replicas=6, update=UpdateStrategy(max_unavailable=3)))) == 3
    unheard = [replace(pod_, connected=False) for pod_ in pods[:2]]
    assert not retiring(rolled(*unheard, *pods[2:], replicas=6))


def test_all_pods_are_never_more_than_the_size_and_the_surge() -> None:
    held = [old(name, "R..") for name in "ab"]
    three = rolled(*held, new("c"), replicas=2)
    assert not [action for action in act(three) if isinstance(action, CreatePods)]
    assert act(rolled(*held, replicas=2)) == (CreatePods(1),)
    assert act(rolled(*held, replicas=2, update=UpdateStrategy(max_surge=0))) == ()


def test_an_autoscaled_pool_may_exceed_its_maximum_by_the_surge() -> None:
    assert act(rolled(old("a", "R.."), max_replicas=1, min_replicas=1)) == (CreatePods(1),)
    assert act(rolled(old("a", "R.."), new("b"), max_replicas=1, min_replicas=1)) == ()


def test_an_autoscaled_pool_makes_no_replacement_that_it_does_not_need() -> None:
    view = rolled(old("a", "R.."), old("b", "R.."))
    assert retiring(view) == {"a"}
    assert act(view) == ()


def test_until_one_new_pod_serves_none_retires_and_one_is_tried_beyond_the_size() -> None:
    untried = rolled(old("a"), old("b"), replicas=2, starts=Starts())
    assert not retiring(untried)
    assert act(untried) == (CreatePods(1),)
    trying = rolled(old("a"), old("b"), new("c", None, state=PodState.STARTING), replicas=2, starts=Starts())
    assert not retiring(trying)
    assert act(trying) == ()
    assert surplus(trying, decide_size(trying), frozenset()) == frozenset()
    assert retiring(rolled(old("a"), old("b"), new("c"), replicas=2, starts=Starts())) == {"a", "b"}


def test_pods_of_earlier_templates_that_fill_all_room_give_way_to_a_trial() -> None:
    """The template changed twice: there is one Pod of each, and room for no third."""
    for starts in (Starts(), Starts(problem=NO_IMAGE)):
        view = rolled(old("a"), pod("b", template_hash="older"), replicas=1, starts=starts)
        assert [type(action) for action in act(view)] == [DrainPod]
    trying = rolled(old("a"), new("c", None, state=PodState.STARTING), replicas=1, starts=Starts())
    assert act(trying) == ()
    roomy = UpdateStrategy(max_surge=2)
    assert act(rolled(old("a"), pod("b", template_hash="older"), replicas=1, starts=Starts(), update=roomy)) == (
        CreatePods(1),
    )


def test_without_room_for_a_trial_one_pod_retires_and_no_other_until_the_new_one_serves() -> None:
    tight = UpdateStrategy(max_surge=0, max_unavailable=2)
    assert retiring(rolled(old("a"), old("b"), replicas=2, starts=Starts(), update=tight)) == {"a"}
    starting = new("c", None, state=PodState.STARTING)
    assert not retiring(rolled(old("b"), starting, replicas=2, starts=Starts(), update=tight))
    assert not retiring(rolled(old("b"), replicas=2, creating=1, starts=Starts(), update=tight))
    drained = old("a", state=PodState.DRAINING)
    assert retiring(rolled(drained, old("b"), replicas=2, starts=Starts(), update=tight)) == {"a"}


@pytest.mark.parametrize("fixed", [True, False])
def test_while_new_pods_do_not_start_the_old_ones_serve_on(fixed: bool) -> None:
    size: dict[str, Any] = {"replicas": 2} if fixed else {"min_replicas": 2}
    stuck = new("c", None, state=PodState.STARTING, start_problem=NO_IMAGE, stuck=True)
    view = rolled(old("a"), old("b"), stuck, **size)
    assert view.rollout.stand is RolloutStand.STUCK
    assert "ErrImagePull: no such image" in view.rollout.why
    assert not retiring(view)
    assert act(view) == ()
    gone = rolled(old("a"), old("b"), starts=Starts(problem=NO_IMAGE), **size)
    assert not retiring(gone)
    assert act(gone) == (CreatePods(1),)


def test_a_paused_rollout_retires_nobody_and_keeps_what_is_there() -> None:
    view = rolled(old("a"), old("b"), new("c"), replicas=2, update=UpdateStrategy(paused=True))
    assert view.rollout.stand is RolloutStand.PAUSED
    assert not retiring(view)
    assert act(view) == ()


def test_a_paused_rollout_does_not_keep_a_pool_from_shrinking() -> None:
    view = rolled(old("a"), replicas=0, update=UpdateStrategy(paused=True))
    assert [type(action) for action in act(view)] == [DrainPod]


def test_on_delete_only_what_somebody_drains_is_replaced() -> None:
    update = UpdateStrategy(type=UpdateType.ON_DELETE)
    view = rolled(old("a"), old("b"), replicas=2, update=update)
    assert view.rollout.stand is RolloutStand.ON_DELETE
    assert not retiring(view)
    assert act(view) == ()
    asked = rolled(replace(old("a"), drain_requested=True), old("b"), replicas=2, update=update)
    assert [action.pod.name for action in act(asked) if isinstance(action, DrainPod)] == ["a"]


def test_a_pool_that_is_paused_at_the_size_it_has_replaces_nobody() -> None:
    """Its size is the number of its Pods, so that one that goes would not come again."""
    view = rolled(old("a"), old("b"), paused=True)
    assert view.rollout.stand is RolloutStand.PAUSED
    assert act(view) == ()
    assert retiring(rolled(old("a"), old("b"), new("c"), paused=True, replicas=2)) == {"a", "b"}


def test_a_pool_that_is_deleted_rolls_nothing_out() -> None:
    view = rolled(old("a", "r.."), old("b", "r.."), replicas=2, deleting=True)
    assert not retiring(view)
    assert view.rollout.stand is RolloutStand.NONE


def test_a_drained_pod_of_an_earlier_template_is_not_taken_back() -> None:
    drained = old("a", state=PodState.DRAINING)
    view = rolled(drained, old("b", "R.."), new("c"), replicas=3)
    assert not [action for action in act(view) if isinstance(action, TakeBack)]
    back = rolled(drained, old("b", "R.."), replicas=2, update=UpdateStrategy(paused=True))
    assert [action.pod.name for action in act(back) if isinstance(action, TakeBack)] == ["a"]


def test_pods_on_a_cordoned_node_are_not_counted_as_available() -> None:
    cordoned = replace(old("a", "r.."), node_cordoned=True)
    view = rolled(cordoned, old("b", "r.."), new("c"), replicas=3)
    assert not retiring(view)


def test_what_a_retiring_pod_has_free_is_no_capacity() -> None:
    """Two queued plans would fit into the two slots that the old Pod has free."""
    leaving, busy = replace(old("a", "R.."), retiring=True), new("c", "rrr")
    decision = decide_size(pool((leaving, busy), (task("one"), task("two")), scale_up_utilization_percent=100))
    assert (decision.free_slots, decision.current, decision.desired) == (0, 1, 2)


# --- many rounds ------------------------------------------------------------------------------------------------------


@dataclass
class Pool:
    """A pool that does what is decided, at once, while its Pods fall busy and idle at random."""

    rng: random.Random
    settings: dict[str, Any]
    update: UpdateStrategy
    pods: dict[str, PodView] = field(default_factory=dict)
    now: datetime = NOW
    made: int = 0
    starts: bool = True
    proven: bool = False

    def view(self) -> PoolView:
        view = pool(tuple(self.pods.values()), now=self.now, **self.settings)
        view = replace(view, spec=replace(view.spec, update=self.update), template_hash="new")
        problem = None if self.starts else NO_IMAGE
        return roll_out(view, Starts(proven=self.proven, problem=problem if self.made else None, retry_due=True))

    def available(self) -> int:
        return sum(pod_.offer is Offer.NOW for pod_ in self.view().pods)

    def round(self) -> SizeDecision:
        view = self.view()
        decision = decide_size(view)
        actions = pod_actions(view, decision)
        taken = surplus(view, decision, removed(actions))
        for action in actions:
            match action:
                case CreatePods(count=count):
                    for _ in range(count):
                        self.made += 1
                        name = f"n{self.made}"
                        self.pods[name] = new(name, state=PodState.STARTING, created=self.now, since=self.now)
                case OpenPod(pod=it) | TakeBack(pod=it):
                    if it.template_hash == "old" or self.starts:
                        self.proven = self.proven or it.template_hash == "new"
                        self.pods[it.name] = replace(
                            self.pods[it.name], state=PodState.ACTIVE, agent=agent(it.name), opened=self.now
                        )
                case DrainPod(pod=it) | DeleteStarting(pod=it):
                    assert not it.held, f"{it.name} was taken away with what it held"
                    if self.rng.random() < 0.5:
                        del self.pods[it.name]
                    elif it.state is PodState.ACTIVE:
                        drained = agent(it.name, phase=Phase.DRAINED)
                        self.pods[it.name] = replace(self.pods[it.name], state=PodState.DRAINING, agent=drained)
                case _:
                    raise AssertionError(action)
        self._work(view, taken)
        self.now += timedelta(seconds=30)
        return decision

    def _work(self, view: PoolView, taken: frozenset[str]) -> None:
        """Tasks end; others begin where Pods take any."""
        for seen in view.pods:
            it = self.pods.get(seen.name)
            if it is None or it.state is not PodState.ACTIVE or it.in_flight is PodOperation.REMOVE:
                continue
            load = list("R" * it.load.reserved + "r" * it.load.running)
            load = [letter for letter in load if self.rng.random() < (0.8 if letter == "R" else 0.5)]
            if seen.offer is Offer.NOW and seen.uid not in taken:
                while len(load) < 3 and self.rng.random() < 0.4:
                    load.append("R" if "R" not in load and self.rng.random() < 0.5 else "r")
            slots = "".join(sorted(load)).ljust(3, ".")
            self.pods[it.name] = replace(it, agent=agent(it.name, slots, since=self.now))


LOADS = st.sampled_from(["...", "r..", "R..", "rr.", "Rr.", "Rrr"])
UPDATES = st.builds(UpdateStrategy, max_unavailable=st.integers(1, 3), max_surge=st.integers(0, 3))


@given(loads=st.lists(LOADS, min_size=1, max_size=6), update=UPDATES, seed=st.integers(0, 2**16))
def test_a_pool_of_a_fixed_size_comes_to_the_new_template_within_its_bounds(
    loads: list[str], update: UpdateStrategy, seed: int
) -> None:
    size = len(loads)
    it = Pool(random.Random(seed), {"replicas": size}, update)
    it.pods = {f"p{index}": old(f"p{index}", load) for index, load in enumerate(loads)}
    for _ in range(400):
        it.round()
        assert len(it.pods) <= size + update.max_surge
        assert it.available() >= size - update.max_unavailable
        serving = [pod_ for pod_ in it.pods.values() if pod_.state is PodState.ACTIVE]
        if [pod_.template_hash for pod_ in serving] == ["new"] * size and len(it.pods) == size:
            return
    raise AssertionError(f"still {set(it.pods)}")


@given(
    loads=st.lists(LOADS, min_size=1, max_size=6),
    update=UPDATES,
    seed=st.integers(0, 2**16),
    least=st.integers(0, 4),
    room=st.integers(0, 3),
)
def test_an_autoscaled_pool_comes_to_the_new_template_within_its_bounds(
    loads: list[str], update: UpdateStrategy, seed: int, least: int, room: int
) -> None:
    most = max(len(loads), least) + room
    it = Pool(random.Random(seed), {"min_replicas": least, "max_replicas": most, "min_idle_seconds": 60}, update)
    it.pods = {f"p{index}": old(f"p{index}", load) for index, load in enumerate(loads)}
    for _ in range(400):
        before = it.available()
        bare = replace(it.view(), pods=tuple(it.pods.values()))
        floor = min(before, max(0, decide_size(bare).desired - update.max_unavailable))
        assert it.available() >= floor
        it.round()
        assert len(it.pods) <= most + update.max_surge
        if all(pod_.template_hash == "new" for pod_ in it.pods.values()) and len(it.pods) >= least:
            return
    raise AssertionError(f"still {set(it.pods)}")


@given(loads=st.lists(LOADS, min_size=1, max_size=6), update=UPDATES, seed=st.integers(0, 2**16))
def test_a_template_that_does_not_start_costs_no_pod_where_there_is_room_to_try(
    loads: list[str], update: UpdateStrategy, seed: int
) -> None:
    it = Pool(random.Random(seed), {"replicas": len(loads)}, update, starts=False)
    it.pods = {f"p{index}": old(f"p{index}", load) for index, load in enumerate(loads)}
    for _ in range(60):
        it.round()
        lost = len(loads) - sum(pod_.template_hash == "old" for pod_ in it.pods.values())
        assert lost <= (0 if update.max_surge else 1)
