"""One pass over one pool: read what is known, decide in pure functions, start operations. It never waits."""

import asyncio
import functools
from dataclasses import replace
from datetime import timedelta
from typing import Any

from controller.act.history import History
from controller.act.pools import Pools, differs, rotation_request
from controller.act.tasks import Tasks
from controller.act.turns import Urgency
from controller.act.work_queue import WorkQueue
from controller.decide.pods.deployment_mode import (
    MarkPod,
    TakeBackMark,
    for_deployments,
    for_pods,
    replica_problem,
    to_come,
)
from controller.decide.pods.eviction import reply
from controller.decide.pods.pod_actions import CreatePods, PodAction, let_go, pod_actions, removed, surplus
from controller.decide.pods.rollout import Starts, roll_out
from controller.decide.pools.pool_deletion import deletion_waits
from controller.decide.pools.pool_figures import TaskCounts, pool_figures
from controller.decide.pools.pool_status import (
    Before,
    invalid_pool_status,
    not_starting,
    pool_status,
    signal_problem,
    too_old_agents,
)
from controller.decide.pools.protection import without_budget
from controller.decide.pools.rotation import Rotation, rotation
from controller.decide.problem import Problem, Problems
from controller.decide.scaling.size import SizeDecision, decide_size
from controller.decide.start_problem import StartProblem
from controller.decide.view import PodState, PoolView
from controller.errors import InvalidObject
from controller.kube.api import Object
from controller.objects.acceptance import going, refusal, unusable
from controller.objects.pool import Mode, PoolSpec
from controller.passes.pod_starts import PodStarts
from controller.passes.starting import Starting
from controller.passes.task_pass import TaskPass
from controller.passes.task_starts import TaskStarts
from controller.world.index import Key
from controller.world.protection import Protection
from controller.world.world import World
from metrics.pools import PoolMetrics

_STATUS_SECONDS = 0.5
"""The shortest time between two writes of a pool's status: slots may change all the time."""


class Reconciler:
    """Decides what to do about a pool, and has operations started. Its state is in the world and in the cluster."""

    def __init__(
        self,
        world: World,
        queue: WorkQueue[Key],
        starting: Starting,
        protection: Protection,
        *,
        pod_starts: PodStarts,
        task_starts: TaskStarts,
        tasks: Tasks,
        pools: Pools,
        history: History,
        shown: PoolMetrics,
    ) -> None:
        self._index = world.index
        self._views = world.views
        self._failures = world.start_failures
        self._evictions = world.evictions
        self._sizes = world.sizes
        self._signals = world.signals
        self._deployments = world.deployments
        self._protection = protection
        self._queue = queue
        self._starting = starting
        self._pod_starts = pod_starts
        self._task_starts = task_starts
        self._pools = pools
        self._history = history
        self._shown = shown
        self._task_pass = TaskPass(world, queue, starting, task_starts, tasks)
        self._status_due: dict[Key, float] = {}

    def reconcile(self, key: Key) -> None:
        """One pass over one pool."""
        if not self._index.synced:
            return
        pool = self._index.pools.get(*key)
        spec = self._index.spec(key)
        terms = spec if isinstance(spec, PoolSpec) else PoolSpec()
        unheld = self._task_pass.advance(key, terms)
        self._task_pass.say_unreadable(key)
        self._task_pass.end_orphans(key, terms)
        self._task_pass.finish_ends(key, terms)
        self._answer_evictions(key)
        if pool is None:
            self._without_pool(key)
        elif isinstance(spec, PoolSpec):
            self._reconcile_pool(key, pool, spec)
        else:
            problem = Problem(reason="InvalidSpec", message=str(spec))
            self._task_pass.refuse_all(key, unusable(key[1], problem.message))
            self._report(key, pool, invalid_pool_status(problem, before=Before.of(pool), now=self._views.now()))
        for task in unheld:
            self._task_starts.hold(key, task)

    def _without_pool(self, key: Key) -> None:
        """There is no pool of this name: say so on its tasks, and remove what is left of it."""
        self._shown.forget(key)
        self._status_due.pop(key, None)
        self._signals.want(key, None)
        live, pods = self._index.live(key).values(), self._views.pods(key).values()
        for task in live:
            if task.queued and not task.unwanted:
                self._task_pass.judge(key, task, refusal(task, None))
        for action in let_go(pods, live, {}):
            self._pod_starts.let_go(key, action.pod)
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
        unbudgeted = self._pools.budget_problem(pool)
        if (view.pods or not view.deleting) and self._pools.needs_budget(pool):
            self._starting.start(key, f"budget/{view.uid}", functools.partial(self._pools.keep_budget, pool))
            view = view.but(unguarded=unbudgeted is None)
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
            self._task_pass.refuse_all(key, going(view.name))
        elif isinstance(template, InvalidObject) and not any(pod.counts for pod in view.pods):
            self._task_pass.refuse_all(key, unusable(view.name, str(template)))
        else:
            self._task_pass.dispatch(key, decision, surplus(view, decision, removed(actions)), not_starting(view))
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
        # Others are kept from the pool's Pods by the cluster's policies, and by the pool's own budget.
        protection = self._protection.found if unbudgeted is None else without_budget(unbudgeted)
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
                self._pod_starts.replica_action(key, action)
            else:
                self._pod_starts.pod_action(key, pool, view, action)

    def _keep_deployments(self, key: Key, pool: Object, decision: SizeDecision, actions: tuple[PodAction, ...]) -> None:
        view = decision.basis.view
        if view.spec.mode is not Mode.DEPLOYMENT and not (view.deployments or view.orphaned_sets):
            return
        wanted = sum(action.count for action in actions if isinstance(action, CreatePods))
        if view.spec.mode is Mode.DEPLOYMENT and wanted:
            wanted = self._pod_starts.creatable(key, view, wanted)
        for action in for_deployments(view, decision, wanted):
            self._pod_starts.deployment_action(key, pool, view.spec, action)

    def _keep_tokens(self, key: Key, pool: Object, view: PoolView) -> Rotation | None:
        """Make a token Secret that was deleted again, else go on with its rotation. Tells how that stands."""
        if not self._pools.has_tokens(pool):
            # A deleted pool's last Secret stays, by its finalizer, until no Pod needs it.
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
                self._pod_starts.answer_eviction(key, eviction, found.answer)
            if found.again_seconds is not None:
                self._queue.add_after(key, found.again_seconds)
