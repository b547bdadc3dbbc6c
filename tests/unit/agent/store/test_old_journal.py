"""Journals that earlier versions wrote are read. The files beside this one were written by those versions."""

from datetime import UTC, datetime
from pathlib import Path

from agent.rules.state import initial_state
from agent.store.journal import NAME, open_journal
from agent.store.journal_format import VERSION, Header, replay
from agent.wire import Origin, Phase, SlotState, TaskState
from tests.support.memory_disk import MemoryDisk

LAYOUT = (("plan", "apply", "plan_and_apply"), ("plan",), ("plan",))
NOW = datetime(2026, 3, 1, tzinfo=UTC)
FRESH = initial_state(LAYOUT, drain_id="born-2", lost=False, now=NOW)
LOST = initial_state(LAYOUT, drain_id="born-2", lost=True, now=NOW)
HEADER = Header(pod_uid="uid", journal_id="k", slots=3)


def test_a_journal_of_version_1_is_read_whole_and_goes_on_as_the_present_one() -> None:
    disk = MemoryDisk({NAME: Path(__file__).with_name("journal-version-1").read_bytes()})
    opened = open_journal(disk, HEADER, FRESH, LOST, used_before=True)
    state = opened.state
    assert (state.phase, state.opened_id, state.recovering, opened.warnings) == (Phase.OPEN, "born-1", (), ())
    assert [slot.state for slot in state.slots] == [SlotState.RESERVED, SlotState.RUNNING, SlotState.IDLE]
    assert state.slots[0].expires_at == datetime(2026, 3, 1, 1, tzinfo=UTC)
    assert (state.slots[1].task_id, state.slots[1].origin) == ("local-1", Origin.LOCAL)
    assert state.tasks["u.1"].plan_digest == "sha256:d"
    assert state.works["u.1"].steps.apply is not None
    assert state.tasks["v.1"].state is TaskState.ENDED
    assert replay(disk.files[NAME], FRESH).header.version == VERSION
    assert open_journal(disk, HEADER, FRESH, LOST, used_before=True).state == state


def test_a_journal_of_a_later_version_is_set_aside() -> None:
    later = MemoryDisk()
    open_journal(
        later, Header(version=VERSION + 1, pod_uid="uid", journal_id="k", slots=3), FRESH, LOST, used_before=False
    )
    opened = open_journal(later, HEADER, FRESH, LOST, used_before=True)
    assert opened.state.recovering == (0, 1, 2)
    assert f"{NAME}.aside-1" in later.files
