"""How far the deletion of a pool is, and whom it waits for. Pure."""

from agent.wire import Origin
from controller.decide.problem import Problem
from controller.decide.view import PodState, PodView, PoolView
from controller.objects.task import Task, TaskPhase

DELETING = "Deleting"
DELETION_WAITS = "DeletionWaits"


def deletion_stand(view: PoolView) -> Problem | None:
    """What is said of a pool that is being deleted: what it waits for, and first what has no end of its own."""
    if not view.deleting:
        return None
    return deletion_waits(view) or Problem(reason=DELETING, message=_rest(view))


def _rest(view: PoolView) -> str:
    """Tasks that have a slot, then Pods."""
    held = sorted((task for task in view.tasks if not (task.queued or task.final)), key=lambda task: task.name)
    parts = []
    if held:
        others = f" and {len(held) - _NAMED} more" if len(held) > _NAMED else ""
        parts.append(f"{', '.join(_task_words(task) for task in held[:_NAMED])}{others}")
    if pods := sum(pod.alive for pod in view.pods):
        parts.append(f"{pods} Pod{'s' if pods > 1 else ''} to be drained and deleted")
    return f"waits for {'; '.join(parts)}" if parts else "its last Pod is gone"


def _task_words(task: Task) -> str:
    waits = task.status.phase is TaskPhase.AWAITING_APPROVAL
    return f"task {task.name}, which {'waits for its approval' if waits else 'runs'}"


def deletion_waits(view: PoolView) -> Problem | None:
    """Which Pods keep a pool from being deleted until a person acts, whatever its `deletionPolicy`, and what to do.

    Tasks end or are cancelled. But the controller never releases what a program beside the agent holds, and never
    treats a Pod with a silent agent as idle.
    """
    if not view.deleting:
        return None
    found = [f"Pod {pod.name}: {word}" for pod in view.pods if (word := _kept_by(pod)) is not None]
    if not found:
        return None
    others = f"; and {len(found) - _NAMED} more Pods" if len(found) > _NAMED else ""
    return Problem(reason=DELETION_WAITS, message="; ".join(sorted(found)[:_NAMED]) + others)


_NAMED = 5


def _kept_by(pod: PodView) -> str | None:
    if pod.dead or pod.deleting or pod.state is PodState.STARTING:
        return None
    if not pod.connected or pod.agent is None:
        return (
            None
            if pod.contacting
            else f"its agent does not answer; if nothing of it runs any more, say so with `podslots forget {pod.name}`"
        )
    holds = [
        f"slot {slot.id} ({slot.task_id})" for slot in pod.held if slot.origin is Origin.LOCAL or slot.step is None
    ]
    if holds:
        return (
            f"its own program, or somebody with the pool's token, holds {', '.join(holds)} and has to release that; "
            f"if it may be cut off: podslots break-glass {pod.name} --reason WHY, then kubectl delete pod {pod.name}"
        )
    if pod.agent.recovering:
        return "its agent has lost its journal, and waits to be told what is in its slots"
    return None
