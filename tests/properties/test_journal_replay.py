"""The journal says what was committed: cut at any byte, with any bit flipped, on a disk that fails anywhere."""

import errno
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.errors import JournalDamagedError
from agent.rules.slots import Acquire, Hold, Open, decide
from agent.rules.state import Call, Event, SlotChanged, SlotEntry, State, WorkGiven, apply, initial_state
from agent.store.journal import COMPACT_BYTES, NAME, NEW_NAME, RESERVE_BYTES, RESERVE_NAME, Journal, open_journal
from agent.store.journal_format import MAGIC, Header, encode_frame, encode_records, new_file, replay
from agent.wire import Origin, SlotState, Step, Steps, StepSpec, Work
from tests.support.memory_disk import MemoryDisk

NOW = datetime(2026, 3, 1, tzinfo=UTC)
LAYOUT = (("plan", "apply"), ("plan",), ("plan",))
HEADER = Header(pod_uid="uid-1", journal_id="journal-1", slots=3)
FRESH = initial_state(LAYOUT, drain_id="born", lost=False, now=NOW)
LOST = initial_state(LAYOUT, drain_id="born", lost=True, now=NOW)
WORK = Work(name="n/t", attempt=1, steps=Steps(plan=StepSpec(command=("plan",))), files={"main.tf": "x" * 40})


def history() -> list[tuple[bytes, State]]:
    """Commits, each with the state after it."""
    commits: list[tuple[bytes, State]] = []
    state = FRESH
    fence = 0

    def commit(command: Any) -> None:
        nonlocal state, fence
        decision = decide(state, command, NOW)
        for record in decision.records:
            state = apply(state, record)
        fence = state.fence
        commits.append((encode_records(decision.records), state))

    commit(Open(drain_id="born"))
    commit(Acquire(task_id="a", task_type="plan"))
    commit(Acquire(task_id="b", task_type="apply", work=WORK))
    commit(Hold(call=Event.RESERVE, slot=1, task_id="a", fence=1))
    commit(Hold(call=Event.RELEASE, slot=1, task_id="a", fence=fence))
    return commits


def test_a_transition_is_written_with_every_field() -> None:
    """It is spelled out for speed: a field that is left out would be forgotten by a restart."""
    entry = SlotEntry(
        id=1,
        state=SlotState.RESERVED,
        fence=9,
        since=NOW,
        task_id="a",
        task_type="plan",
        step=Step.PLAN,
        origin=Origin.LOCAL,
        expires_at=NOW,
        managed=True,
        acquire_fence=8,
        before=Call(call=Event.RESERVE, task_id="a", fence=8),
    )
    record = SlotChanged(event=Event.RESERVE, entry=entry)
    assert encode_records([record]) == orjson.dumps([("slot", record)], option=orjson.OPT_UTC_Z)


def file_with_ends() -> tuple[bytes, list[tuple[int, State]]]:
    """A journal's bytes, and after each frame where it ends and the state it leads to."""
    data = new_file(HEADER, FRESH)
    ends = [(len(data), FRESH)]
    for payload, state in history():
        data += encode_frame(payload)
        ends.append((len(data), state))
    return data, ends


def test_cut_at_every_byte_it_says_what_was_whole() -> None:
    data, ends = file_with_ends()
    first = ends[0][0]
    for cut in range(len(data) + 1):
        if cut < first:
            with pytest.raises(JournalDamagedError):
                replay(data[:cut], FRESH)
            continue
        found = replay(data[:cut], FRESH)
        end, state = max((entry for entry in ends if entry[0] <= cut), key=lambda entry: entry[0])
        assert (found.state, found.size_bytes, found.torn_bytes) == (state, end, cut - end)


def test_a_tail_of_zeros_was_never_written() -> None:
    data, ends = file_with_ends()
    for count in (1, 11, 12, 13, 4096):
        found = replay(data + bytes(count), FRESH)
        assert (found.state, found.torn_bytes) == (ends[-1][1], count)


def test_every_flipped_bit_is_detected() -> None:
    """An acknowledged record is never silently lost: not by its length, not as the last one."""
    data, _ = file_with_ends()
    for index in range(len(data)):
        for bit in range(8):
            flipped = bytearray(data)
            flipped[index] ^= 1 << bit
            with pytest.raises(JournalDamagedError):
                replay(bytes(flipped), FRESH)


@given(junk=st.binary(min_size=1, max_size=200))
def test_junk_is_no_journal(junk: bytes) -> None:
    for data in (junk, MAGIC + junk, MAGIC + encode_frame(junk)):
        with pytest.raises(JournalDamagedError):
            replay(data, FRESH)


def opened(disk: MemoryDisk, *, used_before: bool = False, uid: str = "uid-1") -> Any:
    header = Header(pod_uid=uid, journal_id="journal-2", slots=3)
    return open_journal(disk, header, FRESH, LOST, used_before=used_before)


def test_fresh_lost_and_kept() -> None:
    disk = MemoryDisk()
    assert opened(disk).state == FRESH
    again = opened(disk)
    assert (again.state, again.warnings) == (FRESH, ())
    del disk.files[NAME]
    gone = opened(disk, used_before=True)
    assert gone.state == LOST
    assert gone.warnings
    other = opened(disk, uid="uid-2")
    assert other.state == LOST
    assert "uid-1" in other.warnings[0]
    assert f"{NAME}.aside-1" in disk.files
    disk.files[NAME] = b"junk"
    assert opened(disk).state == LOST
    assert f"{NAME}.aside-2" in disk.files


def test_a_torn_tail_is_cut_before_the_next_append() -> None:
    data, ends = file_with_ends()
    disk = MemoryDisk({NAME: data[:-5]})
    found = opened(disk)
    assert found.state == ends[-2][1]
    assert "cut off" in found.warnings[0]
    payload, state = history()[-1]
    found.journal.commit(payload, found.state)
    assert opened(disk).state == state


FAULTS = st.lists(st.sampled_from(["ok", "ok", "ok", "fail", "torn"]), max_size=60)


@given(faults=FAULTS, crash_after=st.integers(0, 60))
@settings(deadline=None)
def test_on_a_disk_that_fails_anywhere_what_was_acknowledged_is_there(faults: list[str], crash_after: int) -> None:
    """Every write, rename and cut may fail, wholly or half-way; after a crash the replay gives the acknowledged state.

    Or one commit more: a write whose failure was reported may have reached the disk, if cutting it back failed as well.
    """
    disk = MemoryDisk(faults=list(faults))
    journal = opened(disk).journal
    state = acknowledged = FRESH
    refused: list[State] = []
    for number in range(crash_after):
        command = Open(drain_id="born") if number == 0 else Acquire(task_id=f"t.{number}", task_type="plan")
        try:
            decision = decide(state, command, NOW)
        except Exception:  # noqa: BLE001 - full or drained: release instead
            if state.slots[1].task_id is None:
                continue
            slot = state.slots[1]
            release = Hold(call=Event.RELEASE, slot=1, task_id=slot.task_id or "", fence=slot.fence)
            decision = decide(state, release, NOW)
        after = state
        for record in decision.records:
            after = apply(after, record)
        try:
            journal.commit(encode_records(decision.records), state)
        except OSError:
            refused.append(after)
            continue
        state = acknowledged = after
        refused.clear()
    if disk.files.get(NAME) is None:
        assert acknowledged == FRESH
        return
    disk.faults.clear()
    assert opened(disk).state in [acknowledged, *refused]


def test_compaction_keeps_the_state_and_bounds_the_file() -> None:
    disk = MemoryDisk()
    journal: Journal = opened(disk).journal
    state = FRESH
    for record in decide(state, Open(drain_id="born"), NOW).records:
        journal.commit(encode_records([record]), state)
        state = apply(state, record)
    largest = 0
    for number in range(8000):
        held = state.held_by(f"t.{number - 1}")
        command: Any = Acquire(task_id=f"t.{number}", task_type="apply")
        if held is not None:
            command = Hold(call=Event.RELEASE, slot=0, task_id=f"t.{number - 1}", fence=held.fence)
        decision = decide(state, command, NOW)
        journal.commit(encode_records(decision.records), state)
        for record in decision.records:
            state = apply(state, record)
        largest = max(largest, journal.size_bytes)
        assert journal.size_bytes == len(disk.files[NAME])
    assert COMPACT_BYTES < largest < COMPACT_BYTES + 4096
    assert opened(disk).state == state


def test_a_compaction_that_finds_no_room_goes_on_in_the_old_file() -> None:
    payload = encode_records([apply_open()])
    frame = encode_frame(payload)
    disk = MemoryDisk({NAME: new_file(HEADER, FRESH) + frame * (COMPACT_BYTES // len(frame) + 1)})
    journal: Journal = opened(disk).journal
    disk.faults = ["fail", "ok"]
    size = len(disk.files[NAME])
    journal.commit(payload, FRESH)
    assert disk.log == [NEW_NAME, NAME]
    assert len(disk.files[NAME]) == size + len(frame) == journal.size_bytes
    assert not journal.broken


def apply_open() -> Any:
    return decide(FRESH, Open(drain_id="born"), NOW).records[0]


def test_a_failed_append_is_cut_back_at_once() -> None:
    disk = MemoryDisk()
    journal: Journal = opened(disk).journal
    size = journal.size_bytes
    disk.faults = ["torn", "ok"]
    with pytest.raises(OSError, match="fault"):
        journal.commit(encode_records([apply_open()]), FRESH)
    assert len(disk.files[NAME]) == size
    assert not journal.broken, "a full disk that was cut back leaves the file as it was: no room for a copy is needed"
    disk.faults = ["torn", "fail"]
    with pytest.raises(OSError, match="fault"):
        journal.commit(encode_records([apply_open()]), FRESH)
    assert journal.broken
    journal.commit(encode_records([apply_open()]), FRESH)
    assert not journal.broken
    assert opened(disk).state.opened_id == "born"


class SmallDisk(MemoryDisk):
    """A disk of so many bytes."""

    def __init__(self, size_bytes: int) -> None:
        super().__init__()
        self.size_bytes = size_bytes

    def write(self, name: str, data: bytes) -> None:
        self.files.pop(name, None)
        self._fill(name, b"", data)

    def append(self, name: str, data: bytes) -> None:
        self._fill(name, self.files[name], data)

    def _fill(self, name: str, before: bytes, data: bytes) -> None:
        room = self.size_bytes - sum(len(other) for key, other in self.files.items() if key != name) - len(before)
        self.files[name] = before + data[: max(0, room)]
        if len(data) > room:
            raise OSError(errno.ENOSPC, "No space left on device")


def test_on_a_full_disk_ends_take_the_place_of_the_reserve_and_new_work_does_not() -> None:
    disk = SmallDisk(RESERVE_BYTES + 4096)
    journal: Journal = opened(disk).journal
    journal.probe(FRESH)
    assert RESERVE_NAME in disk.files
    large = encode_records([WorkGiven(task_id="t", work=Work(name="x" * 900_000, attempt=1, steps=Steps()))])
    with pytest.raises(OSError, match="No space"):
        journal.commit(large, FRESH, urgent=False)
    assert (journal.broken, journal.short) == (False, False)
    disk.size_bytes = sum(map(len, disk.files.values()))
    record = encode_records([apply_open()])
    with pytest.raises(OSError, match="No space"):
        journal.commit(record, FRESH, urgent=False)
    journal.commit(record, FRESH)
    assert journal.short
    assert opened(disk).state.opened_id == "born"
    with pytest.raises(OSError, match="No space"):
        journal.probe(FRESH)
    assert RESERVE_NAME not in disk.files, "half a reserve does not fill the disk"
    disk.size_bytes += 4096
    journal.probe(FRESH)
    assert not journal.short


def test_a_rewrite_that_failed_leaves_nothing_behind() -> None:
    disk = SmallDisk(4096)
    journal: Journal = opened(disk).journal
    disk.size_bytes = journal.size_bytes + 10
    with pytest.raises(OSError, match="No space"):
        journal.rewrite(FRESH)
    assert list(disk.files) == [NAME]
    disk.files[NEW_NAME] = b"of a crash"
    opened(disk)
    assert list(disk.files) == [NAME]
