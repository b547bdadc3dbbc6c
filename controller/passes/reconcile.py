"""The loop over pools: read what is known, decide_size in pure functions, start operations. A pass never waits.

A pool is looked at when anything about it changed (its objects, its Pods, its tasks, an agent's state, the end of an
operation), when a moment that matters has come, and every `resync_seconds` without a cause.
"""

import asyncio
import functools
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from agent.wire import Origin
from controller import names
from controller.act.operations import Operations
from controller.act.pods import Pods
from controller.act.pools import Pools, differs
from controller.act.tasks import Tasks
from controller.act.work_queue import WorkQueue
from controller.agents.client import AgentClient
from controller.decide.assignment import assign
from controller.decide.pod_actions import (
    CancelTask,
    CreatePods,
    DeleteDead,
    DeleteStarting,
    DrainPod,
    FinishDeletion,
    OpenPod,
    PodAction,
    TakeBack,
    pod_actions,
    removed,
)
from controller.decide.pool_status import (
    Before,
    Problem,
    invalid_pool_status,
    pool_figures,
    pool_status,
    too_old_agents,
)
from controller.decide.scaling import SizeDecision, decide_size
from controller.decide.task_actions import (
    ACCEPTED,
    Ack,
    Acquire,
    AddFinalizer,
    Approve,
    Assign,
    Cancel,
    DeleteTask,
    Finish,
    Follow,
    RejectApproval,
    ReleaseLock,
    RemoveFinalizer,
    Retry,
    TaskAction,
    cancelling,
    is_refused,
    next_action,
    queued_reason,
)
from controller.decide.view import PodOperation, PodView, PoolView
from controller.errors import InvalidObject
from controller.kube.api import Object
from controller.objects.conditions import find
from controller.objects.pool import PoolSpec
from controller.objects.task import Task
from controller.world.index import Key, World
from metrics.figures import PoolFigures

log = logging.getLogger(__name__)

Start = Callable[[], Coroutine[None, None, None]]

OPERATION_KINDS = ("pool", "status", "create", "pod", "task", "orphan")
"""What stands before the first slash of an operation's key."""
_AGAIN_SECONDS = 0.1
"""How long after an operation's end its pool is looked at, if nothing that it changed has woken it before."""

_STATUS_SECONDS = 0.5
"""How long after a write of a pool's status the next one comes, at the earliest: slots may change all the time."""

_ORPHAN_SECONDS = 2.0
"""How long an orphan on an agent is left alone after it was looked at: it may be an apply that runs on."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How often a pool is looked at without a cause, in seconds."""

    resync_seconds: float = 30.0


class Reconciler:
    """Decides and starts operations. All state is in the world and in the cluster."""

    def __init__(
        self,
        world: World,
        queue: WorkQueue[Key],
        operations: Operations,
        *,
        pods: Pods,
        tasks: Tasks,
        pools: Pools,
        figures: dict[Key, PoolFigures],
        observe_seconds: Callable[[float], None],
        settings: Settings,
    ) -> None:
        self._world = world
        self._queue = queue
        self._operations = operations
        self._pods = pods
        self._tasks = tasks
        self._pools = pools
        self._figures = figures
        self._observe_seconds = observe_seconds
        self._settings = settings
        self.last_pass: float | None = None
        self._status_due: dict[Key, float] = {}
        self._orphans_looked_at: dict[Key, dict[str, float]] = {}

    async def run(self) -> None:
        """Reconcile for ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._tick(), name="resync")
            while True:
                key = await self._queue.get()
                started = asyncio.get_running_loop().time()
                try:
                    self.reconcile(key)
                except Exception:
                    log.exception("reconcile broke", extra={"pool": "/".join(key)})
                    self._queue.add_after(key, self._settings.resync_seconds)
                self.last_pass = asyncio.get_running_loop().time()
                self._observe_seconds(self.last_pass - started)
                await asyncio.sleep(0)

    async def _tick(self) -> None:
        while True:
            for key in self._world.pool_keys():
                self._queue.add(key)
            await asyncio.sleep(self._settings.resync_seconds)

    def reconcile(self, key: Key) -> None:
        """One pass over one pool."""
        if not self._world.synced:
            return
        pool = self._world.pools.get(*key)
        tasks = list(self._world.all_tasks(key))
        pods = {pod.uid: pod for pod in self._world.pod_views(key)}
        spec = problem = None
        if pool is not None:
            try:
                spec = PoolSpec.parse(pool)
            except InvalidObject as error:
                problem = Problem(reason="InvalidSpec", message=str(error))
        terms = spec or PoolSpec()
        for task in tasks:
            self._advance(key, task, pods, terms)
        self._end_orphans(key, tasks, pods, terms)
        if pool is None:
            self._figures.pop(key, None)
            self._status_due.pop(key, None)
            for task in tasks:
                if task.queued and not task.unwanted:
                    self._judge(key, task, None)
        elif spec is not None:
            self._reconcile_pool(key, pool, self._world.view(key, pool, spec, tasks, pods.values()), tasks)
        elif problem is not None:
            self._report(key, pool, invalid_pool_status(problem, before=Before.of(pool), now=self._world.now()))

    # --- Pods ---------------------------------------------------------------------------------------------------------

    def _reconcile_pool(self, key: Key, pool: Object, view: PoolView, tasks: list[Task]) -> None:
        if not view.deleting and not self._pools.prepared(pool):
            has_pods = bool(view.pods or view.creating)
            self._start(key, f"pool/{view.uid}", functools.partial(self._pools.prepare, pool, has_pods=has_pods))
            return
        decision = decide_size(view)
        actions = pod_actions(view, decision)
        for action in actions:
            self._act(key, pool, view, action)
        if not view.deleting:
            self._dispatch(key, view, removed(actions), decision)
        self._figures[key] = pool_figures(view, decision, tasks)
        before = Before.of(pool)
        if decision.desired not in {decision.current, before.desired}:
            self._pools.scaled(pool, decision.current, decision.desired, decision.reason, decision.message)
        self._pools.too_old(pool, too_old_agents(view))
        self._report(key, pool, pool_status(view, decision, before=before, problems=self._pools.problems(pool)))
        if (wait := self._world.recheck_seconds(view)) is not None:
            self._queue.add_after(key, wait)

    def _act(self, key: Key, pool: Object, view: PoolView, action: PodAction) -> None:
        match action:
            case CreatePods(count=count):
                for _ in range(count):
                    self._create(key, pool, view.spec)
            case OpenPod(pod=pod) | TakeBack(pod=pod):
                self._on_pod(key, pod, PodOperation.OPEN, functools.partial(self._open, key, pod))
            case DrainPod(pod=pod):
                self._on_pod(key, pod, PodOperation.REMOVE, functools.partial(self._drain_and_delete, key, pod))
            case DeleteStarting(pod=pod):
                self._on_pod(key, pod, PodOperation.REMOVE, functools.partial(self._delete_starting, key, pod))
            case DeleteDead(pod=pod, force=force):
                self._on_pod(key, pod, PodOperation.REMOVE, functools.partial(self._delete_dead, key, pod, force=force))
            case CancelTask(task=task):
                pods = {pod.uid: pod for pod in view.pods}
                where = self._world.whereabouts(task, pods)
                if where.pod is not None and not cancelling(task, where.pod):
                    self._carry_out(key, task, where.pod, Cancel(), view.spec)
            case FinishDeletion():
                self._start(key, f"pool/{view.uid}", functools.partial(self._pools.finish, pool))

    def _create(self, key: Key, pool: Object, spec: PoolSpec) -> None:
        backoff = f"create/{pool['metadata']['uid']}"
        if delay := self._operations.held_back_seconds(backoff):
            self._queue.add_after(key, delay)
            return
        try:
            pod = self._pools.new_pod(pool, spec)
        except InvalidObject as problem:
            self._pools.template_problem(pool, problem)
            return
        name, creating = pod["metadata"]["name"], self._world.under_way.creating[key]
        create = functools.partial(self._pools.create_pod, pool, pod)
        if self._start(key, f"{backoff}/{name}", create, backoff=backoff, ended=lambda: creating.discard(name)):
            creating.add(name)

    def _on_pod(self, key: Key, pod: PodView, operation: PodOperation, start: Start) -> None:
        under_way = self._world.under_way.pods
        if self._start(key, f"pod/{pod.uid}", start, ended=lambda: under_way.pop(pod.uid, None)):
            under_way[pod.uid] = operation

    async def _open(self, key: Key, pod: PodView) -> None:
        agent = self._world.fleet.client(pod.uid)
        if agent is not None:
            await self._pods.open(pod, key[0], agent, opened_at=self._world.now())
            # The stream says it too, a moment later: until then the Pod would be opened again.
            self._world.fleet.note(pod.uid, await agent.state())

    async def _drain_and_delete(self, key: Key, pod: PodView) -> None:
        agent = self._world.fleet.client(pod.uid)
        if agent is not None and await self._pods.drain_and_delete(pod, key[0], agent):
            self._pools.removed(self._world.pools.get(*key), pod, "drained, and deleted")

    async def _delete_starting(self, key: Key, pod: PodView) -> None:
        if await self._pods.delete_starting(pod, key[0]):
            self._pools.removed(self._world.pools.get(*key), pod, "deleted before it was ever opened")

    async def _delete_dead(self, key: Key, pod: PodView, *, force: bool) -> None:
        if await self._pods.delete_dead(pod, key[0], self._world.reason_to_bury, force=force):
            self._pools.removed(self._world.pools.get(*key), pod, "dead, and deleted")

    # --- tasks --------------------------------------------------------------------------------------------------------

    def _dispatch(self, key: Key, view: PoolView, leaving: frozenset[str], decision: SizeDecision) -> None:
        """Give queued tasks to free slots; say on those that no slot can take why."""
        for task in view.tasks:
            if task.queued and not task.unwanted:
                self._judge(key, task, view.spec)
        ttl = view.spec.reservation_ttl_seconds
        for assignment in assign(view, leaving):
            task, pod = assignment.task, assignment.pod
            agent = self._world.fleet.client(pod.uid)
            if agent is None or names.TASK_FINALIZER not in task.finalizers:
                continue
            self._on_task(
                key,
                task,
                functools.partial(self._tasks.assign, task, pod, agent, reservation_ttl_seconds=ttl),
                dispatched_to=pod.uid,
            )
        for task in view.tasks:
            if task.queued and not task.unwanted and not is_refused(task):
                before = self._world.lock_holder(task) if task.uid in view.blocked else None
                why = queued_reason(task, blocked_by=before, decision=decision.reason, now=view.now)
                if why is not None:  # a task that is being assigned is left alone: one operation a task
                    self._on_task(key, task, functools.partial(self._tasks.say_waiting, task, why))

    def _judge(self, key: Key, task: Task, spec: PoolSpec | None) -> None:
        refusal = task.refusal(spec)
        said = find(task.status.conditions, ACCEPTED)
        if refusal is not None and (said is None or (said.status, said.reason) != ("False", refusal[0])):
            self._on_task(key, task, functools.partial(self._tasks.say_not_accepted, task, *refusal))
        elif refusal is None and said is not None and said.status == "False":
            self._on_task(key, task, functools.partial(self._tasks.say_accepted, task))

    def _advance(self, key: Key, task: Task, pods: dict[str, PodView], terms: PoolSpec) -> None:
        """Start the next thing to do for one task, if there is any."""
        where = self._world.whereabouts(task, pods)
        lock_held = self._world.holds_lock(task)
        action = next_action(task, where, lock_held=lock_held, now=self._world.now())
        if action is not None:
            self._carry_out(key, task, where.pod, action, terms)
        elif task.final and task.status.finished_at is not None and not lock_held:
            age = (self._world.now() - task.status.finished_at).total_seconds()
            self._queue_task_end(key, task.spec.ttl_seconds_after_finished - age)

    def _queue_task_end(self, key: Key, seconds: float) -> None:
        if 0 < seconds < self._settings.resync_seconds:
            self._queue.add_after(key, seconds)

    def _carry_out(self, key: Key, task: Task, pod: PodView | None, action: TaskAction, terms: PoolSpec) -> None:
        """Start what is to be done for a task. What needs its agent waits until there is one to ask."""
        match action:
            case Assign():
                return  # for `_dispatch`, which sees all tasks and all Pods
            case Acquire() | Follow() | Approve() | Cancel() | Ack():
                agent = self._world.fleet.client(pod.uid) if pod is not None else None
                if pod is not None and agent is not None:
                    self._on_task(key, task, functools.partial(self._ask, task, pod, agent, action, terms))
            case _:
                self._on_task(key, task, functools.partial(self._write, task, action))

    async def _ask(
        self,
        task: Task,
        pod: PodView,
        agent: AgentClient,
        action: Acquire | Follow | Approve | Cancel | Ack,
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
            case Ack():
                await self._tasks.ack_ended(task, pod, agent, limits=terms.output)

    async def _write(
        self,
        task: Task,
        action: AddFinalizer | RejectApproval | Retry | Finish | ReleaseLock | RemoveFinalizer | DeleteTask,
    ) -> None:
        match action:
            case AddFinalizer():
                await self._tasks.add_finalizer(task)
            case RejectApproval():
                await self._tasks.reject_approval(task, action)
            case Retry():
                if not (action.if_pod_gone and await self._pod_exists(task)):
                    await self._tasks.retry(task, action)
            case Finish():
                if not (action.if_pod_gone and await self._pod_exists(task)):
                    await self._tasks.finish(task, action)
            case ReleaseLock():
                await self._tasks.release_lock(task)
            case RemoveFinalizer():
                await self._tasks.remove_finalizer(task)
            case DeleteTask():
                await self._tasks.delete(task)

    async def _pod_exists(self, task: Task) -> bool:
        """Whether the API still has the Pod that the task was assigned to, read live."""
        pod, uid = task.status.pod, task.status.pod_uid
        return bool(pod and uid) and await self._pods.exists(task.namespace, str(pod), str(uid))

    def _end_orphans(self, key: Key, tasks: list[Task], pods: dict[str, PodView], terms: PoolSpec) -> None:
        """Settle what agents hold for the controller without a task that stands for it."""
        live = {(task.task_id, task.status.pod_uid) for task in tasks if not task.final}
        final = {(task.task_id, task.status.pod_uid) for task in tasks if task.final}
        now, looked = asyncio.get_running_loop().time(), self._orphans_looked_at.pop(key, {})
        for pod in pods.values():
            agent = self._world.fleet.client(pod.uid)
            if agent is None or not pod.connected or pod.agent is None:
                continue
            held = [slot.task_id for slot in pod.held if slot.task_id and slot.origin is Origin.CONTROLLER]
            ended = [task_id for task_id in pod.agent.ended if (task_id, pod.uid) not in final]
            for task_id in (*held, *ended):
                if (task_id, pod.uid) in live:
                    continue
                name = f"orphan/{pod.uid}/{task_id}"
                if now >= looked.get(name, now):
                    start = functools.partial(self._tasks.settle_orphan, task_id, pod, agent, limits=terms.output)
                    self._start(key, name, start, again_seconds=_ORPHAN_SECONDS)
                    looked[name] = now + _ORPHAN_SECONDS
                self._orphans_looked_at.setdefault(key, {})[name] = looked[name]

    def _on_task(self, key: Key, task: Task, start: Start, *, dispatched_to: str | None = None) -> None:
        dispatching = self._world.under_way.dispatching
        started = self._start(key, f"task/{task.uid}", start, ended=lambda: dispatching.pop(task.uid, None))
        if started and dispatched_to is not None:
            dispatching[task.uid] = dispatched_to

    # --- the rest -----------------------------------------------------------------------------------------------------

    def _start(
        self,
        key: Key,
        name: str,
        operation: Start,
        *,
        again_seconds: float = _AGAIN_SECONDS,
        backoff: str = "",
        ended: Callable[[], object] | None = None,
    ) -> bool:
        """Start an operation whose end wakes the pool; `ended` is called first, however it ended.

        What it changed wakes the pool by itself, through the caches and the agents' streams. So its end can wait a
        moment, and an operation that changes nothing never becomes a loop without a pause.
        """

        def done(delay_seconds: float) -> None:
            self._queue.add_after(key, max(delay_seconds, again_seconds))

        def finished(delay_seconds: float) -> None:
            if ended is not None:
                ended()
            done(delay_seconds)

        return self._operations.start(name, operation, finished, backoff=backoff)

    def _report(self, key: Key, pool: Object, status: dict[str, Any]) -> None:
        """Write the pool's status if it says something new."""
        if not differs(pool, status):
            return
        now = asyncio.get_running_loop().time()
        if (rest := self._status_due.get(key, now) - now) > 0:
            self._queue.add_after(key, rest)
        elif self._start(key, f"status/{pool['metadata']['uid']}", functools.partial(self._pools.write, pool, status)):
            self._status_due[key] = now + _STATUS_SECONDS
