"""What is kept of a Pod says the same as the whole to all who decide, and takes little room."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from controller.decide.death import death_proof, ended_unopened
from controller.decide.observe import Report, agent_address, observe_pod
from controller.decide.start_problem import start_problem
from controller.kube.trimming import trim_pod
from controller.names import POOL_LABEL, STATE_LABEL

Object = dict[str, Any]

RUNNING: Object = {"running": {"startedAt": "2026-03-01T10:00:00Z"}}
ENDED: Object = {"terminated": {"exitCode": 137, "reason": "OOMKilled", "finishedAt": "2026-03-01T10:00:00Z"}}
WAITING: Object = {"waiting": {"reason": "ErrImagePull", "message": "no such image"}}
NAMES = {"initContainerStatuses": ["install", "slot-agent"], "containerStatuses": ["worker-0", "worker-1"]}


def pod(name: str, state: str = "active", **status: Any) -> Object:
    metadata: Object = {
        "name": name,
        "namespace": "ns",
        "uid": f"uid-{name}",
        "resourceVersion": "5",
        "creationTimestamp": "2026-03-01T10:00:00Z",
        "labels": {POOL_LABEL: "p", STATE_LABEL: state},
        "finalizers": ["podslots.dev/pod"],
    }
    spec = {
        "nodeName": "n",
        "initContainers": [{"name": each, "image": "a:1"} for each in NAMES["initContainerStatuses"]],
        "containers": [{"name": each, "image": "i"} for each in NAMES["containerStatuses"]],
    }
    return {"metadata": metadata, "spec": spec, "status": status}


containers = st.fixed_dictionaries(
    {
        "state": st.sampled_from((RUNNING, ENDED, WAITING, {})),
        "lastState": st.sampled_from(({}, ENDED)),
        "containerID": st.sampled_from(("", "containerd://1")),
        "restartCount": st.integers(0, 1),
        "image": st.just("i"),
    }
)
conditions = st.fixed_dictionaries(
    {
        "type": st.sampled_from(("Ready", "PodScheduled")),
        "status": st.sampled_from(("True", "False")),
        "lastTransitionTime": st.just("2026-03-01T10:00:00Z"),
    },
    optional={"reason": st.just("Unschedulable"), "message": st.just("no room")},
)


@st.composite
def pods(draw: st.DrawFn) -> Object:
    status: Object = {"phase": draw(st.sampled_from(("Pending", "Running", "Failed", "Succeeded")))}
    status["conditions"] = draw(st.lists(conditions, max_size=2))
    for field, listed in NAMES.items():
        if draw(st.booleans()):
            status[field] = [{"name": name, **draw(containers)} for name in listed]
    if draw(st.booleans()):
        status |= {"reason": "Evicted", "message": "the node was low on memory"}
    if draw(st.booleans()):
        status["podIP"] = "10.0.0.1"
    made = pod("a", draw(st.sampled_from(("starting", "active"))), **status)
    if draw(st.booleans()):
        del made["spec"]["nodeName"]
    return made


@given(pods())
def test_a_trimmed_pod_says_the_same_to_all_who_decide(whole: Object) -> None:
    trimmed = trim_pod(whole)
    assert death_proof(trimmed, None) == death_proof(whole, None)
    assert ended_unopened(trimmed) == ended_unopened(whole)
    assert start_problem(trimmed) == start_problem(whole)
    assert agent_address(trimmed, None) == agent_address(whole, None)
    views = (observe_pod(each, None, Report(), in_flight=None, pool_uid="other") for each in (trimmed, whole))
    assert next(views) == next(views)


def test_pods_that_run_alike_share_what_is_kept_of_them() -> None:
    def running(name: str, address: str, started: str) -> Object:
        statuses: dict[str, Any] = {
            field: [
                {"name": each, "state": {"running": {"startedAt": started}}, "containerID": name} for each in listed
            ]
            for field, listed in NAMES.items()
        }
        return trim_pod(pod(name, phase="Running", podIP=address, **statuses))

    one, other = running("a", "10.0.0.1", "2026-03-01T10:00:00Z"), running("b", "10.0.0.2", "2026-03-01T11:00:00Z")
    for part in ("spec", "status"):
        for field, value in one[part].items():
            assert value is other[part][field] or field == "podIP"
    assert one["metadata"]["labels"] is other["metadata"]["labels"]
    assert (one["status"]["podIP"], other["status"]["podIP"]) == ("10.0.0.1", "10.0.0.2")


def test_a_trimmed_pod_keeps_what_is_read_of_it() -> None:
    whole = pod("a")
    whole["metadata"]["managedFields"] = [{"manager": "x"}]
    whole["metadata"]["annotations"] = {"kubectl.kubernetes.io/last-applied-configuration": "{}", "kept": "1"}
    whole["spec"] = {
        "nodeName": "n",
        "volumes": [{"name": "v"}],
        "containers": [{"name": "worker-0", "image": "i", "env": [{"name": "A", "value": "b"}]}],
        "initContainers": [{"name": "slot-agent", "restartPolicy": "Always", "args": ["serve"]}],
    }
    trimmed = trim_pod(whole)
    assert trimmed["spec"] == {
        "nodeName": "n",
        "containers": [{"name": "worker-0", "image": "i"}],
        "initContainers": [{"name": "slot-agent", "restartPolicy": "Always"}],
    }
    assert trimmed["metadata"]["annotations"] == {"kept": "1"}
    assert "managedFields" not in trimmed["metadata"]
    assert whole["spec"]["volumes"], "the object that was given is not changed"
