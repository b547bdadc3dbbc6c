"""Starting what was decided about tasks: which call carries out which action."""

import functools
from collections import Counter

from controller.act.pods import Pods
from controller.act.tasks import Tasks
from controller.act.turns import Urgency
from controller.act.work_queue import WorkQueue
from controller.agents.client import AgentClient
from controller.decide.tasks.task_actions import (
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
)
from controller.decide.view import PodView
from controller.objects.ended_task import EndedTask
from controller.objects.pool import PoolSpec
from controller.objects.task import Task
from controller.passes.starting import Start, Starting
from controller.world.index import Key
from controller.world.world import World

MOST_WORDS = 4
"""How many writes about waiting may be under way at once, for each pool."""


class TaskStarts:
    """Starts operations on tasks, at most one at a time for each task."""

    def __init__(self, starting: Starting, world: World, queue: WorkQueue[Key], *, pods: Pods, tasks: Tasks) -> None:
        self._starting = starting
        self._index = world.index
        self._following = world.following
        self._under_way = world.under_way
        self._queue = queue
        self._pods = pods
        self._tasks = tasks
        self._words: Counter[Key] = Counter()

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

        started = self._starting.start(key, f"task/{task.uid}", start, ended=ended, urgency=urgency)
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
                start: Start = functools.partial(self._tasks.acks.ack_ended, task, pod, agent, limits=terms.output)
            case ReleaseLock():
                start = functools.partial(self._tasks.release_lock, task)
            case RemoveFinalizer():
                start = functools.partial(self._tasks.remove_finalizer, task)
                urgency = Urgency.WORK if task.deleting else Urgency.UPKEEP
            case DeleteTask():
                start = functools.partial(self._tasks.delete, task)
        self.on_task(key, task, start, urgency=urgency)
