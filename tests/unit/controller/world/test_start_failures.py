"""Pods that fail before they are opened are made again with longer and longer pauses (N6, T26)."""

from controller.decide.start_problem import StartProblem
from controller.world.start_failures import FIRST_SECONDS, LONGEST_SECONDS, StartFailures

REFUSED = StartProblem(reason="OutOfcpu", message="no room")
OURS = ("pool", "hash")


def test_a_wave_of_failures_counts_once() -> None:
    failures = StartFailures()
    for number in range(20):
        assert failures.failed(OURS, f"pod-{number}", REFUSED, 100.0 + number / 100)
    assert failures.wait_seconds(OURS, 100.0) == FIRST_SECONDS
    assert failures.problem(OURS) == REFUSED


def test_a_pod_counts_once_however_often_it_is_looked_at() -> None:
    failures = StartFailures()
    assert failures.failed(OURS, "a", REFUSED, 0.0)
    assert not failures.failed(OURS, "a", REFUSED, 1000.0)
    assert failures.wait_seconds(OURS, 1000.0) == 0


def test_the_pauses_double_up_to_minutes_and_end_when_a_pod_opens() -> None:
    failures = StartFailures()
    now, waits = 0.0, []
    for number in range(12):
        failures.failed(OURS, f"pod-{number}", REFUSED, now)
        waits.append(failures.wait_seconds(OURS, now))
        now += waits[-1]
    assert waits[:4] == [5, 10, 20, 40]
    assert waits[-1] == LONGEST_SECONDS
    failures.opened(OURS)
    assert failures.wait_seconds(OURS, now) == 0
    assert failures.problem(OURS) is None


def test_templates_and_pools_are_held_back_apart() -> None:
    failures = StartFailures()
    failures.failed(OURS, "a", REFUSED, 0.0)
    assert failures.wait_seconds(("pool", "mended"), 0.0) == 0
    assert failures.wait_seconds(("other", "hash"), 0.0) == 0
    failures.forget("pool")
    assert failures.problem(OURS) is None


def test_a_template_has_started_until_a_pod_of_it_fails_or_another_one_starts() -> None:
    failures = StartFailures()
    assert not failures.has_started(OURS)
    failures.opened(OURS)
    assert failures.has_started(OURS)
    failures.failed(OURS, "a", REFUSED, 0.0)
    assert not failures.has_started(OURS)
    failures.opened(OURS)
    failures.opened(("pool", "mended"))
    assert not failures.has_started(OURS)
    failures.forget("pool")
    assert not failures.has_started(("pool", "mended"))
