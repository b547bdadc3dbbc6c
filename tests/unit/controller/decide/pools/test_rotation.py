"""When a token is replaced, and by which steps."""

from dataclasses import replace
from datetime import timedelta

import pytest

from controller.decide.pools.rotation import (
    KEPT,
    PATIENCE,
    AddNext,
    DropPrevious,
    RecordTimes,
    Rotation,
    UseNext,
    rotation,
)
from controller.decide.view import PodView
from controller.objects.token_secret import TokenState
from tests.support.pools import NOW, pod

PERIOD = timedelta(days=30)
SECOND = timedelta(seconds=1)
IN_USE = TokenState(current="t1", since=NOW)
ADDED = replace(IN_USE, next="t2", next_since=NOW)
SWITCHED = TokenState(current="t2", since=NOW, previous="t1")


def accepting(name: str, *tokens: str, connected: bool = True) -> PodView:
    made = pod(name, "...", connected=connected)
    assert made.agent is not None
    return replace(made, agent=replace(made.agent, tokens=tokens))


def at(passed: timedelta, state: TokenState, *pods: PodView, requested: str | None = None) -> Rotation:
    return rotation(state, pods, period=PERIOD, requested=requested, now=NOW + passed)


@pytest.mark.parametrize("pods", [(), (accepting("a", "t1"),), tuple(accepting(f"p{n}", "t1") for n in range(100))])
def test_a_token_is_replaced_once_its_period_is_over_whatever_the_size(pods: tuple[PodView, ...]) -> None:
    """T17."""
    before = at(PERIOD - SECOND, IN_USE, *pods)
    assert (before.step, before.wait, before.in_sync) == (None, SECOND, True)
    assert at(PERIOD, IN_USE, *pods).step == AddNext("t1")


def test_or_once_for_each_request() -> None:
    assert at(SECOND, IN_USE, requested="now").step == AddNext("t1")
    assert at(SECOND, replace(IN_USE, requested="now"), requested="now").step is None
    assert at(SECOND, replace(IN_USE, requested="now"), requested="again").step == AddNext("t1")


def test_the_next_one_is_used_once_every_agent_accepts_it() -> None:
    waiting = at(SECOND, ADDED, accepting("a", "t1", "t2"), accepting("b", "t1"))
    assert (waiting.step, waiting.wait) == (None, PATIENCE - SECOND)
    assert (waiting.in_sync, waiting.reason) == (False, "WaitingForAgents")
    assert waiting.message.endswith("not yet reported by b")
    assert at(SECOND, ADDED, accepting("a", "t1", "t2"), accepting("b", "t2")).step == UseNext("t2")
    assert at(SECOND, ADDED).step == UseNext("t2")


NOT_KNOWN_TO_ACCEPT = {
    "not connected": accepting("b", "t1", "t2", connected=False),
    "never heard": pod("b", None),
    "on its way out": replace(accepting("b", "t1"), deleting=True),
}


@pytest.mark.parametrize("silent", NOT_KNOWN_TO_ACCEPT.values(), ids=NOT_KNOWN_TO_ACCEPT)
def test_who_is_not_heard_is_waited_for_ten_minutes_and_then_named(silent: PodView) -> None:
    assert at(PATIENCE - SECOND, ADDED, silent).step is None
    over = at(PATIENCE, ADDED, silent)
    assert over.step == UseNext("t2")
    assert "not reported by b" in over.message


def test_who_is_known_not_to_accept_the_one_in_use_is_named() -> None:
    """Heard or not; a Pod that starts, and was never heard, does not count."""
    after = TokenState(current="t2", since=NOW)
    silent = accepting("b", "t1", connected=False)
    behind = at(KEPT, after, silent, accepting("c", "t1"), accepting("d", "t1", "t2"), pod("e", None))
    assert (behind.in_sync, behind.reason) == (False, "AgentsBehind")
    assert behind.message.endswith("not reported by b, c")
    assert at(KEPT, after, pod("e", None)).in_sync


def test_the_dead_and_those_that_never_start_are_not_waited_for() -> None:
    dead = replace(accepting("a", "t1"), dead=True)
    assert at(SECOND, ADDED, dead).step == UseNext("t2")


def test_the_one_before_is_kept_for_a_while() -> None:
    kept = at(KEPT - SECOND, SWITCHED, accepting("a", "t1", "t2"))
    assert (kept.step, kept.wait, kept.reason, kept.since) == (None, SECOND, "Dropping", NOW)
    assert at(KEPT, SWITCHED, accepting("a", "t1", "t2")).step == DropPrevious("t1")


@pytest.mark.parametrize(
    "state",
    [
        TokenState(current="t1"),
        TokenState(current="t1", since=NOW + timedelta(days=400)),
        replace(ADDED, next_since=None),
        replace(ADDED, next_since=NOW + timedelta(days=400)),
        replace(SWITCHED, since=NOW + timedelta(days=400)),
    ],
)
def test_a_time_that_is_not_known_or_is_still_to_come_counts_from_now(state: TokenState) -> None:
    assert at(SECOND, state).step == RecordTimes()


def test_many_are_not_all_named() -> None:
    message = at(SECOND, ADDED, *(accepting(f"p{n}", "t1") for n in range(8))).message
    assert message.endswith("p0, p1, p2, p3, p4 and 3 more")


def test_without_a_usable_token_nothing_is_rotated() -> None:
    found = at(PERIOD, TokenState())
    assert (found.step, found.in_sync) == (None, False)
