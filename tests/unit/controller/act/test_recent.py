"""The last decisions: bounded for each kind, the newest first."""

from datetime import UTC, datetime
from typing import Any

from controller.act.recent import MAX_MESSAGE, RecentDecisions

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def note(recent: RecentDecisions, message: str, **given: Any) -> None:
    about = {"kind": "SlotTask", "namespace": "ns", "name": "t", "reason": "Assigned", "warning": False, "at": NOW}
    recent.note(**{**about, "message": message, **given})


def test_the_oldest_goes_and_tasks_push_out_no_pool() -> None:
    recent = RecentDecisions(most_of_kind=3)
    note(recent, "0 to 5 Pods", kind="SlotPool")
    for number in range(10):
        note(recent, f"task {number}")
    assert [one.message for one in recent.newest_first()] == ["task 9", "task 8", "task 7", "0 to 5 Pods"]


def test_what_is_said_again_is_counted() -> None:
    recent = RecentDecisions()
    later = NOW.replace(minute=5)
    note(recent, "no quota", warning=True)
    note(recent, "no quota", warning=True, at=later)
    (one,) = recent.newest_first()
    assert (one.times, one.at, one.number) == (2, later, 2)
    note(recent, "assigned")
    note(recent, "no quota", warning=True)
    assert [one.times for one in recent.newest_first()] == [1, 1, 2]


def test_a_message_is_shortened() -> None:
    recent = RecentDecisions()
    note(recent, "x" * 5000)
    assert len(recent.newest_first()[0].message) == MAX_MESSAGE
