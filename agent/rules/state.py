"""The agent's durable state, the records that change it, and `apply`.

All values are frozen. A record says what a thing has become, not how: replaying a journal is putting values in their
places, so it can't come out differently from what was decided. The rules of what may become what are in `slots.py`
and `tasks.py`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from agent.wire import (
    Origin,
    Outcome,
    Phase,
    SlotState,
    Step,
    StepResult,
    TaskState,
    Work,
)

ACKED_KEPT = 1024
"""How many ids of acknowledged tasks and of released holds are remembered: a delayed acquire gets no slot again."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Event(StrEnum):
    """What can happen to a slot. The journal and the log name a transition's cause by it."""

    ACQUIRE = "acquire"
    RESERVE = "reserve"  # a holder's call
    RESUME = "resume"  # a holder's call
    RELEASE = "release"  # a holder's call
    PLANNED = "planned"  # the plan step of a two-step task succeeded
    APPROVE = "approve"
    FINISH = "finish"  # the last step ended, or a step failed
    CANCEL = "cancel"  # of a reservation; a running step is cancelled through its worker
    EXPIRE = "expire"
    LOSE = "lose"  # proof that what the slot held is gone
    ADOPT_RUNNING = "adopt_running"  # known to the worker, forgotten with a lost journal
    ADOPT_RESERVED = "adopt_reserved"


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """The holder's last call on the slot. If the same call comes again, it gets the same answer."""

    call: Event
    task_id: str
    fence: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotEntry:
    """One slot. `managed`: held by a task with work. `acquire_fence` is the fence in the answer to the acquire."""

    id: int
    state: SlotState = SlotState.IDLE
    fence: int = 0
    since: datetime = EPOCH
    task_id: str | None = None
    task_type: str | None = None
    step: Step | None = None
    origin: Origin | None = None
    expires_at: datetime | None = None
    managed: bool = False
    acquire_fence: int = 0
    before: Call | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskEntry:
    """A task with work, held or ended and not yet acknowledged. Its `Work` is kept beside it until it ends.

    `plan_fence` and `apply_fence` are those of the steps' assignments; the latter is there once it was approved.
    `started_by` is the worker instance that reported the current step's start. `nonce` is there only if a worker
    brought it back after a lost journal: the step was assigned with it (see `agent.nonces`).
    """

    task_id: str
    task_type: str
    name: str
    attempt: int
    slot: int
    state: TaskState
    step: Step
    plan_fence: int | None = None
    apply_fence: int | None = None
    started_by: str | None = None
    plan: StepResult | None = None
    apply: StepResult | None = None
    outcome: Outcome | None = None
    reason: str | None = None
    plan_digest: str | None = None
    cancel_requested: bool = False
    nonce: str | None = None

    @property
    def step_fence(self) -> int | None:
        """The fence of the current step's assignment."""
        return self.fence_of(self.step)

    def fence_of(self, step: Step) -> int | None:
        """The fence of a step's assignment, if that step was ever assigned."""
        return self.plan_fence if step is Step.PLAN else self.apply_fence

    def result_of(self, step: Step) -> StepResult | None:
        """What is recorded of a step."""
        return self.plan if step is Step.PLAN else self.apply


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockNoted:
    """The agent's time at a moment of a boot: what limits go on from after a restart (see `agent.clock`)."""

    boot_id: str
    boot_seconds: float
    time: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """Everything the agent must not forget; `layout` and `closing` aside, which are not journaled.

    `fence` is the last one given out. `recovering` are slots whose worker has not yet said what it holds after a
    journal was lost. `opened_id` is the drain that the last open took back. `acked` are ids that are over: of tasks
    that were acknowledged, and of holds that were released or expired. Mappings are never changed in place.
    """

    layout: tuple[tuple[str, ...], ...]
    slots: tuple[SlotEntry, ...]
    fence: int = 0
    phase: Phase = Phase.DRAINED
    drain_id: str | None = None
    opened_id: str | None = None
    tasks: dict[str, TaskEntry] = field(default_factory=dict)
    works: dict[str, Work] = field(default_factory=dict)
    acked: tuple[str, ...] = ()
    recovering: tuple[int, ...] = ()
    clock: ClockNoted | None = None
    closing: bool = False

    def held_by(self, task_id: str) -> SlotEntry | None:
        """The slot that a task holds."""
        for slot in self.slots:
            if slot.task_id == task_id:  # an idle slot has none
                return slot
        return None

    @property
    def ended(self) -> tuple[str, ...]:
        """Tasks whose result waits for its acknowledgement."""
        return tuple(task_id for task_id, task in self.tasks.items() if task.state is TaskState.ENDED)


def initial_state(layout: tuple[tuple[str, ...], ...], *, drain_id: str, lost: bool, now: datetime) -> State:
    """The state of an agent with a fresh journal: drained, and with `lost` waiting for what the workers hold.

    After a loss, fences start at the clock's milliseconds: above any that was given out before.
    """
    return State(
        layout=layout,
        fence=int(now.timestamp() * 1000) if lost else 0,
        slots=tuple(SlotEntry(id=index, since=now) for index in range(len(layout))),
        drain_id=drain_id,
        recovering=tuple(range(len(layout))) if lost else (),
    )


# --- records --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotChanged:
    """A slot made a transition; `entry` is what it has become."""

    event: Event
    entry: SlotEntry


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkGiven:
    """The work of a task, written once: it can be a megabyte."""

    task_id: str
    work: Work


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskChanged:
    """A task has become `entry`."""

    entry: TaskEntry


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskAcked:
    """An ended task's result is stored elsewhere. `slot` is where its directory is."""

    task_id: str
    slot: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseChanged:
    """The agent was opened or drained."""

    phase: Phase
    drain_id: str | None = None
    opened_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotRecovered:
    """After a lost journal, this slot's worker has said what it holds."""

    slot: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A whole state: the first record of a journal."""

    slots: tuple[SlotEntry, ...]
    fence: int
    phase: Phase
    drain_id: str | None = None
    opened_id: str | None = None
    tasks: tuple[TaskEntry, ...]
    works: tuple[WorkGiven, ...]
    acked: tuple[str, ...]
    recovering: tuple[int, ...]
    clock: ClockNoted | None = None


Record = SlotChanged | WorkGiven | TaskChanged | TaskAcked | PhaseChanged | SlotRecovered | ClockNoted | Snapshot

RECORD_TYPES: dict[str, type[Any]] = {
    "slot": SlotChanged,
    "work": WorkGiven,
    "task": TaskChanged,
    "acked": TaskAcked,
    "phase": PhaseChanged,
    "recovered": SlotRecovered,
    "clock": ClockNoted,
    "snapshot": Snapshot,
}
"""The names of records in the journal, a part of its format. Another name, or another field in one of these, is a new
version (`store.journal_format.VERSION`), which goes on reading those before."""


def snapshot_of(state: State) -> Snapshot:
    """The durable part of a state as one record."""
    return Snapshot(
        slots=state.slots,
        fence=state.fence,
        phase=state.phase,
        drain_id=state.drain_id,
        opened_id=state.opened_id,
        tasks=tuple(state.tasks.values()),
        works=tuple(WorkGiven(task_id=task_id, work=work) for task_id, work in state.works.items()),
        acked=state.acked,
        recovering=state.recovering,
        clock=state.clock,
    )


def apply(state: State, record: Record) -> State:
    """The state after one record. It never fails: every record that was decided can be applied."""
    return _APPLY[type(record)](state, record)


@dataclass(frozen=True, slots=True)
class Replaced:
    """The value that a record replaced. Metrics and the log need it, without the rest of the state."""

    slot: SlotEntry | None = None
    task: TaskEntry | None = None


def replaced_by(record: Record, state: State) -> Replaced:
    """What a record replaces in the state before it."""
    match record:
        case SlotChanged(entry=entry):
            return Replaced(slot=state.slots[entry.id])
        case TaskChanged(entry=task):
            return Replaced(task=state.tasks.get(task.task_id))
        case _:
            return Replaced()


def _apply_slot(state: State, record: SlotChanged) -> State:
    entry = record.entry
    slots = list(state.slots)
    before, slots[entry.id] = slots[entry.id], entry
    acked = state.acked
    if before.task_id is not None and not before.managed and entry.task_id is None:
        acked = _remembered(state, before.task_id)
    return replace(state, slots=tuple(slots), fence=max(state.fence, entry.fence), acked=acked)


def _apply_work(state: State, record: WorkGiven) -> State:
    return replace(state, works={**state.works, record.task_id: record.work})


def _apply_task(state: State, record: TaskChanged) -> State:
    entry = record.entry
    tasks = {**state.tasks, entry.task_id: entry}
    if entry.state is not TaskState.ENDED or entry.task_id not in state.works:
        return replace(state, tasks=tasks)
    works = {task_id: work for task_id, work in state.works.items() if task_id != entry.task_id}
    return replace(state, tasks=tasks, works=works)


def _apply_acked(state: State, record: TaskAcked) -> State:
    tasks, works = dict(state.tasks), dict(state.works)
    tasks.pop(record.task_id, None)
    works.pop(record.task_id, None)
    return replace(state, tasks=tasks, works=works, acked=_remembered(state, record.task_id))


def _remembered(state: State, task_id: str) -> tuple[str, ...]:
    return (*state.acked, task_id)[-ACKED_KEPT:]


def _apply_phase(state: State, record: PhaseChanged) -> State:
    return replace(state, phase=record.phase, drain_id=record.drain_id, opened_id=record.opened_id)


def _apply_recovered(state: State, record: SlotRecovered) -> State:
    return replace(state, recovering=tuple(slot for slot in state.recovering if slot != record.slot))


def _apply_clock(state: State, record: ClockNoted) -> State:
    return replace(state, clock=record)


def _apply_snapshot(state: State, record: Snapshot) -> State:
    return State(
        layout=state.layout,
        closing=state.closing,
        slots=record.slots,
        fence=record.fence,
        phase=record.phase,
        drain_id=record.drain_id,
        opened_id=record.opened_id,
        tasks={task.task_id: task for task in record.tasks},
        works={given.task_id: given.work for given in record.works},
        acked=record.acked,
        recovering=record.recovering,
        clock=record.clock,
    )


_APPLY: dict[type[Any], Callable[[State, Any], State]] = {
    SlotChanged: _apply_slot,
    WorkGiven: _apply_work,
    TaskChanged: _apply_task,
    TaskAcked: _apply_acked,
    PhaseChanged: _apply_phase,
    SlotRecovered: _apply_recovered,
    ClockNoted: _apply_clock,
    Snapshot: _apply_snapshot,
}


@dataclass(frozen=True, slots=True)
class Decision:
    """What a command comes to: records to be journaled together, and the answer once they are."""

    records: tuple[Record, ...] = ()
    answer: Any = None
