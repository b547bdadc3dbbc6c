"""What to do about a pool's Pods: actions, from a view and the size decided on.

Every action is safe to repeat and safe to be late: the shell reads the Pod live before it writes, and asks the agent
before it deletes. What is planned here only has to be right for the view.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta

from agent.wire import Phase
from controller.decide.scaling.removal import Removable
from controller.decide.scaling.size import SizeDecision
from controller.decide.view import PodOperation, PodState, PodView, PoolView
from controller.objects.pool import DeletionPolicy
from controller.objects.task import Task

_KUBELET_TIME = timedelta(seconds=30)
"""How long after a Pod's grace its kubelet is waited for, before what is provably dead is removed by force."""


@dataclass(frozen=True, slots=True)
class CreatePods:
    """Create this many Pods from the template."""

    count: int


@dataclass(frozen=True, slots=True)
class OpenPod:
    """Label the Pod `active`, then have its agent take work."""

    pod: PodView


@dataclass(frozen=True, slots=True)
class TakeBack:
    """Undo a drain: as OpenPod, of a Pod labelled `draining`."""

    pod: PodView


@dataclass(frozen=True, slots=True)
class DrainPod:
    """Ask the agent to drain; if it grants that, label the Pod `draining` and delete it. Goes on where it stopped."""

    pod: PodView


@dataclass(frozen=True, slots=True)
class DeleteStarting:
    """Delete a Pod that was never opened, by UID and resourceVersion."""

    pod: PodView


@dataclass(frozen=True, slots=True)
class DeleteDead:
    """Delete a Pod that is provably dead. `force`: it was deleted before, and no kubelet is left to finish that."""

    pod: PodView
    force: bool


@dataclass(frozen=True, slots=True)
class LetGo:
    """Take our finalizer off a Pod that is being deleted and provably dead: what became of its tasks is written."""

    pod: PodView


@dataclass(frozen=True, slots=True)
class SetOwner:
    """Make the pool's token Secret, which was made anew, the Pod's second owner.

    Without it the garbage collector takes the Pod, and what it holds, with its pool.
    """

    pod: PodView
    secret: str


@dataclass(frozen=True, slots=True)
class CancelTask:
    """Cancel a task of a pool that is deleted with `deletionPolicy: Force`."""

    task: Task


@dataclass(frozen=True, slots=True)
class FinishDeletion:
    """The pool has no Pods any more: remove its Secret and its budget, and the finalizers."""


PodAction = (
    SetOwner
    | CreatePods
    | OpenPod
    | TakeBack
    | DrainPod
    | DeleteStarting
    | DeleteDead
    | LetGo
    | CancelTask
    | FinishDeletion
)


def pod_actions(view: PoolView, decision: SizeDecision) -> tuple[PodAction, ...]:
    """The actions that lead from the view towards the decision."""
    actions: list[PodAction] = [*_owners(view)]
    removals = [*_removals(view, decision), *_outdated(view)]
    actions.extend(let_go(view.others, view.tasks, view.dispatching) if view.synced else ())
    actions.extend(_dead(view))
    actions.extend(removals)
    actions.extend(_opens(view, decision, removed(removals)))
    actions.extend(_unheld(view, removed(removals)))
    taken_back, drains = _draining(view, decision)
    actions.extend(taken_back)
    actions.extend(drains)
    if view.deleting:
        actions.extend(_deletion(view))
    elif (count := _creations(view, decision, len(taken_back))) > 0:
        actions.append(CreatePods(count))
    return tuple(actions)


def _owners(view: PoolView) -> list[SetOwner]:
    """Pods that another Secret owns, or none: the one of before was deleted."""
    secret = view.token_secret
    if secret is None:
        return []
    return [SetOwner(pod, secret) for pod in view.pods if pod.token_secret != secret and not pod.in_flight]


def removed(actions: "tuple[PodAction, ...] | list[DrainPod | DeleteStarting]") -> frozenset[str]:
    """UIDs of the Pods that these actions take away: nothing is to be assigned to them."""
    return frozenset(action.pod.uid for action in actions if isinstance(action, DrainPod | DeleteStarting))


def _removals(view: PoolView, decision: SizeDecision) -> list[DrainPod | DeleteStarting]:
    """Pods that somebody wants gone, and as many as the decision has too many, of those that lose nothing."""
    excess = decision.current - decision.desired - view.rollout.tolerated
    if not view.synced or (excess <= 0 and not any(pod.useless for pod in decision.basis.census.others)):
        return []
    candidates = decision.basis.removable
    surplus = max(0, excess - len(candidates.leaving) - candidates.pending)
    victims = _victims(candidates, surplus)
    return [DeleteStarting(pod) if pod.state is PodState.STARTING else DrainPod(pod) for pod in victims]


def _outdated(view: PoolView) -> list[DeleteStarting]:
    """Pods of another template that were never opened: what they may wait for in vain is mended in the new one."""
    if not view.synced or view.template_hash is None:
        return []
    return [
        DeleteStarting(pod)
        for pod in view.others
        if pod.state is PodState.STARTING
        and pod.counts
        and not pod.in_flight
        and not pod.leaving
        and pod.template_hash not in {"", view.template_hash}
    ]


def surplus(view: PoolView, decision: SizeDecision, leaving: frozenset[str]) -> frozenset[str]:
    """UIDs of the Pods that are more than there should be, those on their way out first: they get nothing new.

    The others are those that hold least, so that the size is reached as soon as what they hold is done.
    """
    going = len(leaving) - sum(pod.retiring and pod.uid in leaving for pod in view.others)
    excess = decision.current - decision.desired - view.rollout.tolerated - going
    if excess <= 0:
        return leaving
    order = sorted(
        (pod for pod in view.pods if pod.counts and not pod.retiring and pod.uid not in leaving),
        key=lambda pod: (pod.load.reserved, pod.load.running, pod.name),
    )
    return leaving | {pod.uid for pod in order[:excess]}


def let_go(pods: Iterable[PodView], tasks: Iterable[Task], dispatching: Mapping[str, str]) -> list[LetGo]:
    """Pods that somebody deleted, whose end is proven and recorded in every task that was there."""
    going = [pod for pod in pods if pod.tracked and pod.deleting and pod.dead and not pod.in_flight]
    if not going:
        return []
    needed = {task.status.pod_uid for task in tasks if task.placed} | set(dispatching.values())
    return [LetGo(pod) for pod in going if pod.uid not in needed]


def _victims(candidates: Removable, surplus: int) -> tuple[PodView, ...]:
    return candidates.retiring + candidates.leaving + (tuple(candidates.victims()[:surplus]) if surplus else ())


def _dead(view: PoolView) -> list[DeleteDead]:
    """Dead Pods whose end has been written into the status of every task that was there.

    Until then the Pod is the proof that the task is lost. If it was deleted already, its kubelet finishes that.
    """
    if not view.synced:
        return []
    needed = {task.status.pod_uid for task in view.tasks if task.placed} | set(view.dispatching.values())
    return [
        DeleteDead(pod, force=pod.deleting)
        for pod in view.others
        if pod.dead
        and not pod.in_flight
        and pod.uid not in needed
        and not _being_finished(view, pod)
        and not (pod.tracked and pod.deleting)
    ]


def _being_finished(view: PoolView, pod: PodView) -> bool:
    """Whether a kubelet may still finish the Pod's deletion by itself, as it does within moments."""
    return pod.gone_by is not None and view.now < pod.gone_by + _KUBELET_TIME


def _opens(view: PoolView, decision: SizeDecision, victims: frozenset[str]) -> list[OpenPod]:
    """Pods that can take work and do not yet: new ones, and those whose agent came back drained.

    New ones wait for the pool's budget, as nothing else refuses evictions of active Pods that run.
    """
    if view.deleting:
        return []
    return [
        OpenPod(pod)
        for pod in decision.basis.census.others
        if pod.state is not PodState.DRAINING
        and pod.in_flight is not PodOperation.OPEN
        and pod.uid not in victims
        and not (view.unguarded and pod.state is PodState.STARTING)
        and ready_to_open(view, pod)
    ]


def _unheld(view: PoolView, victims: frozenset[str]) -> list[OpenPod]:
    """Open Pods without our finalizer: somebody took it off, or an older controller opened them. It is put back."""
    return [
        OpenPod(pod)
        for pod in view.pods
        if not pod.tracked
        and pod.state is PodState.ACTIVE
        and pod.in_flight is None
        and pod.alive
        and pod.connected
        and pod.agent is not None
        and pod.agent.phase is Phase.OPEN
        and pod.uid not in victims
    ]


def ready_to_open(view: PoolView, pod: PodView) -> bool:
    """Whether work given to the Pod would run: it runs, its agent is heard, and so is every slot's worker (T6).

    Without workers the workload itself comes for slots, and needs no waiting for.
    """
    agent = pod.agent
    if not (pod.running and pod.connected) or pod.leaving or agent is None:
        return False
    if agent.phase is not Phase.DRAINED or agent.closing or pod.agent_too_old:
        return False
    return not view.spec.has_workers or all(slot.worker is not None and slot.worker.connected for slot in agent.slots)


def _draining(view: PoolView, decision: SizeDecision) -> tuple[list[TakeBack], list[DrainPod]]:
    """Drains under way: taken back if something came in between or the size wants the Pod again, else gone on with."""
    missing = 0 if view.deleting else decision.desired - decision.current
    back: list[TakeBack] = []
    on: list[DrainPod] = []
    for pod in view.others:
        if pod.state is not PodState.DRAINING or pod.in_flight or not (pod.alive and pod.connected):
            continue
        if pod.idle_since is None:
            # It holds something after all (a journal was lost, a label was edited by hand): it is to be protected
            # as any other, and gives its slots back first.
            back.append(TakeBack(pod))
            missing -= 1
        elif missing > 0 and not pod.useless:
            back.append(TakeBack(pod))
            missing -= 1
        elif view.synced:
            on.append(DrainPod(pod))
    return back, on


def _creations(view: PoolView, decision: SizeDecision, taken_back: int) -> int:
    """How many Pods are missing. Those on their way out still take up room below maxReplicas.

    While Pods are replaced, all together may exceed the size by maxSurge, and maxReplicas too, as those of a Deployment
    may exceed what its autoscaler says.
    """
    missing = decision.desired - decision.current
    if view.rollout.extra:
        missing = max(0, missing) + view.rollout.extra
    missing -= taken_back
    scaler, surge = view.spec.scaler, view.rollout.max_surge
    if missing <= 0 or (scaler is None and surge is None):
        return missing
    alive = view.creating + sum(len(pods) for _, pods in view.serving) + sum(pod.alive for pod in view.others)
    if surge is not None:
        missing = min(missing, decision.desired + surge - alive)
    if scaler is not None:
        missing = min(missing, scaler.max_replicas + (surge or 0) - alive)
    return missing


def _deletion(view: PoolView) -> list[CancelTask | FinishDeletion]:
    if view.synced and not view.pods and not view.creating and not view.deployments:
        return [FinishDeletion()]
    if view.spec.deletion_policy is not DeletionPolicy.FORCE:
        return []
    return [CancelTask(task) for task in view.tasks if task.placed and not task.spec.cancel]
