"""What the records say of each SlotTask: its phases and approvals by the audit log, its steps by the workers' logs."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from tests.checker.records import AGENT, Json, Records, Write

CONTROLLER = "system:serviceaccount:podslots-system:podslots-controller"
FINAL = frozenset({"Succeeded", "Failed", "Cancelled", "Expired", "Lost"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """Somebody, not the controller, wrote that a plan may be applied."""

    at: datetime
    attempt: Any
    digest: Any


@dataclass(slots=True)
class SlotTask:
    """One SlotTask, as the API server was told of it."""

    uid: str
    namespace: str
    name: str
    spec: Json
    phases: list[tuple[datetime, str]] = field(default_factory=list)
    approvals: list[Approval] = field(default_factory=list)
    deleted: datetime | None = None

    @property
    def steps(self) -> Json:
        """Its steps' specifications."""
        return self.spec.get("steps") or {}

    @property
    def lock(self) -> tuple[str, str] | None:
        """What it must hold alone while it may change things."""
        key = self.spec.get("lockKey")
        return (self.namespace, key) if key and "apply" in self.steps else None

    @property
    def final(self) -> str | None:
        """Its first final phase."""
        return next((phase for _, phase in self.phases if phase in FINAL), None)


@dataclass(slots=True)
class Start:
    """A worker's record that it started a step. `ended` is the first record of its end, of whatever worker."""

    task_id: str
    step: str
    pod_uid: str
    container: str
    at: datetime
    digest: str | None
    ended: datetime | None = None

    @property
    def uid(self) -> str:
        """The SlotTask's UID."""
        return self.task_id.rpartition(".")[0]

    @property
    def attempt(self) -> str:
        """The attempt's number."""
        return self.task_id.rpartition(".")[2]


@dataclass(frozen=True, slots=True)
class End:
    """A worker's record of a step's end."""

    at: datetime
    outcome: str
    digest: str | None


def tasks_of(records: Records) -> dict[str, SlotTask]:
    """All SlotTasks, by UID."""
    found: dict[str, SlotTask] = {}
    for write in records.writes:
        if write.resource != "slottasks":
            continue
        body: Json = write.body if isinstance(write.body, dict) else {}
        if write.verb == "create":
            found[write.uid] = SlotTask(write.uid, write.namespace, write.name, body.get("spec") or {})
        elif (task := found.get(write.uid)) is not None:
            _take(task, write, body)
    return found


def _take(task: SlotTask, write: Write, body: Json) -> None:
    if write.verb == "delete":
        task.deleted = task.deleted or write.at
    elif write.subresource == "status":
        for phase in _phases(write.body):
            task.phases.append((write.at, phase))
    elif not write.subresource and write.user != CONTROLLER:
        for approval in _approvals(write.body if isinstance(write.body, list) else body):
            digest, attempt = approval.get("planDigest"), approval.get("attempt")
            task.approvals.append(Approval(at=write.at, attempt=attempt, digest=digest))


def _phases(body: Any) -> Iterator[str]:
    """Phases that a write sets: a merge patch or a whole object, or a JSON patch."""
    if isinstance(body, list):
        for step in body:
            if step.get("path") == "/status/phase" and "value" in step:
                yield str(step["value"])
            elif step.get("path") == "/status" and isinstance(step.get("value"), dict) and "phase" in step["value"]:
                yield str(step["value"]["phase"])
    elif isinstance(body, dict) and (body.get("status") or {}).get("phase"):
        yield str(body["status"]["phase"])


def _approvals(body: Any) -> Iterator[Json]:
    if isinstance(body, list):
        for step in body:
            if step.get("path") == "/spec/approval" and isinstance(step.get("value"), dict):
                yield step["value"]
    elif isinstance((body.get("spec") or {}).get("approval"), dict):
        yield body["spec"]["approval"]


def steps_of(records: Records) -> tuple[list[Start], dict[tuple[str, str], list[End]]]:
    """All starts that workers wrote down, and the ends by task id and step."""
    starts: list[Start] = []
    ends: dict[tuple[str, str], list[End]] = {}
    for pod_uid, containers in records.logs.items():
        for container in containers:
            if container == AGENT:
                continue
            for line in records.lines(pod_uid, container):
                about = line.fields
                if line.message not in {"step started", "step ended"}:
                    continue
                key = str(about["task_id"]), str(about["step"])
                if line.message == "step started":
                    starts.append(Start(*key, pod_uid, container, line.at, about.get("digest")))
                else:
                    ends.setdefault(key, []).append(End(line.at, str(about.get("outcome")), about.get("digest")))
    for start in starts:
        later = [end.at for end in ends.get((start.task_id, start.step), ()) if end.at >= start.at]
        start.ended = min(later, default=None)
    return sorted(starts, key=lambda start: start.at), ends
