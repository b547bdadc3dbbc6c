"""Operations in flight, and what their steps can write."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from agent.rules import tasks
from agent.wire import ErrorCode
from controller.decide.view import PodState
from controller.objects.task import TaskPhase
from tests.model import site as sites
from tests.model.objects import PodObject, TaskObject, plain
from tests.model.site import Site

READS = {
    ("drain", "read"),
    ("drain", "read again"),
    ("delete starting", "read"),
    ("delete dead", "read"),
    ("follow", "read"),
    ("follow", "look again"),
    ("finish", "look"),
    ("release lock", "read"),
    ("settle orphan", "read"),
    ("settle orphan", "judge"),
}
TO_AGENT = {
    ("open", "open"),
    ("drain", "ask"),
    ("drain", "confirm"),
    ("assign", "acquire"),
    ("approve", "approve"),
    ("cancel", "cancel"),
    ("follow", "ack"),
    ("ack", "ack"),
    ("settle orphan", "cancel"),
    ("settle orphan", "ack"),
}
GUARDED = {
    ("assign", "intend"),
    ("assign", "ask again"),
    ("assign", "note"),
    ("assign", "withdraw"),
    ("follow", "write"),
    ("approve", "intend"),
    ("approve", "intend again"),
    ("cancel", "write"),
    ("cancel", "finish"),
    ("retry", "write"),
    ("finish", "write"),
}
"""Writes of a task's status, which name the version of the task that the operation was decided on."""

LEADS_TO_A_GUARDED_WRITE = {("follow", "read"), ("follow", "look again"), ("finish", "look")}
"""Reads that lead to nothing but such a write: once the version is old, nothing comes of them."""


class Op(NamedTuple):
    """An operation in flight.

    `late`: only its next write is still on the way; nobody waits for the answer. `old`: it is that of a leader which
    was replaced, and goes on nevertheless.
    """

    kind: str
    at: str
    pod: int | None = None
    task: int | None = None
    attempt: int = 0
    fresh: bool = True
    same_agent: bool = True
    drain: int = -1
    known: tuple[object, ...] = ()
    late: bool = False
    old: bool = False

    @property
    def key(self) -> tuple[object, ...]:
        """What the controller starts one operation at a time for."""
        if self.kind in POD_KINDS:
            return ("pod", self.pod, self.old)
        if self.kind == "settle orphan":
            return ("orphan", self.pod, self.task, self.attempt, self.old)
        return ("task", self.task, self.old)


POD_KINDS = {"open", "drain", "delete starting", "delete dead"}


class Local(NamedTuple):
    """What an operation's step reads and writes. `bumped` are objects of which there is a new version."""

    pod: PodObject
    site: Site
    task: TaskObject
    lock: int | None
    bumped: tuple[str, ...] = ()
    heard: bool = False
    wrong: str | None = None


class Effect(NamedTuple):
    """One thing that can come of a step."""

    text: str
    op: Op | None
    local: Local
    taken: bool = True
    """Whether something was written."""


@dataclass(frozen=True, slots=True)
class Rules:
    """Switches that plant a mistake in the protocol; all off is the protocol as it is."""

    bugs: frozenset[str] = frozenset()
    free_drain: int = 0
    trying_again: bool = False

    def __contains__(self, bug: object) -> bool:
        return bug in self.bugs


Program = Callable[[Op, Local, Rules], list[Effect]]


def end(text: str, now: Local, *, taken: bool = False) -> list[Effect]:
    return [Effect(text, None, now, taken)]


def go(text: str, op: Op, now: Local, at: str | None, *, taken: bool = True, **changes: object) -> list[Effect]:
    following = None if at is None else op._replace(at=at, **changes)  # type: ignore[arg-type]
    return [Effect(text, following, now, taken)]


def tell(op: Op, now: Local, command: object, rules: Rules) -> tuple[Local, ErrorCode | None] | None:
    """A stamped write to the agent, and what it refused; None if nobody is there to answer."""
    if now.site.agent is None:
        return None
    if not op.same_agent and "incarnation" not in rules:
        return now, ErrorCode.RESTARTED
    result = sites.ask(now.site, command)
    heard = now._replace(site=result.site, heard=True)
    return _judged(op, heard, result, command), result.refused


def _judged(op: Op, now: Local, result: sites.Result, command: object) -> Local:
    """Rules that hold for what a controller's message brings about on an agent."""
    if isinstance(command, tasks.Ack) and result.refused is None and result.site != now.site._replace():
        pass
    for changed in result.slot_events:
        if changed.event.value == "cancel" and not _may_cancel(op, now):
            return now._replace(wrong="a reservation was cancelled that nobody wanted cancelled")
    return now


def _may_cancel(op: Op, now: Local) -> bool:
    task = now.task
    return task.cancel or task.gone or task.final or task.attempt != op.attempt or task.pod != op.pod


def write_task(now: Local, **changes: object) -> Local:
    """The task's status, written."""
    before = now.task
    after = before._replace(**changes)  # type: ignore[arg-type]
    if after == before:
        return now
    wrong = now.wrong or _bad_write(before, after)
    return now._replace(task=plain(after), bumped=(*now.bumped, "task"), wrong=wrong)


def _bad_write(before: TaskObject, after: TaskObject) -> str | None:
    if before.final:
        return f"a final phase was written over with {after.phase}"
    if after.phase is TaskPhase.CANCELLED and before.phase is not after.phase and not before.cancel:
        return "a task was written Cancelled that nobody cancelled"
    return None


def label(now: Local, state: PodState, *, moved: bool = True) -> Local:
    """The Pod's label and a new annotation, written."""
    return now._replace(pod=now.pod._replace(label=state), bumped=(*now.bumped, "pod") if moved else now.bumped)


def delete_pod(now: Local) -> Local:
    """The Pod, deleted: it lingers until its processes are over."""
    return now._replace(pod=now.pod._replace(deleting=True), bumped=(*now.bumped, "pod"))


def drain_id(number: int) -> str:
    return "born" if number == 0 else f"d{number}"


def drain_number(name: str | None) -> int:
    """The inverse of `drain_id`; -1: none."""
    if name is None:
        return -1
    return 0 if name == "born" else int(name[1:])
