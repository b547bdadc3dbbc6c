"""A Pod's status from the states of its containers."""

from datetime import UTC, datetime
from typing import Any

import pytest

from controller.local.node.pods.containers import Exit
from controller.local.node.pods.pod_spec import ContainerSpec, PodSpec, Role
from controller.local.node.pods.pod_status import ContainerReport, PodReport, Running, Waiting, status

NOW = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)
WAITING = Waiting("ContainerCreating")
RUNNING = Running(NOW.timestamp())


def exited(code: int) -> Exit:
    return Exit(code, 0, NOW.timestamp() - 5, NOW.timestamp(), "Completed" if code == 0 else "Error")


def container(
    role: Role, state: Waiting | Running | Exit, *, ready: bool | None = None, started: bool | None = None
) -> ContainerReport:
    runs = isinstance(state, Running)
    ends_well = isinstance(state, Exit) and state.exit_code == 0
    return ContainerReport(
        spec=ContainerSpec(role.value, role),
        state=state,
        container_id="" if isinstance(state, Waiting) else "abc",
        started=runs if started is None else started,
        ready=(ends_well if role is Role.INIT else runs) if ready is None else ready,
        ran=not isinstance(state, Waiting),
    )


def shown(
    *containers: ContainerReport,
    over: bool = False,
    previous: dict[str, Any] | None = None,
    gates: tuple[str, ...] = (),
) -> dict[str, Any]:
    spec = PodSpec("uid", "ns", "pod", tuple(c.spec for c in containers), readiness_gates=gates)
    report = PodReport(spec, containers, "127.1.1.1", "127.1.1.2", "2026-05-01T12:00:00Z", over)
    return status(report, previous or {}, NOW)


def conditions(result: dict[str, Any]) -> dict[str, str]:
    return {condition["type"]: condition["status"] for condition in result["conditions"]}


INIT, SIDECAR, MAIN = Role.INIT, Role.SIDECAR, Role.MAIN


@pytest.mark.parametrize(
    ("containers", "over", "phase"),
    [
        ([container(INIT, RUNNING), container(MAIN, WAITING)], False, "Pending"),
        ([container(INIT, exited(0)), container(MAIN, WAITING)], False, "Pending"),
        ([container(SIDECAR, RUNNING), container(MAIN, WAITING)], False, "Pending"),
        ([container(SIDECAR, RUNNING, started=False), container(MAIN, RUNNING)], False, "Running"),
        ([container(MAIN, RUNNING)], False, "Running"),
        ([container(MAIN, RUNNING), container(MAIN, WAITING)], False, "Pending"),
        ([container(MAIN, exited(1))], False, "Running"),
        ([container(SIDECAR, RUNNING), container(MAIN, exited(0))], False, "Running"),
        ([container(SIDECAR, exited(143)), container(MAIN, exited(0))], True, "Succeeded"),
        ([container(MAIN, exited(0)), container(MAIN, exited(1))], True, "Failed"),
        ([container(INIT, exited(1)), container(MAIN, WAITING)], True, "Failed"),
        ([container(MAIN, WAITING)], True, "Failed"),
    ],
)
def test_the_phase_follows_the_containers_and_is_terminal_only_when_the_pod_is_over(
    containers: list[ContainerReport], over: bool, phase: str
) -> None:
    assert shown(*containers, over=over)["phase"] == phase


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_a_terminal_phase_never_changes(phase: str) -> None:
    """T23: a late report does not overwrite a final state."""
    assert shown(container(MAIN, RUNNING), previous={"phase": phase})["phase"] == phase


def test_a_pod_is_ready_when_sidecars_and_main_containers_are() -> None:
    ready = shown(container(INIT, exited(0)), container(SIDECAR, RUNNING), container(MAIN, RUNNING))
    assert conditions(ready) == {
        "PodReadyToStartContainers": "True",
        "Initialized": "True",
        "Ready": "True",
        "ContainersReady": "True",
        "PodScheduled": "True",
    }
    unready = shown(container(SIDECAR, RUNNING, ready=False), container(MAIN, RUNNING))
    assert conditions(unready)["Ready"] == "False"
    [condition] = [c for c in unready["conditions"] if c["type"] == "Ready"]
    assert condition["message"] == "containers with unready status: [sidecar]"


def test_a_readiness_gate_holds_ready_back_but_not_containers_ready() -> None:
    gate = {"type": "example.com/gate", "status": "False"}
    held = shown(container(MAIN, RUNNING), gates=("example.com/gate",), previous={"conditions": [gate]})
    assert conditions(held)["ContainersReady"] == "True"
    assert conditions(held)["Ready"] == "False"
    opened = {"conditions": [gate | {"status": "True"}]}
    assert conditions(shown(container(MAIN, RUNNING), gates=("example.com/gate",), previous=opened))["Ready"] == "True"


def test_initialized_stays_true_when_a_sidecar_restarts_later() -> None:
    restarted = shown(container(SIDECAR, RUNNING, started=False), container(MAIN, RUNNING))
    assert conditions(restarted)["Initialized"] == "True"


def test_transition_times_and_others_conditions_are_kept() -> None:
    before = "2026-01-01T00:00:00Z"
    previous = {
        "conditions": [
            {"type": "DisruptionTarget", "status": "True", "lastTransitionTime": before},
            {"type": "Ready", "status": "True", "lastTransitionTime": before},
            {"type": "ContainersReady", "status": "False", "lastTransitionTime": before},
        ]
    }
    result = {c["type"]: c for c in shown(container(MAIN, RUNNING), previous=previous)["conditions"]}
    assert result["DisruptionTarget"]["lastTransitionTime"] == before
    assert result["Ready"]["lastTransitionTime"] == before
    assert result["ContainersReady"]["lastTransitionTime"] == "2026-05-01T12:00:00Z"


def test_a_terminated_container_shows_its_exit() -> None:
    ended = Exit(137, 9, NOW.timestamp() - 5, NOW.timestamp(), "Error")
    [shown_container] = shown(container(MAIN, ended))["containerStatuses"]
    assert shown_container["state"]["terminated"] == {
        "exitCode": 137,
        "signal": 9,
        "reason": "Error",
        "startedAt": "2026-05-01T11:59:55Z",
        "finishedAt": "2026-05-01T12:00:00Z",
        "containerID": "process://abc",
    }
