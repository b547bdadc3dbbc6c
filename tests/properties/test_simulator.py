"""Over any pool and any day: the simulator loses no task, keeps the bounds, and says the same thing twice."""

from collections import Counter
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from controller.cli.verbs.simulate.comparison import Comparison, Settings, compare
from controller.cli.verbs.simulate.engine import Engine, Terms
from controller.cli.verbs.simulate.figures import Figures
from controller.cli.verbs.simulate.jobs import Job, Stage
from controller.cli.verbs.simulate.podslots import Podslots
from controller.cli.verbs.simulate.trace import Arrival, Trace
from controller.decide.view import PoolView
from controller.objects.autoscaling import Autoscaling
from controller.objects.pool import DEFAULT_LAYOUT, PoolSpec
from controller.objects.task import Task, TaskPhase, TaskStatus

LAYOUTS = (
    DEFAULT_LAYOUT,
    (("plan", "plan_and_apply", "apply"),),
    (("plan_and_apply",), ("apply", "plan"), ("plan", "apply", "plan_and_apply")),
)
seconds = st.integers(0, 4000).map(float)


@st.composite
def arrivals(draw: st.DrawFn) -> Arrival:
    kind = draw(st.sampled_from(["plan", "apply", "plan_and_apply"]))
    return Arrival(
        at=draw(seconds),
        type=kind,
        plan_seconds=None if kind == "apply" else draw(seconds),
        approval_seconds=draw(st.none() | seconds) if kind == "plan_and_apply" else None,
        apply_seconds=None if kind == "plan" else draw(seconds),
        lock_key=draw(st.sampled_from([None, None, "a", "b"])),
        priority=draw(st.integers(0, 1)),
    )


traces = st.lists(arrivals(), min_size=1, max_size=25).map(
    lambda found: Trace(tuple(sorted(found, key=lambda arrival: arrival.at)))
)


@st.composite
def pools(draw: st.DrawFn) -> PoolSpec:
    least = draw(st.integers(0, 2))
    return PoolSpec(
        layout=draw(st.sampled_from(LAYOUTS)),
        reservation_ttl_seconds=draw(st.sampled_from([600, 86400])),
        autoscaling=Autoscaling(
            min_replicas=least,
            max_replicas=least + draw(st.integers(1, 8)),
            idle_slots=draw(st.dictionaries(st.sampled_from(["plan", "apply"]), st.integers(0, 2))),
            min_idle_seconds=draw(st.sampled_from([0, 60, 300])),
        ),
    )


def run(spec: PoolSpec, trace: Trace, seed: int = 1) -> Comparison:
    return compare(trace, spec, Settings(pod_start_seconds=15, pass_seconds=1, fixed=(2,), seed=seed))


@given(pools(), traces)
@settings(max_examples=60, deadline=None)
def test_each_task_that_arrives_ends_once_or_is_unfinished(spec: PoolSpec, trace: Trace) -> None:
    for figures in run(spec, trace).figures:
        assert figures.arrived == len(trace.arrivals)
        assert figures.arrived == sum(figures.endings.values()) + figures.unfinished, figures.strategy
        assert len(figures.waits) == figures.arrived, figures.strategy
        assert min(figures.waits) >= 0
        assert figures.running_seconds + figures.reserved_seconds <= figures.slot_seconds + 1e-6


@given(pools(), traces)
@settings(max_examples=60, deadline=None)
def test_podslots_keeps_its_bounds_loses_nothing_and_finishes_all(spec: PoolSpec, trace: Trace) -> None:
    scaler = spec.autoscaling
    assert scaler is not None
    ours = run(spec, trace).figures[0]
    assert scaler.min_replicas <= ours.pods_max <= scaler.max_replicas
    assert (ours.lost, ours.unfinished) == (0, 0)
    needed = sum(_held_seconds(arrival, spec.reservation_ttl_seconds) for arrival in trace.arrivals)
    assert abs(ours.running_seconds + ours.reserved_seconds - needed) < 1e-3


def _held_seconds(arrival: Arrival, ttl_seconds: float) -> float:
    """How long a task holds a slot if nobody disturbs it."""
    plan, apply, approval = (
        seconds or 0.0 for seconds in (arrival.plan_seconds, arrival.apply_seconds, arrival.approval_seconds)
    )
    return plan + ttl_seconds if approval > ttl_seconds else plan + approval + apply


@given(pools(), traces, st.integers(0, 5))
@settings(max_examples=15, deadline=None)
def test_the_same_seed_gives_the_same_result(spec: PoolSpec, trace: Trace, seed: int) -> None:
    assert run(spec, trace, seed).to_json() == run(spec, trace, seed).to_json()


@given(pools(), traces)
@settings(max_examples=30, deadline=None)
def test_no_two_tasks_of_a_key_that_change_things_hold_slots_at_once(spec: PoolSpec, trace: Trace) -> None:
    class Watching(Podslots):
        def slot_changed(self, pod: object, slot: int) -> None:
            super().slot_changed(pod, slot)  # type: ignore[arg-type]  # as it came
            held = (job for it in self._engine.pods.values() for job in it.held if job is not None)
            keys = Counter(job.task.spec.lock_key for job in held if job.task.may_change and job.task.spec.lock_key)
            assert max(keys.values(), default=0) <= 1

    figures: Figures = Engine(trace, Watching(spec, pass_seconds=1), Terms()).run()
    assert figures.unfinished == 0


@given(pools(), traces)
@settings(max_examples=30, deadline=None)
def test_tasks_in_slots_can_be_left_out_of_the_view(spec: PoolSpec, trace: Trace) -> None:
    """The controller has them in its views. What agents show decides, so the same is done with them and without."""
    assert Engine(trace, WithAll(spec, pass_seconds=1), Terms()).run().to_json() == (
        Engine(trace, Podslots(spec, pass_seconds=1), Terms()).run().to_json()
    )


class WithAll(Podslots):
    """Its views have the tasks that are in slots too, as the API would have them."""

    def _view(self) -> PoolView:
        view = super()._view()
        jobs = [job for pod in self._engine.pods.values() for job in pod.held if job is not None]
        return replace(view, tasks=(*(self._placed(job) for job in jobs), *view.tasks))

    @staticmethod
    def _placed(job: Job) -> Task:
        assert job.pod is not None
        uid = f"simulated-{job.pod.number:06}"
        phase = TaskPhase.AWAITING_APPROVAL if job.stage is Stage.RESERVED else TaskPhase.RUNNING
        return replace(job.task, status=TaskStatus(phase=phase, pod=uid, pod_uid=uid, slot=job.slot, attempt=1))
