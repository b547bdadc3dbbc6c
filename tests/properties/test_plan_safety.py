"""Over any view whatever: what is planned never touches a Pod that may have work, and decisions fit together."""

from collections import Counter
from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from agent.wire import Phase, SlotState
from controller.decide.pods.pod_actions import (
    CancelTask,
    CreatePods,
    DeleteDead,
    DeleteStarting,
    DrainPod,
    FinishDeletion,
    OpenPod,
    TakeBack,
    pod_actions,
    removed,
)
from controller.decide.pools.pool_figures import TaskCounts, pool_figures
from controller.decide.pools.pool_status import Before, pool_status
from controller.decide.problem import Problems
from controller.decide.scaling.size import decide_size
from controller.decide.tasks.assignment import assign
from controller.decide.view import PodOperation, PodState, PodView, PoolView
from controller.objects.pool import DeletionPolicy
from controller.objects.task import Task, TaskPhase
from tests.support.pools import NOW, pod, pool, task

ages = st.integers(0, 200).map(lambda seconds: NOW - timedelta(seconds=seconds))
rarely = st.sampled_from([False, False, False, True])


@st.composite
def any_pod(draw: st.DrawFn, name: str, held: list[str]) -> PodView:
    letters = draw(st.none() | st.text(".rR", min_size=3, max_size=3) | st.just("..."))
    return pod(
        name,
        letters,
        state=draw(st.sampled_from(PodState)),
        phase=draw(st.sampled_from(Phase)),
        since=draw(ages),
        tasks=held,
        ended=draw(st.sampled_from([(), (), ("x.1",)])),
        closing=draw(rarely),
        workers=not draw(rarely),
        created=draw(ages),
        opened=draw(st.none() | ages),
        running=letters is not None and not draw(rarely),
        connected=letters is not None and not draw(rarely),
        contacting=draw(rarely),
        deleting=draw(rarely),
        dead=draw(rarely),
        in_flight=draw(st.sampled_from([None, None, None, *PodOperation])),
        drain_requested=draw(rarely),
        node_cordoned=draw(rarely),
    )


@st.composite
def views(draw: st.DrawFn) -> PoolView:
    names = [f"p{number}" for number in range(draw(st.integers(0, 5)))]
    placed: list[Task] = []
    for number in range(draw(st.integers(0, 6))):
        phase = draw(st.sampled_from([TaskPhase.QUEUED, TaskPhase.ASSIGNED, TaskPhase.RUNNING]))
        kind = draw(st.sampled_from(["plan", "apply", "plan_and_apply", "render"]))
        where = draw(st.sampled_from(names or ["gone"])) if phase is not TaskPhase.QUEUED else None
        placed.append(task(f"t{number}", kind, phase=phase, on=where, cancel=draw(rarely)))
    silent: set[str] = {item.uid for item in placed if draw(rarely)}
    reported = [item for item in placed if item.placed and item.uid not in silent]
    pods = [draw(any_pod(name, [item.task_id for item in reported if item.status.pod == name])) for name in names]
    queued = [item.uid for item in placed if item.queued]
    least = draw(st.integers(0, 3))
    return pool(
        pods,
        placed,
        replicas=draw(st.none() | st.integers(0, 6)),
        min_replicas=least,
        max_replicas=least + draw(st.integers(0, 4)),
        idle_slots=draw(st.sampled_from([{}, {"apply": 1}])),
        paused=draw(rarely),
        creating=draw(st.integers(0, 2)),
        deleting=draw(rarely),
        deletion_policy=draw(st.sampled_from(DeletionPolicy)),
        synced=not draw(rarely),
        blocked=frozenset(uid for uid in queued if draw(rarely)),
        dispatching={uid: f"uid-{draw(st.sampled_from(names))}" for uid in queued if len(names) > 0 and draw(rarely)},
    )


@given(views())
def test_a_pod_that_may_have_work_is_never_taken_away(view: PoolView) -> None:
    """T1, T3, D1, R2, A1."""
    on_their_way = {item.status.pod_uid for item in view.tasks if item.placed} | set(view.dispatching.values())
    for action in pod_actions(view, decide_size(view)):
        match action:
            case DrainPod(pod=it):
                assert it.connected
                assert it.agent is not None
                assert not it.agent.ended
                assert all(slot.state is SlotState.IDLE for slot in it.agent.slots)
                assert it.state is not PodState.STARTING
                assert it.state is PodState.DRAINING or it.uid not in on_their_way - _shown(it)
            case DeleteStarting(pod=it):
                assert it.state is PodState.STARTING
                assert not it.held
                assert it.agent is None or it.agent.phase is Phase.DRAINED
            case DeleteDead(pod=it):
                assert it.dead
                assert it.uid not in on_their_way
            case _:
                continue
        assert view.synced
        assert it.in_flight is None


def _shown(it: PodView) -> set[str]:
    """The Pod's own UID if its agent reports every task that was given to it as ended: nothing is on its way."""
    return {it.uid} if it.agent is not None and it.agent.ended else set()


@given(views())
def test_each_pod_has_at_most_one_thing_done_to_it(view: PoolView) -> None:
    actions = pod_actions(view, decide_size(view))
    touched = Counter(
        action.pod.uid for action in actions if not isinstance(action, CreatePods | CancelTask | FinishDeletion)
    )
    assert not touched or max(touched.values()) == 1
    assert sum(isinstance(action, CreatePods) for action in actions) <= 1


@given(views())
def test_a_pod_is_opened_only_if_work_would_run_there(view: PoolView) -> None:
    """T6."""
    for action in pod_actions(view, decide_size(view)):
        if isinstance(action, OpenPod):
            it = action.pod
            assert it.running
            assert it.connected
            assert it.counts
            assert it.agent is not None
            assert it.agent.phase is Phase.DRAINED
            assert all(slot.worker is not None and slot.worker.connected for slot in it.agent.slots)
            assert not it.leaving
            assert not view.deleting
        if isinstance(action, TakeBack):
            assert action.pod.state is PodState.DRAINING
            assert action.pod.connected
            assert action.pod.alive


@given(views())
def test_creation_stays_below_the_maximum_and_is_for_what_is_missing(view: PoolView) -> None:
    """T5, A3: with everything that is alive or on its way counted."""
    decision = decide_size(view)
    actions = pod_actions(view, decision)
    made = sum(action.count for action in actions if isinstance(action, CreatePods))
    if made:
        assert not view.deleting
        assert 0 < made <= decision.desired - decision.current
        if view.spec.scaler is not None:
            alive = sum(it.alive for it in view.pods)
            assert alive + view.creating + made <= view.spec.scaler.max_replicas
    if view.spec.scaler is not None and not view.deleting:
        assert view.spec.scaler.min_replicas <= decision.desired <= view.spec.scaler.max_replicas


@given(views())
def test_nothing_is_assigned_to_a_pod_that_does_not_serve_or_is_about_to_go(view: PoolView) -> None:
    """T6, T19, A1."""
    decision = decide_size(view)
    victims = removed(pod_actions(view, decision))
    given_out = assign(decision.basis, victims)
    for item in given_out:
        it = item.pod
        assert it.uid not in victims
        assert it.state is PodState.ACTIVE
        assert it.connected
        assert it.agent is not None
        assert it.agent.phase is Phase.OPEN
        assert not it.agent.closing
        assert it.counts
        assert not it.leaving
        assert it.in_flight not in (PodOperation.REMOVE, PodOperation.OPEN)
        assert item.task.queued
        assert not item.task.unwanted
        assert item.task.uid not in view.blocked
        assert item.task.uid not in view.dispatching
    for it in view.pods:
        held = len(it.held)
        assert held + sum(item.pod.uid == it.uid for item in given_out) <= 3


@given(views())
def test_pods_that_just_serve_are_told_apart_from_all_that_may_need_something(view: PoolView) -> None:
    serving = [it for alike in view.serving for it in alike.pods]
    assert Counter(it.uid for it in (*serving, *view.others)) == Counter(it.uid for it in view.pods)
    for alike in view.serving:
        assert all(it.load == alike.load for it in alike.pods)
    for it in serving:
        assert it.counts
        assert it.alive
        assert it.connected
        assert it.state is PodState.ACTIVE
        assert not any((it.stuck, it.useless, it.start_problem, it.in_flight))
        assert it.agent is not None
        assert not it.agent.recovering


@given(views())
def test_status_and_figures_count_each_pod_and_each_slot(view: PoolView) -> None:
    decision = decide_size(view)
    status = pool_status(view, decision, before=Before(generation=1), problems=Problems())
    figures = pool_figures(view, decision, TaskCounts())
    alive = [it for it in view.pods if not it.dead]
    active = [it for it in alive if it.state is PodState.ACTIVE]
    assert status["replicas"] == len(alive)
    assert status["readyReplicas"] == sum(it.ready and it.connected for it in active)
    assert status["slots"]["total"] == sum(len(it.agent.slots) for it in active if it.agent)
    assert sum(figures.slots.values()) == sum(len(it.agent.slots) for it in alive if it.agent)
    for state in (SlotState.RUNNING, SlotState.RESERVED):
        for counted, pods in ((status["slots"], active), (figures.slots, alive)):
            assert counted[state] == sum(slot.state is state for it in pods for slot in it.held)
    words = Counter(it.word for it in view.pods)
    assert {word: count for word, count in figures.pods.items() if count} == words
    assert figures.connected_agents == sum(it.connected for it in view.pods)
