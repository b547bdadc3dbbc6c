"""That the HPA it is compared with does what Kubernetes' own does."""

import itertools

import pytest

from controller.cli.verbs.simulate.engine import Engine, Terms
from controller.cli.verbs.simulate.figures import Figures
from controller.cli.verbs.simulate.hpa import Bounds, Hpa, wanted_size
from controller.cli.verbs.simulate.trace import Arrival, Trace

LAYOUT = (("plan", "plan_and_apply"),)


@pytest.mark.parametrize(
    ("current", "used", "starting", "size"),
    [
        (2, [100, 100], 0, 4),  # 100 % of 50 %: the double
        (2, [55, 54], 0, 2),  # within 10 % of the target
        (2, [56, 55], 0, 3),  # just beyond
        (4, [50, 50, 50, 31], 0, 4),  # 90.5 % of the target
        (4, [20, 20, 20, 20], 0, 2),
        (3, [100, 100], 1, 4),  # the one that starts counts as unused
        (4, [100, 100], 2, 4),  # … and so nothing changes
        (4, [60, 60], 2, 4),  # nor does it turn to shrinking
        (4, [10, 10], 2, 1),  # when it shrinks, those that start are left out
        (3, [], 3, 3),  # nothing to measure
    ],
)
def test_the_size_follows_the_metric(current: int, used: list[float], starting: int, size: int) -> None:
    assert wanted_size(current, used, starting, 50) == size


def run(arrivals: list[Arrival], target: float = 50, **bounds: int) -> Figures:
    limits = Bounds(**{"least": 1, "most": 20, **bounds})
    terms = Terms(pod_start_seconds=5, kill_grace_seconds=30, grid_seconds=15)
    return Engine(Trace(tuple(arrivals)), Hpa(LAYOUT, limits, target, seed=3, name="HPA"), terms).run(3000)


def plans(*ends: float) -> list[Arrival]:
    return [Arrival(at=6.0, type="plan", plan_seconds=end - 6) for end in ends]


def test_it_shrinks_only_five_minutes_after_the_last_moment_that_asked_for_more() -> None:
    pods = run(plans(100)).series.pods
    assert pods[:2] == [1, 2]  # at 15 s it sees 100 % of one Pod
    # Until 90 s its syncs see one busy Pod of two, which is the target.
    assert 15 * pods.index(1, 1) == 90 + 300
    assert pods[-1] == 1


def test_it_grows_by_four_or_to_the_double_and_never_beyond_the_most() -> None:
    pods = run(plans(*[2000.0] * 50)).series.pods
    steps = sorted(set(pods))
    assert steps[0] == 1
    assert max(steps) == 20
    assert all(after <= max(before + 4, 2 * before) for before, after in itertools.pairwise(pods))


def test_it_kills_what_is_reserved() -> None:
    """Plans of three minutes on four Pods; then all but one of them wait for a person, and the rest goes idle."""
    waiting = Arrival(at=6.0, type="plan_and_apply", plan_seconds=60, approval_seconds=2500, apply_seconds=10)
    figures = run([*plans(*[300.0] * 8), waiting], least=1)
    assert figures.reservations_lost >= 1
    assert figures.plans_killed + figures.applies_killed == 0
