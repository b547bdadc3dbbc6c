"""Proof that a Pod's processes have ended. Silence is no proof. Phase Failed alone is no proof either.

When a Node object vanishes, the garbage collector writes Failed over containers that still run; a kubelet that
ended a Pod itself writes every container's termination as well.
"""

from typing import Any

from controller.names import FORGET, OUT_OF_SERVICE_TAINT, STATE_LABEL

Object = dict[str, Any]


def death_proof(pod: Object, node: Object | None) -> str | None:
    """Why `pod` is certainly dead, for people; None if that is not proven. `node` is the one it was bound to."""
    metadata = pod["metadata"]
    if (metadata.get("annotations") or {}).get(FORGET) == metadata["uid"]:
        return "a person declared it dead"
    if node is not None and any(
        taint.get("key") == OUT_OF_SERVICE_TAINT for taint in node.get("spec", {}).get("taints") or ()
    ):
        return f"its node {node['metadata']['name']} is out of service"
    if _has_ended(pod) and _all_terminated(pod):
        return "every container has terminated"
    return None


def ended_unopened(pod: Object) -> str | None:
    """Why `pod` can go although nothing proves its death: it was refused by its node, or failed, before it was opened.

    A kubelet that refuses a Pod writes the phase and nothing else. This proves nothing about tasks: on an old version
    of a Pod it may be long untrue.
    """
    if _has_ended(pod) and (pod["metadata"].get("labels") or {}).get(STATE_LABEL) == "starting":
        return "it ended before it was ever opened"
    return None


def was_drained(pod: Object) -> bool:
    """Whether the last version of a Pod that is gone says that its agent had granted a drain.

    The label is written after the grant, and taken back before the agent is opened again.
    """
    return bool((pod["metadata"].get("labels") or {}).get(STATE_LABEL) == "draining")


def _has_ended(pod: Object) -> bool:
    return (pod.get("status") or {}).get("phase") in {"Failed", "Succeeded"}


def _all_terminated(pod: Object) -> bool:
    """Whether each container of the spec, the agent's included, has a status that says terminated.

    A container that never started waits with a reason, and has no container id; in a Pod of terminal phase it
    can't start any more.
    """
    spec, status = pod.get("spec") or {}, pod.get("status") or {}
    for containers, statuses in (("containers", "containerStatuses"), ("initContainers", "initContainerStatuses")):
        by_name = {entry["name"]: entry for entry in status.get(statuses) or ()}
        for container in spec.get(containers) or ():
            entry = by_name.get(container["name"])
            if entry is None or not _terminated(entry):
                return False
    return all(_terminated(entry) for entry in status.get("ephemeralContainerStatuses") or ())


def _terminated(status: Object) -> bool:
    state = status.get("state") or {}
    if "terminated" in state:
        return True
    never_started = "waiting" in state and not status.get("containerID") and not status.get("lastState")
    return never_started and not status.get("restartCount")
