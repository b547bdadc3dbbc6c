"""Every message comes through JSON as it was: every field, every time, however it is written."""

import functools
import types
import typing
from datetime import UTC, datetime, timedelta, timezone
from enum import StrEnum
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent import wire
from agent.rules.state import RECORD_TYPES, Snapshot
from agent.wire import StartedReport, WireError, decode, encode, format_time, parse_time

MESSAGES = sorted(
    (
        kind
        for kind in vars(wire).values()
        if isinstance(kind, type) and hasattr(kind, "__dataclass_fields__") and kind is not wire.Write
    ),
    key=lambda kind: kind.__name__,
)
RECORDS = [kind for kind in RECORD_TYPES.values() if kind is not Snapshot]  # a snapshot is made of the others
ZONES = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
STARTED = {"instance": "1", "task_id": "t", "step": "plan", "fence": 1}
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


@functools.cache
def strategy_for(kind: Any) -> st.SearchStrategy[Any]:
    """Values that fit an annotation."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is types.UnionType:
        return st.one_of(
            *(st.none() if argument is types.NoneType else strategy_for(argument) for argument in arguments)
        )
    if origin is tuple:
        return st.lists(strategy_for(arguments[0]), max_size=2).map(tuple)
    if origin is dict:
        return st.dictionaries(TEXT, strategy_for(arguments[1]), max_size=2)
    if kind is datetime:
        return st.datetimes(datetime(1970, 1, 2), datetime(9998, 1, 1), timezones=ZONES)  # noqa: DTZ001 - zoned by it
    if hasattr(kind, "__dataclass_fields__"):
        return st.deferred(lambda: message(kind))
    if issubclass(kind, StrEnum):
        return st.sampled_from(list(kind))
    scalars: dict[Any, st.SearchStrategy[Any]] = {
        str: TEXT,
        bool: st.booleans(),
        int: st.integers(-(2**53), 2**53),
        float: st.floats(allow_nan=False, allow_infinity=False),
    }
    return scalars[kind]


@functools.cache
def message(kind: Any) -> st.SearchStrategy[Any]:
    annotations = typing.get_type_hints(kind.__init__)
    return st.builds(kind, **{name: strategy_for(annotations[name]) for name in kind.__dataclass_fields__})


def test_all_messages_are_covered() -> None:
    names = {kind.__name__ for kind in MESSAGES}
    assert {"AgentState", "Slot", "Task", "AcquireRequest", "ExitReport", "WatchLine", "ErrorBody", "Work"} <= names
    assert len(names) > 25


@pytest.mark.parametrize("kind", [*MESSAGES, *RECORDS], ids=lambda kind: kind.__name__)
@given(data=st.data())
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_round_trip_over_every_field(kind: Any, data: st.DataObject) -> None:
    """T33: nothing is lost or bent between two processes, nor in the journal."""
    value = data.draw(message(kind))
    assert decode(kind, orjson.loads(orjson.dumps(encode(value))), strict=True) == value
    assert decode(kind, orjson.loads(orjson.dumps(value, option=orjson.OPT_UTC_Z)), strict=True) == value


@pytest.mark.parametrize("kind", MESSAGES, ids=lambda kind: kind.__name__)
@given(data=st.data())
@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_unknown_fields_are_an_error_in_requests_only(kind: Any, data: st.DataObject) -> None:
    value = data.draw(message(kind))
    encoded = {**encode(value), "no_such_field": 1}
    assert decode(kind, encoded) == value
    with pytest.raises(WireError, match="no_such_field"):
        decode(kind, encoded, strict=True)


@given(moment=st.datetimes(datetime(1970, 1, 2), datetime(9998, 1, 1), timezones=ZONES))  # noqa: DTZ001 - zoned by it
def test_times_are_utc(moment: datetime) -> None:
    """T32: whatever zone a time is given in, it is written in UTC, and read back as the same instant."""
    text = format_time(moment)
    assert text.endswith("Z")
    assert parse_time(text) == moment
    assert parse_time(text).tzinfo is UTC
    assert parse_time(moment.isoformat()) == moment


@pytest.mark.parametrize("text", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
def test_a_time_outside_the_calendar_is_refused_as_any_other_that_is_none(text: str) -> None:
    with pytest.raises(WireError):
        decode(StartedReport, {**STARTED, "start_time": text})


def test_times_without_a_zone_are_refused() -> None:
    """T32: a local time is a mistake, not a default."""
    with pytest.raises(ValueError, match="time zone"):
        format_time(datetime(2026, 3, 1))  # noqa: DTZ001 - the mistake
    with pytest.raises(ValueError, match="time zone"):
        parse_time("2026-03-01T12:00:00")
