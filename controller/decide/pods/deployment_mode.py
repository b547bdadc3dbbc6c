"""What a pool's Deployments are to be, and which of what is planned for Pods goes by way of them.

In Deployment mode the same size decision, rollout and order of removal hold as otherwise: `pod_actions` decides. Here
its actions are turned into what a ReplicaSet does:

- Pods are made by a larger number of replicas of the Deployment that has the present template;
- a Pod is drained as ever, but not deleted: it is *marked*, by its label and as cheapest to delete. Then the number of
  replicas is lowered to those that are not marked, and never further;
- no Pod is opened before it has its second owner, and with its opening it gets the finalizer.

Deployments of other templates only shrink. One that is not as it was made (its ReplicaSet deleted, a second one there,
itself being deleted) is let go of: its Pods have a second owner, so they stay without a manager, and are the
controller's own from then on.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from agent.wire import Phase
from controller import names
from controller.decide.pods.pod_actions import (
    CreatePods,
    DeleteStarting,
    DrainPod,
    OpenPod,
    PodAction,
    TakeBack,
)
from controller.decide.problem import Problem
from controller.decide.scaling.size import SizeDecision
from controller.decide.view import DeploymentView, PodState, PodView, PoolView
from controller.objects.deployment import REVISION, is_made_by_us
from controller.objects.pool import Mode

Object = dict[str, Any]

FAILED_DELETE = "FailedDelete"
"""The reason of Kubernetes where a ReplicaSet is refused a deletion."""


@dataclass(frozen=True, slots=True)
class MarkPod:
    """Drain a Pod, or take one that was never opened, and mark it as the first to go. `starting`: the latter."""

    pod: PodView
    starting: bool


@dataclass(frozen=True, slots=True)
class TakeBackMark:
    """Undo a drain. The Pod's label does not matter.

    `needed`: the Pod holds something after all, so it is to be kept even if its Deployment was told to have fewer.
    """

    pod: PodView
    deployment: DeploymentView
    needed: bool


@dataclass(frozen=True, slots=True)
class MakeDeployment:
    """Make one for the present template."""


@dataclass(frozen=True, slots=True)
class PauseDeployment:
    """It has its ReplicaSet: from now on no template that somebody writes into it replaces Pods."""

    deployment: DeploymentView


@dataclass(frozen=True, slots=True)
class ScaleDeployment:
    """Give it this many replicas, but no fewer than it has Pods that are not marked, or whose drain does not hold."""

    deployment: DeploymentView
    replicas: int
    marked: tuple[PodView, ...]


@dataclass(frozen=True, slots=True)
class DropDeployment:
    """Delete it. The Pods it may have stay, for they have a second owner; those that were never opened go."""

    deployment: DeploymentView


@dataclass(frozen=True, slots=True)
class DropReplicaSet:
    """Delete a ReplicaSet that nobody scales any more, in the same way."""

    uid: str
    name: str


DeploymentAction = (
    MarkPod | TakeBackMark | MakeDeployment | PauseDeployment | ScaleDeployment | DropDeployment | DropReplicaSet
)


def observe_deployments(
    deployments: Iterable[Object], replica_sets: Iterable[Object], pool_uid: str
) -> tuple[tuple[DeploymentView, ...], tuple[tuple[str, str], ...]]:
    """The pool's Deployments from the objects, the oldest first; and the ReplicaSets that have none."""
    sets: dict[str, list[tuple[str, str]]] = {}
    for obj in replica_sets:
        metadata = obj["metadata"]
        if "deletionTimestamp" not in metadata:
            sets.setdefault(_controller(metadata), []).append((metadata["uid"], metadata["name"]))
    found = []
    for obj in sorted(deployments, key=lambda obj: (obj["metadata"]["creationTimestamp"], obj["metadata"]["name"])):
        metadata, spec = obj["metadata"], obj.get("spec") or {}
        own = tuple(sets.pop(metadata["uid"], ()))
        owner = _controller(metadata)
        if owner != pool_uid and (owner or not is_made_by_us(obj)):
            continue  # an earlier pool's, which the garbage collector takes; or somebody else's with our label
        annotations = metadata.get("annotations") or {}
        found.append(
            DeploymentView(
                name=metadata["name"],
                uid=metadata["uid"],
                # One that was made nobody's, as by `kubectl delete --cascade=orphan`, is not gone on with.
                template_hash=annotations.get(names.TEMPLATE_HASH, "") if owner else "",
                replicas=spec.get("replicas", 1),
                known=REVISION in annotations,
                paused=bool(spec.get("paused")),
                deleting="deletionTimestamp" in metadata,
                replica_sets=own,
                failure=_failure(obj),
            )
        )
    return tuple(found), tuple(sorted(orphan for own in sets.values() for orphan in own))


def _controller(metadata: Object) -> str:
    owners = metadata.get("ownerReferences") or ()
    return next((owner["uid"] for owner in owners if owner.get("controller")), "")


def _failure(obj: Object) -> tuple[str, str] | None:
    for condition in (obj.get("status") or {}).get("conditions") or ():
        if condition.get("type") == "ReplicaFailure" and condition.get("status") == "True":
            return condition.get("reason") or "", condition.get("message") or ""
    return None


def present(view: PoolView) -> DeploymentView | None:
    """The Deployment that new Pods come from, if it is there."""
    if view.spec.mode is not Mode.DEPLOYMENT or view.deleting:
        return None
    same = (d for d in view.deployments if d.template_hash == view.template_hash and d.sound)
    return next(same, None)


def to_come(view: PoolView) -> int:
    """Pods that the present Deployment was told to have, and that are not there yet."""
    deployment = present(view)
    return max(0, deployment.replicas - len(replicas_of(view, deployment))) if deployment is not None else 0


def replicas_of(view: PoolView, deployment: DeploymentView) -> list[PodView]:
    """The Pods that its ReplicaSet counts."""
    return [pod for pod in view.pods if pod.deployment == deployment.name and is_replica(pod)]


def is_replica(pod: PodView) -> bool:
    """Whether a ReplicaSet counts the Pod."""
    return bool(pod.replica_set) and not pod.deleting and not pod.ended


def replica_problem(view: PoolView) -> Problem | None:
    """Why the present Deployment's ReplicaSet can make no Pod."""
    deployment = present(view)
    if deployment is None or deployment.failure is None or deployment.failure[0] == FAILED_DELETE:
        return None
    reason, message = deployment.failure
    return Problem(reason="QuotaExceeded" if "exceeded quota" in message else reason or "FailedCreate", message=message)


def for_pods(view: PoolView, decided: Sequence[PodAction]) -> tuple[PodAction | MarkPod | TakeBackMark, ...]:
    """What was decided about Pods, where some belong to Deployments. How many are made is `for_deployments`' part."""
    managers = {deployment.name: deployment for deployment in view.deployments}
    found: list[PodAction | MarkPod | TakeBackMark] = []
    for action in decided:
        if isinstance(action, CreatePods) and view.spec.mode is Mode.DEPLOYMENT:
            continue
        if not isinstance(action, DrainPod | DeleteStarting | TakeBack | OpenPod) or not action.pod.deployment:
            found.append(action)
        elif isinstance(action, OpenPod):
            manager = managers.get(action.pod.deployment)
            if _may_open(view, manager, action.pod):
                found.append(_opening(manager, action))
        elif not action.pod.replica_set:
            found.append(action)
        elif (manager := managers.get(action.pod.deployment)) is not None and manager.sound:
            found += _managed(view, manager, action)
    return tuple(found)


def _may_open(view: PoolView, manager: DeploymentView | None, pod: PodView) -> bool:
    """Whether a Pod outlives what manages it; and, if it served before, is not told to go: its size is raised first."""
    if pod.token_secret is None or pod.token_secret != view.token_secret:
        return False
    told_to_go = manager is not None and len(replicas_of(view, manager)) > manager.replicas
    return pod.state is PodState.STARTING or not (pod.replica_set and told_to_go)


def _opening(manager: DeploymentView | None, action: OpenPod) -> OpenPod | TakeBackMark:
    """How a Pod is opened: one that served before, and is drained, as one whose drain is taken back.

    Somebody may have labelled it active just now, while a write of a smaller size is on its way. That write must fail,
    so the Deployment's resourceVersion has to change.
    """
    pod = action.pod
    drained = pod.state is not PodState.STARTING and pod.agent is not None and pod.agent.phase is Phase.DRAINED
    if drained and pod.replica_set and manager is not None and manager.sound:
        return TakeBackMark(pod, manager, needed=pod.idle_since is None)
    return action


def _managed(
    view: PoolView, manager: DeploymentView, action: DrainPod | DeleteStarting | TakeBack
) -> list[PodAction | MarkPod | TakeBackMark]:
    pod = action.pod
    going = len(replicas_of(view, manager)) > manager.replicas
    match action:
        case TakeBack() if pod.idle_since is None:
            return [TakeBackMark(pod, manager, needed=True)]
        case TakeBack():
            # The ReplicaSet may delete it at any moment: another one is made instead.
            return [] if going else [TakeBackMark(pod, manager, needed=False)]
        case DeleteStarting():
            return [MarkPod(pod, starting=True)]
        case DrainPod() if pod.state is not PodState.DRAINING:
            return [MarkPod(pod, starting=False)]
        case DrainPod():
            # It has been told to go. Where the ReplicaSet insists on another one, which works, this one is deleted.
            held_up = going and manager.failure is not None and manager.failure[0] == FAILED_DELETE
            return [action] if held_up else []


def for_deployments(view: PoolView, decision: SizeDecision, wanted: int) -> tuple[DeploymentAction, ...]:
    """What to do about the pool's Deployments, so that `wanted` more Pods come than are there or on their way."""
    if not view.synced:
        return ()
    now = present(view)
    actions: list[DeploymentAction] = [DropReplicaSet(*orphan) for orphan in view.orphaned_sets]
    for deployment in view.deployments:
        actions += _one(view, deployment, _coming(view, decision, wanted) if deployment is now else None)
    if now is None and wanted > 0 and view.spec.mode is Mode.DEPLOYMENT and view.template_hash is not None:
        actions.append(MakeDeployment())
    return tuple(actions)


def _coming(view: PoolView, decision: SizeDecision, wanted: int) -> int:
    """How many Pods that are not there the present Deployment is to make. Those not made yet are the first given up."""
    surplus = max(0, decision.current - decision.desired - view.rollout.tolerated)
    return max(0, to_come(view) + wanted - surplus)


def _one(view: PoolView, deployment: DeploymentView, coming: int | None) -> list[DeploymentAction]:
    """`coming`: the Pods it is to make, None for one of another template or that nothing comes from any more."""
    if deployment.deleting:
        return [DropReplicaSet(*replica_set) for replica_set in deployment.replica_sets]
    replicas = replicas_of(view, deployment)
    if not deployment.sound or (coming is None and not replicas and not deployment.replicas):
        return [DropDeployment(deployment)]
    if not deployment.known:
        return []
    if not deployment.paused:
        return [PauseDeployment(deployment)]
    marked = tuple(pod for pod in replicas if pod.state is PodState.DRAINING)
    size = len(replicas) - len(marked) + (coming or 0)
    return [ScaleDeployment(deployment, size, marked)] if size != deployment.replicas else []
