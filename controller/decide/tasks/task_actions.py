"""What to do next for one task: a pure function of the task, its Pod, and what that Pod's agent reports.

The agent's report outranks the task's status. Nothing is concluded from silence: an agent that is not connected leaves
its tasks as they are, until it answers, or its Pod is provably dead, or its Pod is gone from the API.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from agent.wire import Slot, SlotState, Step
from controller.decide.view import PodView
from controller.names import TASK_FINALIZER
from controller.objects.conditions import find
from controller.objects.ended_task import EndedTask
from controller.objects.task import Task, TaskPhase
from controller.objects.task_spec import ApprovalPolicy, OnLostReservation


@dataclass(frozen=True, slots=True)
class AddFinalizer:
    """Hold the task in the API until it has ended."""


@dataclass(frozen=True, slots=True)
class Assign:
    """Choose a Pod for it: `assignment` says which, over all tasks of the pool."""


@dataclass(frozen=True, slots=True)
class Acquire:
    """The intent is written: ask that Pod's agent for a slot, again if need be."""


@dataclass(frozen=True, slots=True)
class Follow:
    """Read the task from its agent and write what it says."""


@dataclass(frozen=True, slots=True)
class Approve:
    """Write that the apply may start, then tell the agent."""


@dataclass(frozen=True, slots=True)
class RejectApproval:
    """The approval names another plan or attempt: say so."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Cancel:
    """Have the agent end the task."""


@dataclass(frozen=True, slots=True)
class Retry:
    """Back to the queue, as the next attempt, which no slot gets before `not_before`.

    `if_pod_gone`: only after a live read found that the Pod is gone.
    """

    reason: str
    message: str
    if_pod_gone: bool = False
    not_before: datetime | None = None


@dataclass(frozen=True, slots=True)
class Finish:
    """Write a final phase. `if_pod_gone`: only after a live read found that the Pod is gone."""

    phase: TaskPhase
    reason: str
    message: str
    if_pod_gone: bool = False


@dataclass(frozen=True, slots=True)
class Ack:
    """The result is stored: let the agent forget it."""


@dataclass(frozen=True, slots=True)
class ReleaseLock:
    """Let the next task of its lockKey go."""


@dataclass(frozen=True, slots=True)
class GiveUpLock:
    """Let the next task of its lockKey go before this one, which waits and can't run."""


@dataclass(frozen=True, slots=True)
class RemoveFinalizer:
    """It has ended, and nothing is left to do for it. From now on a delete removes it at once."""


@dataclass(frozen=True, slots=True)
class DeleteTask:
    """Its time to live after the end is over."""


EndAction = Ack | ReleaseLock | RemoveFinalizer | DeleteTask
TaskAction = (
    AddFinalizer
    | Assign
    | Acquire
    | Follow
    | Approve
    | RejectApproval
    | Cancel
    | Retry
    | Finish
    | GiveUpLock
    | EndAction
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Whereabouts:
    """What is known of the Pod a task was assigned to.

    `pod` is None if no such Pod is in the cache. `buried` tells that its processes are known to be over although the
    Pod is gone: its last version proved its death, or its agent had granted a drain. `synced`: the cache is complete.
    """

    pod: PodView | None
    buried: bool = False
    synced: bool = True

    @property
    def dead(self) -> bool:
        """The Pod's processes are provably over."""
        return self.buried or (self.pod is not None and self.pod.dead)

    @property
    def answers(self) -> bool:
        """The agent's report is fresh."""
        return self.pod is not None and self.pod.connected and self.pod.agent is not None


# Types of a task's conditions
ACCEPTED = "Accepted"
ASSIGNED = "Assigned"
APPROVED = "Approved"
CANCELLING = "Cancelling"
CHANGED = "Changed"


def next_action(task: Task, where: Whereabouts, *, lock_held: bool, now: datetime) -> TaskAction | None:
    """The next thing to do for `task`, if there is any; `lock_held` tells whether its lockKey's Lease names it."""
    if task.final:
        return after_the_end(EndedTask.of(task), where, lock_held=lock_held, now=now)
    if task.status.phase is TaskPhase.QUEUED:
        return _queued(task, lock_held=lock_held)
    if where.dead or (where.pod is None and where.synced):
        return _pod_lost(task, where)
    if not where.answers or where.pod is None:
        return None
    return _on_its_pod(task, where.pod)


def _queued(task: Task, *, lock_held: bool) -> TaskAction | None:
    if task.unwanted:
        return Finish(TaskPhase.CANCELLED, "Cancelled", "cancelled before it was assigned")
    if lock_held and is_refused(task):
        return GiveUpLock()  # of an earlier attempt, or of one that no slot took
    return Assign() if TASK_FINALIZER in task.finalizers else AddFinalizer()


def _on_its_pod(task: Task, pod: PodView) -> TaskAction | None:
    """The task was assigned to a Pod whose agent is connected."""
    if pod.agent is None:
        return None
    slot = find_slot(pod, task.task_id)
    cancel = wants_cancel(task) and not cancelling(task, pod)
    if slot is None:
        if task.task_id in pod.agent.ended:
            return Follow()
        if task.status.phase is TaskPhase.ASSIGNED:
            return Cancel() if cancel else Acquire()
        return Follow()  # the agent forgot it, or its report is older than the status: ask
    if cancel and not (task.deleting and not task.spec.cancel and slot.step is Step.APPLY):
        return Cancel()
    if slot.state is SlotState.RESERVED:
        return _reserved(task, pod)
    if task.status.phase is TaskPhase.RUNNING and task.status.step is slot.step:
        return None
    return Follow()


def _reserved(task: Task, pod: PodView) -> TaskAction | None:
    if task.status.phase is TaskPhase.RUNNING and task.status.step is Step.APPLY:
        return Approve()  # the intent is written; the agent has not heard of it yet
    if task.status.phase is not TaskPhase.AWAITING_APPROVAL or not task.status.plan_digest:
        return Follow()
    if cancelling(task, pod):
        return None
    if task.spec.approval_policy is ApprovalPolicy.AUTO:
        return Approve()
    approval = task.spec.approval
    if approval is None:
        return None
    if task.approved:
        return Approve()
    message = (
        f"The approval names attempt {approval.attempt} and {approval.plan_digest}; "
        f"the plan that waits is of attempt {task.status.attempt} and has the digest {task.status.plan_digest}."
    )
    said = find(task.status.conditions, APPROVED)
    if said is not None and said.message == message:
        return None
    return RejectApproval("DigestMismatch", message)


def _pod_lost(task: Task, where: Whereabouts) -> TaskAction | None:
    """The Pod is provably dead, or gone from the API: what becomes of its task.

    A Pod that is missing in the cache may still exist, as when somebody removed its label.
    """
    proof = where.dead
    unseen = where.pod is None
    fate = "is provably dead" if proof else "is gone, and nothing proves that its processes ended"
    message = f"Pod {task.status.pod} {fate}"
    if wants_cancel(task) and proof and not apply_may_have_started(task):
        return Finish(TaskPhase.CANCELLED, "Cancelled", message, if_pod_gone=unseen)
    if proof and may_retry(task):
        return Retry("PodLost", message, if_pod_gone=unseen)
    phase = TaskPhase.LOST
    if proof and task.status.phase is TaskPhase.AWAITING_APPROVAL:
        phase = TaskPhase.FAILED
    reason = "ReservationLost" if task.status.phase is TaskPhase.AWAITING_APPROVAL else "PodLost"
    return Finish(phase, reason, message, if_pod_gone=unseen)


def pause_left_seconds(task: Task, now: datetime) -> float:
    """How long a queued task is still kept back after its last attempt."""
    moment = task.status.not_before
    return (moment - now).total_seconds() if moment is not None and task.queued else 0.0


def may_retry(task: Task) -> bool:
    """Whether an attempt that was lost, its processes over, may be followed by another. An apply never is."""
    if apply_may_have_started(task) or wants_cancel(task) or task.status.attempt >= task.spec.plan_max_attempts:
        return False
    waiting = task.status.phase is TaskPhase.AWAITING_APPROVAL
    return not waiting or task.spec.on_lost_reservation is OnLostReservation.REPLAN


def apply_may_have_started(task: Task) -> bool:
    """Whether the apply of this attempt was ever let go: its intent is written before the agent is told."""
    if task.status.phase is TaskPhase.QUEUED:
        return False
    return task.status.step is Step.APPLY or task.spec.steps.plan is None


def wants_cancel(task: Task) -> bool:
    """Whether the task should end. Deleting it cancels it, but waits for an apply that runs."""
    if task.spec.cancel:
        return True
    return task.deleting and not (task.status.phase is TaskPhase.RUNNING and task.status.step is Step.APPLY)


def cancel_message(task: Task, pod: PodView) -> str:
    """What the condition Cancelling says once the agent was told: which attempt, and which start of the agent."""
    incarnation = pod.agent.incarnation if pod.agent else ""
    return f"The agent of Pod {pod.name} was told to end attempt {task.status.attempt} (incarnation {incarnation})."


def cancelling(task: Task, pod: PodView) -> bool:
    """Whether the present incarnation of the agent was told to end this attempt.

    It keeps that in its journal; one that came back is told again all the same, for a journal can be lost.
    """
    said = find(task.status.conditions, CANCELLING)
    return said is not None and said.status == "True" and said.message == cancel_message(task, pod)


def unsaid(obj: dict[str, Any], problem: str) -> str | None:
    """The message for a SlotTask that can't be read. None if its status has it already, and it need not be ended."""
    message = problem[:MOST_WORD]
    spec, status = obj.get("spec"), obj.get("status") or {}
    said = any(
        isinstance(entry, dict) and entry.get("type") == ACCEPTED and entry.get("message") == message
        for entry in status.get("conditions") or ()
    )
    unwanted = "deletionTimestamp" in obj["metadata"] or (isinstance(spec, dict) and spec.get("cancel") is True)
    return None if said and not (unwanted and not status.get("podUID")) else message


def is_new_word(task: Task, word: str) -> bool:
    """Whether a task's status does not say yet that it waits for this."""
    return task.status.queued_reason != word[:MOST_WORD]


MOST_WORD = 1024
"""Characters of what a task waits for."""


def is_refused(task: Task) -> bool:
    """Whether the task waits for something that its pool can't give it, as its conditions say."""
    said = find(task.status.conditions, ACCEPTED)
    return task.queued and said is not None and said.status == "False"


def find_slot(pod: PodView, task_id: str) -> Slot | None:
    """The slot in which the Pod's agent reports `task_id`."""
    return next((slot for slot in pod.held if slot.task_id == task_id), None)


def after_the_end(task: EndedTask, where: Whereabouts, *, lock_held: bool, now: datetime) -> EndAction | None:
    """What is left to be done for a task that has ended, if there is anything now."""
    if where.answers and where.pod and where.pod.agent and task.task_id in where.pod.agent.ended:
        return Ack()
    if lock_held and (where.dead or not keeps_lock(task)):
        return ReleaseLock()
    held = TASK_FINALIZER in task.finalizers
    if held and (task.deleting or forgotten(task, where)):
        return RemoveFinalizer()
    if task.deleting or lock_held:
        return None
    if task.delete_at is not None and now >= task.delete_at:
        return DeleteTask()
    return None


def forgotten(task: EndedTask, where: Whereabouts) -> bool:
    """Whether no agent has the task any more: its own was told to forget it, or is gone, or it never had one."""
    if where.dead or (where.pod is None and where.synced):
        return True
    if not where.answers or where.pod is None or where.pod.agent is None:
        return False
    return task.task_id not in where.pod.agent.ended and find_slot(where.pod, task.task_id) is None


def keeps_lock(task: EndedTask) -> bool:
    """Whether the end of the task left open if its apply still runs somewhere: its lockKey stays held."""
    return task.keeps_lock
