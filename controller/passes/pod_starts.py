"""Starting what was decided about Pods, Deployments and Evictions: which call carries out which action."""

import asyncio
import functools
from collections.abc import Callable
from datetime import datetime

from controller.act.eviction_answers import EvictionAnswers
from controller.act.pods import Pods
from controller.act.pools import Pools
from controller.act.turns import Urgency
from controller.act.work_queue import WorkQueue
from controller.decide.pods.deployment_mode import (
    DeploymentAction,
    DropDeployment,
    DropReplicaSet,
    MakeDeployment,
    MarkPod,
    PauseDeployment,
    ScaleDeployment,
    TakeBackMark,
)
from controller.decide.pods.eviction import Answer, Eviction
from controller.decide.pods.pod_actions import (
    CancelTask,
    CreatePods,
    DeleteDead,
    DeleteStarting,
    DrainPod,
    FinishDeletion,
    LetGo,
    OpenPod,
    PodAction,
    SetOwner,
    TakeBack,
)
from controller.decide.tasks.task_actions import (
    Cancel,
    cancelling,
)
from controller.decide.view import PodOperation, PodState, PodView, PoolView
from controller.errors import InvalidObject
from controller.kube.api import Object
from controller.objects.pool import PoolSpec
from controller.objects.task import Task
from controller.passes.starting import Start, Starting
from controller.passes.task_starts import TaskStarts
from controller.world.index import Key
from controller.world.world import World


class PodStarts:
    """Starts operations on a pool's Pods, at most one at a time for each Pod."""

    def __init__(
        self,
        starting: Starting,
        world: World,
        queue: WorkQueue[Key],
        *,
        pods: Pods,
        pools: Pools,
        answers: EvictionAnswers,
        task_starts: TaskStarts,
        now: Callable[[], datetime],
    ) -> None:
        self._starting = starting
        self._index = world.index
        self._following = world.following
        self._views = world.views
        self._under_way = world.under_way
        self._failures = world.start_failures
        self._queue = queue
        self._pods = pods
        self._pools = pools
        self._answers = answers
        self._task_starts = task_starts
        self._now = now

    def pod_action(self, key: Key, pool: Object, view: PoolView, action: PodAction) -> None:
        """What is to be done about the Pods of a pool."""
        match action:
            case CreatePods(count=count):
                self._create_some(key, pool, view, count)
            case OpenPod(pod=pod) | TakeBack(pod=pod):
                self._on_pod(key, pod, PodOperation.OPEN, functools.partial(self._open, key, pod))
            case DrainPod(pod=pod):
                self._on_pod(key, pod, PodOperation.REMOVE, functools.partial(self._drain_and_delete, key, pod))
            case DeleteStarting(pod=pod):
                self._on_pod(key, pod, PodOperation.REMOVE, functools.partial(self._delete_starting, key, pod))
            case DeleteDead(pod=pod, force=force):
                self._on_pod(key, pod, PodOperation.REMOVE, functools.partial(self._delete_dead, key, pod, force=force))
            case SetOwner(pod=pod, secret=uid):
                self._set_owner(key, pod, uid)
            case LetGo(pod=pod):
                self.let_go(key, pod)
            case CancelTask(task=task):
                self._cancel(key, task, view.spec)
            case FinishDeletion():
                self._finish_deletion(key, pool)

    def _finish_deletion(self, key: Key, pool: Object) -> None:
        if self._pools.can_finish(pool):
            self._starting.start(key, f"pool/{pool['metadata']['uid']}", functools.partial(self._pools.finish, pool))

    def replica_action(self, key: Key, action: MarkPod | TakeBackMark) -> None:
        """What is to be done about a Pod that a Deployment manages."""
        pod = action.pod
        if isinstance(action, TakeBackMark):
            self._on_pod(key, pod, PodOperation.OPEN, functools.partial(self._take_back, key, action))
        else:
            mark = self._mark_starting if action.starting else self._mark
            self._on_pod(key, pod, PodOperation.REMOVE, functools.partial(mark, key, pod))

    def _create_some(self, key: Key, pool: Object, view: PoolView, count: int) -> None:
        for _ in range(self.creatable(key, view, count)):
            self._create(key, pool, view.spec)

    def creatable(self, key: Key, view: PoolView, count: int) -> int:
        """How many Pods may be made now: after others of this template could not start, one, and after a pause."""
        template = (view.uid, view.template_hash or "")
        if self._failures.problem(template) is not None:
            if delay := self._failures.wait_seconds(template, asyncio.get_running_loop().time()):
                self._queue.add_after(key, delay)
                return 0
            tried = any(pod.state is PodState.STARTING and pod.counts and not pod.stuck for pod in view.pods)
            return 0 if tried or view.creating or not count else 1
        return count

    def deployment_action(self, key: Key, pool: Object, spec: PoolSpec, action: DeploymentAction) -> None:
        """What is to be done about the Deployments of a pool."""
        deployments, namespace = self._pools.deployments, key[0]
        match action:
            case MakeDeployment():
                self._make_deployment(key, pool, spec)
            case PauseDeployment(deployment=found):
                self._on_deployment(key, found.uid, functools.partial(deployments.pause, namespace, found))
            case ScaleDeployment(deployment=found, replicas=replicas, marked=marked):
                client = self._following.client
                start = functools.partial(deployments.scale, namespace, found, replicas, marked, client)
                self._on_deployment(key, found.uid, start)
            case DropDeployment(deployment=found):
                self._on_deployment(key, found.uid, functools.partial(deployments.drop, namespace, found))
            case DropReplicaSet(uid=uid, name=name):
                self._on_deployment(key, uid, functools.partial(deployments.drop_set, namespace, key[1], uid, name))

    def _on_deployment(self, key: Key, uid: str, start: Start) -> None:
        self._starting.start(key, f"deployment/{uid}", start)

    def _make_deployment(self, key: Key, pool: Object, spec: PoolSpec) -> None:
        backoff = f"create/{pool['metadata']['uid']}"
        try:
            pod = self._pools.new_pod(pool, spec)
        except InvalidObject:
            return  # it stands in the pool's conditions
        start = functools.partial(self._pools.make_deployment, pool, pod)
        self._starting.start(key, f"deployment/{pool['metadata']['uid']}", start, backoff=backoff)

    def _cancel(self, key: Key, task: Task, terms: PoolSpec) -> None:
        where = self._views.whereabouts(key, task)
        if where.pod is not None and not cancelling(task, where.pod):
            self._task_starts.task_action(key, task, where.pod, Cancel(), terms)

    def _set_owner(self, key: Key, pod: PodView, secret_uid: str) -> None:
        start = functools.partial(self._pools.set_owner, *key, pod, secret_uid)
        self._starting.start(key, f"pod/{pod.uid}", start)

    def let_go(self, key: Key, pod: PodView) -> None:
        """Take our finalizer off a Pod whose end is recorded."""
        start = functools.partial(self._pods.let_go, pod, key[0], self._index.reason_to_bury)
        self._starting.start(key, f"pod/{pod.uid}", start, urgency=Urgency.UPKEEP)

    def _create(self, key: Key, pool: Object, spec: PoolSpec) -> None:
        backoff = f"create/{pool['metadata']['uid']}"
        if delay := self._starting.held_back_seconds(backoff):
            self._queue.add_after(key, delay)
            return
        try:
            pod = self._pools.new_pod(pool, spec)
        except InvalidObject:
            return  # it stands in the pool's conditions
        name, creating = pod["metadata"]["name"], self._under_way.creating[key]
        create = functools.partial(self._pools.create_pod, pool, pod)
        if self._starting.start(
            key, f"{backoff}/{name}", create, backoff=backoff, ended=lambda: creating.discard(name)
        ):
            creating.add(name)

    def _on_pod(self, key: Key, pod: PodView, operation: PodOperation, start: Start) -> None:
        if self._starting.start(key, f"pod/{pod.uid}", start, ended=lambda: self._under_way.end(pod.uid)):
            self._under_way.begin(pod.uid, operation)

    async def _open(self, key: Key, pod: PodView) -> None:
        agent = self._following.client(pod.uid)
        if agent is not None:
            await self._pods.open(pod, key[0], agent, opened_at=self._now())
            if (pool := self._index.pools.get(*key)) is not None:
                self._failures.opened((pool["metadata"]["uid"], pod.template_hash))
            # The stream says it too, a moment later: until then the Pod would be opened again.
            self._following.fleet.note(pod.uid, await agent.state())

    async def _drain_and_delete(self, key: Key, pod: PodView) -> None:
        agent = self._following.client(pod.uid)
        if agent is not None and await self._pods.drain_and_delete(pod, key[0], agent):
            self._pools.removed(self._index.pools.get(*key), pod, "deleted after its agent granted the drain")

    async def _mark(self, key: Key, pod: PodView) -> None:
        agent = self._following.client(pod.uid)
        if agent is not None and await self._pods.mark(pod, key[0], agent):
            self._pools.removed(
                self._index.pools.get(*key), pod, "left to its ReplicaSet to delete, after its agent granted the drain"
            )

    async def _mark_starting(self, key: Key, pod: PodView) -> None:
        if await self._pods.mark_starting(pod, key[0]):
            self._pools.removed(
                self._index.pools.get(*key), pod, "left to its ReplicaSet to delete: it was never opened"
            )

    async def _take_back(self, key: Key, action: TakeBackMark) -> None:
        pod, deployments = action.pod, self._pools.deployments
        agent = self._following.client(pod.uid)
        if agent is not None and await deployments.take_back(
            key[0], action.deployment, pod, agent, needed=action.needed
        ):
            self._following.fleet.note(pod.uid, await agent.state())

    async def _delete_starting(self, key: Key, pod: PodView) -> None:
        if await self._pods.delete_starting(pod, key[0]):
            self._pools.removed(self._index.pools.get(*key), pod, "deleted before it was opened")

    async def _delete_dead(self, key: Key, pod: PodView, *, force: bool) -> None:
        if await self._pods.delete_dead(pod, key[0], self._index.reason_to_bury, force=force):
            self._pools.removed(self._index.pools.get(*key), pod, "deleted: it is provably dead")

    def answer_eviction(self, key: Key, eviction: Eviction, answer: Answer) -> None:
        """Say how it stands with a Pod that is asked for."""
        write = functools.partial(self._answers.write, eviction, answer)
        self._starting.start(key, f"eviction/{eviction.uid}", write, urgency=Urgency.UPKEEP)
