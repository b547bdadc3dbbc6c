"""One pass over one pool: read what is known, decide in pure functions, start operations. It never waits."""

import asyncio
import functools
from dataclasses import replace
from datetime import timedelta
from typing import Any

from agent.wire import Origin
from controller import names
from controller.act.history import History
from controller.act.pools import Pools, differs, rotation_request
from controller.act.tasks import Tasks
from controller.act.turns import Urgency
from controller.act.work_queue import WorkQueue
from controller.decide.assignment import assign, next_in_turn
from controller.decide.deployment_mode import MarkPod, TakeBackMark, for_deployments, for_pods, replica_problem, to_come
from controller.decide.eviction import reply
from controller.decide.pod_actions import CreatePods, PodAction, let_go, pod_actions, removed, surplus
from controller.decide.pool_status import (
    Before,
    Problem,
    Problems,
    TaskCounts,
    deletion_waits,
    invalid_pool_status,
    not_starting,
    pool_figures,
    pool_status,
    signal_problem,
    too_old_agents,
)
from controller.decide.protection import Finding, without_budget
from controller.decide.rollout import Starts, roll_out
from controller.decide.rotation import Rotation, rotation
from controller.decide.scaling import SizeDecision, decide_size
from controller.decide.start_problem import StartProblem
from controller.decide.task_actions import (
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
from controller.decide.view import PodState, PoolView
from controller.errors import InvalidObject
from controller.kube.api import Object
from controller.objects.acceptance import going, refusal, unusable
from controller.objects.conditions import find
from controller.objects.ended_task import EndedTask
from controller.objects.pool import Mode, PoolSpec
from controller.objects.task import Task
from controller.passes.starting import Starting
from controller.world.index import Key
from controller.world.protection import Protection
from controller.world.waiting_words import lock_word, pause_word, slot_word
from controller.world.world import World
from metrics.pools import PoolMetrics

_STATUS_SECONDS = 0.5
"""How long after a write of a pool's status the next one comes, at the earliest: slots may change all the time."""

_SAID_AFTER_SECONDS = 1.0
"""A task that is queued for moments is not written to: it is assigned before anybody could read why it waits."""

_MOST_LET_GO = 50
"""How many ended tasks a pass looks at to take their finalizer off. There are more only after a long standstill."""

_ORPHAN_SECONDS = 2.0
"""How long an orphan on an agent is left alone after it was looked at: it may be an apply that runs on."""


class Reconciler:
    """Decides, and has operations started. All state is in the world and in the cluster."""

    def __init__(
        self,
        world: World,
        queue: WorkQueue[Key],
        starting: Starting,
        protection: Protection,
        *,
        tasks: Tasks,
        pools: Pools,
        history: History,
        shown: PoolMetrics,
    ) -> None:
        self._index = world.index
        self._following = world.following
        self._views = world.views
        self._failures = world.start_failures
        self._evictions = world.evictions
        self._sizes = world.sizes
        self._signals = world.signals
        self._deployments = world.deployments
        self._protection = protection
        self._queue = queue
        self._starting = starting
        self._tasks = tasks
        self._pools = pools
        self._history = history
        self._shown = shown
        self._status_due: dict[Key, float] = {}
        self._orphans_looked_at: dict[Key, dict[str, float]] = {}

    def reconcile(self, key: Key) -> None:
        """One pass over one pool."""
        if not self._index.synced:
            return
        pool = self._index.pools.get(*key)
        spec = self._index.spec(key)
        terms = spec if isinstance(spec, PoolSpec) else PoolSpec()
        unheld = self._advance(key, terms)
        self._say_unreadable(key)
        self._end_orphans(key, terms)
        self._finish_ends(key, terms)
        self._answer_evictions(key)
        if pool is None:
            self._without_pool(key)
        elif isinstance(spec, PoolSpec):
            self._reconcile_pool(key, pool, spec)
        else:
            problem = Problem(reason="InvalidSpec", message=str(spec))
            self._refuse_all(key, unusable(key[1], problem.message))
            self._report(key, pool, invalid_pool_status(problem, before=Before.of(pool), now=self._views.now()))
        for task in unheld:
            self._starting.hold(key, task)

    def _without_pool(self, key: Key) -> None:
        """There is no pool of this name: say it on its tasks, and leave nothing of it behind."""
        self._shown.forget(key)
        self._status_due.pop(key, None)
        self._signals.want(key, None)
        live, pods = self._index.live(key).values(), self._views.pods(key).values()
        for task in live:
            if task.queued and not task.unwanted:
                self._judge(key, task, refusal(task, None))
        for action in let_go(pods, live, {}):
            self._starting.let_go(key, action.pod)
        if not pods and self._pools.has_leftovers(*key):
            self._starting.start(key, f"pool/{'/'.join(key)}", functools.partial(self._pools.remove_leftovers, *key))

    def _reconcile_pool(self, key: Key, pool: Object, spec: PoolSpec) -> None:
        template = self._pools.template_hash(pool, spec) if self._pools.prepared(pool) else ""
        hashed = template if isinstance(template, str) and template else None
        secret = self._pools.token_secret(pool)
        view = self._views.pool(key, pool, spec, template_hash=hashed, token_secret=secret)
        view = replace(
            view, history=self._sizes.of(pool), reading=self._signals.want(key, None if view.deleting else spec.signal)
        )
        view = self._with_deployments(key, view)
        if not view.deleting and not self._pools.prepared(pool):
            self._starting.start(key, f"pool/{view.uid}", functools.partial(self._pools.prepare, pool))
            return
        rotating = self._keep_tokens(key, pool, view)
        if self._pools.needs_budget(pool):
            self._starting.start(key, f"budget/{view.uid}", functools.partial(self._pools.keep_budget, pool))
        if hashed is not None and not view.deleting and not self._history.is_kept(pool):
            keep = functools.partial(self._history.keep, pool, spec.revision_history_limit)
            self._starting.start(key, f"history/{view.uid}", keep, urgency=Urgency.UPKEEP)
        self._note_start_failures(view)
        starts = self._starts(view, template)
        view = roll_out(view, starts)
        decision = decide_size(view)
        self._sizes.note(view.uid, decision.history)
        actions = pod_actions(view, decision)
        self._start_on_pods(key, pool, view, actions)
        self._keep_deployments(key, pool, decision, actions)
        if not any(isinstance(action, CreatePods) for action in actions):
            self._pools.nothing_to_create(pool)
        problems = self._problems(view, pool, template)
        if view.deleting:
            self._refuse_all(key, going(view.name))
        elif isinstance(template, InvalidObject) and not any(pod.counts for pod in view.pods):
            self._refuse_all(key, unusable(view.name, str(template)))
        else:
            self._dispatch(key, decision, surplus(view, decision, removed(actions)), not_starting(view))
        counts = TaskCounts(self._index.phases(key), self._index.plans(key), self._index.lost_locks(key))
        self._shown.show(key, pool_figures(view, decision, counts, rotating, starts_fail=starts.problem is not None))
        before = Before.of(pool)
        if decision.desired not in {decision.current, before.desired}:
            self._shown.decided(key, decision.reason)
            self._pools.scaled(pool, decision.current, decision.desired, decision.reason, decision.message)
        found = (
            deletion_waits(view),
            problems.degraded,
            problems.unable_to_scale,
            not_starting(view),
            too_old_agents(view),
            signal_problem(decision),
        )
        self._pools.tell(pool, tuple(dict.fromkeys(problem for problem in found if problem is not None)))
        protection = self._protection_of(pool)
        status = pool_status(view, decision, before=before, problems=problems, tokens=rotating, protection=protection)
        self._report(key, pool, status)
        if (wait := self._views.recheck_seconds(view, decision.changes_at)) is not None:
            self._queue.add_after(key, wait)

    def _with_deployments(self, key: Key, view: PoolView) -> PoolView:
        """The view with the pool's Deployments, and the Pods that these are still to make."""
        deployments, orphaned = self._deployments.of_pool(key, view.uid)
        if not (deployments or orphaned):
            return view
        view = view.but(deployments=deployments, orphaned_sets=orphaned)
        return view.but(creating=view.creating + to_come(view))

    def _start_on_pods(self, key: Key, pool: Object, view: PoolView, actions: tuple[PodAction, ...]) -> None:
        for action in for_pods(view, actions):
            if isinstance(action, MarkPod | TakeBackMark):
                self._starting.replica_action(key, action)
            else:
                self._starting.pod_action(key, pool, view, action)

    def _keep_deployments(self, key: Key, pool: Object, decision: SizeDecision, actions: tuple[PodAction, ...]) -> None:
        view = decision.basis.view
        if view.spec.mode is not Mode.DEPLOYMENT and not (view.deployments or view.orphaned_sets):
            return
        wanted = sum(action.count for action in actions if isinstance(action, CreatePods))
        if view.spec.mode is Mode.DEPLOYMENT and wanted:
            wanted = self._starting.creatable(key, view, wanted)
        for action in for_deployments(view, decision, wanted):
            self._starting.deployment_action(key, pool, view.spec, action)

    def _keep_tokens(self, key: Key, pool: Object, view: PoolView) -> Rotation | None:
        """Make a token Secret that was deleted again, else go on with its rotation. Tells how that stands."""
        if not self._pools.has_tokens(pool):
            # The last one of a pool that goes too stays, by its finalizer, until no Pod needs it.
            needed = not view.deleting or (view.token_secret is None and view.pods)
            if needed and not self._pools.awaits_end_of_tokens(pool):
                self._starting.start(key, f"tokens/{view.uid}", functools.partial(self._pools.remake_tokens, pool))
            return None
        if self._pools.has_holder(pool) and all(pod.token_secret == view.token_secret for pod in view.pods):
            self._starting.start(key, f"tokens/{view.uid}", functools.partial(self._pools.drop_holder, pool))
        if view.deleting:
            return None
        period, requested = timedelta(seconds=view.spec.auth.rotation_period_seconds), rotation_request(pool)
        found = rotation(self._pools.tokens(pool), view.pods, period=period, requested=requested, now=view.now)
        if found.step is not None:
            self._starting.start(key, f"tokens/{view.uid}", functools.partial(self._pools.rotate, pool, found.step))
        elif found.wait is not None:
            self._queue.add_after(key, found.wait.total_seconds())
        return found

    def _protection_of(self, pool: Object) -> Finding | None:
        """Whether others are kept from the pool's Pods: by the cluster's policies, and the pool's own budget."""
        problem = self._pools.budget_problem(pool)
        return self._protection.found if problem is None else without_budget(problem)

    def _starts(self, view: PoolView, template: str | InvalidObject) -> Starts:
        """What is known of Pods of the present template."""
        if isinstance(template, InvalidObject):
            return Starts(problem=StartProblem(reason="InvalidTemplate", message=str(template)))
        held, now = (view.uid, view.template_hash or ""), asyncio.get_running_loop().time()
        return Starts(
            proven=self._failures.has_started(held),
            problem=self._failures.problem(held),
            retry_due=not self._failures.wait_seconds(held, now),
        )

    def _problems(self, view: PoolView, pool: Object, template: str | InvalidObject) -> Problems:
        """What keeps the pool from working as it should, and from changing its size, as of now."""
        if isinstance(template, InvalidObject):
            invalid = Problem(reason="InvalidTemplate", message=str(template))
            return Problems(degraded=invalid, unable_to_scale=invalid)
        held = (view.uid, view.template_hash or "")
        failed = self._failures.problem(held)
        if failed is not None and self._failures.wait_seconds(held, asyncio.get_running_loop().time()):
            message = f"no Pod is made for a while, as the last ones did not start: {failed.reason}: {failed.message}"
            return Problems(unable_to_scale=Problem(reason="PodsNotStarting", message=message))
        return Problems(unable_to_scale=self._pools.create_problem(pool) or replica_problem(view))

    def _note_start_failures(self, view: PoolView) -> None:
        """Count the Pods that failed, or were given up, before they were ever opened."""
        now = asyncio.get_running_loop().time()
        for pod in view.others:
            if pod.state is not PodState.STARTING:
                continue
            problem = pod.start_problem if pod.dead or pod.stuck else None
            if problem is None and pod.node_cordoned and not pod.dead:
                problem = StartProblem(reason="NodeCordoned", message=f"Pod {pod.name} came to a node that is cordoned")
            if problem is not None:
                self._failures.failed((view.uid, pod.template_hash), pod.uid, problem, now)

    def _report(self, key: Key, pool: Object, status: dict[str, Any]) -> None:
        """Show its conditions, and write the pool's status if it says something new."""
        self._shown.conditions(key, {entry["type"]: entry["status"] == "True" for entry in status["conditions"]})
        if not differs(pool, status):
            return
        now = asyncio.get_running_loop().time()
        write = functools.partial(self._pools.write, pool, status)
        if (rest := self._status_due.get(key, now) - now) > 0:
            self._queue.add_after(key, rest)
        elif self._starting.start(key, f"status/{pool['metadata']['uid']}", write):
            self._status_due[key] = now + _STATUS_SECONDS

    def _answer_evictions(self, key: Key) -> None:
        """Say on the Evictions that ask for Pods of this pool how far their Pods are from going."""
        pods = self._views.pods(key)
        for eviction in self._evictions.of_pool(key, pods):
            found = reply(eviction, pods.get(eviction.pod_uid), self._index.live(key), self._views.now())
            if found.answer is not None:
                self._starting.answer_eviction(key, eviction, found.answer)
            if found.again_seconds is not None:
                self._queue.add_after(key, found.again_seconds)

    # --- tasks --------------------------------------------------------------------------------------------------------

    def _advance(self, key: Key, terms: PoolSpec) -> list[Task]:
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
                self._starting.task_action(key, task, where.pod, action, terms)
        return unheld

    def _say_unreadable(self, key: Key) -> None:
        """Say on tasks that can't be read why, once for each version of them."""
        for obj, problem in list(self._index.unreadable(key)):
            locked = not (obj.get("status") or {}).get("podUID") and self._index.holds_any_lock(obj["metadata"])
            message = str(problem)[:MOST_WORD] if locked else unsaid(obj, str(problem))
            if message is not None:
                start = functools.partial(self._tasks.words.say_unreadable, obj, message)
                self._starting.start(key, f"task/{obj['metadata']['uid']}", start)

    def _finish_ends(self, key: Key, terms: PoolSpec) -> None:
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
            self._starting.end_action(key, task, where.pod, action, terms)
        return action is not None

    def _holds_lock(self, task: EndedTask) -> bool:
        return self._index.holds_lock(task.namespace, task.lock_key, task.uid)

    def _dispatch(self, key: Key, decision: SizeDecision, leaving: frozenset[str], problem: Problem | None) -> None:
        """Give queued tasks to free slots; say on those that no slot can take why."""
        basis = decision.basis
        view = basis.view
        queued = [task for task in view.tasks if task.queued and not task.unwanted]
        for task in queued:
            self._judge(key, task, refusal(task, view.spec))
        ttl = view.spec.reservation_ttl_seconds
        for placement in assign(basis, leaving):
            task, pod = placement.task, placement.pod
            agent = self._following.client(pod.uid)
            if agent is None:
                continue
            start = functools.partial(self._tasks.assign, task, pod, agent, reservation_ttl_seconds=ttl)
            self._starting.on_task(key, task, start, dispatched_to=pod.uid)
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
                self._starting.say(key, task, functools.partial(self._tasks.words.say_waiting, task, word[:MOST_WORD]))
        if youngest > 0:
            self._queue.add_after(key, youngest)

    def _refuse_all(self, key: Key, why: tuple[str, str]) -> None:
        """Say on every task that waits that its pool gives it no slot: it then holds up no other one of its lockKey."""
        for task in list(self._index.live(key).values()):
            if task.queued and not task.unwanted:
                self._judge(key, task, why)

    def _judge(self, key: Key, task: Task, refused: tuple[str, str] | None) -> None:
        said = find(task.status.conditions, ACCEPTED)
        if refused is not None and (said is None or (said.status, said.reason, said.message) != ("False", *refused)):
            self._starting.on_task(key, task, functools.partial(self._tasks.words.say_not_accepted, task, *refused))
        elif refused is None and said is not None and said.status == "False":
            self._starting.on_task(key, task, functools.partial(self._tasks.words.say_accepted, task))

    def _end_orphans(self, key: Key, terms: PoolSpec) -> None:
        """Settle what agents hold for the controller without a task that stands for it."""
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
                end = self._index.ended_task(key, uid)
                if end is not None and (end.task_id, end.pod_uid) == (task_id, pod.uid) and task_id not in held:
                    self._index.reopen(key, uid)  # its result is stored: the agent may forget it
                    continue
                name = f"orphan/{pod.uid}/{task_id}"
                agent = self._following.client(pod.uid)
                if now >= looked.get(name, now) and agent is not None:
                    start = functools.partial(self._tasks.settle_orphan, task_id, pod, agent, limits=terms.output)
                    self._starting.start(key, name, start, again_seconds=_ORPHAN_SECONDS)
                    looked[name] = now + _ORPHAN_SECONDS
                self._orphans_looked_at.setdefault(key, {})[name] = looked.get(name, now)
