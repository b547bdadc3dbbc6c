"""Why a Pod that was never opened does not start, as the scheduler, kubelet or container engine reports it.

Kubernetes reports it in three places: the condition PodScheduled while no node takes the Pod, `waiting` of a container
that its node can't start, and the Pod's own status when the node refuses it. A Pod that is only slow has no such
problem.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

Object = dict[str, Any]

USUAL = frozenset({"", "ContainerCreating", "PodInitializing"})
"""What a kubelet says of a container that waits for nothing but its turn."""

MAX_MESSAGE = 300
"""Characters of a message that are kept: it goes into conditions and Events, and engines quote whole responses."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StartProblem:
    """`reason` is one word of Kubernetes, such as Unschedulable or ErrImagePull; `message` is for people."""

    reason: str
    message: str


def start_problem(pod: Object) -> StartProblem | None:
    """What keeps `pod` from starting; None while nothing speaks against it."""
    status = pod.get("status") or {}
    if status.get("phase") in {"Failed", "Succeeded"}:
        return _ended(status)
    if not (pod.get("spec") or {}).get("nodeName"):
        return _unscheduled(status)
    for container in _containers(status):
        if (problem := _container_problem(container)) is not None:
            return problem
    return None


def _ended(status: Object) -> StartProblem:
    """Refused by its node, or every container ended before the controller opened the Pod."""
    reason = status.get("reason") or "PodEnded"
    return StartProblem(reason=reason, message=_short(status.get("message") or "it ended before it was opened"))


def _unscheduled(status: Object) -> StartProblem | None:
    for condition in status.get("conditions") or ():
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            reason = condition.get("reason") or "Unschedulable"
            return StartProblem(reason=reason, message=_short(condition.get("message") or "no node takes it"))
    return None


def _containers(status: Object) -> Iterator[Object]:
    yield from status.get("initContainerStatuses") or ()
    yield from status.get("containerStatuses") or ()


def _container_problem(container: Object) -> StartProblem | None:
    name, state = container.get("name", ""), container.get("state") or {}
    waiting = state.get("waiting") or {}
    reason = waiting.get("reason") or ""
    if reason in USUAL:
        return None
    said = waiting.get("message") or ""
    last = (container.get("lastState") or {}).get("terminated") or {}
    if last and not said.startswith("Back-off pulling"):
        exit_code = last.get("exitCode")
        ended = last.get("message") or f"the last run ended with {exit_code} ({last.get('reason') or 'Error'})"
        said = f"{said}; {ended}" if said else ended
    return StartProblem(reason=reason, message=_short(f"container {name}: {said or reason}"))


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= MAX_MESSAGE else f"{line[: MAX_MESSAGE - 1]}…"
