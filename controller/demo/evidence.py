"""What the demo knows of a run, from those who did it: agents, the API server's audit log, the tasks themselves. Pure.

Times are aware UTC datetimes; all of them come from this machine's one clock.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from agent.wire import AgentState, SlotState, Step

SUCCESSES = range(200, 300)


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEvent:
    """One write that the API server carried out."""

    verb: str
    resource: str
    subresource: str
    user: str
    name: str
    uid: str
    time: datetime
    body: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRecord:
    """One start of a step, as the step itself wrote it down. `ended` None: it never came to its end."""

    task_id: str
    step: Step
    pod: str
    directory: str
    inode: int
    started: datetime
    ended: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """The time during which a slot was not idle, by its agent's own times. `until` None: as far as is known, still."""

    pod: str
    pod_uid: str
    slot: int
    task_id: str | None
    since: datetime
    until: datetime | None


@dataclass(slots=True)
class AgentHistory:
    """Everything one agent said, in order."""

    pod: str
    states: list[AgentState] = field(default_factory=list)

    def most_running(self) -> int:
        """The most slots that were seen running at one time."""
        return max((sum(s.state is SlotState.RUNNING for s in state.slots) for state in self.states), default=0)

    def holds(self) -> Iterator[Hold]:
        """Each slot's holds. `since` is the agent's time of the transition, so a missed state moves no edge."""
        begun: dict[int, Hold] = {}
        for state in self.states:
            for slot in state.slots:
                hold = begun.get(slot.id)
                held = slot.state is not SlotState.IDLE
                if hold is not None and (not held or slot.task_id != hold.task_id):
                    yield _until(begun.pop(slot.id), slot.since)
                if held and slot.id not in begun:
                    begun[slot.id] = Hold(
                        pod=self.pod,
                        pod_uid=state.pod_uid,
                        slot=slot.id,
                        task_id=slot.task_id,
                        since=slot.since,
                        until=None,
                    )
        yield from begun.values()


def _until(hold: Hold, end: datetime) -> Hold:
    return Hold(pod=hold.pod, pod_uid=hold.pod_uid, slot=hold.slot, task_id=hold.task_id, since=hold.since, until=end)


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """A digest that a person was shown, as the agent gave it, and approved."""

    task: str
    task_id: str
    plan_digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """The moment before the approvals: who was still there, and who held a reservation."""

    pods: frozenset[str]
    reserved: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """All that the verdict is given. `agents` by Pod UID; `phases` of SlotTasks by name, for the count only."""

    audit: Sequence[AuditEvent]
    records: Sequence[StepRecord]
    agents: Mapping[str, AgentHistory]
    approvals: Sequence[Approval]
    settled: Settled | None
    phases: Mapping[str, str]
    pods_left: int
    seconds: float


def parse_audit(lines: Iterable[str]) -> list[AuditEvent]:
    """The writes that succeeded, in the order of their being received. A torn last line is left out."""
    events = []
    for line in lines:
        try:
            raw = json.loads(line)
        except ValueError:
            continue
        reference = raw.get("objectRef") or {}
        if raw.get("responseStatus", {}).get("code") not in SUCCESSES or "verb" not in raw or not reference:
            continue
        body = raw.get("requestObject")
        events.append(
            AuditEvent(
                verb=raw["verb"],
                resource=reference.get("resource", ""),
                subresource=reference.get("subresource", ""),
                user=raw.get("user", {}).get("username", ""),
                name=reference.get("name", ""),
                uid=reference.get("uid", ""),
                time=datetime.fromisoformat(raw["requestReceivedTimestamp"]),
                body=body if isinstance(body, Mapping) else {},
            )
        )
    return sorted(events, key=lambda event: event.time)


def parse_records(files: Iterable[str]) -> list[StepRecord]:
    """The tasks' own records; each text is one step's file. A second start in a file is a second record."""
    found = []
    for text in files:
        starts: list[Mapping[str, Any]] = []
        ends: dict[int, datetime] = {}
        for line in text.splitlines():
            entry = json.loads(line)
            if entry["event"] == "start":
                starts.append(entry)
            else:
                ends[len(starts) - 1] = _time(entry["time"])
        for index, entry in enumerate(starts):
            found.append(
                StepRecord(
                    task_id=entry["task"],
                    step=Step(entry["step"]),
                    pod=entry["pod"],
                    directory=entry["directory"],
                    inode=entry["inode"],
                    started=_time(entry["time"]),
                    ended=ends.get(index),
                )
            )
    return found


def by_step(records: Iterable[StepRecord]) -> dict[tuple[str, Step], list[StepRecord]]:
    """The starts of each step of each task."""
    found = defaultdict(list)
    for record in records:
        found[record.task_id, record.step].append(record)
    return dict(found)


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
