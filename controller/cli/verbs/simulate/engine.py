"""Tasks, Pods and the clock of a simulation: discrete events, each at its moment, one after the other.

The engine knows how long a step takes, what a reservation is and what happens to work in a killed Pod. A `Strategy`
decides how many Pods there should be and which task gets which slot. The engine tells it of each change.
"""

import heapq
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import count

from controller.cli.verbs.simulate.figures import Figures
from controller.cli.verbs.simulate.jobs import Ending, Job, Locks, Maker, Stage
from controller.cli.verbs.simulate.trace import Trace
from controller.errors import PodslotsError
from controller.objects.pool import Layout

MOST_SECONDS_AFTER = 7 * 86400.0
"""How long after the last arrival a simulation goes on for tasks that have not ended: they count as unfinished then."""


class HeldPodRemoved(PodslotsError):
    """A strategy has removed a Pod that held work, without killing it: a mistake in it, or in what it asks."""


@dataclass(slots=True, eq=False, kw_only=True)
class Pod:
    """A Pod. `held` has the job of each slot, `since` when that last changed; `ending`: it takes nothing any more."""

    number: int
    layout: Layout
    created: float
    held: list[Job | None]
    since: list[float]
    ready: bool = False
    ready_since: float = 0.0
    ending: bool = False
    gone: bool = False

    @property
    def busy(self) -> int:
        """Slots that are held."""
        return len(self.held) - self.held.count(None)


class Strategy(ABC):
    """Decides how many Pods there are, and which task gets which slot. Told of each change right after it."""

    def __init__(self, name: str) -> None:
        self.name = name

    @abstractmethod
    def begin(self, engine: "Engine") -> None:
        """The clock stands at 0."""

    @abstractmethod
    def task_queued(self, job: Job) -> None:
        """A task waits for a slot: it is new, or comes again after its Pod was killed, or has its lockKey's turn."""

    @abstractmethod
    def task_withdrawn(self, job: Job) -> None:
        """A task that waited for a slot waits for its lockKey again: one of a higher priority came."""

    @abstractmethod
    def slot_changed(self, pod: Pod, slot: int) -> None:
        """A slot was taken, reserved, resumed or freed."""

    @abstractmethod
    def pod_ready(self, pod: Pod) -> None:
        """A Pod has started."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """Settings of all strategies, in seconds. `kill_grace_seconds` is how long a killed Pod may take to end."""

    pod_start_seconds: float = 20.0
    reservation_ttl_seconds: float = 86400.0
    kill_grace_seconds: float = 30.0
    grid_seconds: float = 60.0


_Event = tuple[float, int, Callable[[], None]]


class Engine:
    """One strategy and one trace. `now` is in seconds from the trace's start."""

    def __init__(self, trace: Trace, strategy: Strategy, terms: Terms) -> None:
        self.now = 0.0
        self.terms = terms
        self.pods: dict[int, Pod] = {}
        self.queued: dict[str, Job] = {}
        """Those that wait for a slot or for their lockKey, by UID."""
        self.figures = Figures(strategy.name, terms.grid_seconds)
        self._trace = trace
        self._strategy = strategy
        self._live = 0
        self._locks = Locks()
        self._maker = Maker()
        self._events: list[_Event] = []
        self._ties = count()
        self._pod_numbers = count(1)
        self._arrived = 0

    def moment(self, seconds: float) -> datetime:
        """The calendar's time."""
        return self._trace.start + timedelta(seconds=seconds)

    def after(self, seconds: float, call: Callable[[], None]) -> None:
        """Have something done later."""
        heapq.heappush(self._events, (self.now + seconds, next(self._ties), call))

    def run(self, least_seconds: float = 0.0) -> Figures:
        """To the end of the last task, and for at least so long. Raises HeldPodRemoved."""
        last = max(self._trace.seconds + MOST_SECONDS_AFTER, least_seconds)
        self._strategy.begin(self)
        self._await_arrival()
        while self._events:
            moment, _, call = self._events[0]
            until = last if self._going_on else least_seconds
            if moment > until:
                break
            heapq.heappop(self._events)
            self._advance(moment)
            call()
        self._advance(last if self._going_on else max(self.now, least_seconds))
        self._count_waits_without_end()
        self.figures.finish(self.now, unfinished=self._live)
        return self.figures

    def _count_waits_without_end(self) -> None:
        """A task that never got a slot has waited all the same."""
        for job in self.queued.values():
            if not job.started:
                since = self.now if job.free_since is None else job.free_since
                self.figures.waits.append(job.waited + self.now - since)

    @property
    def _going_on(self) -> bool:
        return self._live > 0 or self._arrived < len(self._trace.arrivals)

    def _advance(self, moment: float) -> None:
        if moment > self.now:
            self.figures.pass_time(self.now, moment)
            self.now = moment

    # --- Pods ---------------------------------------------------------------------------------------------------------

    def create_pod(self, layout: Layout) -> Pod:
        """A Pod, which is ready after its start."""
        number, slots = next(self._pod_numbers), len(layout)
        pod = Pod(number=number, layout=layout, created=self.now, held=[None] * slots, since=[self.now] * slots)
        self.pods[number] = pod
        self.figures.pods_changed(1, slots)
        self.after(self.terms.pod_start_seconds, lambda: self._pod_started(pod))
        return pod

    def _pod_started(self, pod: Pod) -> None:
        if not pod.ending:
            pod.ready, pod.ready_since = True, self.now
            self._strategy.pod_ready(pod)

    def remove_pod(self, pod: Pod) -> None:
        """Take away a Pod that holds nothing. Raises HeldPodRemoved."""
        if pod.busy:
            held = ", ".join(job.stage.value for job in pod.held if job is not None)
            raise HeldPodRemoved(f"Pod {pod.number} was removed after {self.now:.0f} s while it was {held}")
        pod.ending = pod.gone = True
        del self.pods[pod.number]
        self.figures.pods_changed(-1, -len(pod.layout))

    def kill_pod(self, pod: Pod) -> None:
        """Stop a Pod as the deletion by a ReplicaSet does: reservations end at once, steps when the grace is over."""
        pod.ending = True
        for job in list(pod.held):
            if job is not None and job.stage is Stage.RESERVED:
                self._lose(job)
        if pod.gone:
            return
        if pod.busy:
            self.after(self.terms.kill_grace_seconds, lambda: self._grace_over(pod))
        else:
            self.remove_pod(pod)

    def _grace_over(self, pod: Pod) -> None:
        for job in list(pod.held):
            if job is not None:
                self._lose(job)

    # --- tasks --------------------------------------------------------------------------------------------------------

    def _await_arrival(self) -> None:
        if self._arrived < len(self._trace.arrivals):
            self.after(self._trace.arrivals[self._arrived].at - self.now, self._arrive)

    def _arrive(self) -> None:
        arrival = self._trace.arrivals[self._arrived]
        self._arrived += 1
        self._live += 1
        self.figures.arrived += 1
        task = self._maker.task(arrival, f"t-{self._arrived:08}", self.moment(arrival.at))
        self._queue(Job(arrival=arrival, task=task))
        self._await_arrival()

    def _queue(self, job: Job) -> None:
        job.stage = Stage.QUEUED
        job.turn += 1
        self.queued[job.task.uid] = job
        self.figures.queued += 1
        key = self._locks.key(job.task)
        if key is None:
            self._set_free(job)
        else:
            self._locks.wait(key, job.task)
            self._take_turns(key)

    def _take_turns(self, key: str) -> None:
        """Tell the strategy which tasks may now take their lockKey, and which no longer may."""
        late = self._locks.blocked(key)
        for uid in self._locks.waiting(key):
            job = self.queued[uid]
            if uid in late and job.free_since is not None:
                job.waited += self.now - job.free_since
                job.free_since = None
                self._strategy.task_withdrawn(job)
            elif uid not in late and job.free_since is None:
                self._set_free(job)

    def _set_free(self, job: Job) -> None:
        job.free_since = self.now
        self._strategy.task_queued(job)

    def start_job(self, job: Job, pod: Pod, slot: int) -> None:
        """Give a slot to a task that waits for one: its first step starts at once."""
        assert job.free_since is not None and pod.held[slot] is None and not pod.ending  # noqa: S101, PT018
        del self.queued[job.task.uid]
        self.figures.queued -= 1
        if not job.started:
            self.figures.waits.append(job.waited + self.now - job.free_since)
            job.started = True
        job.free_since = None
        key = self._locks.key(job.task)
        if key is not None:
            self._locks.take(key, job.task)
        job.pod, job.slot = pod, slot
        pod.held[slot] = job
        self.figures.running += 1
        plan = job.arrival.plan_seconds
        if plan is not None:
            self._enter(job, Stage.PLAN, plan)
        else:
            self._enter(job, Stage.APPLY, job.arrival.apply_seconds or 0.0)

    def _enter(self, job: Job, stage: Stage, seconds: float) -> None:
        """A stage that takes so long."""
        pod = job.pod
        assert pod is not None  # noqa: S101
        job.stage = stage
        job.turn += 1
        turn = job.turn
        pod.since[job.slot] = self.now
        self.after(seconds, lambda: self._stage_over(job, turn))
        self._strategy.slot_changed(pod, job.slot)

    def _stage_over(self, job: Job, turn: int) -> None:
        if job.turn != turn:
            return
        approval, apply, limit = (
            job.arrival.approval_seconds,
            job.arrival.apply_seconds,
            self.terms.reservation_ttl_seconds,
        )
        if job.stage is Stage.PLAN and approval is not None:
            self._reserve(job, min(approval, limit))
            return
        if job.stage is Stage.RESERVED:
            self.figures.reserved -= 1
            self.figures.running += 1
            if approval is not None and approval > limit:
                self._end(job, Ending.EXPIRED)
                return
        if job.stage is Stage.APPLY or apply is None:
            self._end(job, Ending.CANCELLED if job.stage is Stage.RESERVED else Ending.SUCCEEDED)
        else:
            self._enter(job, Stage.APPLY, apply)

    def _reserve(self, job: Job, seconds: float) -> None:
        self.figures.running -= 1
        self.figures.reserved += 1
        if job.pod is not None and job.pod.ending:
            job.stage = Stage.RESERVED
            self._lose(job)
        else:
            self._enter(job, Stage.RESERVED, seconds)

    def _lose(self, job: Job) -> None:
        """Its Pod goes. A plan is made again from its start, approval and all; an apply is not."""
        stage = job.stage
        if stage is Stage.RESERVED:
            self.figures.reserved -= 1
            self.figures.running += 1
        self.figures.killed(stage)
        if stage is Stage.APPLY:
            self._end(job, Ending.LOST)
        else:
            self._give_back(job)
            self._queue(job)

    def _end(self, job: Job, ending: Ending) -> None:
        job.turn += 1
        job.stage = Stage.ENDED
        self._live -= 1
        self.figures.endings[ending] += 1
        self._give_back(job)

    def _give_back(self, job: Job) -> None:
        """Free the job's slot and its lockKey."""
        pod = job.pod
        assert pod is not None  # noqa: S101
        pod.held[job.slot] = None
        pod.since[job.slot] = self.now
        self.figures.running -= 1
        job.pod = None
        key = self._locks.key(job.task)
        if key is not None:
            self._locks.release(key)
            self._take_turns(key)
        if not pod.ending:
            self._strategy.slot_changed(pod, job.slot)
        elif not pod.busy and not pod.gone:
            self.remove_pod(pod)
