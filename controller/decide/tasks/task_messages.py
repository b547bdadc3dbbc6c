"""What conditions and Events say of a task: sentences for people, made of what is known. Pure."""

from agent.wire import NO_CHANGES, Step
from controller.objects.sentences import sentence
from controller.objects.task import Task, TaskPhase

COMPLETE = "Complete"
FAILED = "Failed"
CANCELLED = "Cancelled"
"""The types of the condition that a task gets when it ends: one of them, with the status True."""


def end_type(phase: TaskPhase) -> str:
    """The type of the condition of a task that ended in this phase. Expired and lost ones have failed."""
    return {TaskPhase.SUCCEEDED: COMPLETE, TaskPhase.CANCELLED: CANCELLED}.get(phase, FAILED)


def end_reason(phase: TaskPhase, reason: str, step: Step | None) -> str:
    """The reason of that condition. If only the phase is known, it names the step that failed or was lost."""
    return _STEP_REASONS.get((phase, step), reason) if reason == phase.value else reason


_STEP_REASONS: dict[tuple[TaskPhase, Step | None], str] = {
    (TaskPhase.FAILED, Step.PLAN): "PlanFailed",
    (TaskPhase.FAILED, Step.APPLY): "ApplyFailed",
    (TaskPhase.LOST, Step.PLAN): "PlanLost",
    (TaskPhase.LOST, Step.APPLY): "ApplyLost",
}


def end_message(phase: TaskPhase, reason: str, message: str, step: Step | None) -> str:
    """How the task ended, as a sentence. `message` is what the agent or the controller knows of it; it may be empty."""
    what = f"{step.value} step" if step is not None and reason == phase.value else "task"
    match phase:
        case TaskPhase.SUCCEEDED if reason == NO_CHANGES:
            return "The plan found nothing to change, so nothing was applied."
        case TaskPhase.SUCCEEDED:
            return sentence(f"the task succeeded, but {message}" if message else "the task succeeded")
        case TaskPhase.CANCELLED if message.startswith("cancelled"):
            return sentence(f"the task was {message}")
        case TaskPhase.CANCELLED:
            return _with("the task was cancelled", message)
        case TaskPhase.EXPIRED:
            return _with("the reservation expired", message)
        case TaskPhase.LOST:
            return _with(f"the {what} was lost", message)
        case _:
            return _with(f"the {what} failed", message)


def approved_message(task: Task) -> str:
    """Which plan was approved, and by whom."""
    if task.spec.approval is None:
        how = "automatically (approvalPolicy: Auto)"
    else:
        how = f"by {task.spec.approval.by}" if task.spec.approval.by else ""
    return sentence(f"the plan {task.status.plan_digest} of attempt {task.status.attempt} was approved {how}")


def _with(head: str, message: str) -> str:
    return sentence(f"{head}: {message}" if message else head)
