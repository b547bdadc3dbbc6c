"""Whether a plan that failed is tried again, and when. Pure; an apply never is.

A plan that was stopped because its Pod ended says nothing about the plan: it is queued again at once, as a lost one is.
One that failed by itself, with an exit code that its task names, gets a pause that doubles with each attempt: what it
failed of, such as a service that limits its callers, needs time.
"""

from datetime import datetime, timedelta

from agent.wire import POD_STOPPED, TIME_LIMIT, Outcome, Step
from agent.wire import Task as KnownTask
from controller.decide.tasks.task_actions import Retry, may_retry
from controller.objects.task import Task

FIRST_PAUSE_SECONDS = 10
LAST_PAUSE_SECONDS = 300


def after_end(task: Task, known: KnownTask, now: datetime) -> Retry | None:
    """The next attempt at a plan that has ended on its agent as `known`; None if that is the task's end."""
    if known.step is Step.APPLY or known.apply is not None or not may_retry(task):
        return None
    reason = known.reason or ""
    if known.outcome is Outcome.LOST:
        return Retry("WorkerLost", reason or "the worker was lost")
    if known.outcome is not Outcome.FAILED:
        return None
    if reason.startswith(POD_STOPPED):
        return Retry("PodStopped", f"the plan was stopped as Pod {task.status.pod} ended")
    exit_code = known.plan.exit_code if known.plan is not None else None
    # We ended a step that ran too long, so its exit code says nothing about the command.
    if exit_code not in task.spec.plan_exit_codes or reason.startswith(TIME_LIMIT):
        return None
    pause = timedelta(seconds=pause_seconds(task.status.attempt))
    return Retry("PlanFailed", f"the plan failed: {reason or f'exit code {exit_code}'}", not_before=now + pause)


def pause_seconds(attempt: int) -> int:
    """How long to wait after an attempt, the first of which is 1."""
    return min(LAST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS << max(0, attempt - 1))
