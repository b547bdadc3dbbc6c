"""What proves that a Pod's processes are over, and what only looks like it."""

from datetime import UTC, datetime
from typing import Any

import pytest

from controller import names
from controller.decide.death import death_proof, ended_unopened, was_drained
from controller.decide.observe import Report as AgentReport
from controller.decide.observe import agent_address, observe_pod

TERMINATED = {"state": {"terminated": {"exitCode": 0}}}
RUNNING = {"state": {"running": {}}, "containerID": "c://1"}
CRASHING = {"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": TERMINATED["state"], "restartCount": 3}
NEVER = {"state": {"waiting": {"reason": "PodInitializing"}}, "restartCount": 0}


def pod(
    phase: str = "Failed",
    *,
    worker: Any = TERMINATED,
    agent: Any = TERMINATED,
    install: Any = TERMINATED,
    debug: Any = None,
    state: str = "active",
    **metadata: Any,
) -> dict[str, Any]:
    """A Pod with a worker, an agent and an installer; None leaves a container's status out."""

    def statuses(**given: Any) -> list[dict[str, Any]]:
        return [{"name": name, **entry} for name, entry in given.items() if entry is not None]

    return {
        "metadata": {
            "name": "p",
            "namespace": "ns",
            "uid": "uid-p",
            "resourceVersion": "1",
            "creationTimestamp": "2026-03-01T12:00:00Z",
            "labels": {names.POOL_LABEL: "pool", names.STATE_LABEL: state},
            **metadata,
        },
        "spec": {
            "nodeName": "n",
            "containers": [{"name": "worker"}],
            "initContainers": [{"name": "install"}, {"name": "agent"}],
        },
        "status": {
            "phase": phase,
            "podIP": "10.0.0.1",
            "containerStatuses": statuses(worker=worker),
            "initContainerStatuses": statuses(install=install, agent=agent),
            "ephemeralContainerStatuses": statuses(debug=debug),
        },
    }


def node(*taints: str, **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": "n"}, "spec": {"taints": [{"key": key} for key in taints], **spec}}


@pytest.mark.parametrize("phase", ["Failed", "Succeeded"])
def test_a_terminal_phase_with_every_container_terminated_is_proof(phase: str) -> None:
    assert death_proof(pod(phase), node()) == "every container has terminated"


@pytest.mark.parametrize("phase", ["Running", "Pending", "Unknown", None])
def test_terminated_containers_alone_are_no_proof(phase: str | None) -> None:
    """They may be started again."""
    assert death_proof(pod(phase or ""), node()) is None


@pytest.mark.parametrize("container", ["worker", "agent", "install", "debug"])
@pytest.mark.parametrize("status", [RUNNING, CRASHING, {"state": {}}, {}])
def test_phase_failed_is_no_proof_while_any_container_may_run(container: str, status: Any) -> None:
    """T1: when a Node vanishes, the garbage collector writes Failed over containers that still run."""
    assert death_proof(pod(**{container: status}), None) is None


@pytest.mark.parametrize("container", ["worker", "agent", "install"])
def test_a_container_without_a_status_is_not_known_to_be_over(container: str) -> None:
    missing: Any = {container: None}
    assert death_proof(pod(**missing), None) is None
    assert death_proof({**pod(), "status": {"phase": "Failed"}}, None) is None
    assert death_proof({**pod(), "status": None}, None) is None


def test_a_container_that_never_started_is_over_with_its_pod() -> None:
    assert death_proof(pod(worker=NEVER), None) is not None


def test_a_vanished_node_is_no_proof() -> None:
    """D1: nor is one that is not ready, or cordoned."""
    for known in (None, node(), node("node.kubernetes.io/unreachable"), node(unschedulable=True)):
        assert death_proof(pod("Running", worker=RUNNING, agent=RUNNING), known) is None


def test_a_node_that_somebody_took_out_of_service_is_proof() -> None:
    """R7: a person, or what fences machines, says that it is off."""
    running = pod("Running", worker=RUNNING, agent=RUNNING)
    assert death_proof(running, node(names.OUT_OF_SERVICE_TAINT)) is not None


def test_a_persons_word_is_proof_for_this_very_pod() -> None:
    """R7: the annotation names the UID, so that a copied manifest does not forget another Pod."""
    running = pod("Running", worker=RUNNING, annotations={names.FORGET: "uid-p"})
    assert death_proof(running, None) is not None
    for other in ("uid-q", "", "true"):
        assert death_proof(pod("Running", worker=RUNNING, annotations={names.FORGET: other}), None) is None


def test_a_pod_that_its_node_refused_can_go_and_proves_nothing() -> None:
    """T27: a kubelet that admits no Pod writes phase and reason, and no container at all."""
    refused = {**pod(state="starting"), "status": {"phase": "Failed", "reason": "OutOfcpu"}}
    assert death_proof(refused, None) is None
    assert ended_unopened(refused) is not None
    assert ended_unopened({**refused, "status": {"phase": "Pending"}}) is None
    for state in ("active", "draining", ""):
        assert ended_unopened({**refused, **pod(state=state), "status": refused["status"]}) is None
    view = observe_pod(refused, None, AgentReport(), in_flight=None)
    assert view.dead
    assert not view.counts


def test_a_drain_that_held_to_the_end_is_told_by_the_last_label() -> None:
    assert was_drained(pod(state="draining"))
    assert not was_drained(pod(state="active"))
    assert not was_drained({"metadata": {"labels": None}})


def test_an_agent_is_followed_until_its_death_is_proven() -> None:
    """T25: under a phase Failed that was written from outside it may still have results to tell."""
    assert agent_address(pod("Failed", worker=RUNNING, agent=RUNNING), None) == "10.0.0.1"
    assert agent_address(pod("Failed"), None) is None
    assert agent_address(pod("Running", worker=RUNNING), node(names.OUT_OF_SERVICE_TAINT)) is None
    assert agent_address({**pod(), "status": {"phase": "Pending"}}, None) is None


def test_idle_time_starts_no_earlier_than_the_opening() -> None:
    """R2, B1: told by the Pod itself, so that the next leader knows it too."""
    opened = pod("Running", annotations={names.OPENED: "2026-03-01T13:00:00Z"})
    assert observe_pod(opened, None, AgentReport(), in_flight=None).opened == datetime(2026, 3, 1, 13, tzinfo=UTC)
    for nonsense in ("", "yesterday", "2026-03-01T13:00:00"):
        view = observe_pod(pod(annotations={names.OPENED: nonsense}), None, AgentReport(), in_flight=None)
        assert view.opened is None
