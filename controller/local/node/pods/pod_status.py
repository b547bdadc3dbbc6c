"""A Pod's status as the API shows it, computed from how its containers stand. Pure.

The rules are the kubelet's (pkg/kubelet/kubelet_pods.go getPhase, pkg/kubelet/status/generate.go). A terminal phase
appears only when no container runs: others take it, with every container terminated, as proof that the Pod is dead.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from controller.local.node.pods.containers import Exit
from controller.local.node.pods.pod_spec import ContainerSpec, Json, PodSpec, Role

TERMINAL_PHASES = frozenset({"Succeeded", "Failed"})
# A plain condition each; those of others (readiness gates, DisruptionTarget) are left as they are.
_OWN_CONDITIONS = frozenset({"PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"})


@dataclass(frozen=True)
class Waiting:
    """Not running, and why."""

    reason: str
    message: str = ""


@dataclass(frozen=True)
class Running:
    """Running since then, in seconds since the epoch."""

    started_at: float


@dataclass(frozen=True)
class ContainerReport:
    """One container as it stands. `ran`: it has run before, or runs. `restarts`: it will run again."""

    spec: ContainerSpec
    state: Waiting | Running | Exit
    container_id: str = ""
    last: Exit | None = None
    last_container_id: str = ""
    restart_count: int = 0
    started: bool = False
    ready: bool = False
    ran: bool = False


@dataclass(frozen=True)
class PodReport:
    """One Pod as it stands. `over`: no container runs, and none will again."""

    spec: PodSpec
    containers: Sequence[ContainerReport]
    host_ip: str
    pod_ip: str
    start_time: str
    over: bool = False
    reason: str = ""
    message: str = ""


def status(report: PodReport, previous: Json, now: datetime) -> dict[str, Any]:
    """The whole status, given the one the API shows: transition times and a terminal phase stay."""
    stands = previous.get("phase")
    current = stands if stands in TERMINAL_PHASES else phase(report)
    conditions = _conditions(report, current, previous.get("conditions") or (), now)
    result: dict[str, Any] = {
        "phase": current,
        "conditions": conditions,
        "hostIP": report.host_ip,
        "hostIPs": [{"ip": report.host_ip}],
        "startTime": report.start_time,
        "containerStatuses": [_container(c) for c in report.containers if c.spec.role is Role.MAIN],
    }
    if report.pod_ip:
        result |= {"podIP": report.pod_ip, "podIPs": [{"ip": report.pod_ip}]}
    if init := [_container(c) for c in report.containers if c.spec.role is not Role.MAIN]:
        result["initContainerStatuses"] = init
    for key, text in (("reason", report.reason), ("message", report.message)):
        if text or previous.get(key):
            result[key] = text or previous[key]
    return result


def phase(report: PodReport) -> str:
    """The Pod's phase by the states of its containers."""
    mains = [c for c in report.containers if c.spec.role is Role.MAIN]
    if report.over:
        clean = all(isinstance(c.state, Exit) and c.state.exit_code == 0 for c in mains)
        return "Succeeded" if clean else "Failed"
    if not any(c.ran for c in mains) and _incomplete(report.containers):
        return "Pending"
    return "Running" if all(c.ran for c in mains) else "Pending"


def _incomplete(containers: Iterable[ContainerReport]) -> list[str]:
    """The init containers that are not through (a sidecar: not started)."""
    return [
        c.spec.name
        for c in containers
        if (c.spec.role is Role.INIT and not (isinstance(c.state, Exit) and c.state.exit_code == 0))
        or (c.spec.role is Role.SIDECAR and not c.started)
    ]


def _conditions(report: PodReport, current: str, previous: Iterable[Json], now: datetime) -> list[dict[str, Any]]:
    before = {condition["type"]: condition for condition in previous}
    over = {"Succeeded": "PodCompleted", "Failed": "PodFailed"}.get(current, "")
    unready = [c.spec.name for c in report.containers if c.spec.role is not Role.INIT and not c.ready]
    initialized = _verdict("Initialized", "ContainersNotInitialized", "incomplete", _incomplete(report.containers))
    if any(c.ran for c in report.containers if c.spec.role is Role.MAIN):
        initialized = _condition("Initialized", True)
    if over == "PodCompleted":
        initialized = _condition("Initialized", True, over)
    if over:
        containers_ready = _condition("ContainersReady", False, over)
        ready = _condition("Ready", False, over)
    else:
        containers_ready = _verdict("ContainersReady", "ContainersNotReady", "unready", unready)
        ready = containers_ready | {"type": "Ready"}
        gates = [g for g in report.spec.readiness_gates if before.get(g, {}).get("status") != "True"]
        if gates and not unready:
            message = "; ".join(f'corresponding condition of pod readiness gate "{gate}" is not true' for gate in gates)
            ready = _condition("Ready", False, "ReadinessGatesNotReady", message)
    own = [
        _condition("PodReadyToStartContainers", not report.over),
        initialized,
        ready,
        containers_ready,
        _condition("PodScheduled", True),
    ]
    foreign = [dict(condition) for kind, condition in before.items() if kind not in _OWN_CONDITIONS]
    return foreign + [_timed(condition, before.get(condition["type"], {}), now) for condition in own]


def _verdict(kind: str, reason: str, adjective: str, names: Sequence[str]) -> dict[str, Any]:
    if not names:
        return _condition(kind, True)
    return _condition(kind, False, reason, f"containers with {adjective} status: [{' '.join(names)}]")


def _condition(kind: str, value: bool, reason: str = "", message: str = "") -> dict[str, Any]:
    condition: dict[str, Any] = {"type": kind, "status": "True" if value else "False", "lastProbeTime": None}
    if reason:
        condition["reason"] = reason
    if message:
        condition["message"] = message
    return condition


def _timed(condition: dict[str, Any], before: Json, now: datetime) -> dict[str, Any]:
    same = before.get("status") == condition["status"] and "lastTransitionTime" in before
    return condition | {"lastTransitionTime": before["lastTransitionTime"] if same else timestamp(now)}


def _container(report: ContainerReport) -> dict[str, Any]:
    result: dict[str, Any] = {
        "name": report.spec.name,
        "image": report.spec.image,
        "imageID": report.spec.image,
        "restartCount": report.restart_count,
        "ready": report.ready,
        "started": report.started,
        "state": _state(report.state, report.container_id),
        "lastState": {} if report.last is None else _state(report.last, report.last_container_id),
    }
    if report.container_id:
        result["containerID"] = f"process://{report.container_id}"
    return result


def _state(state: Waiting | Running | Exit, container_id: str) -> dict[str, Any]:
    if isinstance(state, Waiting):
        return {"waiting": {"reason": state.reason} | ({"message": state.message} if state.message else {})}
    if isinstance(state, Running):
        return {"running": {"startedAt": _seconds(state.started_at)}}
    terminated: dict[str, Any] = {
        "exitCode": state.exit_code,
        "reason": state.reason,
        "startedAt": _seconds(state.started_at),
        "finishedAt": _seconds(state.finished_at),
        "containerID": f"process://{container_id}",
    }
    if state.signal:
        terminated["signal"] = state.signal
    if state.message:
        terminated["message"] = state.message
    return {"terminated": terminated}


def timestamp(at: datetime) -> str:
    """As the API writes times: UTC, whole seconds."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _seconds(epoch: float) -> str:
    return timestamp(datetime.fromtimestamp(epoch, UTC))
