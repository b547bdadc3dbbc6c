"""Whether a task can ever run in a pool. The present state of its Pods does not matter."""

from agent.wire import Step
from controller.objects.pool import PoolSpec
from controller.objects.task import Task
from controller.objects.task_spec import STOP_RESERVE_SECONDS, TaskSpec


def fits(pool: PoolSpec, task: TaskSpec) -> bool:
    """Whether the pool's Pods take tasks like this one."""
    return pool.takes_tasks and pool.accepts(task.type) and task.needed_grace_seconds <= pool.grace_seconds


def refusal(task: Task, pool: PoolSpec | None) -> tuple[str, str] | None:
    """Why `task` can't run in its pool, as reason and message of the condition `Accepted`; None if it can."""
    spec = task.spec
    if pool is None:
        return "PoolNotFound", f"there is no SlotPool {spec.pool!r} in namespace {task.namespace!r}"
    if not pool.takes_tasks:
        return "NoWorker", f"SlotPool {spec.pool!r} has no container 'worker': its own program takes the slots"
    if not pool.accepts(spec.type):
        return "UnknownTaskType", f"no slot of SlotPool {spec.pool!r} accepts {spec.type!r}"
    if fits(pool, spec):
        return None
    step = max((step for step in Step if spec.steps.get(step)), key=lambda step: _grace_seconds(spec, step))
    return "GraceTooLong", (
        f"cancelGraceSeconds of its {step} step is {_grace_seconds(spec, step)}; with {STOP_RESERVE_SECONDS} s for "
        f"what comes after, its Pod needs {spec.needed_grace_seconds} s to end, and Pods of SlotPool {spec.pool!r} get "
        f"{pool.grace_seconds} s (terminationGracePeriodSeconds)"
    )


def unusable(pool: str, problem: str) -> tuple[str, str]:
    """Reason and message for tasks of a pool with an unusable spec."""
    return "PoolUnusable", f"SlotPool {pool!r} can't be used as it is: {problem}"[:MOST_MESSAGE]


def going(pool: str) -> tuple[str, str]:
    """The same of a pool that is being deleted."""
    return "PoolDeleted", f"SlotPool {pool!r} is being deleted"


MOST_MESSAGE = 4096
"""Characters of a reason that quotes what somebody wrote."""


def _grace_seconds(spec: TaskSpec, step: Step) -> int:
    found = spec.steps.get(step)
    return found.cancel_grace_seconds if found is not None else 0
