"""How the controller answers an Eviction, Kubernetes' own request to remove a Pod (`lifecycle.k8s.io/v1alpha1`).

An Eviction names its Pod and the responders of that Pod. They act one after the other. The one with the state `Active`
has to remove the Pod, to send heartbeats meanwhile, and to report when it is done. For podslots that is a drain
request. The fields and their bounds are those of Kubernetes 1.37: times are near the server's own (30 s), whole
seconds, never before the responder's start; a heartbeat comes at most every 20 s, and at least every 20 minutes, or the
next responder is asked.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from agent.wire import Slot, SlotState, Step
from controller import names
from controller.decide.view import PodState, PodView
from controller.objects.task import Task
from controller.objects.times import time_or_none

Object = dict[str, Any]

HEARTBEAT = timedelta(seconds=60)
"""A twentieth of the time after which the next responder is asked."""
MIN_PAUSE = timedelta(seconds=20)
"""Between two answers, whatever has changed: what the API asks of responders."""
MAX_MESSAGE = 4000
_ACTIVE = "Active"
_WITHDRAWN = "Withdrawn"
_SECOND = timedelta(seconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What stands of us in `status.responders`. Times are whole seconds."""

    heartbeat: datetime
    message: str
    expected: datetime | None = None
    completed: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Eviction:
    """An Eviction of a Pod that names us. `started` is when it became ours to answer; `answer` what we said last."""

    namespace: str
    name: str
    uid: str
    pod_uid: str
    active: bool
    """Whether it is our turn, and somebody still wants the Pod gone."""
    started: datetime | None
    answer: Answer | None
    completed: bool
    object: Object = field(repr=False, compare=False)

    @property
    def asks(self) -> bool:
        """Whether it is a drain request now. After our part has ended it is not: we have done all we could."""
        return self.active and not self.completed

    @staticmethod
    def parse(obj: Object) -> "Eviction | None":
        """An object of the API; None if it is about no Pod, or does not name us."""
        metadata, status = obj["metadata"], obj.get("status") or {}
        pod = ((obj.get("spec") or {}).get("target") or {}).get("pod") or {}
        state = _ours(status, "targetResponders").get("state")
        if state is None or not pod.get("uid"):
            return None
        ours = _ours(status, "responders")
        requesters = status.get("requesters") or ()
        withdrawn = bool(requesters) and all(entry.get("intent") == _WITHDRAWN for entry in requesters)
        heartbeat, completed = time_or_none(ours.get("heartbeatTime")), time_or_none(ours.get("completionTime"))
        said = Answer(
            heartbeat=heartbeat,
            message=ours.get("message") or "",
            expected=time_or_none(ours.get("expectedCompletionTime")),
            completed=completed,
        ) if heartbeat is not None else None  # fmt: skip
        return Eviction(
            namespace=metadata["namespace"],
            name=metadata["name"],
            uid=metadata["uid"],
            pod_uid=pod["uid"],
            active=state == _ACTIVE and not withdrawn and "deletionTimestamp" not in metadata,
            started=time_or_none(ours.get("startTime")),
            answer=said,
            completed=completed is not None,
            object=obj,
        )


@dataclass(frozen=True, slots=True)
class Reply:
    """What to write now, if anything, and in how many seconds to look again, if nothing happens before."""

    answer: Answer | None = None
    again_seconds: float | None = None


def reply(eviction: Eviction, pod: PodView | None, tasks: Mapping[str, Task], now: datetime) -> Reply:
    """The answer to an Eviction. `pod` None: it is gone. `tasks` are the pool's that have not ended, by UID."""
    if not eviction.asks:
        return Reply()
    before = eviction.answer
    earlier = (eviction.started, before.heartbeat if before is not None else None)
    moment = max([now.replace(microsecond=0), *(time for time in earlier if time is not None)])
    if pod is None or (pod.deleting and pod.state is not PodState.ACTIVE):
        message = "the Pod is gone" if pod is None else f"Pod {pod.name} held nothing, and is deleted"
        return Reply(Answer(heartbeat=moment, message=message, completed=moment))
    holds = [_hold(slot, tasks) for slot in pod.held]
    expected = _expected(pod, [until for _, until in holds], now)
    answer = Answer(heartbeat=moment, message=_message(pod, [words for words, _ in holds]), expected=expected)
    if before is None:
        return Reply(answer, HEARTBEAT.total_seconds())
    news = (answer.message, answer.expected) != (before.message, before.expected)
    due = before.heartbeat + (MIN_PAUSE if news else HEARTBEAT)
    if due > now:
        return Reply(again_seconds=(due - now).total_seconds())
    return Reply(answer, HEARTBEAT.total_seconds())


def _expected(pod: PodView, ends: list[datetime | None], now: datetime) -> datetime | None:
    """When the last of what the Pod holds is over at the latest; None if that can't be told, or has passed."""
    known = [end for end in ends if end is not None]
    if not ends or len(known) != len(ends) or not pod.connected or (pod.agent is not None and pod.agent.recovering):
        return None
    last = max(known)
    return last if last > now else None


def _hold(slot: Slot, tasks: Mapping[str, Task]) -> tuple[str, datetime | None]:
    """What a slot holds, in words, and until when at the latest, in whole seconds."""
    uid = (names.split_task_id(slot.task_id or "") or ("", 0))[0]
    task = tasks.get(uid)
    who = f"task {task.name}" if task is not None else f"{slot.task_id}"
    if slot.state is SlotState.RESERVED:
        until = _whole(slot.expires_at)
        return f"slot {slot.id}: {who} is planned and awaits its approval{_at_the_latest(until)}", until
    until = _whole(_stopped_at(slot, task))
    step = f"runs its {slot.step.value}" if slot.step is not None else "runs"
    return f"slot {slot.id}: {who} {step}{_at_the_latest(until)}", until


def _stopped_at(slot: Slot, task: Task | None) -> datetime | None:
    """When the step in a slot is stopped, its grace included."""
    if task is None or slot.step is None:
        return None
    step = task.spec.steps.plan if slot.step is Step.PLAN else task.spec.steps.apply
    if step is None or step.timeout_seconds is None:
        return None
    return slot.since + timedelta(seconds=step.timeout_seconds + step.cancel_grace_seconds)


def _message(pod: PodView, holds: list[str]) -> str:
    parts = list(holds)
    if pod.agent is not None and pod.agent.ended:
        parts.append(f"{len(pod.agent.ended)} results are not stored yet")
    if pod.agent is not None and pod.agent.recovering:
        parts.append("after a lost journal it is not known what all slots hold")
    if not pod.connected and pod.state is not PodState.STARTING:
        parts.append("its agent does not answer: what it holds is not known")
    if not parts:
        return f"Pod {pod.name} holds nothing and is being deleted"
    text = f"Pod {pod.name} takes no new task, and is deleted once it holds nothing. " + "; ".join(parts)
    return text if len(text) <= MAX_MESSAGE else text[: MAX_MESSAGE - 1] + "…"


def _at_the_latest(until: datetime | None) -> str:
    return f", until {format_seconds(until)} at the latest" if until is not None else ""


def _whole(time: datetime | None) -> datetime | None:
    """The next whole second, as the API keeps times."""
    if time is None or not time.microsecond:
        return time
    return time.replace(microsecond=0) + _SECOND


def format_seconds(time: datetime) -> str:
    """As Kubernetes writes times."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _ours(status: Object, field_name: str) -> Object:
    """Our entry of a list."""
    entries: list[Object] = status.get(field_name) or []
    return next((entry for entry in entries if entry.get("name") == names.EVICTION_RESPONDER), {})
