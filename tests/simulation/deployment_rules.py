"""What must hold of Pods that a Deployment makes: none works that its ReplicaSet may take, and none without protection.

The simulated store evaluates no admission policies. `admit` stands in for `podslots-pod-delete`, and only against the
ReplicaSet controller: the garbage collector is kept from Pods by their second owner alone.
"""

from typing import TYPE_CHECKING

from controller import names
from controller.kube.api import DEPLOYMENTS, PODS, Object
from controller.local.apiserver.errors import ApiError
from controller.local.apiserver.store.admission_request import DELETE, AdmissionRequest
from controller.local.apiserver.store.users import REPLICASET_CONTROLLER
from controller.local.apiserver.store.versions import Change, ChangeType

if TYPE_CHECKING:
    from tests.simulation.node import SimPod
    from tests.simulation.rules import Rules
    from tests.simulation.world import World

_TERMINAL = frozenset({"Failed", "Succeeded"})


class DeploymentRules:
    """`opened` is told of each agent that was opened, `object_changed` of each change of the API."""

    def __init__(self, world: "World", rules: "Rules") -> None:
        self._world = world
        self._rules = rules
        self._served: set[str] = set()
        """UIDs of the Pods that were opened once."""

    def object_changed(self, change: Change) -> None:
        """A Deployment may have been told to have fewer Pods."""
        if change.record.resource != "deployments.apps":
            return
        metadata, replicas = change.record.body["metadata"], change.record.body["spec"]["replicas"]
        text = f"deployment {metadata['name']} v{metadata['resourceVersion']} {change.type} {replicas} Pods"
        self._rules.note(f"{text}{' deleting' if 'deletionTimestamp' in metadata else ''}")
        before = change.previous.body["spec"]["replicas"] if change.previous is not None else replicas
        if change.type is ChangeType.DELETED or replicas >= before:
            return
        nodes, forced = self._world.node.pods, self._world.taken_by_force
        replica_uids = [pod["metadata"]["uid"] for pod in self._replicas(metadata["name"])]
        working = [nodes[uid].name for uid in replica_uids if uid not in forced and nodes[uid].busy() is not None]
        if len(working) > replicas:
            self._rules.breach(f"{metadata['name']} was lowered to {replicas} Pods while {working} work")

    def opened(self, pod: "SimPod") -> None:
        """An agent was opened just now: for the first time, or because its drain was taken back."""
        again = pod.uid in self._served
        self._served.add(pod.uid)
        found = self._world.cluster.find(PODS, pod.namespace, pod.name)
        if found is None or found["metadata"]["uid"] != pod.uid or pod.uid in self._world.taken_by_force:
            return
        metadata = found["metadata"]
        name = metadata["labels"].get(names.DEPLOYMENT_LABEL)
        if name is None:
            return
        if names.POD_FINALIZER not in (metadata.get("finalizers") or ()):
            self._rules.breach(f"{pod.name} of a ReplicaSet was opened without our finalizer")
        if "Secret" not in {owner["kind"] for owner in metadata.get("ownerReferences") or ()}:
            self._rules.breach(f"{pod.name} of a ReplicaSet was opened without a second owner")
        deployment = self._world.cluster.find(DEPLOYMENTS, pod.namespace, name)
        if not again or deployment is None or not _is_managed(found):
            return
        staying = [other for other in self._replicas(name) if _state(other) == "active"]
        if len(staying) > deployment["spec"]["replicas"]:
            self._rules.breach(f"{pod.name} was opened again while its Deployment was told to have fewer Pods")

    def admit(self, request: AdmissionRequest) -> tuple[str, ...]:
        """The policy `podslots-pod-delete` for the ReplicaSet controller: no active Pod is deleted."""
        old = request.old
        if request.operation != DELETE or request.user != REPLICASET_CONTROLLER or old is None:
            return ()
        if request.resource.key != "pods" or _state(old) != "active" or "deletionTimestamp" in old["metadata"]:
            return ()
        self._rules.note(f"the ReplicaSet is refused {request.name}")
        others = self._replicas(old["metadata"]["labels"].get(names.DEPLOYMENT_LABEL, ""))
        drained = [other["metadata"]["name"] for other in others if _state(other) == "draining" and _is_ready(other)]
        if _is_ready(old) and drained:
            self._rules.breach(f"a ReplicaSet would have {request.name}, which works, and {drained} are drained")
        raise ApiError(403, "Forbidden", f"Pod {request.name} is active")

    def _replicas(self, deployment: str) -> list[Object]:
        """The Pods that the ReplicaSet of a Deployment counts."""
        return [
            pod
            for pod in self._world.cluster.all(PODS)
            if (pod["metadata"].get("labels") or {}).get(names.DEPLOYMENT_LABEL) == deployment
            and _is_managed(pod)
            and "deletionTimestamp" not in pod["metadata"]
            and (pod.get("status") or {}).get("phase") not in _TERMINAL
        ]


def _state(pod: Object) -> str | None:
    state: str | None = (pod["metadata"].get("labels") or {}).get(names.STATE_LABEL)
    return state


def _is_managed(pod: Object) -> bool:
    return any(owner.get("controller") for owner in pod["metadata"].get("ownerReferences") or ())


def _is_ready(pod: Object) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)
