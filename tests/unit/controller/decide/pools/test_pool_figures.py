"""What a pool is measured as, and what a write of a task's status is."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from agent.wire import Step, StepResult
from controller.app import metrics_of
from controller.decide.pools.pool_figures import TaskCounts, pool_figures
from controller.decide.scaling.size import decide_size
from controller.decide.tasks.task_figures import ReservationEnd, TaskEvent, event_of, task_figures
from controller.decide.view import PodView
from controller.objects.task import Task, TaskPhase
from metrics.figures import PoolFigures, TaskFigures
from tests.support.pools import NOW, pod, pods, pool, task

APPLY = "plan+apply+plan_and_apply"


def changed(before: Task, **status: Any) -> Task:
    return replace(before, status=replace(before.status, **status))


def figures(of: Sequence[PodView] = (), waiting: Sequence[Task] = (), **given: Any) -> PoolFigures:
    view = pool(of, waiting, **given)
    return pool_figures(view, decide_size(view), TaskCounts())


def test_the_number_of_series_does_not_depend_on_pods_or_tasks() -> None:
    """R9: a pool of a thousand Pods, all different, shows as many series as an empty one."""

    def series(found: PoolFigures) -> set[tuple[str, str]]:
        registry = CollectorRegistry()
        pools = metrics_of(registry, lambda: NOW).pools
        pools.show(("ns", "pool"), found)
        pools.conditions(("ns", "pool"), {"Ready": True})
        pools.task_written(("ns", "pool"), TaskFigures(slot_wait_seconds=3.0, steps={"plan": 1.0}, ended="Lost"))
        return {
            (sample.name, str(sample.labels))
            for family in registry.collect()
            for sample in family.samples
            if sample.name.startswith("podslots_pool_")
        }

    kinds = ("...", "r..", "R..", "rr.", "RRR", "???", ".r.")
    many = [pod(f"p{number}", kinds[number % len(kinds)]) for number in range(1000)]
    odd = [pod(f"o{number}", "..", layout=((f"type-{number}",), ("plan", f"x{number}"))) for number in range(50)]
    tasks = [task(f"t{number}", "plan", age_seconds=number) for number in range(500)]
    full, empty = figures((*many, *odd), tasks), figures((), ())
    assert series(full) == series(empty)
    assert len(series(full)) < 160


def test_slots_are_counted_by_class_as_agents_say() -> None:
    found = figures(pods("...", "r..", "Rr."), ()).class_slots
    assert {state: found[APPLY, state] for state in ("idle", "running", "reserved")} == {
        "idle": 1,
        "running": 1,
        "reserved": 1,
    }
    assert (found["plan", "idle"], found["plan", "running"], found["plan", "reserved"]) == (5, 1, 0)
    assert sum(found.values()) == 9


def test_slots_of_an_earlier_layout_are_other() -> None:
    old = pod("old", "r.", layout=(("deploy",), ("plan",)))
    found = figures((old,), ()).class_slots
    assert found["other", "running"] == 1
    assert found["plan", "idle"] == 1


def test_a_reservation_leaves_its_pools_other_slots_free() -> None:
    """A2: reserved is not available; and every type counts (H2)."""
    found = figures(pods("R..", "..."), ()).free_slots
    assert found == {"plan": 5, "apply": 1, "plan_and_apply": 1}


def test_what_waits_is_counted_by_type() -> None:
    waits = (task("a", "apply"), task("b", "apply"), task("c"))
    found = figures((), waits, max_replicas=1).queue
    assert found == {"plan": 1, "apply": 2, "plan_and_apply": 0, "other": 0}


def test_ages_are_those_of_the_oldest() -> None:
    waits = (task("a", age_seconds=10), task("b", age_seconds=300), task("c", "apply", age_seconds=20))
    found = figures((), waits)
    assert found.oldest_queued == (NOW - timedelta(seconds=300)).timestamp()
    assert found.oldest_approval is None


def test_bounds_are_the_pools() -> None:
    found = figures(pods("..."), (), min_replicas=1, max_replicas=7)
    assert (found.least, found.most, found.current, found.desired) == (1, 7, 1, 1)


# --- one write of a status --------------------------------------------------------------------------------------------

ASSIGNED = task("t", "plan_and_apply", phase=TaskPhase.ASSIGNED, on="p", age_seconds=90)
PLANNED = StepResult(start_time=NOW - timedelta(seconds=50), end_time=NOW - timedelta(seconds=20))


def test_a_wait_is_measured_as_the_slot_is_there() -> None:
    running = changed(ASSIGNED, phase=TaskPhase.RUNNING, slot=0)
    assert task_figures(ASSIGNED, running, NOW) == TaskFigures(slot_wait_seconds=90)
    assert event_of(ASSIGNED, running) is TaskEvent.RUN
    assert task_figures(running, running, NOW) == TaskFigures()


def test_a_step_is_measured_once_as_its_end_is_new() -> None:
    running = changed(ASSIGNED, phase=TaskPhase.RUNNING, slot=0)
    reserved = changed(running, phase=TaskPhase.AWAITING_APPROVAL, plan=PLANNED)
    assert task_figures(running, reserved, NOW) == TaskFigures(steps={"plan": 30})
    assert event_of(running, reserved) is TaskEvent.RESERVE
    applying = changed(reserved, phase=TaskPhase.RUNNING, step=Step.APPLY)
    assert task_figures(reserved, applying, NOW) == TaskFigures(
        approval_wait_seconds=20, reservation_ended=ReservationEnd.APPROVED
    )
    assert event_of(reserved, applying) is TaskEvent.APPROVE


@pytest.mark.parametrize(
    ("phase", "how"),
    [
        (TaskPhase.CANCELLED, ReservationEnd.CANCELLED),
        (TaskPhase.EXPIRED, ReservationEnd.EXPIRED),
        (TaskPhase.FAILED, ReservationEnd.LOST),
        (TaskPhase.LOST, ReservationEnd.LOST),
        (TaskPhase.QUEUED, ReservationEnd.LOST),
    ],
)
def test_a_reservation_ends_in_one_way(phase: TaskPhase, how: ReservationEnd) -> None:
    reserved = changed(ASSIGNED, phase=TaskPhase.AWAITING_APPROVAL, slot=0, plan=PLANNED)
    found = task_figures(reserved, changed(reserved, phase=phase), NOW)
    assert found.reservation_ended == how
    assert found.approval_wait_seconds is None
    assert found.ended == (None if phase is TaskPhase.QUEUED else phase)


def test_a_clock_that_was_set_back_measures_nothing_negative() -> None:
    running = changed(ASSIGNED, phase=TaskPhase.RUNNING, slot=0)
    assert task_figures(ASSIGNED, running, NOW - timedelta(hours=1)).slot_wait_seconds == 0
