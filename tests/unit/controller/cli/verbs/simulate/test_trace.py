"""What a trace in CSV may say, and what is refused, naming the line."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.cli.verbs.simulate.trace import Arrival, InvalidTrace, Trace, read, write

HEAD = "arrival,type,plan_seconds,approval_seconds,apply_seconds,lockKey,priority\n"


def test_rows_become_arrivals_in_the_order_of_their_times() -> None:
    trace = read(HEAD + "60,plan_and_apply,90,3600,120,vpc,5\n\n0.5,plan,30,,,,\n7,apply,,,10,vpc,-1\n", "f")
    assert trace.arrivals == (
        Arrival(at=0.5, type="plan", plan_seconds=30),
        Arrival(at=7, type="apply", apply_seconds=10, lock_key="vpc", priority=-1),
        Arrival(
            at=60,
            type="plan_and_apply",
            plan_seconds=90,
            approval_seconds=3600,
            apply_seconds=120,
            lock_key="vpc",
            priority=5,
        ),
    )
    assert trace.seconds == 60


def test_columns_can_stand_in_any_order_and_optional_ones_be_left_out() -> None:
    assert read("type,plan_seconds,arrival\nlint,5,0\n", "f").arrivals == (Arrival(at=0, type="lint", plan_seconds=5),)


def test_spaces_around_names_and_values_do_not_count() -> None:
    assert read("arrival, type, plan_seconds\n0, lint, 5\n", "f").arrivals == (
        Arrival(at=0, type="lint", plan_seconds=5),
    )


def test_times_count_from_the_first_one() -> None:
    text = "arrival,type,plan_seconds\n2026-03-01T09:00:10+01:00,plan,1\n2026-03-01T08:00:00Z,plan,1\n"
    trace = read(text, "f")
    assert trace.start == datetime(2026, 3, 1, 8, tzinfo=UTC)
    assert [arrival.at for arrival in trace.arrivals] == [0, 10]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "f, line 1: no column arrival, type"),
        ("arrival,type,plan\n0,plan,1\n", "f, line 1: no such column: plan; there are arrival, type, plan_seconds"),
        ("arrival,type,type\n0,plan,1\n", "f, line 1: a column is there twice"),
        (HEAD, "f: no task in it"),
        (HEAD + "0,plan,1,,,,\n-1,plan,1,,,,\n", "f, line 3: arrival: '-1' is not between 0 and"),
        ("arrival,type,plan_seconds,\n0,plan,1,\n", "f, line 1: column 4 has no name"),
        (HEAD + "0001-01-01T00:00:00+14:00,plan,1,,,,\n", "f, line 2: arrival: '0001-01-01T00:00:00+14:00' is neither"),
        (HEAD + "9999-12-31T23:59:59-14:00,plan,1,,,,\n", "f, line 2: arrival: '9999-12-31T23:59:59-14:00' is neither"),
        (
            HEAD + "9999-12-31T23:59:59Z,plan,1,,,,\n",
            "f, line 2: arrival: '9999-12-31T23:59:59Z' is not between 1970 and",
        ),
        (HEAD + "0,plan,1,,,," + "9" * 5000 + "\n", "f, line 2: priority: '99999"),
        (HEAD + "nan,plan,1,,,,\n", "f, line 2: arrival: 'nan' is not between"),
        (HEAD + "soon,plan,1,,,,\n", "f, line 2: arrival: 'soon' is neither a number of seconds nor a time"),
        (HEAD + "2026-03-01T08:00:00,plan,1,,,,\n", "f, line 2: arrival: '2026-03-01T08:00:00' has no time zone"),
        (HEAD + "0,pl an,1,,,,\n", "f, line 2: type: 'pl an' is no task type"),
        (HEAD + "0,plan,x,,,,\n", "f, line 2: plan_seconds: 'x' is no number of seconds"),
        (HEAD + "0,plan,1e9,,,,\n", "f, line 2: plan_seconds: '1e9' is not between"),
        (HEAD + "0,plan,,,,,\n", "f, line 2: neither plan_seconds nor apply_seconds is given"),
        (HEAD + "0,plan,1,,2,,\n", "f, line 2: a task of type plan has no approval_seconds and no apply_seconds"),
        (HEAD + "0,apply,1,,2,,\n", "f, line 2: a task of type apply has no plan_seconds"),
        (HEAD + "0,plan_and_apply,,,2,,\n", "f, line 2: plan_seconds is missing"),
        (HEAD + "0,plan,1,,,,1.5\n", "f, line 2: priority: '1.5' is no integer"),
        (HEAD + "0,plan,1,,,,0,extra\n", "f, line 2: more fields than the head line has columns"),
        (HEAD + '0,"plan,1\n', "f, line 2: unexpected end of data"),
        (
            HEAD + "0,plan,1,,,,\n2026-03-01T08:00:00Z,plan,1,,,,\n",
            "f: some arrivals are seconds (line 2) and some are times (line 3)",
        ),
        (
            HEAD + "2024-01-01T00:00:00Z,plan,1,,,,\n2026-03-01T08:00:00Z,plan,1,,,,\n",
            "f: more than a year lies between",
        ),
    ],
)
def test_anything_else_is_refused(text: str, problem: str) -> None:
    with pytest.raises(InvalidTrace) as error:
        read(text, "f")
    assert str(error.value).startswith(problem)


def problems(text: str) -> list[str]:
    with pytest.raises(InvalidTrace) as error:
        read(text, "f")
    return str(error.value).splitlines()


def test_twenty_problems_are_named_with_their_lines_and_how_many_more_there_are() -> None:
    found = problems(HEAD + "x,plan,1,,,,\n" * 30)
    assert [line.split(":")[0] for line in found] == [*(f"f, line {n}" for n in range(2, 22)), "and 10 more"]
    assert len(problems(HEAD + "x,plan,1,,,,\n" * 20)) == 20


def test_all_that_is_wrong_in_a_line_is_named() -> None:
    assert problems(HEAD + "x,pl an,y,-1,,,many\n0,plan,1,,,,\n-1,apply,1,,2,,\n") == [
        "f, line 2: arrival: 'x' is neither a number of seconds nor a time as 2026-03-01T08:00:00Z",
        "f, line 2: type: 'pl an' is no task type",
        "f, line 2: plan_seconds: 'y' is no number of seconds",
        "f, line 2: approval_seconds: '-1' is not between 0 and 31536000 seconds",
        "f, line 2: priority: 'many' is no integer from -1000000 to 1000000",
        "f, line 4: arrival: '-1' is not between 0 and 31536000 seconds",
        "f, line 4: a task of type apply has no plan_seconds and no approval_seconds",
    ]


def test_all_that_is_wrong_in_the_head_line_is_named() -> None:
    assert [line.split(";")[0] for line in problems("type,type,plan\nplan,1,1\n")] == [
        "f, line 1: no column arrival",
        "f, line 1: no such column: plan",
        "f, line 1: a column is there twice: type",
    ]


def test_a_mixture_of_seconds_and_times_names_a_line_of_each() -> None:
    text = "0,plan,1,,,,\n1,plan,1,,,,\n2026-03-01T08:00:00Z,plan,1,,,,\n"
    assert problems(HEAD + text) == [
        "f: some arrivals are seconds (line 2) and some are times (line 4); all have to be of one kind"
    ]


tenths = st.integers(0, 10**7).map(lambda number: number / 10)
arrivals = st.builds(
    Arrival,
    at=tenths,
    type=st.just("plan_and_apply"),
    plan_seconds=tenths,
    approval_seconds=st.none() | tenths,
    apply_seconds=st.none() | tenths,
    lock_key=st.none() | st.sampled_from(["a", "b,c", 'd"e']),
    priority=st.integers(-5, 5),
)


@given(st.lists(arrivals, min_size=1, max_size=5))
def test_what_is_written_is_read_again(given_out: list[Arrival]) -> None:
    trace = Trace(tuple(sorted(given_out, key=lambda arrival: arrival.at)))
    assert read(write(trace), "f") == trace
