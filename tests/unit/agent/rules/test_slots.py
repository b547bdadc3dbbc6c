"""The table, the choice of a slot, and what single commands come to."""

import itertools
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from agent.errors import STATUS, Refusal
from agent.rules.slots import (
    DEFAULT_TTL_SECONDS,
    TRANSITIONS,
    Acquire,
    Drain,
    ExpireHolds,
    Hold,
    Open,
    decide,
    transition,
)
from agent.rules.state import ACKED_KEPT, Event, State, TaskAcked, TaskChanged, TaskEntry, apply, initial_state
from agent.wire import AcquireAnswer, ErrorCode, Origin, SlotState, Step, TaskState

NOW = datetime(2026, 3, 1, tzinfo=UTC)
LAYOUT = (("plan", "apply", "plan_and_apply"), ("plan",), ("plan",))


def opened(layout: tuple[tuple[str, ...], ...] = LAYOUT) -> State:
    return after(initial_state(layout, drain_id="born", lost=False, now=NOW), Open(drain_id="born"))


def after(state: State, *commands: Any, now: datetime = NOW) -> State:
    for command in commands:
        for record in decide(state, command, now).records:
            state = apply(state, record)
    return state


def refused(state: State, command: Any, now: datetime = NOW) -> ErrorCode:
    with pytest.raises(Refusal) as refusal:
        decide(state, command, now)
    return refusal.value.code


def test_every_pair_outside_the_table_raises_and_every_pair_inside_leads_where_it_says() -> None:
    for slot_state, event in itertools.product(SlotState, Event):
        state = opened()
        if slot_state is not SlotState.IDLE:
            state = after(state, Acquire(task_id="t", task_type="plan"))
        if slot_state is SlotState.RESERVED:
            state = after(state, Hold(call=Event.RESERVE, slot=1, task_id="t", fence=1))
        slot = state.slots[1]
        assert slot.state is slot_state
        target = TRANSITIONS.get((slot_state, event))
        if target is None:
            with pytest.raises(Refusal) as refusal:
                transition(state, slot, event, NOW)
            assert refusal.value.code is ErrorCode.ILLEGAL
        else:
            entry = transition(state, slot, event, NOW).entry
            assert (entry.state, entry.fence, entry.since) == (target, state.fence + 1, NOW)


def test_every_state_can_be_left_for_idle() -> None:
    for slot_state in SlotState:
        reachable = {slot_state}
        for _ in SlotState:
            reachable |= {target for (source, _), target in TRANSITIONS.items() if source in reachable}
        assert SlotState.IDLE in reachable


def test_a_plan_prefers_the_most_restricted_slot() -> None:
    """Slot 0 stays free for what only it can take; among equals the lowest id goes first."""
    state = opened()
    chosen = []
    for number in range(3):
        state = after(state, Acquire(task_id=f"t{number}", task_type="plan"))
        held = state.held_by(f"t{number}")
        assert held is not None
        chosen.append(held.id)
    assert chosen == [1, 2, 0]
    assert refused(state, Acquire(task_id="t3", task_type="plan")) is ErrorCode.NO_FREE_SLOT
    assert refused(state, Acquire(task_id="t3", task_type="apply")) is ErrorCode.NO_FREE_SLOT
    assert refused(state, Acquire(task_id="t3", task_type="x")) is ErrorCode.UNKNOWN_TASK_TYPE


def test_any_layout_of_up_to_sixteen_slots() -> None:
    layout = (("a", "b", "c"), ("b", "c"), ("c",), *[("a",)] * 13)
    state = opened(layout)
    for task_type, slot in (("c", 2), ("c", 1), ("c", 0), ("a", 3)):
        answer = decide(state, Acquire(task_id=f"{task_type}{slot}", task_type=task_type), NOW).answer
        assert answer == AcquireAnswer(slot=slot, fence=state.fence + 1)
        state = after(state, Acquire(task_id=f"{task_type}{slot}", task_type=task_type))


def test_the_same_acquire_again_is_answered_the_same_in_any_state() -> None:
    acquire = Acquire(task_id="t", task_type="plan")
    state = after(opened(), acquire)
    answer = AcquireAnswer(slot=1, fence=1)
    assert decide(state, acquire, NOW).answer == answer
    state = after(state, Hold(call=Event.RESERVE, slot=1, task_id="t", fence=1))
    assert decide(state, acquire, NOW).answer == answer
    assert decide(state, acquire, NOW).records == ()
    assert refused(state, Acquire(task_id="t", task_type="plan", origin=Origin.LOCAL)) is ErrorCode.FORBIDDEN


def test_fences_of_holders() -> None:
    """The fence before, with the same call, gets its stored answer; any other one is fenced."""
    state = after(opened(), Acquire(task_id="t", task_type="plan"))
    reserve = Hold(call=Event.RESERVE, slot=1, task_id="t", fence=1)
    reserved = decide(state, reserve, NOW).answer
    state = after(state, reserve)
    assert reserved.fence == 2
    assert reserved.expires_at == NOW + timedelta(seconds=DEFAULT_TTL_SECONDS)
    assert decide(state, reserve, NOW).answer == reserved
    release_with_old = Hold(call=Event.RELEASE, slot=1, task_id="t", fence=1)
    assert refused(state, release_with_old) is ErrorCode.FENCED
    assert refused(state, Hold(call=Event.RESUME, slot=1, task_id="u", fence=2)) is ErrorCode.FENCED
    release = Hold(call=Event.RELEASE, slot=1, task_id="t", fence=2)
    state = after(state, release)
    assert decide(state, release, NOW).answer.state is SlotState.IDLE
    assert refused(state, reserve) is ErrorCode.FENCED
    state = after(state, Acquire(task_id="v", task_type="plan"))
    assert refused(state, release) is ErrorCode.FENCED, "the slot is another's now"


def test_holds_expire_at_their_limit_and_not_before() -> None:
    """T9: a resumed hold has no limit any more."""
    reserve = Hold(call=Event.RESERVE, slot=1, task_id="t", fence=1, ttl_seconds=10)
    state = after(opened(), Acquire(task_id="t", task_type="plan"), reserve)
    early, late = NOW + timedelta(seconds=9), NOW + timedelta(seconds=10)
    assert decide(state, ExpireHolds(), early).records == ()
    assert after(state, ExpireHolds(), now=late).slots[1].state is SlotState.IDLE
    resume = Hold(call=Event.RESUME, slot=1, task_id="t", fence=2)
    assert refused(state, resume, late) is ErrorCode.ILLEGAL, "expired, even if nobody has looked yet"
    resumed = after(state, resume, now=early)
    assert resumed.slots[1].expires_at is None
    assert decide(resumed, ExpireHolds(), late).records == ()


def test_several_holds_that_expire_at_once_get_fences_of_their_own() -> None:
    state = opened()
    for number, slot in enumerate((1, 2)):
        state = after(state, Acquire(task_id=f"t{number}", task_type="plan"))
        fence = state.fence
        state = after(state, Hold(call=Event.RESERVE, slot=slot, task_id=f"t{number}", fence=fence, ttl_seconds=1))
    state = after(state, ExpireHolds(), now=NOW + timedelta(seconds=5))
    assert len({slot.fence for slot in state.slots[1:]}) == 2
    assert state.fence == max(slot.fence for slot in state.slots)


def test_drain_and_open() -> None:
    state = opened()
    assert refused(state, Open(drain_id="other")) is ErrorCode.DRAIN_MISMATCH
    assert decide(state, Open(drain_id="born"), NOW).records == (), "the last open again"
    held = after(state, Acquire(task_id="t", task_type="plan"))
    with pytest.raises(Refusal) as refusal:
        decide(held, Drain(drain_id="d"), NOW)
    assert (refusal.value.slots, refusal.value.tasks) == ((1,), ("t",))
    assert refusal.value.message == "1 slot is held"
    over = TaskEntry(
        task_id="o", task_type="plan", name="n/o", attempt=1, slot=2, state=TaskState.ENDED, step=Step.PLAN
    )
    both = apply(after(held, Acquire(task_id="u", task_type="plan")), TaskChanged(entry=over))
    with pytest.raises(Refusal, match="2 slots are held and 1 ended task waits for its ack"):
        decide(both, Drain(drain_id="d"), NOW)
    drained = after(state, Drain(drain_id="d"))
    assert refused(drained, Acquire(task_id="t", task_type="plan")) is ErrorCode.DRAINED
    assert refused(drained, Open(drain_id="born")) is ErrorCode.DRAIN_MISMATCH
    assert after(drained, Drain(drain_id="e")).drain_id == "e"
    again = after(drained, Open(drain_id="d"))
    assert refused(again, Open(drain_id="born")) is ErrorCode.DRAIN_MISMATCH


def test_the_drain_in_force_is_not_confirmed_while_something_is_held() -> None:
    """A drained agent that lost its journal adopts what a worker runs."""
    state = after(opened(), Drain(drain_id="d"))
    assert decide(state, Drain(drain_id="d"), NOW).records == (), "the same drain again"
    adopted = transition(state, state.slots[1], Event.ADOPT_RUNNING, NOW, task_id="t", task_type="plan", managed=True)
    held = apply(state, adopted)
    assert refused(held, Drain(drain_id="d")) is ErrorCode.BUSY
    ended = TaskEntry(
        task_id="o", task_type="plan", name="n/o", attempt=1, slot=2, state=TaskState.ENDED, step=Step.PLAN
    )
    assert refused(apply(state, TaskChanged(entry=ended)), Drain(drain_id="d")) is ErrorCode.BUSY


def test_a_late_copy_of_an_acquire_gets_no_slot_after_its_release_or_expiry() -> None:
    acquire = Acquire(task_id="t", task_type="plan", origin=Origin.LOCAL)
    state = after(opened(), acquire)
    release = Hold(call=Event.RELEASE, slot=1, task_id="t", fence=1, origin=Origin.LOCAL)
    assert refused(after(state, release), acquire) is ErrorCode.ILLEGAL
    reserve = Hold(call=Event.RESERVE, slot=1, task_id="t", fence=1, origin=Origin.LOCAL, ttl_seconds=1)
    expired = after(after(state, reserve), ExpireHolds(), now=NOW + timedelta(seconds=2))
    assert expired.slots[1].state is SlotState.IDLE
    assert refused(expired, acquire) is ErrorCode.ILLEGAL


def test_after_a_lost_journal_nothing_is_granted_until_every_worker_spoke() -> None:
    lost = initial_state(LAYOUT, drain_id="born", lost=True, now=NOW)
    assert refused(lost, Drain(drain_id="born")) is ErrorCode.BUSY
    state = after(lost, Open(drain_id="born"))
    assert refused(state, Acquire(task_id="t", task_type="plan")) is ErrorCode.NOT_READY
    assert lost.fence > 10**12, "above any fence that was given out before"


def test_acknowledged_ids_are_remembered_and_bounded() -> None:
    state = opened()
    for number in range(ACKED_KEPT + 10):
        state = apply(state, TaskAcked(task_id=f"t{number}", slot=0))
    assert len(state.acked) == ACKED_KEPT
    assert refused(state, Acquire(task_id=f"t{ACKED_KEPT}", task_type="plan")) is ErrorCode.ILLEGAL


def test_every_error_code_has_a_status() -> None:
    assert STATUS.keys() == set(ErrorCode)
