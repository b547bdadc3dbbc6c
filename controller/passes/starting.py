"""Starting what was decided: each action becomes an operation, at most one at a time for each Pod and each task.

The end of an operation wakes its pool. What it has changed wakes the pool by itself, through the caches and the agents'
streams; so an end that changed nothing can wait a moment, and never becomes a loop without a pause.
"""

import asyncio
import functools
from collections import Counter
from collections.abc import Callable, Coroutine
from datetime import datetime

from controller.act.eviction_answers import EvictionAnswers
from controller.act.operations import Operations
from controller.act.pods import Pods
from controller.act.pools import Pools
from controller.act.tasks import Tasks
from controller.act.turns import Urgency
from controller.act.work_queue import WorkQueue
from controller.agents.client import AgentClient
from controller.decide.deployment_mode import (
    DeploymentAction,
    DropDeployment,
    DropReplicaSet,
    MakeDeployment,
    MarkPod,
    PauseDeployment,
    ScaleDeployment,
    TakeBackMark,
)
from controller.decide.eviction import Answer, Eviction
from controller.decide.pod_actions import (
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
from controller.decide.task_actions import (
    Ack,
    Acquire,
    AddFinalizer,
    Approve,
    Assign,
    Cancel,
    DeleteTask,
    EndAction,
    Finish,
    Follow,
    GiveUpLock,
    RejectApproval,
    ReleaseLock,
    RemoveFinalizer,
    Retry,
    TaskAction,
    cancelling,
)
from controller.decide.view import PodOperation, PodState, PodView, PoolView
from controller.errors import InvalidObject
from controller.kube.api import Object
from controller.objects.ended_task import EndedTask
from controller.objects.pool import PoolSpec
from controller.objects.task import Task
from controller.world.index import Key
from controller.world.world import World

OPERATION_KINDS = (
    "pool",
    "budget",
    "status",
    "create",
    "pod",
    "task",
    "orphan",
    "tokens",
    "history",
    "eviction",
    "deployment",
)
"""What stands before the first slash of an operation's key."""

AGAIN_SECONDS = 0.1
"""How long after an operation's end its pool is looked at, if nothing that it changed has woken it before."""

MOST_WORDS = 4
"""How many writes about waiting may be under way at once, for each pool."""

Start = Callable[[], Coroutine[None, None, None]]


class Starting:
    """Knows which call carries out which action."""

    def __init__(
        self,
        world: World,
        queue: WorkQueue[Key],
        operations: Operations,
        *,
        pods: Pods,
        tasks: Tasks,
        pools: Pools,
        answers: EvictionAnswers,
        now: Callable[[], datetime],
    ) -> None:
        self._index = world.index
        self._following = world.following
        self._views = world.views
        self._under_way = world.under_way
        self._failures = world.start_failures
        self._queue = queue
        self._operations = operations
        self._pods = pods
        self._tasks = tasks
        self._pools = pools
        self._answers = answers
        self._now = now
        self._words: Counter[Key] = Counter()

    def start(
        self,
        key: Key,
        name: str,
        operation: Start,
        *,
        again_seconds: float = AGAIN_SECONDS,
        backoff: str = "",
        ended: Callable[[], object] | None = None,
        urgency: Urgency = Urgency.WORK,
    ) -> bool:
        """Start an operation whose end wakes the pool, and tell whether it was started.

        `ended` is called first, however it ended. Operations that share a `backoff` are held back together.
        """
        started = False

        def finished(delay_seconds: float) -> None:
            if started and ended is not None:
                ended()
            self._queue.add_after(key, max(delay_seconds, again_seconds))

        started = self._operations.start(name, operation, finished, backoff=backoff, urgency=urgency)
        return started

    # --- Pods ---------------------------------------------------------------------------------------------------------

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
                self.start(key, f"pool/{view.uid}", functools.partial(self._pools.finish, pool))

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
        self.start(key, f"deployment/{uid}", start)

    def _make_deployment(self, key: Key, pool: Object, spec: PoolSpec) -> None:
        backoff = f"create/{pool['metadata']['uid']}"
        try:
            pod = self._pools.new_pod(pool, spec)
        except InvalidObject:
            return  # it stands in the pool's conditions
        start = functools.partial(self._pools.make_deployment, pool, pod)
        self.start(key, f"deployment/{pool['metadata']['uid']}", start, backoff=backoff)

    def _cancel(self, key: Key, task: Task, terms: PoolSpec) -> None:
        where = self._views.whereabouts(key, task)
        if where.pod is not None and not cancelling(task, where.pod):
            self.task_action(key, task, where.pod, Cancel(), terms)

    def _set_owner(self, key: Key, pod: PodView, secret_uid: str) -> None:
        start = functools.partial(self._pools.set_owner, *key, pod, secret_uid)
        self.start(key, f"pod/{pod.uid}", start)

    def let_go(self, key: Key, pod: PodView) -> None:
        """Take our finalizer off a Pod whose end is recorded."""
        start = functools.partial(self._pods.let_go, pod, key[0], self._index.reason_to_bury)
        self.start(key, f"pod/{pod.uid}", start, urgency=Urgency.UPKEEP)

    def _create(self, key: Key, pool: Object, spec: PoolSpec) -> None:
        backoff = f"create/{pool['metadata']['uid']}"
        if delay := self._operations.held_back_seconds(backoff):
            self._queue.add_after(key, delay)
            return
        try:
            pod = self._pools.new_pod(pool, spec)
        except InvalidObject:
            return  # it stands in the pool's conditions
        name, creating = pod["metadata"]["name"], self._under_way.creating[key]
        create = functools.partial(self._pools.create_pod, pool, pod)
        if self.start(key, f"{backoff}/{name}", create, backoff=backoff, ended=lambda: creating.discard(name)):
            creating.add(name)

    def _on_pod(self, key: Key, pod: PodView, operation: PodOperation, start: Start) -> None:
        if self.start(key, f"pod/{pod.uid}", start, ended=lambda: self._under_way.end(pod.uid)):
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
        self.start(key, f"eviction/{eviction.uid}", write, urgency=Urgency.UPKEEP)

    # --- tasks --------------------------------------------------------------------------------------------------------

    def say(self, key: Key, task: Task, word: Start) -> None:
        """Say on a task why it waits, or no longer does. A few at a time, and after all that somebody waits for."""
        if self._words[key] < MOST_WORDS and self.on_task(key, task, word, urgency=Urgency.WORDS):
            self._words[key] += 1

    def on_task(
        self,
        key: Key,
        task: Task | EndedTask,
        start: Start,
        *,
        dispatched_to: str | None = None,
        urgency: Urgency = Urgency.WORK,
    ) -> bool:
        """Start an operation on a task; `dispatched_to` is the UID of the Pod that it is given to."""

        def ended() -> None:
            if urgency is Urgency.WORDS:
                self._words[key] -= 1
                if not self._words[key]:
                    del self._words[key]
                return
            self._under_way.dispatched(task.uid)
            now = self._index.tasks.get(task.namespace, task.name)
            if now is None or now["metadata"]["resourceVersion"] != task.resource_version:
                # What it wrote has woken the pool, but maybe before it ended, and then nothing more was begun.
                self._queue.add(key)

        started = self.start(key, f"task/{task.uid}", start, ended=ended, urgency=urgency)
        if started and dispatched_to is not None:
            self._under_way.dispatch(task.uid, dispatched_to)
        return started

    def hold(self, key: Key, task: Task) -> None:
        """Have a task that waits held in the API until it has ended."""
        self.on_task(key, task, functools.partial(self._hold, task), urgency=Urgency.UPKEEP)

    async def _hold(self, task: Task) -> None:
        await self._tasks.add_finalizer(task)

    def task_action(self, key: Key, task: Task, pod: PodView | None, action: TaskAction, terms: PoolSpec) -> None:
        """What is to be done next for a task. What needs its agent waits until there is one to ask."""
        match action:
            case Assign() | AddFinalizer():
                return  # for `assignment`, which sees all tasks and all Pods, and for `hold`
            case Ack() | ReleaseLock() | RemoveFinalizer() | DeleteTask():
                self.end_action(key, EndedTask.of(task), pod, action, terms)
            case Acquire() | Follow() | Approve() | Cancel():
                agent = self._following.client(pod.uid) if pod is not None else None
                if pod is not None and agent is not None:
                    self.on_task(key, task, functools.partial(self._ask, task, pod, agent, action, terms))
            case GiveUpLock():
                self.on_task(key, task, functools.partial(self._tasks.words.give_up_lock, task))
            case _:
                self.on_task(key, task, functools.partial(self._write, task, action))

    async def _ask(
        self,
        task: Task,
        pod: PodView,
        agent: AgentClient,
        action: Acquire | Follow | Approve | Cancel,
        terms: PoolSpec,
    ) -> None:
        match action:
            case Acquire():
                await self._tasks.ask_again(task, pod, agent, reservation_ttl_seconds=terms.reservation_ttl_seconds)
            case Follow():
                await self._tasks.follow(task, pod, agent, limits=terms.output)
            case Approve():
                await self._tasks.approve(task, pod, agent)
            case Cancel():
                await self._tasks.cancel(task, pod, agent)

    async def _write(self, task: Task, action: RejectApproval | Retry | Finish) -> None:
        match action:
            case RejectApproval():
                await self._tasks.reject_approval(task, action)
            case Retry():
                if not (action.if_pod_gone and await self._pod_exists(task)):
                    await self._tasks.retry(task, action)
            case Finish():
                if not (action.if_pod_gone and await self._pod_exists(task)):
                    await self._tasks.finish(task, action)

    async def _pod_exists(self, task: Task) -> bool:
        """Whether the API still has the Pod that the task was assigned to, read live."""
        pod, uid = task.status.pod, task.status.pod_uid
        return bool(pod and uid) and await self._pods.exists(task.namespace, str(pod), str(uid))

    def end_action(self, key: Key, task: EndedTask, pod: PodView | None, action: EndAction, terms: PoolSpec) -> None:
        """What is left to be done for a task that has ended."""
        urgency = Urgency.WORK
        match action:
            case Ack():
                agent = self._following.client(pod.uid) if pod is not None else None
                if pod is None or agent is None:
                    return
                start: Start = functools.partial(self._tasks.ack_ended, task, pod, agent, limits=terms.output)
            case ReleaseLock():
                start = functools.partial(self._tasks.release_lock, task)
            case RemoveFinalizer():
                start = functools.partial(self._tasks.remove_finalizer, task)
                urgency = Urgency.WORK if task.deleting else Urgency.UPKEEP
            case DeleteTask():
                start = functools.partial(self._tasks.delete, task)
        self.on_task(key, task, start, urgency=urgency)
