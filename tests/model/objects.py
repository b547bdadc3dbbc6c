"""What the Kubernetes API holds, as far as the protocol depends on it, and the controller's own view of it.

A resourceVersion is only ever compared for equality with the newest, so objects have none here: whoever read one has
a flag that says whether it is still the newest (`operations.Op.fresh`).
"""

from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from typing import NamedTuple

from agent.wire import AgentState, Slot, SlotState, Step, Steps, StepSpec
from controller.decide.tasks.task_actions import CANCELLING, TaskAction, Whereabouts, cancel_message, next_action
from controller.decide.view import PodState, PodView
from controller.names import TASK_FINALIZER
from controller.objects.conditions import Condition
from controller.objects.task import Task, TaskPhase, TaskStatus
from controller.objects.task_spec import Approval, OnLostReservation, TaskSpec
from tests.model.site import Site, digest, task_id

MOMENT = datetime(2026, 3, 1, 12, tzinfo=UTC)
TRUE = StepSpec(command=("true",))
ATTEMPTS = 2


class PodObject(NamedTuple):
    """A Pod in the API. `proof`: its status proves its death. `there` False: the object is gone.

    `forced`: somebody else than the controller deleted it.
    """

    label: PodState = PodState.STARTING
    deleting: bool = False
    proof: bool = False
    failed: bool = False
    there: bool = True
    forced: bool = False

    @property
    def buried(self) -> bool:
        """Whether its last version tells that nothing of it runs."""
        return not self.there and (self.proof or self.label is PodState.DRAINING)


class TaskObject(NamedTuple):
    """A SlotTask in the API, and what happened to it for good.

    `told`: the condition Cancelling names this attempt and the agent's present incarnation. `planned`: planDigest is
    there. `approval`: the attempt that spec.approval names, with the digest of that attempt's plan. `kept`: what the
    attempt printed and handed over is in objects of its own.

    The rest is no part of the object: the model remembers what began in this attempt (`began`), which attempts a person
    saw awaiting approval (`seen`) and approved (`approved`), and for which the apply's intent was written (`meant`).
    """

    phase: TaskPhase = TaskPhase.QUEUED
    attempt: int = 0
    pod: int | None = None
    step: Step | None = None
    planned: bool = False
    approval: int | None = None
    cancel: bool = False
    told: bool = False
    kept: bool = False
    gone: bool = False
    began: frozenset[tuple[int, Step]] = frozenset()
    approved: frozenset[int] = frozenset()
    seen: frozenset[int] = frozenset()
    meant: frozenset[int] = frozenset()

    @property
    def final(self) -> bool:
        """Whether it has ended."""
        return self.phase in FINAL


def plain(task: TaskObject) -> TaskObject:
    """A task without what nothing hangs on any more.

    Of a final phase it matters only whether it is Lost: no rule tells the others apart, and no write may follow any of
    them. Once an apply began, no other may, whatever was approved.
    """
    if task.phase is TaskPhase.LOST:  # its processes may go on
        task = task._replace(
            approval=None, planned=False, cancel=False, told=False, pod=None if task.gone else task.pod
        )
    elif task.gone:
        return TaskObject(TaskPhase.SUCCEEDED, gone=True)
    elif task.final:
        return TaskObject(TaskPhase.SUCCEEDED, task.attempt, task.pod, kept=task.kept)
    if any(step is Step.APPLY for _, step in task.began):
        none: frozenset[int] = frozenset()
        return task._replace(approval=None, approved=none, seen=none, meant=none)
    return task


FINAL = frozenset({TaskPhase.SUCCEEDED, TaskPhase.FAILED, TaskPhase.CANCELLED, TaskPhase.EXPIRED, TaskPhase.LOST})


@cache
def parsed(task: TaskObject, number: int) -> Task:
    """The task as the controller's code takes it."""
    name = task_id(number, task.attempt)
    pod = None if task.pod is None else f"pod{task.pod}"
    status = TaskStatus(
        phase=task.phase,
        step=task.step,
        pod=pod,
        pod_uid=pod,
        attempt=task.attempt,
        plan_digest=digest(name) if task.planned else None,
        finished_at=MOMENT if task.final else None,
    )
    approval = task.approval
    spec = TaskSpec(
        pool="pool",
        type="plan_and_apply",
        steps=Steps(plan=TRUE, apply=TRUE),
        lock_key="key",
        approval=None
        if approval is None
        else Approval(attempt=approval, plan_digest=digest(task_id(number, approval))),
        on_lost_reservation=OnLostReservation.REPLAN,
        plan_max_attempts=ATTEMPTS,
        cancel=task.cancel,
    )
    result = Task(
        namespace="ns",
        name=f"t{number}",
        uid=f"t{number}",
        resource_version="1",
        created=MOMENT,
        spec=spec,
        status=status,
        finalizers=(TASK_FINALIZER,),
    )
    if not task.told or task.pod is None:
        return result
    message = cancel_message(result, _view(task.pod, PodObject(), None))
    told = Condition(type=CANCELLING, status="True", reason="Cancelling", message=message)
    return replace(result, status=replace(status, conditions=(told,)))


def next_step(
    number: int, task: TaskObject, pod: PodObject | None, site: Site | None, *, locked: bool, buried: bool
) -> TaskAction | None:
    """What the controller's code decides to do next for a task."""
    view = None
    if pod is not None and pod.there and task.pod is not None and site is not None:
        view = _view(task.pod, pod, site)
    where = Whereabouts(pod=view, buried=buried)
    return next_action(parsed(task, number), where, lock_held=locked, now=MOMENT)


def _view(number: int, pod: PodObject, site: Site | None) -> PodView:
    agent = site.agent if site is not None else None
    name = f"pod{number}"
    state = None
    if agent is not None:
        state = AgentState(
            version="",
            pod=name,
            pod_uid=name,
            pool="pool",
            incarnation="",
            phase=agent.phase,
            revision=0,
            tokens=(),
            slots=tuple(
                Slot(
                    id=slot.id,
                    accepts=(),
                    state=slot.state,
                    fence=0,
                    since=MOMENT,
                    task_id=slot.task_id,
                    step=slot.step,
                    origin=slot.origin,
                )
                for slot in agent.slots
            ),
            ended=tuple(task.task_id for task in agent.tasks if task.outcome is not None),
            recovering=bool(agent.recovering),
        )
    return PodView(
        name=name,
        uid=name,
        resource_version="1",
        state=pod.label,
        created=MOMENT,
        running=True,
        deleting=pod.deleting,
        dead=pod.proof,
        agent=state,
        connected=agent is not None and not pod.proof,
    )


def is_idle(site: Site) -> bool:
    """Whether nothing is held in the Pod, and no result waits for its ack."""
    agent = site.agent
    if agent is None:
        return True
    return not agent.recovering and not agent.tasks and all(slot.state is SlotState.IDLE for slot in agent.slots)
