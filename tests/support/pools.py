"""Short ways to make views for tests of what the controller decides."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from agent.wire import AgentState, Origin, Phase, Slot, SlotState, Step, Steps, StepSpec, WorkerLink
from controller.decide.view import PodState, PodView, PoolView
from controller.objects.autoscaling import MAX_REPLICAS, Autoscaling
from controller.objects.behavior import Behavior, ScalingPolicy, ScalingRules
from controller.objects.pool import DEFAULT_LAYOUT, Layout, PoolSpec
from controller.objects.task import Task, TaskPhase, TaskStatus
from controller.objects.task_spec import TaskSpec
from controller.objects.work import STEPS_OF_TYPE

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
LONG_AGO = NOW - timedelta(hours=1)
TEMPLATE: dict[str, Any] = {"spec": {"containers": [{"name": "worker", "image": "terraform:1"}]}}

_FREE = ScalingRules(policies=(ScalingPolicy(value=MAX_REPLICAS, period_seconds=1),))
AT_ONCE = Behavior(scale_up=_FREE, scale_down=_FREE)

COMMAND = StepSpec(command=("true",))


def agent(
    pod: str,
    slots: str = "...",
    *,
    layout: Layout = DEFAULT_LAYOUT,
    phase: Phase = Phase.OPEN,
    since: datetime = LONG_AGO,
    tasks: Sequence[str] = (),
    ended: tuple[str, ...] = (),
    closing: bool = False,
    workers: bool = True,
) -> AgentState:
    """An agent's report. `slots` has a letter for each: `.` idle, `r` running, `R` reserved; `tasks` hold those.

    `?` is a slot of which nothing is known after a lost journal.
    """
    held = iter(tasks)
    states = {".": SlotState.IDLE, "?": SlotState.IDLE, "r": SlotState.RUNNING, "R": SlotState.RESERVED}
    return AgentState(
        version="1",
        pod=pod,
        pod_uid=f"uid-{pod}",
        pool="pool",
        incarnation="i",
        phase=phase,
        drain_id=None if phase is Phase.OPEN else "d",
        revision=1,
        tokens=("t",),
        slots=tuple(
            Slot(
                id=index,
                accepts=layout[index],
                state=states[letter],
                fence=1,
                since=since,
                task_id=None if letter in ".?" else next(held, f"other-{index}.1"),
                task_type=None if letter in ".?" else layout[index][0],
                origin=None if letter in ".?" else Origin.CONTROLLER,
                worker=WorkerLink(instance="w", connected=workers),
                recovering=letter == "?",
            )
            for index, letter in enumerate(slots)
        ),
        ended=ended,
        closing=closing,
        recovering="?" in slots,
    )


def pod(name: str, slots: str | None = "...", *, state: PodState = PodState.ACTIVE, **given: Any) -> PodView:
    """A Pod; `slots` as in `agent`, None if its agent was never heard. Fields of PodView override, others go there."""
    of_agent = {
        key: given.pop(key)
        for key in ("layout", "phase", "since", "tasks", "ended", "closing", "workers")
        if key in given
    }
    if state is not PodState.ACTIVE:
        of_agent.setdefault("phase", Phase.DRAINED)
    report = None if slots is None else agent(name, slots, **of_agent)
    view = PodView(
        name=name,
        uid=f"uid-{name}",
        resource_version="1",
        state=state,
        created=LONG_AGO,
        running=report is not None,
        ready=report is not None,
        agent=report,
        connected=report is not None,
        tracked=state is PodState.ACTIVE,
    )
    return replace(view, **given)


def pods(*slots: str) -> tuple[PodView, ...]:
    """Pods `p0`, `p1`, … with these slots."""
    return tuple(pod(f"p{index}", letters) for index, letters in enumerate(slots))


def task(
    name: str,
    kind: str = "plan",
    *,
    phase: TaskPhase = TaskPhase.QUEUED,
    on: str | None = None,
    age_seconds: float = 0,
    deleting: bool = False,
    attempt: int | None = None,
    **spec: Any,
) -> Task:
    """A task; `on` names its Pod."""
    steps = STEPS_OF_TYPE.get(kind, {Step.PLAN})
    placed = phase is not TaskPhase.QUEUED
    return Task(
        namespace="ns",
        name=name,
        uid=name,
        resource_version="1",
        created=NOW - timedelta(seconds=age_seconds),
        deleting=deleting,
        spec=TaskSpec(
            pool="pool",
            type=kind,
            steps=Steps(plan=COMMAND if Step.PLAN in steps else None, apply=COMMAND if Step.APPLY in steps else None),
            **spec,
        ),
        status=TaskStatus(
            phase=phase,
            pod=on,
            pod_uid=f"uid-{on}" if on else None,
            attempt=attempt if attempt is not None else int(placed),
        ),
    )


def tasks(kind: str, count: int) -> tuple[Task, ...]:
    """Queued tasks of a type."""
    return tuple(task(f"{kind}-{index}", kind) for index in range(count))


def pool(
    of: Sequence[PodView] = (),
    waiting: Sequence[Task] = (),
    *,
    layout: Layout = DEFAULT_LAYOUT,
    replicas: int | None = None,
    template: dict[str, Any] | None = None,
    **given: Any,
) -> PoolView:
    """A pool, autoscaled from 0 to 20 unless `replicas` is given. Fields of PoolView and Autoscaling override.

    What the load asks for is met at once, up and down, unless `behavior` says otherwise.
    """
    of_view = {"creating", "blocked", "dispatching", "deleting", "synced", "now", "history", "reading", "unguarded"}
    of_spec = {"deletion_policy"}
    scaler = {key: value for key, value in given.items() if key not in of_view | of_spec}
    return PoolView(
        namespace="ns",
        name="pool",
        uid="uid-pool",
        spec=PoolSpec(
            replicas=replicas,
            autoscaling=Autoscaling(**{"max_replicas": 20, "behavior": AT_ONCE, **scaler})
            if replicas is None or scaler
            else None,
            layout=layout,
            template=TEMPLATE if template is None else template,
            **{key: value for key, value in given.items() if key in of_spec},
        ),
        pods=tuple(of),
        tasks=tuple(waiting),
        **{"now": NOW, **{key: value for key, value in given.items() if key in of_view}},
    )
