"""What the records say of each Pod: how its agent's slots stood at any time, and what its kubelet saw of its end."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from tests.checker.records import AGENT, Json, Line, Records, Write

POOL_LABEL = "podslots.dev/pool"
FORGET = "podslots.dev/forget"
OUT_OF_SERVICE = "node.kubernetes.io/out-of-service"
CONTAINER_STATUSES = ("initContainerStatuses", "containerStatuses")


@dataclass(slots=True)
class Hold:
    """A slot held by a task. `until` None: never let go, as far as the agent said."""

    pod_uid: str
    slot: int
    task_id: str
    since: datetime
    until: datetime | None = None


@dataclass(slots=True)
class Result:
    """A task's result that its agent has, or had until it was acknowledged."""

    task_id: str
    outcome: str
    since: datetime
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class PhaseAt:
    """The agent's phase from a moment on. `granted`: drained because a drain was asked for and granted."""

    at: datetime
    phase: str
    granted: bool


class Agent:
    """The history of one Pod's agent, over all of its starts, from its log."""

    def __init__(self, pod_uid: str, lines: list[Line]) -> None:
        self.holds: list[Hold] = []
        self.results: list[Result] = []
        self.phases: list[PhaseAt] = []
        self.digests: dict[str, str] = {}
        self.missing: list[str] = []
        self._pod_uid = pod_uid
        self._held: dict[int, Hold] = {}
        self._unacked: dict[str, Result] = {}
        self._granted_id: str | None = None
        self._fence = 0
        index = 0
        while index < len(lines):
            index += self._take(lines, index)

    def held_at(self, moment: datetime) -> list[Hold]:
        """What was held at a moment."""
        return [hold for hold in self.holds if hold.since <= moment and (hold.until is None or moment < hold.until)]

    def unacked_at(self, moment: datetime) -> list[Result]:
        """Results that nobody had stored yet at a moment."""
        return [one for one in self.results if one.since <= moment and (one.until is None or moment < one.until)]

    def phase_at(self, moment: datetime) -> PhaseAt | None:
        """The phase at a moment."""
        return next((phase for phase in reversed(self.phases) if phase.at <= moment), None)

    def opened_before(self, moment: datetime) -> bool:
        """Whether it had ever been open."""
        return any(phase.phase == "open" and phase.at <= moment for phase in self.phases)

    def _take(self, lines: list[Line], index: int) -> int:
        """Take in one line and those that belong to it; how many."""
        line = lines[index]
        match line.message:
            case "restored":
                return self._restored(lines, index)
            case "slot":
                self._slot(line)
            case "phase":
                self._phase(line)
            case "task ended":
                self._ended(line, line.fields["task"])
            case "task planned":
                self.digests[line.fields["task"]] = str(line.fields.get("digest"))
            case "acknowledged":
                result = self._unacked.pop(line.fields["task"], None)
                if result is not None:
                    result.until = line.at
            case _:
                pass
        return 1

    def _slot(self, line: Line) -> None:
        about = line.fields
        slot, task = int(about["slot"]), str(about.get("task"))
        hold = self._held.get(slot)
        before = "idle" if hold is None else "held"
        if (about["from"] == "idle") != (hold is None) or (hold is not None and hold.task_id != task):
            self._miss(line, f"slot {slot} was {before}, and its next transition is from {about['from']} of {task}")
        if int(about["fence"]) <= self._fence:
            self._miss(line, f"fence {about['fence']} comes after {self._fence}")
        self._fence = int(about["fence"])
        if about["to"] == "idle":
            self._let_go(slot, line.at)
        elif hold is None or hold.task_id != task:
            self._let_go(slot, line.at)
            self._hold(slot, task, line.at)

    def _hold(self, slot: int, task: str, at: datetime) -> None:
        hold = self._held[slot] = Hold(self._pod_uid, slot, task, at)
        self.holds.append(hold)

    def _let_go(self, slot: int, at: datetime) -> None:
        hold = self._held.pop(slot, None)
        if hold is not None:
            hold.until = at

    def _phase(self, line: Line) -> None:
        drained = line.fields["phase"] == "drained"
        self._granted_id = str(line.fields["drain_id"]) if drained else None
        self.phases.append(PhaseAt(line.at, line.fields["phase"], drained))

    def _ended(self, line: Line, task_id: str) -> None:
        if task_id not in self._unacked:
            result = self._unacked[task_id] = Result(task_id, str(line.fields.get("outcome")), line.at)
            self.results.append(result)

    def _restored(self, lines: list[Line], index: int) -> int:
        """A start of the agent: what its journal brought back is what holds. A kill may have cut short its log."""
        first = lines[index]
        held: dict[int, str] = {}
        results: list[Line] = []
        end = index + 1
        while end < len(lines) and lines[end].run == first.run and lines[end].message.endswith(" restored"):
            line = lines[end]
            if line.message == "slot restored":
                held[int(line.fields["slot"])] = str(line.fields["task"])
            else:
                results.append(line)
            end += 1
        for slot in [slot for slot, hold in self._held.items() if held.get(slot) != hold.task_id]:
            self._let_go(slot, first.at)
        for slot, task in held.items():
            if slot not in self._held:
                self._hold(slot, task, first.at)
        kept = {str(line.fields["task"]) for line in results}
        for task in [task for task in self._unacked if task not in kept]:
            self._unacked.pop(task).until = first.at
        for line in results:
            self._ended(line, str(line.fields["task"]))
        self._fence = max(self._fence, int(first.fields["fence"]))
        drained = first.fields["phase"] == "drained"
        granted = drained and self._granted_id is not None and first.fields.get("drain_id") == self._granted_id
        if not granted:
            self._granted_id = None
        if not drained and not self.phases:
            self._miss(first, "it came back open, and was never said to be opened")
        self.phases.append(PhaseAt(first.at, first.fields["phase"], granted))
        return end - index

    def _miss(self, line: Line, text: str) -> None:
        self.missing.append(f"agent of Pod {self._pod_uid}, run {line.run}, {line.at.isoformat()}: {text}")


@dataclass(slots=True)
class Pod:
    """One Pod of a pool. `removed` is when its object went: its kubelet says so once nothing of it runs."""

    uid: str
    name: str
    agent: Agent
    deletes: list[Write] = field(default_factory=list)
    died: datetime | None = None
    removed: datetime | None = None
    runs: dict[str, int] = field(default_factory=dict)
    never_began: set[tuple[str, int]] = field(default_factory=set)
    """Runs of containers that the kubelet counted, and does not know to have begun."""

    @property
    def over(self) -> datetime | None:
        """From when on it is proven that nothing of it runs."""
        return min((moment for moment in (self.died, self.removed) if moment is not None), default=None)


def pods_of(records: Records) -> dict[str, Pod]:
    """All Pods of pools, by UID."""
    found: dict[str, Pod] = {}
    lost_nodes: dict[str, datetime] = {}
    nodes: dict[str, str] = {}
    for write in records.writes:
        if write.resource == "nodes" and _is_out_of_service(write.body):
            lost_nodes.setdefault(write.name, write.at)
        if write.resource != "pods":
            continue
        if write.verb == "create" and not write.subresource and POOL_LABEL in _labels(write.body):
            found[write.uid] = Pod(write.uid, write.name, Agent(write.uid, list(records.lines(write.uid, AGENT))))
            continue
        _evicted(found.values(), write)
        if (pod := found.get(write.uid)) is None:
            continue
        if write.subresource == "binding" and isinstance(write.body, dict):
            nodes[pod.uid] = (write.body.get("target") or {}).get("name", "")
        _take(pod, write)
    for pod in found.values():
        lost = lost_nodes.get(nodes.get(pod.uid, ""))
        if lost is not None and (pod.died is None or lost < pod.died):
            pod.died = lost
    return found


def _evicted(pods: Iterable[Pod], write: Write) -> None:
    """An eviction that was granted is a delete. The audit log names the Pod, and not which of that name it was."""
    if write.subresource == "eviction":
        for pod in pods:
            if pod.name == write.name and pod.removed is None:
                pod.deletes.append(write)


def _take(pod: Pod, write: Write) -> None:
    body: Json = write.body if isinstance(write.body, dict) else {}
    if write.verb == "delete" and not write.subresource:
        pod.deletes.append(write)
        if write.user.startswith("system:node:"):
            pod.removed = pod.removed or write.at
        return
    if _annotations(body).get(FORGET) == pod.uid:
        pod.died = pod.died or write.at
    status: Json = body.get("status") or {}
    if write.subresource != "status" or not write.user.startswith("system:node:"):
        return
    entries = [entry for kind in CONTAINER_STATUSES for entry in status.get(kind) or ()]
    for entry in entries:
        if entry.get("containerID"):
            if _never_began(entry):
                pod.never_began.add((entry["name"], int(entry.get("restartCount", 0))))
            pod.runs[entry["name"]] = max(pod.runs.get(entry["name"], 0), int(entry.get("restartCount", 0)))
    if status.get("phase") in {"Failed", "Succeeded"} and entries and all(_has_ended(entry) for entry in entries):
        pod.died = pod.died or write.at


def _has_ended(entry: Json) -> bool:
    state = entry.get("state") or {}
    return "terminated" in state or ("waiting" in state and not entry.get("containerID"))


def _is_out_of_service(body: Any) -> bool:
    taints = ((body or {}).get("spec") or {}).get("taints") or () if isinstance(body, dict) else ()
    return any(taint.get("key") == OUT_OF_SERVICE for taint in taints)


def _labels(body: Any) -> Json:
    return ((body.get("metadata") or {}).get("labels") or {}) if isinstance(body, dict) else {}


def _annotations(body: Json) -> Json:
    return (body.get("metadata") or {}).get("annotations") or {}


def _never_began(entry: Json) -> bool:
    """Whether the kubelet does not know that this run of a container ever began: it was killed over starting it."""
    ended = (entry.get("state") or {}).get("terminated") or {}
    return ended.get("reason") == "ContainerStatusUnknown" and str(ended.get("startedAt")) == NO_TIME


NO_TIME = "1970-01-01T00:00:00Z"


def missing_logs(pods: dict[str, Pod], records: Records) -> Iterator[str]:
    """Logs of containers that the kubelet said it had started, and that are not there."""
    for pod in pods.values():
        yield from pod.agent.missing
        for container, last in pod.runs.items():
            have = records.logs.get(pod.uid, {}).get(container, {})
            for run in range(last + 1):
                if run not in have and (container, run) not in pod.never_began:
                    yield f"no log of run {run} of container {container} of Pod {pod.name} ({pod.uid})"
