"""Times that others wrote: whatever they are, what is added to them breaks nothing."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.wire import parse_time
from controller.errors import InvalidObject
from controller.objects.ended_task import EndedTask
from controller.objects.task import Task
from controller.objects.times import read_time, time_or_none
from controller.objects.token_secret import token_state
from tests.support.dispatch_site import task_object

OUTSIDE = [
    "9999-12-31T23:59:59Z",
    "9999-12-31T23:59:59-23:59",
    "0001-01-01T00:00:00Z",
    "0001-01-01T00:00:00+23:59",
    "1899-12-31T23:59:59Z",
]
NONE: list[Any] = [
    *OUTSIDE,
    "",
    "x",
    "2026-03-01T12:00:00",
    "2026-03-01",
    "2026-02-30T12:00:00Z",
    None,
    7,
    True,
    [],
    {},
]


@pytest.mark.parametrize("text", NONE, ids=str)
def test_what_is_no_usable_time_is_none(text: Any) -> None:
    assert time_or_none(text) is None


@pytest.mark.parametrize("text", OUTSIDE)
def test_the_edges_of_the_calendar_are_a_plain_error(text: str) -> None:
    """A zone can move them out of the calendar, which raises OverflowError in datetime."""
    with pytest.raises(ValueError, match=r"calendar|between"):
        read_time(text)


@given(st.text(max_size=5) | st.datetimes(timezones=st.timezones()).map(lambda moment: moment.isoformat()))
def test_no_text_breaks_it(text: str) -> None:
    try:
        moment = parse_time(text)
    except ValueError:
        moment = None
    read = time_or_none(text)
    assert read is None or read == moment


FIELDS: list[dict[str, Any]] = [
    {field: time} for field in ("expiresAt", "finishTime", "startTime", "notBefore") for time in OUTSIDE
] + [{"conditions": [{"type": "A", "status": "True", "lastTransitionTime": time}]} for time in OUTSIDE]


@pytest.mark.parametrize("status", FIELDS, ids=str)
def test_a_task_with_such_a_time_can_not_be_read_and_says_which(status: dict[str, Any]) -> None:
    """It was left out with a traceback, and nothing was ever said on it."""
    stored = task_object(status={"phase": "Queued", **status})
    stored["metadata"]["resourceVersion"] = "1"
    with pytest.raises(InvalidObject, match=next(iter(status))):
        Task.parse(stored)


@pytest.mark.parametrize("time", OUTSIDE)
def test_one_that_ended_then_is_kept(time: str) -> None:
    stored = task_object(status={"phase": "Succeeded", "finishTime": time})
    stored["metadata"]["resourceVersion"] = "1"
    assert EndedTask.parse(stored).delete_at is None


@pytest.mark.parametrize("time", OUTSIDE)
def test_a_token_in_use_since_then_has_no_time(time: str) -> None:
    """It is recorded anew; a rotation is due by it."""
    secret = {"metadata": {"annotations": {"podslots.dev/current-token-since": time}}, "data": {}}
    assert token_state(secret).since is None
