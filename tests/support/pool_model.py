"""A pool that does what is decided, at once, for properties of deciding again and again under a given load."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from agent.wire import AgentState, Phase, Slot, SlotState
from controller.decide.pods.pod_actions import (
    CreatePods,
    DeleteDead,
    DeleteStarting,
    DrainPod,
    OpenPod,
    TakeBack,
    pod_actions,
    removed,
)
from controller.decide.scaling.matching import agents_choice
from controller.decide.scaling.size import SizeDecision, decide_size
from controller.decide.tasks.assignment import assign
from controller.decide.view import PodState, PodView, PoolView
from controller.objects.pool import Layout
from controller.objects.scaling_history import ScalingHistory
from controller.objects.task import Task
from tests.support.pools import NOW, pod, pool


@dataclass
class PoolModel:
    """Pods by name. Each round decides once, does it, and lets some time pass; tasks that were placed run for ever."""

    settings: dict[str, Any]
    layout: Layout
    pods: dict[str, PodView] = field(default_factory=dict)
    queue: dict[str, Task] = field(default_factory=dict)
    now: datetime = NOW
    made: int = 0
    history: ScalingHistory = field(default_factory=ScalingHistory)

    def add(self, slots: str, **given: Any) -> None:
        """Another Pod, as in `tests.support.pools.pod`."""
        name = f"m{self.made}"
        self.made += 1
        self.pods[name] = pod(name, slots, layout=self.layout, **given)

    def view(self) -> PoolView:
        """The pool as it is."""
        return pool(
            tuple(self.pods.values()),
            tuple(self.queue.values()),
            layout=self.layout,
            now=self.now,
            history=self.history,
            **self.settings,
        )

    def round(self, seconds: float = 30) -> SizeDecision:
        """Decide, do it, let time pass."""
        view = self.view()
        decision = decide_size(view)
        self.history = decision.history
        actions = pod_actions(view, decision)
        for assignment in assign(decision.basis, removed(actions)):
            self._run(assignment.task, assignment.pod.name)
        for action in actions:
            match action:
                case CreatePods(count=count):
                    for _ in range(count):
                        self._create()
                case OpenPod(pod=it) | TakeBack(pod=it):
                    opened = self._agent(self.pods[it.name], Phase.OPEN)
                    self._change(it.name, state=PodState.ACTIVE, opened=self.now, agent=opened, tracked=True)
                case DrainPod(pod=it) | DeleteStarting(pod=it) | DeleteDead(pod=it):
                    held = self.pods.pop(it.name).held
                    assert not held, f"{it.name} was taken away with {held}"
                case _:
                    raise AssertionError(action)
        self.now += timedelta(seconds=seconds)
        return decision

    def sizes(self, rounds: int) -> list[int]:
        """The size after each of some rounds."""
        return [len(self.pods) for _ in range(rounds) if self.round()]

    def settle(self, rounds: int = 40) -> None:
        """Go on until every task is placed that ever will be, and every Pod is open."""
        for _ in range(rounds):
            before = (len(self.queue), set(self.pods))
            self.round()
            if before == (len(self.queue), set(self.pods)):
                return
        raise AssertionError("does not settle")

    def _create(self) -> None:
        self.add("." * len(self.layout), state=PodState.STARTING, created=self.now, since=self.now)

    def _change(self, name: str, **given: Any) -> None:
        self.pods[name] = replace(self.pods[name], **given)

    @staticmethod
    def _agent(it: PodView, phase: Phase) -> AgentState:
        assert it.agent is not None
        return replace(it.agent, phase=phase)

    def _run(self, task: Task, name: str) -> None:
        report = self.pods[name].agent
        assert report is not None
        free = [slot.accepts for slot in report.slots if slot.state is SlotState.IDLE]
        chosen = agents_choice(free, task.spec.type)
        assert chosen is not None, f"{name} has no slot for {task.spec.type}"
        del self.queue[task.uid]
        self._change(name, agent=replace(report, slots=tuple(self._taken(report.slots, chosen, task))))

    def _taken(self, slots: Iterable[Slot], accepts: tuple[str, ...], task: Task) -> list[Slot]:
        result = list(slots)
        index = next(i for i, slot in enumerate(result) if slot.state is SlotState.IDLE and slot.accepts == accepts)
        result[index] = replace(result[index], state=SlotState.RUNNING, task_id=f"{task.uid}.1", since=self.now)
        return result
