"""Kubernetes Events: what was decided about an object, and why, where `kubectl describe` shows it.

`event` only puts into a queue, so that it can't fail or wait. The same thing said of the same object again within ten
minutes is counted on the Event that is there, and what is repeated faster than it can be written is one write. Steps of
an object that follow each other within moments are one Event, with the times of the first and of the last.
"""

import asyncio
import logging
import random
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from controller.act.recent import RecentDecisions
from controller.breaks import Breaks
from controller.errors import ApiError, ApiUnavailable, NotFound
from controller.kube.api import EVENTS, Api, Object
from controller.objects.sentences import sentence

log = logging.getLogger(__name__)

MAX_MESSAGE = 1024
"""What events.k8s.io allows, so that a stricter server takes them too."""
NAME_PART = 230
"""Of 253 characters; the rest is the suffix."""
CLUSTER_SCOPED_NAMESPACE = "default"
"""Where Events of objects without a namespace are kept, as everywhere in Kubernetes."""

Key = tuple[str, str, str, bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class EventSettings:
    """Limits of a recorder.

    A step waits `steps_seconds` for the next one: a short task is then one write.
    `max_waiting` and `max_remembered` count different things said. When full, what comes is dropped, and the oldest
    memory forgotten.
    """

    aggregate_seconds: float = 600.0
    steps_seconds: float = 3.0
    max_waiting: int = 1000
    max_remembered: int = 4096
    retry_seconds: float = 1.0
    tries: int = 3


@dataclass(slots=True)
class _Waiting:
    involved: Object
    first: datetime
    last: datetime
    count: int


@dataclass(slots=True)
class _Steps:
    """What an object went through in the last moments. `due`: when that is written, in loop time, once `run` saw it."""

    involved: Object
    reason: str
    messages: list[str]
    first: datetime
    last: datetime
    due: float | None = None


@dataclass(slots=True)
class _Written:
    namespace: str
    name: str
    count: int
    at: float


class EventRecorder:
    """Writes Events, one after the other. `run` never ends by itself."""

    def __init__(
        self,
        api: Api,
        *,
        component: str,
        instance: str,
        now: Callable[[], datetime],
        rng: random.Random,
        settings: EventSettings | None = None,
    ) -> None:
        self._api = api
        self._component = component
        self._instance = instance
        self._now = now
        self._rng = rng
        self._settings = settings or EventSettings()
        self._breaks = Breaks(log, "writing an event broke")
        self._waiting: OrderedDict[Key, _Waiting] = OrderedDict()
        self._written: OrderedDict[Key, _Written] = OrderedDict()
        self._steps: dict[str, _Steps] = {}
        self._wakeup = asyncio.Event()
        self.dropped = 0
        """How many were not written: the queue was full, or the API server refused."""
        self.recent = RecentDecisions()
        """The last things said, whether they were written or not."""

    def event(self, involved: Object, reason: str, message: str, *, warning: bool = False) -> None:
        """Say something of an object: itself, or a reference to it."""
        message = sentence(message)
        reference = _reference(involved)
        self._remember(reference, reason, message, warning=warning)
        self._end_steps(reference.get("uid", ""))
        self._put(reference, reason, message, warning=warning)

    def step(self, involved: Object, reason: str, message: str, *, at_once: bool) -> None:
        """Say what an object has come to in its normal course. `at_once`: people wait for it; else the next one may.

        Steps that follow each other soon are one Event: the last one's reason, and the messages of all.
        """
        message = sentence(message)
        reference = _reference(involved)
        self._remember(reference, reason, message, warning=False)
        uid = reference.get("uid", "")
        if (steps := self._steps.get(uid)) is None:
            self._steps[uid] = _Steps(reference, reason, [message], self._now(), self._now())
            self._wakeup.set()
        else:
            steps.involved, steps.reason, steps.last = reference, reason, self._now()
            steps.messages.append(message)
        if at_once or len(self._steps) > self._settings.max_waiting:
            self._end_steps(uid)

    def _remember(self, reference: Object, reason: str, message: str, *, warning: bool) -> None:
        self.recent.note(
            reference.get("kind", ""),
            reference.get("namespace", ""),
            reference.get("name", ""),
            reason=reason,
            message=message,
            warning=warning,
            at=self._now(),
        )

    def _end_steps(self, uid: str) -> None:
        if (steps := self._steps.pop(uid, None)) is not None:
            self._put(steps.involved, steps.reason, " ".join(steps.messages), times=(steps.first, steps.last))

    def _put(
        self,
        reference: Object,
        reason: str,
        message: str,
        *,
        warning: bool = False,
        times: tuple[datetime, datetime] | None = None,
    ) -> None:
        key = (reference.get("uid", ""), reason, message[:MAX_MESSAGE], warning)
        first, last = times or (self._now(), self._now())
        if (waiting := self._waiting.get(key)) is not None:
            waiting.count += 1
            waiting.last = last
        elif len(self._waiting) >= self._settings.max_waiting:
            self.dropped += 1
        else:
            self._waiting[key] = _Waiting(reference, first, last, 1)
            self._wakeup.set()

    async def run(self) -> None:
        """Write what waits, for ever."""
        while True:
            while not self._waiting:
                self._wakeup.clear()
                due = self._next_due()
                try:
                    async with asyncio.timeout_at(due):
                        await self._wakeup.wait()
                except TimeoutError:
                    for uid in [uid for uid, steps in self._steps.items() if (steps.due or 0.0) <= (due or 0.0)]:
                        self._end_steps(uid)
            await self._write_next()

    def _next_due(self) -> float | None:
        """When the next steps are to be written that no other has followed."""
        due = asyncio.get_running_loop().time() + self._settings.steps_seconds
        for steps in self._steps.values():
            steps.due = steps.due or due
        return min((steps.due for steps in self._steps.values() if steps.due), default=None)

    async def flush(self, timeout_seconds: float) -> None:
        """Write what still waits, at a stop, for at most so long."""
        for uid in list(self._steps):
            self._end_steps(uid)
        try:
            async with asyncio.timeout(timeout_seconds):
                while self._waiting:
                    await self._write_next()
        except TimeoutError:
            self.dropped += len(self._waiting)

    async def _write_next(self) -> None:
        """Write the first Event that waits. An error with it holds up neither the other Events nor the controller."""
        key, waiting = self._waiting.popitem(last=False)
        try:
            await self._write(key, waiting)
        except Exception as error:  # noqa: BLE001 - an Event must never stop the controller
            self.dropped += waiting.count
            self._breaks.say(error, reason=key[1])

    async def _write(self, key: Key, waiting: _Waiting) -> None:
        for attempt in range(self._settings.tries):
            try:
                await self._send(key, waiting)
            except ApiUnavailable as error:
                problem: Exception = error
            except ApiError as error:
                problem = error
                break  # as it stands it will be refused again, as in a namespace that is on its way out
            else:
                return
            await asyncio.sleep(self._settings.retry_seconds * 2.0**attempt * self._rng.uniform(0.5, 1.0))
        self.dropped += waiting.count
        log.debug("event dropped", extra={"reason": key[1], "error": str(problem)})

    async def _send(self, key: Key, waiting: _Waiting) -> None:
        loop_time = asyncio.get_running_loop().time()
        written = self._written.get(key)
        if written is not None and loop_time - written.at < self._settings.aggregate_seconds:
            count = written.count + waiting.count
            patch = {"count": count, "lastTimestamp": _timestamp(waiting.last)}
            try:
                await self._api.patch(EVENTS, written.namespace, written.name, patch)
            except NotFound:
                del self._written[key]  # Events are kept for an hour, or as long as somebody chose
            else:
                written.count, written.at = count, loop_time
                self._written.move_to_end(key)
                return
        body = self._body(key, waiting)
        metadata = body["metadata"]
        await self._api.create(EVENTS, metadata["namespace"], body)
        self._written[key] = _Written(metadata["namespace"], metadata["name"], waiting.count, loop_time)
        self._written.move_to_end(key)
        if len(self._written) > self._settings.max_remembered:
            self._written.popitem(last=False)

    def _body(self, key: Key, waiting: _Waiting) -> Object:
        _, reason, message, warning = key
        name = f"{waiting.involved['name'][:NAME_PART].rstrip('.-')}.{self._rng.getrandbits(64):016x}"
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": waiting.involved.get("namespace") or CLUSTER_SCOPED_NAMESPACE},
            "involvedObject": waiting.involved,
            "reason": reason,
            "message": message,
            "type": "Warning" if warning else "Normal",
            "count": waiting.count,
            "firstTimestamp": _timestamp(waiting.first),
            "lastTimestamp": _timestamp(waiting.last),
            "source": {"component": self._component},
            "reportingComponent": self._component,
            "reportingInstance": self._instance,
        }


def _reference(involved: Object) -> Object:
    """An ObjectReference of an object, or the one given."""
    if "metadata" not in involved:
        return involved
    metadata = involved["metadata"]
    fields = ("namespace", "name", "uid", "resourceVersion")
    return {
        "apiVersion": involved["apiVersion"],
        "kind": involved["kind"],
        **{field: metadata[field] for field in fields if field in metadata},
    }


def _timestamp(moment: datetime) -> str:
    """metav1.Time has whole seconds."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
