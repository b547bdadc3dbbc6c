"""A pass over the tasks of one pool: what is next for each, which get slots, and what each of the others waits for."""

import asyncio
import functools

from agent.wire import Origin
from controller import names
from controller.act.tasks import Tasks
from controller.act.work_queue import WorkQueue
from controller.decide.problem import Problem
from controller.decide.scaling.size import SizeDecision
from controller.decide.tasks.assignment import assign, next_in_turn
from controller.decide.tasks.task_actions import (
    ACCEPTED,
    MOST_WORD,
    AddFinalizer,
    after_the_end,
    is_new_word,
    is_refused,
    next_action,
    pause_left_seconds,
    unsaid,
)
from controller.objects.acceptance import refusal
from controller.objects.conditions import find
from controller.objects.ended_task import EndedTask
from controller.objects.pool import PoolSpec
from controller.objects.task import Task
from controller.passes.starting import Starting
from controller.passes.task_starts import TaskStarts
from controller.world.index import Key
from controller.world.waiting_words import lock_word, pause_word, slot_word
from controller.world.world import World

_SAID_AFTER_SECONDS = 1.0
"""Tasks that have been queued for less than this get no status about waiting: most are assigned before anybody reads
it."""

_MOST_LET_GO = 50
"""How many ended tasks a pass looks at to take their finalizer off. There are more only after a long standstill."""

_ORPHAN_SECONDS = 2.0
"""How long to wait before looking at an orphan on an agent again: it may be an apply that still runs."""


class TaskPass:
    """The part of a pool's pass that is about its tasks. It starts operations and waits for none."""

    def __init__(
        self, world: World, queue: WorkQueue[Key], starting: Starting, task_starts: TaskStarts, tasks: Tasks
    ) -> None:
        self._index = world.index
        self._following = world.following
        self._views = world.views
        self._queue = queue
        self._starting = starting
        self._task_starts = task_starts
        self._tasks = tasks
        self._orphans_looked_at: dict[Key, dict[str, float]] = {}

    def advance(self, key: Key, terms: PoolSpec) -> list[Task]:
        """Start the next thing to do for each task that has not ended, if there is any.

        Returns those that are to be held in the API, which comes last: one that is dispatched now is held by that.
        """
        now, unheld = self._views.now(), []
        for task in list(self._index.live(key).values()):
            where = self._views.whereabouts(key, task)
            lock_key = task.spec.lock_key
            lock_held = bool(lock_key) and is_refused(task) and self._index.holds_lock(key[0], lock_key, task.uid)
            action = next_action(task, where, lock_held=lock_held, now=now)
            if isinstance(action, AddFinalizer):
                unheld.append(task)
            elif action is not None:
                self._task_starts.task_action(key, task, where.pod, action, terms)
        return unheld

    def say_unreadable(self, key: Key) -> None:
        """Say on tasks that can't be read why, once for each version of them."""
        for obj, problem in list(self._index.unreadable(key)):
            locked = not (obj.get("status") or {}).get("podUID") and self._index.holds_any_lock(obj["metadata"])
            message = str(problem)[:MOST_WORD] if locked else unsaid(obj, str(problem))
            if message is not None:
                start = functools.partial(self._tasks.words.say_unreadable, obj, message)
                self._starting.start(key, f"task/{obj['metadata']['uid']}", start)

    def finish_ends(self, key: Key, terms: PoolSpec) -> None:
        """Start what is left to be done for tasks that have ended, and look again when the next one is to go."""
        now = self._views.now()
        for task in self._index.open_ends(key, now):
            if not self._finish_end(key, task, terms) and not self._holds_lock(task):
                self._index.settled(key, task)
        for task in self._index.held_ends(key, _MOST_LET_GO):
            self._finish_end(key, task, terms)
        if (due := self._index.next_due(key)) is not None:
            self._queue.add_after(key, max(0.0, (due - now).total_seconds()))

    def _finish_end(self, key: Key, task: EndedTask, terms: PoolSpec) -> bool:
        """Start what is left to be done for a task that has ended; tells whether there was anything."""
        where = self._views.whereabouts(key, task)
        action = after_the_end(task, where, lock_held=self._holds_lock(task), now=self._views.now())
        if action is not None:
            self._task_starts.end_action(key, task, where.pod, action, terms)
        return action is not None

    def _holds_lock(self, task: EndedTask) -> bool:
        return self._index.holds_lock(task.namespace, task.lock_key, task.uid)

    def dispatch(self, key: Key, decision: SizeDecision, leaving: frozenset[str], problem: Problem | None) -> None:
        """Give queued tasks to free slots; say on those that no slot can take why."""
        basis = decision.basis
        view = basis.view
        queued = [task for task in view.tasks if task.queued and not task.unwanted]
        for task in queued:
            self.judge(key, task, refusal(task, view.spec))
        ttl = view.spec.reservation_ttl_seconds
        for placement in assign(basis, leaving):
            task, pod = placement.task, placement.pod
            agent = self._following.client(pod.uid)
            if agent is None:
                continue
            start = functools.partial(self._tasks.assign, task, pod, agent, reservation_ttl_seconds=ttl)
            self._task_starts.on_task(key, task, start, dispatched_to=pod.uid)
        self._say_waiting(key, decision, [task for task in queued if not is_refused(task)], problem)

    def _say_waiting(self, key: Key, decision: SizeDecision, queued: list[Task], problem: Problem | None) -> None:
        """Say on each task that is still queued what it waits for. One that is being assigned is left alone."""
        blocked, now, youngest = decision.basis.view.blocked, decision.basis.view.now, 0.0
        following = next_in_turn(task for task in queued if task.uid in blocked)
        for_a_slot = slot_word(decision, problem)
        for task in queued:
            if (wait := pause_left_seconds(task, now)) > 0:
                self._queue.add_after(key, wait)
                word = pause_word(task)
            elif task.uid in blocked:
                word = lock_word(self._index, task, is_next=task.uid in following)
            elif (age := (now - task.created).total_seconds()) < _SAID_AFTER_SECONDS:
                youngest = max(youngest, _SAID_AFTER_SECONDS - age)
                continue
            else:
                word = for_a_slot
            if is_new_word(task, word):
                self._task_starts.say(
                    key, task, functools.partial(self._tasks.words.say_waiting, task, word[:MOST_WORD])
                )
        if youngest > 0:
            self._queue.add_after(key, youngest)

    def refuse_all(self, key: Key, why: tuple[str, str]) -> None:
        """Say on every task that waits that its pool gives it no slot: it then holds up no other one of its lockKey."""
        for task in list(self._index.live(key).values()):
            if task.queued and not task.unwanted:
                self.judge(key, task, why)

    def judge(self, key: Key, task: Task, refused: tuple[str, str] | None) -> None:
        """Say on a queued task whether its pool can give it a slot, if that is not what it says already."""
        said = find(task.status.conditions, ACCEPTED)
        if refused is not None and (said is None or (said.status, said.reason, said.message) != ("False", *refused)):
            self._task_starts.on_task(key, task, functools.partial(self._tasks.words.say_not_accepted, task, *refused))
        elif refused is None and said is not None and said.status == "False":
            self._task_starts.on_task(key, task, functools.partial(self._tasks.words.say_accepted, task))

    def end_orphans(self, key: Key, terms: PoolSpec) -> None:
        """Settle what agents hold for the controller without a SlotTask."""
        live = self._index.live(key)
        now, looked = asyncio.get_running_loop().time(), self._orphans_looked_at.pop(key, {})
        for pod in self._views.pods(key).values():
            if not pod.connected or pod.agent is None or not (pod.held or pod.agent.ended):
                continue
            held = [slot.task_id for slot in pod.held if slot.task_id and slot.origin is Origin.CONTROLLER]
            for task_id in (*held, *pod.agent.ended):
                uid = (names.split_task_id(task_id) or ("", 0))[0]
                task = live.get(uid)
                if task is not None and (task.task_id, task.status.pod_uid) == (task_id, pod.uid):
                    continue
                if self._index.is_unreadable(key[0], uid):
                    continue  # it is said on the task: what its agent has stays there until it can be read, or is gone
                end = self._index.ended_task(key, uid)
                if end is not None and (end.task_id, end.pod_uid) == (task_id, pod.uid) and task_id not in held:
                    self._index.reopen(key, uid)  # its result is stored: the agent may forget it
                    continue
                name = f"orphan/{pod.uid}/{task_id}"
                agent = self._following.client(pod.uid)
                if now >= looked.get(name, now) and agent is not None:
                    start = functools.partial(self._tasks.acks.settle_orphan, task_id, pod, agent, limits=terms.output)
                    self._starting.start(key, name, start, again_seconds=_ORPHAN_SECONDS)
                    looked[name] = now + _ORPHAN_SECONDS
                self._orphans_looked_at.setdefault(key, {})[name] = looked.get(name, now)
