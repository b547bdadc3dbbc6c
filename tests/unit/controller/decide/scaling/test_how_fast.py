"""From what the load asks for to the size: what is met at once, what goes one Pod at a time, and how that is said."""

from datetime import timedelta

import pytest

from controller.decide.pools.pool_status import Before, pool_status
from controller.decide.problem import Problems
from controller.decide.scaling.size import Reason, decide_size
from controller.objects.behavior import Behavior, ScalingPolicy, ScalingRules, SelectPolicy
from controller.world.waiting_words import slot_word
from tests.support.pools import AT_ONCE, NOW, pods, pool, tasks

DEFAULT = Behavior()
ONE_A_MINUTE = ScalingRules(policies=(ScalingPolicy(value=1, period_seconds=60),))


def test_by_default_the_queue_and_idle_slots_are_met_at_once() -> None:
    """T4."""
    assert decide_size(pool((), tasks("apply", 7), behavior=DEFAULT)).desired == 7
    assert decide_size(pool((), idle_slots={"apply": 5}, behavior=DEFAULT)).desired == 5


def test_by_default_they_are_met_at_once_up_to_the_maximum() -> None:
    decision = decide_size(pool((), tasks("apply", 9), behavior=DEFAULT, max_replicas=4))
    assert (decision.desired, decision.reason) == (4, Reason.AT_MAXIMUM)


def test_by_default_what_only_a_threshold_asks_for_comes_one_pod_at_a_time() -> None:
    busy = decide_size(pool(pods(*["rrr"] * 9), behavior=DEFAULT))
    assert (busy.desired, busy.reason, busy.limited) == (10, Reason.UTILIZATION_ABOVE, True)
    idle = decide_size(pool(pods(*["..."] * 9), behavior=DEFAULT))
    assert (idle.desired, idle.reason, idle.limited) == (8, Reason.UTILIZATION_BELOW, True)


def test_the_next_pod_goes_when_the_period_is_over() -> None:
    first = decide_size(pool(pods(*["..."] * 9), behavior=DEFAULT))
    assert first.changes_at == NOW + timedelta(seconds=15)
    early = decide_size(
        pool(pods(*["..."] * 8), behavior=DEFAULT, history=first.history, now=NOW + timedelta(seconds=14.9))
    )
    assert (early.desired, early.reason, early.changes_at) == (8, Reason.SCALE_DOWN_LIMITED, first.changes_at)
    due = decide_size(pool(pods(*["..."] * 8), behavior=DEFAULT, history=first.history, now=first.changes_at))
    assert due.desired == 7


def test_rules_of_a_user_for_growing_hold_for_the_queue_too() -> None:
    behavior = Behavior(scale_up=ONE_A_MINUTE, scale_down=AT_ONCE.scale_down, limits_queue=True)
    decision = decide_size(pool((), tasks("apply", 7), behavior=behavior))
    assert (decision.desired, decision.limited) == (1, True)
    never = Behavior(scale_up=ScalingRules(select=SelectPolicy.DISABLED), limits_queue=True)
    assert decide_size(pool((), tasks("apply", 7), behavior=never)).desired == 0
    assert decide_size(pool((), tasks("apply", 7), behavior=never, min_replicas=2)).desired == 2


def test_a_minimum_that_is_raised_and_a_maximum_that_is_lowered_hold_at_once() -> None:
    """T5."""
    slow = Behavior(scale_up=ONE_A_MINUTE, scale_down=ONE_A_MINUTE, limits_queue=True)
    assert decide_size(pool(pods("..."), behavior=slow, min_replicas=6)).desired == 6
    assert decide_size(pool(pods(*["..."] * 9), behavior=slow, max_replicas=2)).desired == 2


@pytest.mark.parametrize(("tolerance", "wanted"), [(0.0, 4), (0.1, 4), (0.2, 3)])
def test_tolerance_up_is_a_share_of_the_upper_threshold(tolerance: float, wanted: int) -> None:
    """8 of 9 slots: 89 % is above 80 % and 88 %, not above 96 %."""
    behavior = Behavior(scale_up=ScalingRules(tolerance=tolerance))
    assert decide_size(pool(pods("rrr", "rr.", "rrr"), behavior=behavior)).desired == wanted


@pytest.mark.parametrize(("tolerance", "wanted"), [(0.0, 4), (0.3, 4), (0.4, 5)])
def test_tolerance_down_is_a_share_of_the_lower_threshold(tolerance: float, wanted: int) -> None:
    """2 of 15 slots: 13.3 % is below 20 % and 14 %, not below 12 %."""
    behavior = Behavior(scale_down=ScalingRules(tolerance=tolerance))
    assert decide_size(pool(pods("rr.", *["..."] * 4), behavior=behavior)).desired == wanted


def test_tolerance_of_one_direction_does_nothing_in_the_other() -> None:
    """H3."""
    up = Behavior(scale_up=ScalingRules(tolerance=1.0))
    assert decide_size(pool(pods("rr.", *["..."] * 4), behavior=up)).desired == 4
    down = Behavior(scale_down=ScalingRules(tolerance=1.0))
    assert decide_size(pool(pods("rrr"), behavior=down)).desired == 2


def test_a_target_takes_the_place_of_both_thresholds() -> None:
    """The least Pods of which no more than 60 % is used."""
    assert decide_size(pool(pods("rrr", "rr."), target_utilization_percent=60)).desired == 3
    assert decide_size(pool(pods("rr.", "r..", "...", "..."), target_utilization_percent=60)).desired == 2
    assert decide_size(pool(pods("rr.", "rr.", "..."), target_utilization_percent=60)).desired == 3


def test_tasks_are_demand_whatever_the_target() -> None:
    assert decide_size(pool((), tasks("apply", 3), target_utilization_percent=100)).desired == 3


def test_the_conditions_say_why_and_what_holds_it_and_until_when() -> None:
    view = pool(pods(*["..."] * 9), behavior=DEFAULT)
    decision = decide_size(view)
    status = pool_status(view, decision, before=Before(generation=1), problems=Problems())
    conditions = {entry["type"]: entry for entry in status["conditions"]}
    limited = conditions["ScalingLimited"]
    assert (limited["status"], limited["reason"]) == ("True", "ScaleDownLimited")
    assert limited["message"] == "behavior.scaleDown allows 8, not the 0 asked for, until 2026-03-01T12:00:15Z."
    assert conditions["ScalingActive"]["message"] == (
        "0 % of the slots of Pods without a reservation are used: no more than 20 %; " + limited["message"]
    )
    assert status["scaling"]["downs"] == [{"time": "2026-03-01T12:00:00.000000Z", "pods": 1}]


def test_nothing_is_written_while_nothing_changes() -> None:
    """The windows' history changes with decisions, not with time."""
    view = pool(pods(*["..."] * 9), behavior=DEFAULT)
    first = decide_size(view)
    later = pool(pods(*["..."] * 8), behavior=DEFAULT, history=first.history, now=NOW + timedelta(seconds=9))
    held = decide_size(later)
    again = decide_size(
        pool(pods(*["..."] * 8), behavior=DEFAULT, history=held.history, now=NOW + timedelta(seconds=14))
    )
    assert held.history == again.history
    assert held.message == again.message


def test_what_waits_is_told_what_holds_the_size() -> None:
    slow = Behavior(scale_up=ScalingRules(select=SelectPolicy.DISABLED), limits_queue=True)
    held = decide_size(pool((), tasks("plan", 1), behavior=slow))
    assert slot_word(held, None) == "for a slot: the pool grows no faster than its behavior.scaleUp says"
    full = decide_size(pool((), tasks("plan", 1), max_replicas=0))
    assert slot_word(full, None) == "for a slot: the pool is at its maxReplicas"
    assert slot_word(decide_size(pool((), tasks("plan", 1))), None) == "for a slot"
