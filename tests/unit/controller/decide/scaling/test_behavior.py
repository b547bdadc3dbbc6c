"""How far the size may go towards what is asked for: each field of `behavior` by itself, and nothing by chance."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.decide.scaling.behavior import Allowed, Asked, allow
from controller.objects.behavior import Behavior, PolicyType, ScalingPolicy, ScalingRules, SelectPolicy
from controller.objects.scaling_history import MOST, ScalingHistory
from tests.support.pools import AT_ONCE, NOW

FREE = AT_ONCE.scale_up
DEFAULT = Behavior()


def pods(value: int, period_seconds: int) -> ScalingPolicy:
    return ScalingPolicy(value=value, period_seconds=period_seconds)


def percent(value: int, period_seconds: int) -> ScalingPolicy:
    return ScalingPolicy(type=PolicyType.PERCENT, value=value, period_seconds=period_seconds)


def rules(*policies: ScalingPolicy, **given: Any) -> ScalingRules:
    return ScalingRules(policies=policies or FREE.policies, **given)


def up(*policies: ScalingPolicy, **given: Any) -> Behavior:
    """Rules of a user for growing; shrinking is free."""
    return Behavior(scale_up=rules(*policies, **given), scale_down=FREE, limits_queue=True)


def down(*policies: ScalingPolicy, **given: Any) -> Behavior:
    return Behavior(scale_up=FREE, scale_down=rules(*policies, **given))


@dataclass
class Sizes:
    """A pool that has the size that it was allowed, second after second."""

    behavior: Behavior
    size: int
    history: ScalingHistory = field(default_factory=ScalingHistory)
    now: datetime = NOW

    def ask(self, wanted: int, *, at_once: int = 0) -> Allowed:
        asked = Asked(pods=wanted, at_once=max(at_once, min(self.size, wanted)), size=self.size)
        allowed = allow(self.behavior, self.history, asked, self.now)
        self.size, self.history = allowed.pods, allowed.history
        return allowed

    def after(self, seconds: float, wanted: int, *, at_once: int = 0) -> int:
        self.now += timedelta(seconds=seconds)
        return self.ask(wanted, at_once=at_once).pods

    def every(self, seconds: float, wanted: int, times: int) -> list[int]:
        return [self.after(seconds if number else 0, wanted) for number in range(times)]


def test_by_default_thresholds_add_one_pod_in_15_seconds() -> None:
    assert Sizes(DEFAULT, 3).every(5, 6, 8) == [4, 4, 4, 5, 5, 5, 6, 6]


def test_by_default_thresholds_take_one_pod_in_15_seconds() -> None:
    assert Sizes(DEFAULT, 4).every(5, 1, 8) == [3, 3, 3, 2, 2, 2, 1, 1]


def test_by_default_what_waits_is_met_at_once_and_a_threshold_s_pod_comes_on_top() -> None:
    sizes = Sizes(DEFAULT, 0)
    assert sizes.ask(12, at_once=9).pods == 10
    assert sizes.after(5, 20, at_once=14) == 14
    assert sizes.after(10, 20, at_once=14) == 15


def test_rules_that_a_user_sets_limit_what_waits_too() -> None:
    assert Sizes(up(pods(2, 60)), 0).ask(9, at_once=9).pods == 2


def test_a_policy_counts_pods_within_its_period() -> None:
    assert Sizes(up(pods(3, 10)), 1).every(4, 9, 6) == [4, 4, 4, 7, 7, 7]
    assert Sizes(down(pods(3, 10)), 9).every(4, 1, 6) == [6, 6, 6, 3, 3, 3]


def test_a_policy_counts_percent_of_the_size_at_the_beginning_of_its_period() -> None:
    assert Sizes(up(percent(50, 10)), 4).every(5, 99, 5) == [6, 6, 9, 9, 14]
    assert Sizes(down(percent(50, 10)), 16).every(5, 0, 5) == [8, 8, 4, 4, 2]


def test_percent_are_rounded_so_that_a_change_of_one_is_possible() -> None:
    """Otherwise a pool of few Pods, or of none, would stay as it is for ever."""
    assert Sizes(up(percent(10, 10)), 0).every(10, 9, 3) == [1, 2, 3]
    assert Sizes(down(percent(10, 10)), 3).every(10, 0, 3) == [2, 1, 0]


@pytest.mark.parametrize(
    ("select", "grown", "shrunk"),
    [(SelectPolicy.MAX, 20, 0), (SelectPolicy.MIN, 12, 8), (SelectPolicy.DISABLED, 10, 10)],
)
def test_select_policy_takes_the_largest_change_the_least_or_none(
    select: SelectPolicy, grown: int, shrunk: int
) -> None:
    assert Sizes(up(pods(2, 60), percent(100, 60), select=select), 10).ask(99).pods == grown
    assert Sizes(down(pods(2, 60), percent(100, 60), select=select), 10).ask(0).pods == shrunk


def test_a_window_up_lets_the_size_grow_as_far_as_was_asked_for_during_all_of_it() -> None:
    sizes = Sizes(up(stabilization_window_seconds=60), 2)
    first = sizes.ask(8)
    assert (first.pods, first.stabilized, first.until) == (2, True, NOW + timedelta(seconds=60))
    assert sizes.after(40, 5) == 2
    assert sizes.after(19, 9) == 2
    assert sizes.after(1, 9) == 5
    assert sizes.after(58, 9) == 5
    assert sizes.after(1, 9) == 9


def test_a_window_down_holds_the_most_that_was_needed_in_it() -> None:
    sizes = Sizes(down(stabilization_window_seconds=60), 8)
    assert sizes.ask(3).pods == 8
    assert sizes.after(30, 6) == 8
    assert sizes.after(10, 2) == 8
    assert sizes.after(20, 2) == 6
    assert sizes.after(39, 2) == 6
    assert sizes.after(1, 2) == 2


def test_a_window_counts_by_what_stood_not_by_how_often_it_was_looked_at() -> None:
    often, once = (Sizes(down(stabilization_window_seconds=60), 5) for _ in range(2))
    assert often.every(1, 5, 30) == [5] * 30
    once.ask(5)
    once.now = often.now
    for sizes in (often, once):
        assert sizes.after(0, 1) == 5
        assert sizes.after(59, 1) == 5
        assert sizes.after(1, 1) == 1


def test_what_was_on_its_way_up_before_a_dip_need_not_wait_for_the_window_down() -> None:
    """A window of one direction holds that one only."""
    sizes = Sizes(down(stabilization_window_seconds=60), 5)
    assert [sizes.after(1, wanted) for wanted in (5, 2, 9, 1)] == [5, 5, 9, 9]


IN_ONE_DIRECTION = {
    "policies": rules(pods(1, 60)),
    "percent": rules(percent(1, 60)),
    "selectPolicy": rules(select=SelectPolicy.DISABLED),
    "selectPolicy Min": rules(pods(1, 60), pods(100, 60), select=SelectPolicy.MIN),
    "stabilizationWindowSeconds": rules(stabilization_window_seconds=600),
}


@pytest.mark.parametrize("field_rules", IN_ONE_DIRECTION.values(), ids=IN_ONE_DIRECTION)
def test_a_field_of_one_direction_does_nothing_in_the_other(field_rules: ScalingRules) -> None:
    """H3."""
    grows = Sizes(Behavior(scale_up=FREE, scale_down=field_rules, limits_queue=True), 5)
    assert grows.ask(50).pods == 50
    assert grows.after(61, 5) > 5
    shrinks = Sizes(Behavior(scale_up=field_rules, scale_down=FREE, limits_queue=True), 50)
    assert shrinks.ask(5).pods == 5
    assert shrinks.after(61, 50) < 50


def test_what_was_just_added_may_be_taken_back_and_the_other_way_round() -> None:
    """As in autoscaling/v2: a policy counts from the size at the beginning of its period, not from where it is now."""
    back = Sizes(down(pods(1, 60)), 5)
    assert back.ask(9).pods == 9
    assert back.after(1, 1) == 4


def test_pods_that_are_gone_need_no_policy_s_leave() -> None:
    """Three of five died with their node, and nothing asks for new ones: none is made just to be taken away slowly."""
    sizes = Sizes(DEFAULT, 5)
    sizes.ask(5)
    sizes.size = 2
    assert sizes.after(1, 2) == 2


def test_what_was_decided_before_may_be_made_again() -> None:
    """They died, and are wanted again: no policy counts them a second time."""
    sizes = Sizes(up(pods(1, 600)), 5)
    sizes.ask(5)
    sizes.size = 2
    assert sizes.after(1, 5) == 5
    assert sizes.after(1, 7) == 6


def test_pods_that_do_not_come_are_asked_for_again_and_counted_once() -> None:
    """A quota is full: the size that was decided on stays what is wanted."""
    sizes = Sizes(up(pods(2, 60)), 0)
    assert sizes.ask(9).pods == 2
    sizes.size = 0
    assert sizes.after(30, 9) == 2
    sizes.size = 0
    assert sizes.after(30, 9) == 4


def test_it_says_when_it_goes_on() -> None:
    sizes = Sizes(DEFAULT, 5)
    sizes.ask(1)
    sizes.now += timedelta(seconds=6)
    held = sizes.ask(1)
    assert (held.pods, held.limited, held.until) == (4, True, NOW + timedelta(seconds=15))


def test_a_clock_that_was_wrong_holds_the_size_no_longer_than_its_windows_are() -> None:
    """N10: a leader whose clock was a day ahead has decided something."""
    ahead = Sizes(down(pods(1, 60), stabilization_window_seconds=30), 5, now=NOW + timedelta(days=1))
    ahead.ask(5)
    ahead.after(40, 5)
    ahead.after(1, 2)
    ahead.after(31, 2)
    assert ahead.size == 4
    right = replace(ahead, now=NOW)
    assert right.ask(2).pods == 4
    assert right.after(60, 2) == 3


# --- the history ------------------------------------------------------------------------------------------------------

policies = st.builds(
    ScalingPolicy, type=st.sampled_from(PolicyType), value=st.integers(1, 120), period_seconds=st.integers(1, 90)
)
any_rules = st.builds(
    ScalingRules,
    policies=st.lists(policies, min_size=1, max_size=3).map(tuple),
    select=st.sampled_from(SelectPolicy),
    stabilization_window_seconds=st.sampled_from([0, 0, 5, 60, 300]),
)
behaviors = st.builds(Behavior, scale_up=any_rules, scale_down=any_rules, limits_queue=st.booleans())
loads = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 30)), min_size=1, max_size=60)


@given(behaviors, loads, st.data())
def test_whoever_leads_next_decides_as_the_one_before_would_have(
    behavior: Behavior, load: Sequence[tuple[float, int]], data: st.DataObject
) -> None:
    """Its status says all that the windows need, and is small."""
    stays, changes = Sizes(behavior, 3), Sizes(behavior, 3)
    for seconds, wanted in load:
        if data.draw(st.booleans()):
            document = json.loads(
                json.dumps({"desiredReplicas": changes.history.desired, "scaling": changes.history.to_json()})
            )
            assert len(json.dumps(document)) < 10_000
            changes.history = ScalingHistory.of(
                {"status": {key: part for key, part in document.items() if part is not None}}
            )
        assert changes.after(seconds, wanted) == stays.after(seconds, wanted)


@given(behaviors, loads)
def test_it_goes_towards_what_is_asked_for_and_never_beyond(behavior: Behavior, load: list[tuple[float, int]]) -> None:
    sizes = Sizes(behavior, 3)
    for seconds, wanted in load:
        before = sizes.size
        after = sizes.after(seconds, wanted)
        assert min(before, wanted) <= after <= max(before, wanted)


@given(behaviors, loads, st.integers(0, 30))
def test_what_is_asked_for_for_long_is_reached_by_waking_when_it_says(
    behavior: Behavior, load: list[tuple[float, int]], wanted: int
) -> None:
    """Nothing has to happen in between; only what is Disabled never comes."""
    sizes = Sizes(behavior, 3)
    for seconds, other in load:
        sizes.after(seconds, other)
    allowed = sizes.ask(wanted)
    for _ in range(1000):
        if allowed.until is None:
            break
        assert allowed.until > sizes.now
        sizes.now = allowed.until
        allowed = sizes.ask(wanted)
    direction = behavior.scale_up if wanted > sizes.size else behavior.scale_down
    assert allowed.pods == wanted or direction.select is SelectPolicy.DISABLED


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 1000)), min_size=100, max_size=150))
def test_the_history_stays_small_and_errs_towards_holding(load: list[tuple[float, int]]) -> None:
    """However many changes a window sees. By brute force over all that was ever asked for."""
    window = 300
    behavior = Behavior(
        scale_up=rules(stabilization_window_seconds=window),
        scale_down=rules(stabilization_window_seconds=window),
        limits_queue=True,
    )
    sizes = Sizes(behavior, 500)
    stood: list[tuple[datetime, int]] = [(NOW, 500)]
    for seconds, wanted in load:
        before = sizes.size
        sizes.after(seconds, wanted)
        stood.append((sizes.now, wanted))
        least, most = _extremes(stood, sizes.now - timedelta(seconds=window))
        if sizes.size > before:
            assert sizes.size <= least
        if sizes.size < before:
            assert sizes.size >= most
        lists = (sizes.history.ups, sizes.history.downs, sizes.history.lows, sizes.history.highs)
        assert all(len(entries) <= MOST for entries in lists)


def _extremes(stood: list[tuple[datetime, int]], since: datetime) -> tuple[int, int]:
    """The least and the most that was asked for at any moment after `since`."""

    def lasting() -> Iterator[int]:
        for (_, wanted), (end, _) in pairwise(stood):
            if end > since:
                yield wanted
        yield stood[-1][1]

    found = list(lasting())
    return min(found), max(found)
