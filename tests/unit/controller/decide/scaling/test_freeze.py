"""Freeze windows: over midnight, over changes of summer time, in every zone; and what they do to a size."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, available_timezones

import pytest
from cronsim import CronSim
from hypothesis import given
from hypothesis import strategies as st

from controller.decide.scaling.freeze import frozen_until
from controller.decide.scaling.size import Reason, decide_size
from controller.objects.freeze import FreezeWindow
from controller.objects.scaling_history import ScalingHistory
from controller.world.waiting_words import slot_word
from tests.support.pools import NOW, pods, pool, tasks

BERLIN = ZoneInfo("Europe/Berlin")


def berlin(text: str, fold: int = 0) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=BERLIN, fold=fold).astimezone(UTC)


def window(start: str, hours: float, zone: str = "Europe/Berlin") -> FreezeWindow:
    return FreezeWindow(start=start, duration_seconds=int(hours * 3600), time_zone=zone)


NIGHT = window("0 22 * * *", 8)
FRIDAY_NIGHT = window("0 22 * * FRI", 8)

CASES = {
    "before it": (NIGHT, "2026-03-02T21:59:59", None),
    "at its start": (NIGHT, "2026-03-02T22:00:00", "2026-03-03T06:00:00"),
    "before midnight": (NIGHT, "2026-03-02T23:59:59", "2026-03-03T06:00:00"),
    "at midnight": (NIGHT, "2026-03-03T00:00:00", "2026-03-03T06:00:00"),
    "just before its end": (NIGHT, "2026-03-03T05:59:59", "2026-03-03T06:00:00"),
    "at its end": (NIGHT, "2026-03-03T06:00:00", None),
    "Friday evening": (FRIDAY_NIGHT, "2026-03-06T23:00:00", "2026-03-07T06:00:00"),
    "Saturday morning is Friday's night": (FRIDAY_NIGHT, "2026-03-07T05:00:00", "2026-03-07T06:00:00"),
    "Friday morning is Thursday's": (FRIDAY_NIGHT, "2026-03-06T05:00:00", None),
    "Saturday evening": (FRIDAY_NIGHT, "2026-03-07T23:00:00", None),
    "8 hours that pass, in the short night": (NIGHT, "2026-03-29T06:30:00", "2026-03-29T07:00:00"),
    "the short night's end": (NIGHT, "2026-03-29T07:00:00", None),
    "8 hours that pass, in the long night": (NIGHT, "2026-10-25T04:59:59", "2026-10-25T05:00:00"),
    "the long night's end": (NIGHT, "2026-10-25T05:00:00", None),
    "a start that clocks skip": (window("30 2 * * *", 1), "2026-03-29T03:00:00", "2026-03-29T04:00:00"),
    "the last of a year": (window("0 0 31 12 *", 48), "2027-01-01T23:00:00", "2027-01-02T00:00:00"),
    "a leap day": (window("0 0 29 2 *", 24), "2028-02-29T12:00:00", "2028-03-01T00:00:00"),
}


@pytest.mark.parametrize(("given_window", "now", "end"), CASES.values(), ids=CASES)
def test_it_is_open_from_its_start_for_as_long_as_it_lasts(
    given_window: FreezeWindow, now: str, end: str | None
) -> None:
    """T29."""
    assert frozen_until([given_window], berlin(now)) == (berlin(end) if end else None)


def test_a_start_that_clocks_show_twice_comes_once() -> None:
    """T29."""
    once = window("30 2 * * *", 0.5)
    assert frozen_until([once], berlin("2026-10-25T02:30:00")) is not None
    assert frozen_until([once], berlin("2026-10-25T02:30:00", fold=1)) is None


@pytest.mark.parametrize(("start", "began"), [("30 2 * * *", "02:30"), ("*/50 * * * *", "02:50")])
def test_a_repeated_hour_does_not_end_a_window_that_began_in_it(start: str, began: str) -> None:
    """T29. In the second pass clocks show less than when the window began."""
    open_window = window(start, 8)
    end = berlin(f"2026-10-25T{began}:00") + timedelta(hours=8)
    for minute in range(60):
        assert frozen_until([open_window], berlin(f"2026-10-25T02:{minute:02}:00", fold=1)) == end, minute


@pytest.mark.parametrize(
    ("start", "zone", "now", "end"),
    [
        ("30 2 * * *", "Europe/Berlin", "2026-03-29T01:00", "2026-03-29T02:00"),
        ("30 * * * *", "Europe/Berlin", "2026-03-29T01:15", "2026-03-29T02:00"),
        ("30 0 * * *", "Africa/Cairo", "2026-04-23T22:00", "2026-04-23T23:00"),  # from midnight to one
        ("15 2 * * *", "Australia/Lord_Howe", "2026-10-03T15:30", "2026-10-03T16:30"),  # half an hour
        ("*/30 1 * * *", "Australia/Lord_Howe", "2026-10-03T15:31", "2026-10-03T16:00"),  # before that one
        ("45 1 * * *", "Australia/Lord_Howe", "2026-04-04T15:01", "2026-04-04T15:45"),  # the first of two
    ],
)
def test_a_window_begins_right_after_a_skip_and_only_the_first_time(start: str, zone: str, now: str, end: str) -> None:
    """T29."""
    moment, until = (datetime.fromisoformat(text).replace(tzinfo=UTC) for text in (now, end))
    assert frozen_until([window(start, 1, zone)], moment) == until


def test_of_several_windows_the_last_to_end_counts() -> None:
    both = [NIGHT, window("0 0 * * *", 12)]
    assert frozen_until(both, berlin("2026-03-03T01:00:00")) == berlin("2026-03-03T12:00:00")
    assert frozen_until([], NOW) is None


def test_the_zone_s_own_day_of_week_counts() -> None:
    """Friday noon in Auckland is Thursday in UTC."""
    friday = window("0 12 * * FRI", 1, "Pacific/Auckland")
    thursday_in_utc = datetime(2026, 3, 5, 23, 30, tzinfo=UTC)
    assert frozen_until([friday], thursday_in_utc) == datetime(2026, 3, 6, 0, 0, tzinfo=UTC)


STARTS = ["0 22 * * *", "30 2 * * *", "0 0 * * 1-5", "15 3 1 * *", "0 12 29 2 *", "0 2,3 * 3,10 SUN"]


@given(
    st.sampled_from(STARTS),
    st.sampled_from(sorted(zone for zone in available_timezones() if "/" in zone)),
    st.datetimes(datetime(2025, 1, 1), datetime(2029, 1, 1)),  # noqa: DTZ001 - hypothesis wants naive bounds
    st.integers(60, 7 * 86400),
)
def test_in_every_zone_it_agrees_with_all_starts_counted_forwards(
    start: str, zone: str, naive: datetime, seconds: int
) -> None:
    """T29."""
    now = naive.replace(tzinfo=UTC)
    last = None
    since = now - timedelta(seconds=seconds + 86400)
    for moment in CronSim(start, since.astimezone(ZoneInfo(zone))):
        if moment.astimezone(UTC) > now:
            break
        last = moment.astimezone(UTC)
    end = last + timedelta(seconds=seconds) if last is not None else None
    frozen = FreezeWindow(start=start, duration_seconds=seconds, time_zone=zone)
    assert frozen.ends(now) == (end if end is not None and end > now else None)


# --- sizes ------------------------------------------------------------------------------------------------------------

NOON = (FreezeWindow(start="0 12 * * *", duration_seconds=3600),)
"""`NOW` is in it, at its very start."""


def test_a_frozen_size_neither_grows_nor_shrinks() -> None:
    grows = decide_size(pool(pods("rrr"), tasks("plan", 9), freeze=NOON))
    assert (grows.desired, grows.reason) == (1, Reason.FROZEN)
    assert grows.message.endswith("the size is frozen until 2026-03-01T13:00:00Z")
    assert decide_size(pool(pods(*["..."] * 5), freeze=NOON)).desired == 5


def test_a_frozen_pool_of_no_pods_starts_none() -> None:
    assert decide_size(pool((), tasks("apply", 2), freeze=NOON)).desired == 0


def test_a_frozen_pool_holds_its_minimum_and_its_maximum() -> None:
    """T5."""
    assert decide_size(pool((), tasks("apply", 9), freeze=NOON, min_replicas=2)).desired == 2
    assert decide_size(pool(pods(*["..."] * 5), freeze=NOON, max_replicas=3)).desired == 3


def test_a_pod_that_dies_in_a_freeze_is_replaced() -> None:
    """The size is what was decided on, not what happens to be there."""
    decision = decide_size(pool(pods("r..", "r.."), freeze=NOON, history=ScalingHistory(desired=3)))
    assert decision.desired == 3


def test_a_freeze_says_when_it_ends_and_is_over_then() -> None:
    frozen = decide_size(pool((), tasks("apply", 2), freeze=NOON))
    assert frozen.changes_at == NOW + timedelta(hours=1)
    assert frozen.limit is not None
    assert frozen.limit.reason is Reason.FROZEN
    assert slot_word(frozen, None) == "for a slot: the size is frozen until 2026-03-01T13:00:00Z"
    after = decide_size(pool((), tasks("apply", 2), freeze=NOON, now=frozen.changes_at, history=frozen.history))
    assert (after.desired, after.reason) == (2, Reason.QUEUED_TASKS)


def test_a_freeze_that_holds_nothing_back_is_no_reason() -> None:
    decision = decide_size(pool(pods("r.."), freeze=NOON))
    assert (decision.desired, decision.limit, decision.reason) == (1, None, Reason.WITHIN_THRESHOLDS)


def test_a_pool_that_is_deleted_does_not_wait_for_the_end_of_a_freeze() -> None:
    assert decide_size(pool(pods("..."), freeze=NOON, deleting=True)).desired == 0
