"""That the simulated pool goes through the controller's decisions, as they are."""

import pytest

from controller.cli.verbs.simulate import podslots
from controller.cli.verbs.simulate.engine import Engine, Terms
from controller.cli.verbs.simulate.figures import Figures
from controller.cli.verbs.simulate.podslots import BURST, Podslots
from controller.cli.verbs.simulate.trace import Arrival, Trace
from controller.decide.scaling.size import SizeDecision, decide_size
from controller.decide.view import PoolView
from controller.objects.pool import PoolSpec

TERMS = Terms(pod_start_seconds=20, reservation_ttl_seconds=86400, grid_seconds=10)


def run(*arrivals: Arrival, least: float = 0, pass_seconds: float = 1, **scaling: object) -> Figures:
    """`scaling` is `spec.autoscaling`, as people write it."""
    template = {"spec": {"containers": [{"name": "worker", "image": "terraform"}]}}
    spec = PoolSpec.parse({"spec": {"autoscaling": {"maxReplicas": 20, **scaling}, "template": template}})
    return Engine(Trace(arrivals), Podslots(spec, pass_seconds=pass_seconds), TERMS).run(least)


def plan(at: float, seconds: float = 100) -> Arrival:
    return Arrival(at=at, type="plan", plan_seconds=seconds)


def both(at: float) -> Arrival:
    return Arrival(at=at, type="plan_and_apply", plan_seconds=60, approval_seconds=3600, apply_seconds=60)


def test_from_zero_a_task_waits_for_one_start_and_the_pod_goes_when_it_was_idle_long_enough() -> None:
    figures = run(plan(10), least=600, minIdleSeconds=60)
    assert figures.waits == [20]
    assert figures.pods_max == 1
    assert figures.pod_seconds == 20 + 100 + 60


def test_a_reserved_pod_stays_and_comes_back_to_nothing_after_its_apply() -> None:
    figures = run(both(10), plan(20), least=7200, minIdleSeconds=60)
    assert figures.reserved_seconds == 3600
    assert figures.lost == 0
    assert figures.pod_seconds == 20 + 60 + 3600 + 60 + 60


def test_reservations_fill_apply_slots_so_that_more_pods_come_for_the_next() -> None:
    """Three tasks that each need the one slot of a Pod that takes applies."""
    figures = run(both(10), both(10), both(200))
    assert figures.waits == [20, 20, 20]
    assert figures.pods_max == 3


def test_behavior_says_how_fast_it_grows_and_its_windows_wake_it() -> None:
    """One Pod in a minute, for the queue too: three tasks that each need a Pod of their own."""
    rules = {"policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}]}
    figures = run(both(10), both(10), both(10), behavior={"scaleUp": rules})
    assert figures.waits == [20, 80, 140]


def test_the_size_stays_within_its_bounds() -> None:
    figures = run(*[plan(10, 1000)] * 50, maxReplicas=4, minReplicas=2)
    assert figures.pods_max == 4
    assert min(figures.series.pods[1:]) >= 2


def test_a_freeze_holds_the_size_until_its_end() -> None:
    """For an hour and five seconds from 00:10 nothing grows; the trace's second 0 is midnight."""
    window = {"start": "10 0 * * *", "durationSeconds": 3605, "timeZone": "Etc/UTC"}
    figures = run(plan(900), freeze=[window])
    assert figures.waits == [600 + 3605 + 20 - 900]


def test_a_pool_that_scales_by_a_prometheus_is_simulated_by_what_agents_say() -> None:
    signal = {"source": "Prometheus", "url": "http://prometheus", "fallback": "Hold"}
    assert run(both(10), signal=signal).to_json() == run(both(10)).to_json()


def test_many_changes_within_a_pass_are_decided_on_together(monkeypatch: pytest.MonkeyPatch) -> None:
    passes = []

    def noted(view: PoolView) -> SizeDecision:
        passes.append(view.now)
        return decide_size(view)

    monkeypatch.setattr(podslots, "decide_size", noted)
    run(*[plan(10 + number / 10) for number in range(100)], pass_seconds=5)
    of_seconds = (passes[-1] - passes[0]).total_seconds()
    assert BURST < len(passes) <= of_seconds / 5 + BURST + 1
