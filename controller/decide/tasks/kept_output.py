"""Which outputs of a task are still to be kept in objects, before the agent may forget them. Pure."""

from dataclasses import dataclass

from agent.wire import Step, StepResult, TaskState
from agent.wire import Task as KnownTask
from controller.objects.pool import OutputLimits
from controller.objects.task import Task
from controller.objects.task_spec import ApprovalPolicy, KeepOutput


@dataclass(frozen=True, slots=True)
class ToKeep:
    """A step whose output is to be kept, and how much of it, compressed."""

    step: Step
    result: StepResult
    limit_bytes: int


def to_keep(task: Task, known: KnownTask, limits: OutputLimits) -> tuple[ToKeep, ...]:
    """What is to be kept now of what the agent knows. `known` is reserved, or has ended."""
    waits = known.state is TaskState.RESERVED and task.spec.approval_policy is ApprovalPolicy.MANUAL
    wanted = task.spec.keep_output is KeepOutput.ALWAYS or (waits and task.spec.keep_output is KeepOutput.WAITING)
    if not wanted:
        return ()
    limit = limits.waiting_max_bytes if waits else limits.max_bytes
    results = {Step.PLAN: known.plan, Step.APPLY: known.apply}
    return tuple(
        ToKeep(step, result, limit)
        for step, result in results.items()
        if result is not None and step not in task.status.outputs and _has_output(result)
    )


def lacks_output(task: Task) -> bool:
    """Whether a task that has ended has a step whose output should be kept, and is not named in its status."""
    if task.spec.keep_output is not KeepOutput.ALWAYS:
        return False
    return any(result.start_time and step not in task.status.outputs for step, result in task.status.results.items())


def _has_output(result: StepResult) -> bool:
    """Whether the step is over and ran at all, and its agent can hand its output over."""
    ran = result.start_time is not None or result.log_bytes > 0
    return ran and result.end_time is not None and result.log_kept_bytes is not None
