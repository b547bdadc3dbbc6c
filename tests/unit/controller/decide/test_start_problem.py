"""A Pod that can't start says why, in the words of whoever knows; one that takes its time says nothing."""

from typing import Any

import pytest

from controller.decide.start_problem import MAX_MESSAGE, StartProblem, start_problem


def pod(status: dict[str, Any], *, node: str | None = "n1") -> dict[str, Any]:
    return {"metadata": {"name": "p"}, "spec": {"nodeName": node} if node else {}, "status": status}


def waiting(reason: str, message: str = "", **container: Any) -> dict[str, Any]:
    return {"name": "worker-0", "state": {"waiting": {"reason": reason, "message": message}}, **container}


@pytest.mark.parametrize(
    "status",
    [
        {},
        {"phase": "Pending"},
        {"phase": "Pending", "containerStatuses": [waiting("PodInitializing"), waiting("ContainerCreating")]},
        {"phase": "Pending", "initContainerStatuses": [{"name": "slot-agent", "state": {"running": {}}}]},
        {"phase": "Running", "containerStatuses": [{"name": "worker-0", "state": {"running": {}}}]},
    ],
)
def test_a_pod_that_takes_its_time_has_no_problem(status: dict[str, Any]) -> None:
    assert start_problem(pod(status)) is None


def test_what_the_scheduler_says_is_said() -> None:
    condition = {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": "0/3 nodes are available: 3 Insufficient memory.",
    }
    status = {"phase": "Pending", "conditions": [condition]}
    wanted = StartProblem(reason="Unschedulable", message="0/3 nodes are available: 3 Insufficient memory.")
    assert start_problem(pod(status, node=None)) == wanted
    assert start_problem(pod(status)) is None, "it has a node now, and the condition is about to be written anew"
    assert start_problem(pod({"phase": "Pending"}, node=None)) is None, "no scheduler has looked at it yet"


@pytest.mark.parametrize(
    ("reason", "message"),
    [
        ("ErrImagePull", "pull access denied"),
        ("ImagePullBackOff", 'Back-off pulling image "x"'),
        ("CreateContainerConfigError", 'secret "cloud" not found'),
        ("RunContainerError", "exec: no such file"),
        ("InvalidImageName", ""),
    ],
)
def test_what_a_container_waits_for_is_said(reason: str, message: str) -> None:
    agent = {"name": "slot-agent", "state": {"running": {}}}
    status = {
        "phase": "Pending",
        "initContainerStatuses": [agent],
        "containerStatuses": [waiting("PodInitializing"), waiting(reason, message)],
    }
    wanted = StartProblem(reason=reason, message=f"container worker-0: {message or reason}")
    assert start_problem(pod(status)) == wanted


def test_a_container_that_ends_again_and_again_says_how_its_last_run_ended() -> None:
    last = {"terminated": {"exitCode": 127, "reason": "Error"}}
    status = {"containerStatuses": [waiting("CrashLoopBackOff", "back-off 20s restarting", lastState=last)]}
    found = start_problem(pod(status))
    assert found is not None
    assert found.message == "container worker-0: back-off 20s restarting; the last run ended with 127 (Error)"


def test_a_pod_that_its_node_refused_says_what_the_node_said() -> None:
    status = {"phase": "Failed", "reason": "OutOfcpu", "message": "Node didn't have enough resource: cpu"}
    assert start_problem(pod(status)) == StartProblem(
        reason="OutOfcpu", message="Node didn't have enough resource: cpu"
    )
    assert start_problem(pod({"phase": "Failed"})) == StartProblem(
        reason="PodEnded", message="it ended before it was opened"
    )


def test_a_long_message_is_cut_and_in_one_line() -> None:
    found = start_problem(pod({"containerStatuses": [waiting("ErrImagePull", "a\n b" * 500)]}))
    assert found is not None
    assert len(found.message) == MAX_MESSAGE
    assert "\n" not in found.message
    assert found.message.endswith("…")
