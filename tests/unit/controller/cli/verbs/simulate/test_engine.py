"""What happens to tasks and Pods in a simulation, whoever decides."""

from collections.abc import Sequence

import pytest

from controller.cli.verbs.simulate.engine import Engine, HeldPodRemoved, Terms
from controller.cli.verbs.simulate.figures import Figures
from controller.cli.verbs.simulate.pod_per_task import PodPerTask
from controller.cli.verbs.simulate.trace import Arrival, Trace
from controller.cli.verbs.simulate.workers import FixedSize
from controller.objects.pool import DEFAULT_LAYOUT, Layout

TERMS = Terms(pod_start_seconds=20, reservation_ttl_seconds=1000, kill_grace_seconds=30)


def both(at: float = 0, **given: object) -> Arrival:
    """A plan of 100 s, an approval after 500 s, an apply of 50 s."""
    steps = {"plan_seconds": 100.0, "approval_seconds": 500.0, "apply_seconds": 50.0, **given}
    return Arrival(at=at, type="plan_and_apply", **steps)  # type: ignore[arg-type]  # fields by name


def plan(at: float = 0, seconds: float = 100, **given: object) -> Arrival:
    return Arrival(at=at, type="plan", plan_seconds=seconds, **given)  # type: ignore[arg-type]  # fields by name


class Killed(FixedSize):
    """Fixed, but its first Pod is killed, or removed, at a moment; another one comes."""

    def __init__(self, at: float, *, kill: bool = True) -> None:
        super().__init__(1, DEFAULT_LAYOUT, seed=1, name="killed")
        self.at, self.kill = at, kill

    def begin(self, engine: Engine) -> None:
        super().begin(engine)
        engine.after(self.at, self.do)

    def do(self) -> None:
        pod = self.engine.pods[1]
        self.engine.create_pod(self.layout)
        if self.kill:
            self.engine.kill_pod(pod)
        else:
            self.engine.remove_pod(pod)


def fixed(size: int, layout: Layout = DEFAULT_LAYOUT) -> FixedSize:
    return FixedSize(size, layout, seed=1, name="fixed")


def run(arrivals: Sequence[Arrival], strategy: FixedSize | PodPerTask, least: float = 0) -> Figures:
    return Engine(Trace(tuple(arrivals)), strategy, TERMS).run(least)


def endings(figures: Figures) -> dict[str, int]:
    return {ending.value: number for ending, number in figures.endings.items() if number}


def test_a_task_waits_for_its_pod_then_runs_waits_for_its_approval_and_applies() -> None:
    figures = run([both()], fixed(1))
    assert endings(figures) == {"succeeded": 1}
    assert figures.waits == [20]
    assert figures.seconds == 20 + 100 + 500 + 50
    assert (figures.running_seconds, figures.reserved_seconds) == (150, 500)
    assert (figures.pod_seconds, figures.slot_seconds) == (670, 3 * 670)


def test_without_an_approval_the_apply_follows_at_once() -> None:
    figures = run([both(approval_seconds=None)], fixed(1))
    assert (figures.seconds, figures.reserved_seconds) == (20 + 150, 0)


def test_a_plan_that_finds_nothing_to_change_reserves_nothing() -> None:
    figures = run([both(approval_seconds=None, apply_seconds=None)], fixed(1))
    assert (endings(figures), figures.seconds, figures.reserved_seconds) == ({"succeeded": 1}, 120, 0)


def test_a_reservation_ends_by_its_own_time_limit() -> None:
    figures = run([both(approval_seconds=5000.0)], fixed(1))
    assert (endings(figures), figures.seconds, figures.reserved_seconds) == ({"expired": 1}, 20 + 100 + 1000, 1000)


def test_an_approval_that_is_refused_ends_the_task() -> None:
    figures = run([both(apply_seconds=None)], fixed(1))
    assert (endings(figures), figures.seconds) == ({"cancelled": 1}, 20 + 100 + 500)


def test_a_reservation_keeps_its_slot_from_others() -> None:
    figures = run([both(), both(at=30)], fixed(1))
    assert figures.waits == [20, 20 + 650 - 30]


def test_tasks_of_one_key_take_turns_and_only_the_wait_for_a_slot_counts() -> None:
    figures = run([both(lock_key="vpc"), both(at=30, lock_key="vpc"), both(at=31, lock_key="dns")], fixed(2))
    assert figures.waits == [20, 0, 0]
    assert endings(figures) == {"succeeded": 3}
    assert figures.seconds == 20 + 2 * 650


def test_a_task_of_a_higher_priority_takes_the_turn_of_one_that_has_no_slot_yet() -> None:
    figures = run([both(lock_key="vpc"), both(at=10, lock_key="vpc", priority=1, approval_seconds=None)], fixed(1))
    assert figures.waits == [10, 10 + 0]
    assert figures.seconds == 20 + 150 + 650


def test_a_plan_takes_the_slot_that_is_good_for_nothing_else() -> None:
    figures = run([plan(at=30), plan(at=30), both(at=30), plan(at=30)], fixed(1))
    assert figures.waits == [0, 0, 0, 100]


@pytest.mark.parametrize(
    ("arrival", "at", "killed", "ended"),
    [
        (plan(), 60, (1, 0, 0), {"succeeded": 1}),
        (both(), 60, (1, 0, 0), {"succeeded": 1}),
        (both(), 300, (0, 1, 0), {"succeeded": 1}),
        (both(), 635, (0, 0, 1), {"lost": 1}),
        (plan(), 95, (0, 0, 0), {"succeeded": 1}),
        (both(), 95, (0, 1, 0), {"succeeded": 1}),
        (both(), 645, (0, 0, 0), {"succeeded": 1}),
    ],
    ids=[
        *("a plan", "a plan with an apply", "a reservation", "an apply"),
        *("a plan within the grace", "a reservation of that moment", "an apply within the grace"),
    ],
)
def test_what_a_killed_pod_held_is_made_again_but_never_an_apply(
    arrival: Arrival, at: float, killed: tuple[int, int, int], ended: dict[str, int]
) -> None:
    figures = run([arrival], Killed(at))
    assert (figures.plans_killed, figures.reservations_lost, figures.applies_killed) == killed
    assert endings(figures) == ended
    assert figures.waits == [20]


def test_a_pod_that_holds_something_is_not_removed_without_a_word() -> None:
    with pytest.raises(HeldPodRemoved, match="Pod 1 was removed after 300 s while it was reserved"):
        run([both()], Killed(300, kill=False))


def test_a_pod_per_task_starts_with_each_and_goes_with_it() -> None:
    figures = run([both(), plan(at=5)], PodPerTask(10))
    assert figures.waits == [20, 20]
    assert figures.slot_seconds == 20 + 650 + 20 + 100
    assert (figures.pods_max, figures.pods) == (2, 0)


def test_a_pod_per_task_waits_for_its_quota() -> None:
    figures = run([plan(), plan(), plan()], PodPerTask(2))
    assert figures.waits == [20, 20, 120 + 20]


def test_it_goes_on_for_as_long_as_it_is_told() -> None:
    assert run([plan()], fixed(1), 5000).pod_seconds == 5000


def test_what_never_gets_a_slot_is_unfinished_and_has_waited() -> None:
    figures = run([plan(), plan(at=10)], fixed(0))
    assert (figures.unfinished, endings(figures)) == (2, {})
    assert figures.waits == [figures.seconds, figures.seconds - 10]


def test_percentiles_are_those_of_the_tasks() -> None:
    figures = Figures("x", 60)
    figures.waits = [float(number) for number in range(100, 0, -1)]
    document = figures.to_json()
    assert document["waitSeconds"] == {"p50": 50, "p95": 95, "p99": 99, "max": 100}
    assert Figures("x", 60).to_json()["waitSeconds"] == {"p50": 0, "p95": 0, "p99": 0, "max": 0}


def test_the_course_has_a_point_for_each_step_of_the_grid() -> None:
    figures = run([both()], fixed(1))
    assert figures.series.seconds == [60.0 * number for number in range(13)]
    assert figures.series.running[:2] == [0, 1]
    assert figures.series.reserved[1:3] == [0, 1]
    assert set(figures.series.pods) == {1}
