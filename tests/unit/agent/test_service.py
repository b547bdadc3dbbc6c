"""The single writer, on virtual time and a disk that does as it is told."""

import asyncio
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest
from prometheus_client import CollectorRegistry

from agent.clock import AgentClock
from agent.counters import Counters
from agent.errors import Refusal
from agent.rules import slots, tasks
from agent.rules.report import Facts
from agent.rules.state import Event, State, initial_state
from agent.service import NOTE_SECONDS, PROBE_SECONDS, Service
from agent.store.journal import NAME, open_journal
from agent.store.journal_format import Header
from agent.store.output import Outputs
from agent.wire import (
    AgentState,
    Assignment,
    ErrorCode,
    KeptTask,
    Outcome,
    Phase,
    RegisterRequest,
    SlotState,
    Stamp,
    StartedReport,
    Step,
    Steps,
    StepSpec,
    TaskState,
    Work,
    Write,
    decode,
)
from agent.workers import POLL_SECONDS, SILENT_SECONDS, Workers
from tests.support import virtual_time
from tests.support.memory_disk import MemoryDisk
from tests.support.no_log import NoLog

LAYOUT = (("plan", "apply"), ("plan",), ("plan",))
START = datetime(2026, 3, 1, tzinfo=UTC)
HEADER = Header(pod_uid="uid", journal_id="j", slots=3)
WORK = Work(
    name="n/t",
    attempt=1,
    steps=Steps(plan=StepSpec(command=("x",)), apply=StepSpec(command=("x",))),
    reservation_ttl_seconds=60,
)


class NoFiles:
    """Output that goes nowhere."""

    def size(self, task_id: str, step: Step) -> int:
        del task_id, step
        return 0

    def append(self, task_id: str, step: Step, data: bytes) -> None:
        del task_id, step, data

    def read(self, task_id: str, step: Step, offset: int, size_bytes: int) -> bytes:
        del task_id, step, offset, size_bytes
        return b""

    def remove(self, task_id: str) -> None:
        del task_id

    def put(self, task_id: str, data: bytes) -> None:
        raise NotImplementedError

    def got(self, task_id: str) -> bytes | None:
        del task_id
        return None

    def has(self, task_id: str) -> bool:
        del task_id
        return False

    def tasks(self) -> tuple[str, ...]:
        return ()


class World:
    """A service over a disk whose writes take `latency` seconds of virtual time."""

    def __init__(self) -> None:
        self.disk = MemoryDisk()
        self.latency = 0.01
        self.commits = 0
        fresh = initial_state(LAYOUT, drain_id="born", lost=False, now=START)
        self.opened = open_journal(self.disk, HEADER, fresh, fresh, used_before=False)
        self.service = self.make()
        self.workers = Workers(self.service, Outputs(NoFiles(), self.offload))

    def make(self, clock: AgentClock | None = None) -> Service:
        return Service(
            facts=Facts(version="1", pod="p", pod_uid="uid", pool="pool", incarnation="i"),
            state=self.opened.state,
            journal=self.opened.journal,
            submit=self.submit,
            now=self.now if clock is None else clock.now,
            clock=clock,
            counters=Counters(CollectorRegistry(), ()),
            log=NoLog(),
        )

    def timed(self, wrong: Callable[[], timedelta]) -> Service:
        """The service with a clock of its own; the wall clock is wrong by so much."""
        return self.make(AgentClock(lambda: self.now() + wrong(), asyncio.get_running_loop().time, "boot"))

    def now(self) -> datetime:
        return START + timedelta(seconds=asyncio.get_running_loop().time())

    def submit(self, work: Callable[[], None], done: Callable[[OSError | None], None]) -> None:
        def run() -> None:
            error: OSError | None = None
            try:
                work()
            except OSError as caught:
                error = caught
            done(error)

        self.commits += 1
        asyncio.get_running_loop().call_later(self.latency, run)

    async def offload(self, work: Callable[[], Any]) -> Any:
        return work()

    async def do(self, command: Any) -> Any:
        module: Any = tasks if type(command).__module__ == tasks.__name__ else slots
        return await self.service.execute(lambda state, now: module.decide(state, command, now))

    async def open(self) -> None:
        await self.do(slots.Open(drain_id="born"))

    def replayed(self) -> State:
        fresh = initial_state(LAYOUT, drain_id="other", lost=False, now=START)
        return open_journal(MemoryDisk(self.disk.files), HEADER, fresh, fresh, used_before=False).state


def in_world(test: Callable[[World], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    def run() -> None:
        async def main() -> None:
            await test(World())

        virtual_time.run(main)

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


def acquire(task_id: str) -> slots.Acquire:
    return slots.Acquire(task_id=task_id, task_type="plan")


@in_world
async def test_nothing_is_shown_or_answered_before_it_is_on_the_disk(world: World) -> None:
    await world.open()
    before, body = world.service.revision, world.service.body
    answer = asyncio.create_task(world.do(acquire("a")))
    await asyncio.sleep(world.latency / 2)
    assert not answer.done()
    assert world.service.body is body, "and reads do not wait"
    duplicate = asyncio.create_task(world.do(acquire("a")))
    refused = asyncio.create_task(world.do(slots.Drain(drain_id="d")))
    await asyncio.sleep(world.latency / 4)
    assert not duplicate.done(), "an answer that rests on what is not stored yet waits for it"
    assert not refused.done()
    assert await answer == await duplicate
    with pytest.raises(Refusal):
        await refused
    assert world.service.revision > before
    assert world.replayed() == world.service.state


@in_world
async def test_what_comes_in_during_a_write_goes_into_the_next_one_together(world: World) -> None:
    await world.open()
    world.commits = 0
    first = asyncio.create_task(world.do(acquire("a")))
    await asyncio.sleep(world.latency / 2)
    rest = [asyncio.create_task(world.do(acquire(name))) for name in ("b", "c")]
    await asyncio.gather(first, *rest)
    assert world.commits == 2
    assert {slot.task_id for slot in world.service.state.slots} == {"a", "b", "c"}


@in_world
async def test_a_failed_write_drops_every_decision_since_and_says_so(world: World) -> None:
    await world.open()
    held = world.service.state
    world.disk.faults = ["fail", "ok"]
    first = asyncio.create_task(world.do(acquire("a")))
    await asyncio.sleep(world.latency / 2)
    later = [
        asyncio.create_task(world.do(command))
        for command in (acquire("b"), acquire("a"), acquire("c"), slots.Drain(drain_id="d"))
    ]
    results = await asyncio.gather(first, *later, return_exceptions=True)
    assert [result.code for result in results if isinstance(result, Refusal)] == [ErrorCode.STORAGE] * 5
    assert world.service.state == held
    assert world.service.journal_failing
    assert any("journal" in warning for warning in world.service.view.warnings)
    assert await world.do(acquire("d")) is not None, "the next request tries the disk again"
    assert not world.service.journal_failing
    assert world.replayed() == world.service.state


@in_world
async def test_a_full_disk_is_probed_until_it_is_well(world: World) -> None:
    await world.open()
    world.disk.faults = ["fail"] * 8
    with pytest.raises(Refusal):
        await world.do(acquire("a"))
    ticks = 0
    while world.service.journal_failing:
        await asyncio.sleep(1)
        await world.service.tick()
        ticks += 1
        assert ticks < 10 * PROBE_SECONDS
    assert await world.do(acquire("a"))


@in_world
async def test_closing_survives_a_dropped_batch(world: World) -> None:
    await world.open()
    world.disk.faults = ["fail"]
    failing = asyncio.create_task(world.do(acquire("a")))
    await asyncio.sleep(world.latency / 2)
    world.service.close()
    with pytest.raises(Refusal):
        await failing
    with pytest.raises(Refusal) as refusal:
        await world.do(acquire("b"))
    assert refusal.value.code is ErrorCode.CLOSING


@in_world
async def test_expiry_is_tried_again_after_a_failed_write(world: World) -> None:
    await world.open()
    hold = await world.do(acquire("a"))
    await world.do(slots.Hold(call=Event.RESERVE, slot=hold.slot, task_id="a", fence=hold.fence, ttl_seconds=5))
    await asyncio.sleep(6)
    world.disk.faults = ["fail"]
    await world.service.tick()
    assert world.service.state.held_by("a") is not None
    await world.service.tick()
    assert world.service.state.held_by("a") is None


@in_world
async def test_a_callers_cancellation_does_not_undo_its_write(world: World) -> None:
    await world.open()
    request = asyncio.create_task(world.do(acquire("a")))
    await asyncio.sleep(world.latency / 2)
    request.cancel()
    await asyncio.sleep(world.latency)
    assert world.service.state.held_by("a") is not None


@in_world
async def test_stamps_must_rise_and_count_as_seen_even_if_refused(world: World) -> None:
    """T19."""

    def code(**write: Any) -> ErrorCode | None:
        try:
            world.service.addressee.check(Write(**write))
        except Refusal as refusal:
            return refusal.code
        return None

    def stamp(term: int, counter: int) -> Stamp:
        return Stamp(term=term, counter=counter)

    assert code() is None
    assert code(stamp=stamp(1, 5)) is None
    assert code(stamp=stamp(1, 5)) is ErrorCode.STALE
    assert code(stamp=stamp(1, 4)) is ErrorCode.STALE
    assert code(stamp=stamp(0, 9)) is ErrorCode.STALE
    assert code(pod_uid="other", stamp=stamp(9, 0)) is ErrorCode.WRONG_POD
    assert code(incarnation="old", stamp=stamp(9, 0)) is ErrorCode.RESTARTED
    assert code(pod_uid="uid", incarnation="i", stamp=stamp(2, 0)) is None


@in_world
async def test_views_are_made_once_for_each_revision(world: World) -> None:
    assert world.service.body is world.service.body
    body = world.service.body
    assert decode(AgentState, orjson.loads(body), strict=True) == world.service.view
    await world.open()
    assert world.service.body is not body
    assert world.service.view.phase is Phase.OPEN


@in_world
async def test_workers_are_connected_while_they_poll_or_were_heard_of(world: World) -> None:
    """T31: the link follows the worker, and each change of it is a revision."""

    def connected() -> bool:
        world.workers.tick()
        link = world.service.view.slots[0].worker
        return link is not None and link.connected

    assert not connected()
    await world.workers.register(0, RegisterRequest(instance="w"))
    assert connected()
    await asyncio.sleep(SILENT_SECONDS - 1)
    assert connected()
    poll = asyncio.create_task(world.workers.poll(0, "w", None, None, listening=lambda: True))
    await asyncio.sleep(POLL_SECONDS - 1)
    assert connected()
    assert (await poll).run is None, "a poll is answered in time"
    revision = world.service.revision
    await asyncio.sleep(SILENT_SECONDS + 1)
    assert not connected()
    assert world.service.revision > revision


@in_world
async def test_a_worker_that_hung_up_is_not_taken_for_one_that_polls(world: World) -> None:
    await world.workers.register(0, RegisterRequest(instance="w"))
    await world.workers.poll(0, "w", None, None, listening=lambda: False)
    poll = asyncio.create_task(world.workers.poll(0, "w", None, None, listening=lambda: False))
    assert (await poll).run is None


@in_world
async def test_a_step_is_handed_over_at_once_and_again_if_the_answer_was_lost(world: World) -> None:
    """T21."""
    await world.open()
    await world.workers.register(0, RegisterRequest(instance="w"))
    loop = asyncio.get_running_loop()
    poll = asyncio.create_task(world.workers.poll(0, "w", None, None, listening=lambda: True))
    await asyncio.sleep(3)
    await world.do(slots.Acquire(task_id="t", task_type="apply", work=WORK))
    acquired = loop.time()
    first = await poll
    assert first.run is not None
    assert loop.time() - acquired < 0.1
    second = await world.workers.poll(0, "w", None, None, listening=lambda: True)
    assert second.run == first.run
    assert 0.5 < loop.time() - acquired < 3, "again, but not in a loop"
    await world.do(tasks.Cancel(task_id="t"))
    cancelled = await world.workers.poll(0, "w", "t", Step.PLAN, listening=lambda: True)
    assert (cancelled.cancel, cancelled.run) == (True, None)


@in_world
async def test_a_poll_that_was_superseded_ends_at_once(world: World) -> None:
    await world.workers.register(0, RegisterRequest(instance="1-a"))
    poll = asyncio.create_task(world.workers.poll(0, "1-a", None, None, listening=lambda: True))
    await asyncio.sleep(1)
    await world.workers.register(0, RegisterRequest(instance="2-b"))
    with pytest.raises(Refusal) as refusal:
        await asyncio.wait_for(poll, 1)
    assert refusal.value.code is ErrorCode.SUPERSEDED


@in_world
async def test_a_registration_that_could_not_be_stored_is_not_taken_for_done(world: World) -> None:
    """Its silence about a task is proof only once; after a failed write the next try must count."""
    await world.open()
    await world.workers.register(0, RegisterRequest(instance="1-a"))
    await world.do(slots.Acquire(task_id="t", task_type="apply", work=WORK))
    run = (await world.workers.poll(0, "1-a", None, None, listening=lambda: True)).run
    assert run is not None
    world.disk.faults = ["fail"]
    report = StartedReport(instance="1-a", task_id="t", step=Step.PLAN, fence=run.fence, start_time=START)
    started = tasks.Started(slot=0, report=report)
    with pytest.raises(Refusal):
        await world.do(started)
    await world.do(started)
    world.disk.faults = ["fail"]
    with pytest.raises(Refusal):
        await world.workers.register(0, RegisterRequest(instance="2-b"))
    assert world.service.state.tasks["t"].state is TaskState.RUNNING
    await world.workers.register(0, RegisterRequest(instance="2-b"))
    assert world.service.state.tasks["t"].outcome is Outcome.LOST
    assert world.service.state.slots[0].state is SlotState.IDLE


@in_world
async def test_a_wall_clock_that_steps_ends_no_reservation_and_is_noted_for_the_next_boot(world: World) -> None:
    wrong = timedelta()
    service = world.timed(lambda: wrong)
    await service.execute(lambda state, now: slots.decide(state, slots.Open(drain_id="born"), now))
    await service.execute(lambda state, now: slots.decide(state, acquire("t"), now))
    hold = slots.Hold(call=Event.RESERVE, slot=1, task_id="t", fence=1, ttl_seconds=3600)
    reserved = await service.execute(lambda state, now: slots.decide(state, hold, now))
    await service.tick()
    assert service.state.clock is not None
    noted = service.state.clock.time
    wrong = timedelta(days=1)
    await service.tick()
    wrong_view = service.view.slots[1]
    assert (wrong_view.state, wrong_view.expires_at) == (SlotState.RESERVED, reserved.expires_at + wrong)
    wrong = timedelta()
    await asyncio.sleep(NOTE_SECONDS)
    await service.tick()
    assert service.view.slots[1].expires_at == reserved.expires_at
    assert service.state.clock.time > noted
    await asyncio.sleep(3600)
    await service.tick()
    assert service.state.slots[1].state is SlotState.IDLE, "what has passed counts"


@in_world
async def test_noting_the_time_is_no_news_for_those_who_watch(world: World) -> None:
    service = world.timed(timedelta)
    await service.execute(lambda state, now: slots.decide(state, slots.Open(drain_id="born"), now))
    await service.execute(lambda state, now: slots.decide(state, acquire("t"), now))
    hold = slots.Hold(call=Event.RESERVE, slot=1, task_id="t", fence=1, ttl_seconds=3600)
    await service.execute(lambda state, now: slots.decide(state, hold, now))
    await service.tick()
    await asyncio.sleep(NOTE_SECONDS)
    await service.tick()  # what was said of the disk at the start is over too
    await asyncio.sleep(1.0)
    assert service.state.clock is not None
    noted, revision = service.state.clock.time, service.revision
    await asyncio.sleep(NOTE_SECONDS)
    await service.tick()
    await asyncio.sleep(1.0)
    assert service.state.clock.time > noted
    assert service.revision == revision


@in_world
async def test_a_registration_is_told_what_the_agent_has_of_each_output(world: World) -> None:
    """After a lost journal, or lost logs, the worker sends again what follows."""
    await world.open()
    await world.do(slots.Acquire(task_id="t", task_type="apply", work=WORK))
    await world.workers.register(0, RegisterRequest(instance="1-a"))
    await world.workers.output(0, instance="1-a", task_id="t", step=Step.PLAN, offset=0, data=b"planned\n")
    assignment = tasks.assignment_of(world.service.state, world.service.state.tasks["t"])
    assert assignment is not None
    unknown = Assignment(task_id="u", task_type="apply", step=Step.PLAN, fence=1, work=WORK)
    kept = (KeptTask(assignment=assignment, started=True), KeptTask(assignment=unknown, started=True))
    answer = await world.workers.register(0, RegisterRequest(instance="2-b", tasks=kept))
    assert answer.forget == ("u",)
    assert answer.output == {"t/plan": 8}


@in_world
async def test_a_registration_names_no_step_that_the_task_does_not_have(world: World) -> None:
    await world.open()
    alone = Work(name="n/t", attempt=1, steps=Steps(apply=StepSpec(command=("x",))))
    await world.do(slots.Acquire(task_id="t", task_type="apply", work=alone))
    assignment = tasks.assignment_of(world.service.state, world.service.state.tasks["t"])
    assert assignment is not None
    kept = KeptTask(assignment=assignment, started=True)
    answer = await world.workers.register(0, RegisterRequest(instance="1-a", tasks=(kept,)))
    assert answer.output == {"t/apply": 0}


@in_world
async def test_the_file_is_compacted_under_way(world: World) -> None:
    await world.open()
    for number in range(4000):
        hold = await world.do(acquire(f"t{number}"))
        await world.do(slots.Hold(call=Event.RELEASE, slot=hold.slot, task_id=f"t{number}", fence=hold.fence))
    assert len(world.disk.files[NAME]) < 1_200_000
    assert world.replayed() == world.service.state
