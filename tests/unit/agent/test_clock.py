"""Limits count the time that has passed, whatever the wall clock says."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from agent.clock import AgentClock, boot_seconds, read_boot_id
from agent.rules.state import initial_state

START = datetime(2026, 3, 1, tzinfo=UTC)
STATE = initial_state((("plan",),), drain_id="born", lost=False, now=START)


class Machine:
    """A wall clock that is set, and the seconds since a boot."""

    def __init__(self) -> None:
        self.boot = "first"
        self.seconds = 1000.0
        self.wall = START

    def pass_by(self, seconds: float) -> None:
        self.seconds += seconds
        self.wall += timedelta(seconds=seconds)

    def start(self) -> AgentClock:
        return AgentClock(lambda: self.wall, lambda: self.seconds, self.boot)


def test_a_wall_clock_that_steps_moves_no_limit_and_is_what_is_shown() -> None:
    machine = Machine()
    clock = machine.start()
    machine.pass_by(10)
    for step in (timedelta(days=400), timedelta(days=-800), timedelta(days=400)):
        machine.wall += step
        assert clock.now() == START + timedelta(seconds=10)
        assert clock.now() + clock.shift() == machine.wall


def test_over_a_restart_within_one_boot_it_goes_on_as_if_there_had_been_none() -> None:
    machine = Machine()
    state = replace(STATE, clock=machine.start().note())
    machine.pass_by(50)
    machine.wall += timedelta(days=10)
    clock = machine.start()
    clock.resume(state)
    assert clock.now() == START + timedelta(seconds=50)


def test_after_another_boot_what_was_left_is_left() -> None:
    machine = Machine()
    clock = machine.start()
    machine.pass_by(50)
    state = replace(STATE, clock=clock.note())
    for boot in ("second", ""):
        machine.boot, machine.seconds = boot, 7.0
        machine.wall += timedelta(days=10)
        clock = machine.start()
        clock.resume(state)
        assert clock.now() == START + timedelta(seconds=50)
        state = replace(STATE, clock=clock.note())
    unknown = machine.start()
    machine.pass_by(5)
    unknown.resume(state)
    assert unknown.now() == START + timedelta(seconds=50), "two boots of which nothing is known are not the same"


def test_a_journal_without_a_note_had_the_wall_clocks_time() -> None:
    machine = Machine()
    clock = machine.start()
    clock.resume(STATE)
    assert clock.now() == machine.wall


def test_this_machine_says_which_boot_it_is() -> None:
    assert read_boot_id() == read_boot_id() != ""
    assert 0 < boot_seconds() <= boot_seconds()
