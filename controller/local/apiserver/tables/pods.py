"""The columns of Pods. After `printPod` of k8s.io/kubernetes/pkg/printers/internalversion."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from controller.local.apiserver.tables.ages import age
from controller.local.apiserver.tables.columns import AGE, NAME, NONE, Column, Layout, created

Json = dict[str, Any]

_COLUMNS = (
    NAME,
    Column("Ready", "The aggregate readiness state of this pod for accepting traffic."),
    Column("Status", "The aggregate status of the containers in this pod."),
    Column(
        "Restarts",
        "The number of times the containers in this pod have been restarted and when the last container in this pod "
        "has restarted.",
    ),
    AGE,
    Column(
        "IP",
        "podIP address allocated to the pod. Routable at least within the cluster. Empty if not yet allocated.",
        priority=1,
    ),
    Column(
        "Node",
        "NodeName indicates in which node this pod is scheduled. If empty, this pod is a candidate for scheduling by "
        "the scheduler defined in schedulerName. Once this field is set, the kubelet for this node becomes responsible "
        "for the lifecycle of this pod. This field should not be used to express a desire for the pod to be scheduled "
        "on a specific node. https://kubernetes.io/docs/concepts/scheduling-eviction/assign-pod-node/#nodename",
        priority=1,
    ),
    Column(
        "Nominated Node",
        "nominatedNodeName is set only when this pod preempts other pods on the node, but it cannot be scheduled right "
        "away as preemption victims receive their graceful termination periods. This field does not guarantee that the "
        "pod will be scheduled on this node. Scheduler may decide to place the pod elsewhere if other nodes become "
        "available sooner. Scheduler may also decide to give the resources on this node to a higher priority pod that "
        "is created after preemption. As a result, this field may be different than PodSpec.nodeName when the pod is "
        "scheduled.",
        priority=1,
    ),
    Column(
        "Readiness Gates",
        "If specified, all readiness gates will be evaluated for pod readiness. A pod is ready when all its containers "
        'are ready AND all conditions specified in the readiness gates have status equal to "True" More info: '
        "https://git.k8s.io/enhancements/keps/sig-network/580-pod-readiness-gates",
        priority=1,
    ),
)


@dataclass
class _Summary:
    """What the containers of a Pod come to."""

    reason: str
    ready: int = 0
    total: int = 0
    restarts: int = 0
    last_restart: str = ""

    def restarted(self, status: Json) -> None:
        """Counts a container's restarts."""
        self.restarts += status.get("restartCount", 0)
        finished = ((status.get("lastState") or {}).get("terminated") or {}).get("finishedAt") or ""
        self.last_restart = max(self.last_restart, finished)


def _cells(body: Json, now: datetime) -> list[Any]:
    spec, status = body["spec"], body.get("status") or {}
    summary = _summarize(body, spec, status)
    restarts = str(summary.restarts)
    if summary.restarts and summary.last_restart:
        restarts += f" ({age(summary.last_restart, now)} ago)"
    gates = spec.get("readinessGates") or ()
    true = {c["type"] for c in status.get("conditions") or () if c.get("status") == "True"}
    passed = sum(gate["conditionType"] in true for gate in gates)
    return [
        body["metadata"]["name"],
        f"{summary.ready}/{summary.total}",
        summary.reason,
        restarts,
        created(body, now),
        status.get("podIP") or NONE,
        spec.get("nodeName") or NONE,
        status.get("nominatedNodeName") or NONE,
        f"{passed}/{len(gates)}" if gates else NONE,
    ]


def _summarize(body: Json, spec: Json, status: Json) -> _Summary:
    phase = status.get("phase", "")
    conditions = status.get("conditions") or ()
    summary = _Summary(status.get("reason") or phase, total=len(spec.get("containers") or ()))
    if any(c["type"] == "PodScheduled" and c.get("reason") == "SchedulingGated" for c in conditions):
        summary.reason = "SchedulingGated"
    sidecars = {c["name"] for c in spec.get("initContainers") or () if c.get("restartPolicy") == "Always"}
    summary.total += len(sidecars)
    initializing = _initialization(summary, spec, status, sidecars)
    if not initializing or any(c["type"] == "Initialized" and c.get("status") == "True" for c in conditions):
        _main_containers(summary, status, sidecars)
    if "deletionTimestamp" in body["metadata"]:
        if status.get("reason") == "NodeLost":
            summary.reason = "Unknown"
        elif phase not in ("Failed", "Succeeded"):
            summary.reason = "Terminating"
    return summary


def _initialization(summary: _Summary, spec: Json, status: Json, sidecars: set[str]) -> bool:
    """Counts ready sidecars; True, with the reason set, if an init container is not done."""
    for index, container in enumerate(status.get("initContainerStatuses") or ()):
        summary.restarted(container)
        state = container.get("state") or {}
        ended = state.get("terminated")
        if ended is not None and not ended.get("exitCode"):
            continue
        if container["name"] in sidecars and container.get("started"):
            summary.ready += bool(container.get("ready"))
            continue
        waits = (state.get("waiting") or {}).get("reason")
        if ended is not None:
            summary.reason = f"Init:{_end(ended)}"
        elif waits and waits != "PodInitializing":
            summary.reason = f"Init:{waits}"
        else:
            summary.reason = f"Init:{index}/{len(spec.get('initContainers') or ())}"
        return True
    return False


def _main_containers(summary: _Summary, status: Json, sidecars: set[str]) -> None:
    """The restarts of ordinary init containers are no longer of interest."""
    summary.restarts, summary.last_restart = 0, ""
    for container in status.get("initContainerStatuses") or ():
        if container["name"] in sidecars:
            summary.restarted(container)
    running = False
    for container in reversed(status.get("containerStatuses") or ()):
        summary.restarted(container)
        state = container.get("state") or {}
        waits = (state.get("waiting") or {}).get("reason")
        ended = state.get("terminated")
        if waits:
            summary.reason = waits
        elif ended is not None:
            summary.reason = _end(ended)
        elif container.get("ready") and "running" in state:
            running = True
            summary.ready += 1
    if summary.reason == "Completed" and running:
        ready = any(c["type"] == "Ready" and c.get("status") == "True" for c in status.get("conditions") or ())
        summary.reason = "Running" if ready else "NotReady"


def _end(ended: Json) -> str:
    if ended.get("reason"):
        return str(ended["reason"])
    return f"Signal:{ended['signal']}" if ended.get("signal") else f"ExitCode:{ended.get('exitCode', 0)}"


def _conditions(body: Json) -> list[Json]:
    words = {"Succeeded": "The pod has completed successfully.", "Failed": "The pod failed."}
    phase = (body.get("status") or {}).get("phase", "")
    if phase not in words:
        return []
    return [{"type": "Completed", "status": "True", "reason": phase, "message": words[phase]}]


PODS = Layout(_COLUMNS, _cells, _conditions)
