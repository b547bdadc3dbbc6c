"""The pool as the controller runs it: each pass reads one view, and goes through the controller's own decisions.

A view has real `PodView`s, made anew when something about their Pod changes, and the tasks that wait. Tasks that have
a slot are left out: the agent shows those, which outranks their objects. A pass comes when something changed, when an
idle Pod becomes old enough to go, when a window of `behavior` or `freeze` ends, and every 30 s, as in
`controller.passes`; under load no more often than every `pass_seconds`. A pool that scales by a Prometheus is
simulated by what its agents say: what that one would say is not known.
"""

import math
from dataclasses import replace
from datetime import datetime

from agent.wire import AgentState, Origin, Phase, Slot, SlotState, WorkerLink
from controller.cli.verbs.simulate.engine import Engine, Pod, Strategy
from controller.cli.verbs.simulate.jobs import NAMESPACE, POOL, Job, Stage
from controller.decide.pods.pod_actions import (
    CreatePods,
    DeleteStarting,
    DrainPod,
    OpenPod,
    PodAction,
    pod_actions,
    removed,
    surplus,
)
from controller.decide.scaling.size import decide_size
from controller.decide.tasks.assignment import assign
from controller.decide.view import PodState, PodView, PoolView
from controller.errors import PodslotsError
from controller.names import task_id
from controller.objects.pool import PoolSpec
from controller.objects.scaling_history import ScalingHistory

RESYNC_SECONDS = 30.0
BURST = 4
"""Passes that may follow one another at once after a quiet time: one opens a Pod, the next gives it its task."""

_WORKER = WorkerLink(instance="simulated", connected=True)


class UnexpectedAction(PodslotsError):
    """The controller decided on something that has no meaning in a simulation: a mistake here."""


class Podslots(Strategy):
    """Does at once what the controller decides."""

    def __init__(self, spec: PoolSpec, *, pass_seconds: float, name: str = "podslots") -> None:
        super().__init__(name)
        scaler = spec.autoscaling
        self._spec = spec if scaler is None else replace(spec, autoscaling=replace(scaler, signal=None))
        self._pass_seconds = pass_seconds
        self._views: dict[int, PodView] = {}
        self._slots: dict[int, list[Slot]] = {}
        self._stale: dict[int, Pod] = {}
        self._pass_due: float | None = None
        self._next_pass = -math.inf
        self._history = ScalingHistory()
        self._waits_for: datetime | None = None

    def begin(self, engine: Engine) -> None:
        """The first pass makes minReplicas Pods."""
        self._engine = engine
        self._resync()

    def _resync(self) -> None:
        self._wake()
        self._engine.after(RESYNC_SECONDS, self._resync)

    # --- what wakes it ------------------------------------------------------------------------------------------------

    def task_queued(self, job: Job) -> None:
        """The pass reads what is queued."""
        del job
        self._wake()

    def task_withdrawn(self, job: Job) -> None:
        """The pass reads what is queued."""

    def slot_changed(self, pod: Pod, slot: int) -> None:
        """What a task has just taken was counted as used before, so that this alone changes no decision."""
        self._slots[pod.number][slot] = self._slot(pod, slot)
        self._stale[pod.number] = pod
        if pod.held[slot] is None:
            self._wake()
            self._wake_when_idle_for_long(pod)

    def _wake_when_idle_for_long(self, pod: Pod) -> None:
        scaler = self._spec.scaler
        if pod.busy or scaler is None:
            return
        since = self._engine.now

        def look() -> None:
            if not (pod.gone or pod.busy) and max(pod.since) <= since:
                self._wake()

        self._engine.after(scaler.min_idle_seconds, look)

    def pod_ready(self, pod: Pod) -> None:
        """Its agent is heard, and drained as each is at first."""
        view = self._views[pod.number]
        self._views[pod.number] = replace(view, running=True, ready=True, connected=True, agent=self._report(pod))
        self._wake()

    def _wake(self) -> None:
        if self._pass_due is None:
            self._pass_due = max(self._engine.now, self._next_pass)
            self._engine.after(self._pass_due - self._engine.now, self._pass)

    def _wake_at(self, moment: datetime) -> None:
        """Once, for the moment that is known last: a window ends, or a time in which the size is frozen."""
        if moment == self._waits_for:
            return
        self._waits_for = moment

        def look() -> None:
            if self._waits_for == moment:
                self._waits_for = None
                self._wake()

        self._engine.after((moment - self._engine.moment(self._engine.now)).total_seconds(), look)

    # --- a pass -------------------------------------------------------------------------------------------------------

    def _pass(self) -> None:
        self._pass_due = None
        rested = self._engine.now - BURST * self._pass_seconds
        self._next_pass = max(self._next_pass, rested) + self._pass_seconds
        view = self._view()
        decision = decide_size(view)
        self._history = decision.history
        if decision.changes_at is not None:
            self._wake_at(decision.changes_at)
        actions = pod_actions(view, decision)
        if view.tasks:
            leaving = surplus(view, decision, removed(actions))
            for placement in assign(decision.basis, leaving):
                self._place(self._engine.queued[placement.task.uid], placement.pod)
        for action in actions:
            self._act(action)
        if actions:
            self._wake()

    def _view(self) -> PoolView:
        for number, pod in self._stale.items():
            if not pod.gone:
                self._views[number] = replace(self._views[number], agent=self._report(pod, Phase.OPEN))
        self._stale.clear()
        queued = self._engine.queued
        return PoolView(
            namespace=NAMESPACE,
            name=POOL,
            uid=POOL,
            spec=self._spec,
            pods=tuple(self._views.values()),
            tasks=tuple([job.task for job in queued.values()]),
            blocked=frozenset([uid for uid, job in queued.items() if job.free_since is None]),
            now=self._engine.moment(self._engine.now),
            history=self._history,
        )

    def _place(self, job: Job, view: PodView) -> None:
        """The agent's choice: of the free slots that accept the task, the first most restricted one."""
        pod = self._engine.pods[_number(view)]
        free = [slot for slot, held in enumerate(pod.held) if held is None and job.arrival.type in pod.layout[slot]]
        if free:  # else the matching put it elsewhere than the agent does, and it waits for the next pass
            self._engine.start_job(job, pod, min(free, key=lambda slot: len(pod.layout[slot])))

    def _act(self, action: PodAction) -> None:
        match action:
            case CreatePods(count=count):
                for _ in range(count):
                    self._create()
            case OpenPod(pod=view):
                self._open(view)
            case DrainPod(pod=view) | DeleteStarting(pod=view):
                pod = self._engine.pods[_number(view)]
                if not pod.busy:  # else its agent refuses: a task was placed there in this very pass
                    del self._views[pod.number], self._slots[pod.number]
                    self._engine.remove_pod(pod)
            case _:
                raise UnexpectedAction(f"a simulation knows no {type(action).__name__}")

    def _create(self) -> None:
        pod = self._engine.create_pod(self._spec.layout)
        name = f"simulated-{pod.number:06}"
        self._slots[pod.number] = [self._slot(pod, slot) for slot in range(len(pod.layout))]
        self._views[pod.number] = PodView(
            name=name,
            uid=name,
            resource_version="1",
            state=PodState.STARTING,
            created=self._engine.moment(pod.created),
        )

    def _open(self, view: PodView) -> None:
        pod = self._engine.pods[_number(view)]
        self._views[pod.number] = replace(
            view,
            state=PodState.ACTIVE,
            opened=self._engine.moment(self._engine.now),
            tracked=True,
            agent=self._report(pod, Phase.OPEN),
        )
        self._wake_when_idle_for_long(pod)

    # --- what an agent would report -----------------------------------------------------------------------------------

    def _report(self, pod: Pod, phase: Phase = Phase.DRAINED) -> AgentState:
        name = f"simulated-{pod.number:06}"
        return AgentState(
            version="1",
            pod=name,
            pod_uid=name,
            pool=POOL,
            incarnation="1",
            phase=phase,
            revision=1,
            tokens=(),
            slots=tuple(self._slots[pod.number]),
        )

    def _slot(self, pod: Pod, slot: int) -> Slot:
        job = pod.held[slot]
        if job is None:
            state = SlotState.IDLE
        else:
            state = SlotState.RESERVED if job.stage is Stage.RESERVED else SlotState.RUNNING
        return Slot(
            id=slot,
            accepts=pod.layout[slot],
            state=state,
            fence=1,
            since=self._engine.moment(pod.since[slot]),
            task_id=None if job is None else task_id(job.task.uid, 1),
            task_type=None if job is None else job.arrival.type,
            origin=None if job is None else Origin.CONTROLLER,
            worker=_WORKER,
        )


def _number(view: PodView) -> int:
    return int(view.name.removeprefix("simulated-"))
