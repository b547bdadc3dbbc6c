"""The agent's disk: full, read-only, failing, cut short, with a bit flipped anywhere, gone. What people see, and do."""

import asyncio
import errno
import os
import resource
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from agent.counters import Counters
from agent.errors import Refusal
from agent.rules import slots
from agent.rules.recovery import vouch
from agent.rules.report import Facts
from agent.rules.slots import Acquire, Drain, Hold, Open
from agent.rules.state import Event, State, initial_state
from agent.service import PROBE_SECONDS, Service
from agent.store.journal import NAME, open_journal
from agent.store.journal_format import Header, new_file
from agent.wire import AgentState, ErrorCode, Origin, Outcome, Phase, SlotState, Steps, StepSpec, TaskState, Work
from tests.support import virtual_time
from tests.support.agent_process import AgentProcess, Refused, running_agent, wait_for
from tests.support.memory_disk import MemoryDisk
from tests.support.no_log import NoLog
from tests.support.worker_process import WorkerProcess, shell

LAYOUT = (("plan", "plan_and_apply"), ("plan",))
NOW = datetime(2026, 3, 1, tzinfo=UTC)
FRESH = initial_state(LAYOUT, drain_id="born", lost=False, now=NOW)
LOST = initial_state(LAYOUT, drain_id="born", lost=True, now=NOW)
WORK = Work(name="n/t", attempt=1, steps=Steps(plan=StepSpec(command=("x",))))


@cache
def counters() -> Counters:
    """One for all: nothing is read off it here, and it takes longer to make than everything else."""
    return Counters(CollectorRegistry(), ())


def at_once(work: Callable[[], None], done: Callable[[OSError | None], None]) -> None:
    error: OSError | None = None
    try:
        work()
    except OSError as caught:
        error = caught
    done(error)


def start(disk: MemoryDisk) -> Service:
    """A service on what the disk has, as the agent starts."""
    header = Header(pod_uid="uid", journal_id="j", slots=len(LAYOUT))
    opened = open_journal(disk, header, FRESH, LOST, used_before=True)

    return Service(
        facts=Facts(version="1", pod="p", pod_uid="uid", pool="pool", incarnation="i"),
        state=opened.state,
        journal=opened.journal,
        submit=at_once,
        now=lambda: NOW,
        counters=counters(),
        log=NoLog(),
        warnings=opened.warnings,
    )


async def do(service: Service, command: Any) -> Any:
    return await service.execute(lambda state, now: slots.decide(state, command, now))


async def refused(service: Service, command: object) -> ErrorCode:
    with pytest.raises(Refusal) as refusal:
        await do(service, command)
    return refusal.value.code


async def life(disk: MemoryDisk) -> list[tuple[int, State]]:
    """Work of both kinds, held and given back; after each answer how long the journal was, and what was so."""
    disk.files[NAME] = new_file(Header(pod_uid="uid", journal_id="j", slots=len(LAYOUT)), FRESH)
    service = start(disk)
    marks = [(len(disk.files[NAME]), service.state)]
    for command in (
        Open(drain_id="born"),
        Acquire(task_id="a", task_type="plan_and_apply", work=WORK),
        Acquire(task_id="b", task_type="plan", origin=Origin.LOCAL),
        Hold(call=Event.RESERVE, slot=1, task_id="b", fence=2, origin=Origin.LOCAL),
        Hold(call=Event.RELEASE, slot=1, task_id="b", fence=3, origin=Origin.LOCAL),
    ):
        await do(service, command)
        marks.append((len(disk.files[NAME]), service.state))
    return marks


def test_cut_at_every_byte_the_agent_has_what_it_answered_or_says_that_it_lost_it() -> None:
    """Never idle and drainable with something forgotten: either the state of the last whole answer, or `recovering`."""

    async def main() -> None:
        written = MemoryDisk()
        marks = await life(written)
        data = written.files[NAME]
        for cut in range(len(data) + 1):
            disk = MemoryDisk({NAME: data[:cut]})
            service = start(disk)
            if cut < marks[0][0]:
                await assert_lost(service, disk, data[:cut])
                continue
            end, expected = [mark for mark in marks if mark[0] <= cut][-1]
            assert service.state == expected
            assert not service.view.recovering
            assert bool(service.view.warnings) == (cut != end), "a write that was cut off is said"
            held = [slot for slot in expected.slots if slot.state is not SlotState.IDLE]
            if held:
                assert await refused(service, Drain(drain_id="d")) is ErrorCode.BUSY
            # And it goes on from there: the next start finds what was added.
            if expected.phase is Phase.DRAINED:
                await do(service, Drain(drain_id="next"))
                assert start(disk).state.drain_id == "next"

    virtual_time.run(main)


async def assert_lost(service: Service, disk: MemoryDisk, data: bytes) -> None:
    view: AgentState = service.view
    assert (view.phase, view.recovering) == (Phase.DRAINED, True)
    assert len(view.warnings) == 2
    assert "set aside" in view.warnings[0]
    assert disk.files[f"{NAME}.aside-1"] == data, "and kept for whoever looks into it"
    assert await refused(service, Drain(drain_id="d")) is ErrorCode.BUSY
    assert await refused(service, Acquire(task_id="new", task_type="plan")) is ErrorCode.NOT_READY
    again = start(disk)
    assert again.view.recovering, "a restart forgets nothing of it"


@pytest.mark.parametrize("bit", range(8))
def test_with_any_bit_flipped_the_agent_is_not_idle_but_recovering(bit: int) -> None:
    """It hands out nothing and is not drained until it knows what is there."""

    async def main() -> None:
        written = MemoryDisk()
        await life(written)
        data = written.files[NAME]
        for index in range(len(data)):
            flipped = bytearray(data)
            flipped[index] ^= 1 << bit
            disk = MemoryDisk({NAME: bytes(flipped)})
            await assert_lost(start(disk), disk, bytes(flipped))

    virtual_time.run(main)


class FailingDisk(MemoryDisk):
    """Every change fails with one error while it is `broken`."""

    def __init__(self, code: int) -> None:
        super().__init__()
        self.code = code
        self.broken = False

    def _fault(self, name: str) -> str:
        del name
        return "fail" if self.broken else "ok"

    def _raise(self, fault: str) -> None:
        if fault != "ok":
            raise OSError(self.code, os.strerror(self.code))


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EIO, errno.EDQUOT], ids=errno.errorcode.get)
def test_full_read_only_or_failing_it_keeps_what_it_holds_and_comes_back_by_itself(code: int) -> None:
    """503 with the disk's reason; nobody has to ask for anything for it to recover."""

    async def main() -> None:
        disk = FailingDisk(code)
        await life(disk)
        service = start(disk)
        before, data = service.state, disk.files[NAME]
        assert before.slots[0].task_id == "a"
        disk.broken = True
        for _ in range(3):
            with pytest.raises(Refusal) as refusal:
                await do(service, Acquire(task_id="c", task_type="plan"))
            assert (refusal.value.code, refusal.value.status) == (ErrorCode.STORAGE, 503)
            assert os.strerror(code) in refusal.value.message
        assert service.state == before
        assert disk.files[NAME] == data
        assert any("can't be written" in warning for warning in service.view.warnings)
        assert await refused(service, Drain(drain_id="d")) is ErrorCode.BUSY
        assert await do(service, Acquire(task_id="a", task_type="plan_and_apply")), "what needs no writing is answered"
        await asyncio.sleep(PROBE_SECONDS + 1)
        await service.tick()
        assert service.journal_failing
        restarted = start(disk)
        assert restarted.state == before, "a start on such a disk serves what is there"

        disk.broken = False
        await asyncio.sleep(PROBE_SECONDS + 1)
        await service.tick()
        assert not service.journal_failing
        assert not service.view.warnings
        assert start(disk).state == before
        await do(service, Acquire(task_id="c", task_type="plan"))
        assert start(disk).state == service.state

    virtual_time.run(main)


def test_without_workers_the_workload_says_what_its_slots_hold() -> None:
    """Rule 6: a sidecar's agent that lost its journal comes right by the program's own next calls."""

    async def main() -> None:
        disk = MemoryDisk({NAME: b"junk"})
        service = start(disk)
        assert service.view.recovering

        def say(call: Event, slot: int, task_id: str, fence: int) -> Awaitable[Any]:
            command = Hold(call=call, slot=slot, task_id=task_id, fence=fence, origin=Origin.LOCAL)
            return service.execute(lambda state, now: vouch(state, command, now))

        first = await say(Event.RESERVE, 0, "mine", 41)
        assert await say(Event.RESERVE, 0, "mine", 41) == first, "repeated, it is done once"
        slot = service.view.slots[0]
        assert (slot.state, slot.task_id, slot.origin) == (SlotState.RESERVED, "mine", Origin.LOCAL)
        assert slot.fence > 41, "fences go on rising over the loss"
        assert slot.expires_at is not None
        assert service.view.recovering, "of the other slot nothing is known yet"
        with pytest.raises(Refusal):
            await say(Event.RESUME, 1, "mine", 41)
        await say(Event.RELEASE, 1, "whatever", 0)
        assert not service.view.recovering
        assert start(disk).state == service.state
        with pytest.raises(Refusal):
            await say(Event.RELEASE, 0, "mine", 41)
        await say(Event.RESUME, 0, "mine", slot.fence)
        await say(Event.RELEASE, 0, "mine", slot.fence + 1)
        await do(service, Drain(drain_id="d"))

    virtual_time.run(main)


# --- real processes -------------------------------------------------------------------------------------------------


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[AgentProcess]:
    with running_agent(tmp_path / "agent", layout=[["plan", "plan_and_apply"]]) as running:
        running.open()
        yield running


@pytest.fixture
def worker(agent: AgentProcess, tmp_path: Path) -> Iterator[WorkerProcess]:
    folder = agent.credentials_dir / "0"
    worker = WorkerProcess(agent.url, folder, tmp_path / "work", command=("-m", "agent", "work"))
    yield worker.start()
    if not worker.dead:
        worker.kill()


def flip(data: bytes, index: int) -> bytes:
    return data[:index] + bytes([data[index] ^ 0x10]) + data[index + 1 :]


DAMAGE: dict[str, Callable[[bytes], bytes | None]] = {
    "first byte": lambda data: flip(data, 0),
    "middle": lambda data: flip(data, len(data) // 2),
    "last byte": lambda data: flip(data, len(data) - 1),
    "header only": lambda data: data[:30],
    "empty": lambda data: data[:0],
    "gone": lambda _: None,
}


@pytest.mark.long
@pytest.mark.usefixtures("worker")
def test_never_idle_while_a_worker_runs_something_whatever_became_of_the_journal(
    agent: AgentProcess, tmp_path: Path
) -> None:
    """T3, rule 2: over six losses in the life of one step. From the first answer on it is known or `recovering`."""
    gate = tmp_path / "gate"
    work = Work(
        name="team/task",
        attempt=1,
        steps=Steps(
            plan=StepSpec(command=shell(f"echo $$ > {tmp_path}/pid; until [ -e {gate} ]; do sleep 0.02; done"))
        ),
    )
    agent.acquire("t.1", "plan", work)
    wait_for(lambda: agent.task("t.1").state is TaskState.RUNNING, "the step runs")
    pid = int(wait_for((tmp_path / "pid").read_text, "it said who it is"))
    for name, damage in DAMAGE.items():
        agent.kill()
        journal = agent.state_dir / "journal"
        damaged = damage(journal.read_bytes())
        journal.unlink() if damaged is None else journal.write_bytes(damaged)
        agent.start()
        wait_for(lambda: knows_again(agent), f"the worker has told the agent, after: {name}")
        assert agent.state().warnings, name
        assert Path(f"/proc/{pid}").exists(), "and the step was not disturbed"
    assert len([*agent.state_dir.glob("journal.aside-*")]) == len(DAMAGE) - 1
    gate.touch()
    wait_for(lambda: agent.task("t.1").state is TaskState.ENDED, "the step ends")
    assert agent.task("t.1").outcome is Outcome.SUCCEEDED
    agent.post("/tasks/t.1/ack")
    assert agent.post("/drain", {"drain_id": "d"})["phase"] == "drained"


def knows_again(agent: AgentProcess) -> bool:
    """Whether the step is known; until then nothing may look free."""
    state = agent.state()
    with pytest.raises(Refused) as drain:
        agent.post("/drain", {"drain_id": "d"})
    assert drain.value.code == "busy"
    with pytest.raises(Refused) as acquire:
        agent.acquire("t.2")
    assert acquire.value.code in {"not_ready", "drained"}
    if state.recovering:
        assert state.slots[0].recovering
        table = agent.call("GET", "/slots", headers={"Accept": "text/plain"})[1].decode()
        assert "   recovering   " in table or not agent.state().recovering, "unless it was told meanwhile"
        return False
    assert state.slots[0].state is SlotState.RUNNING
    assert state.slots[0].task_id == "t.1"
    return True


@contextmanager
def children_on_a_full_disk() -> Iterator[None]:
    """No file that a process started meanwhile writes may grow at all."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_started_on_a_full_disk_it_serves_what_it_holds_and_takes_nothing_new(agent: AgentProcess) -> None:
    agent.acquire("t.1")
    agent.kill()
    with children_on_a_full_disk():
        agent.start()
    state = agent.state()
    assert (state.phase, state.slots[0].task_id) == (Phase.OPEN, "t.1")
    fence = state.slots[0].fence
    with pytest.raises(Refused) as refusal:
        agent.post("/slots/0/release", {"task_id": "t.1", "fence": fence})
    assert (refusal.value.status, refusal.value.code) == (503, "storage")
    agent.limit_file_size(None)
    wait_for(lambda: not agent.state().warnings, "it recovers without being asked")
    agent.post("/slots/0/release", {"task_id": "t.1", "fence": fence})
    assert agent.state().slots[0].state is SlotState.IDLE
