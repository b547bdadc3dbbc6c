"""What the controller knows: caches, agents' reports, and what is under way. Read into a frozen view for each pass."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime

from controller import names
from controller.act.locks import Locks
from controller.agents.client import agent_url
from controller.agents.fleet import Fleet
from controller.agents.tls import pod_tls
from controller.decide.assignment import blocked
from controller.decide.death import death_proof, ended_unopened, was_drained
from controller.decide.observe import Report, agent_address, observe_pod
from controller.decide.task_actions import Whereabouts, is_refused
from controller.decide.view import PodOperation, PodView, PoolView
from controller.errors import InvalidObject
from controller.kube.api import Object
from controller.kube.cache import Cache
from controller.objects.pool import PoolSpec
from controller.objects.task import Task, TaskPhase

Key = tuple[str, str]
"""Namespace and name of a pool."""

_CONTACT_SECONDS = 10.0
"""How long a Pod that should answer and doesn't is still taken for one that is about to."""


@dataclass(slots=True)
class UnderWay:
    """Operations in flight, as decisions need to know them. Derived from what was started; nothing to reconcile."""

    pods: dict[str, PodOperation] = field(default_factory=dict)
    dispatching: dict[str, str] = field(default_factory=dict)
    creating: dict[Key, set[str]] = field(default_factory=lambda: defaultdict(set))


class World:
    """Builds views. Parsing an object is remembered by its resourceVersion."""

    def __init__(
        self,
        *,
        pools: Cache,
        pods: Cache,
        tasks: Cache,
        nodes: Cache,
        locks: Locks,
        fleet: Fleet,
        now: Callable[[], datetime],
    ) -> None:
        self.pools = pools
        self.pods = pods
        self.tasks = tasks
        self.nodes = nodes
        self.locks = locks
        self.fleet = fleet
        self.now = now
        self.under_way = UnderWay()
        self._silent_since: dict[str, float] = {}
        self._parsed: dict[str, tuple[str, Task | InvalidObject]] = {}
        self._by_pool: dict[Key, set[str]] = defaultdict(set)
        tasks.subscribe(self._index_task)

    @property
    def synced(self) -> bool:
        """Whether every list that decisions rest on was read completely at least once."""
        return all(cache.synced for cache in (self.pools, self.pods, self.tasks, self.nodes, self.locks.cache))

    def _index_task(self, old: Object | None, new: Object | None) -> None:
        obj = new or old
        if obj is None:
            return
        key = (obj["metadata"]["namespace"], str((obj.get("spec") or {}).get("pool")))
        if new is None:
            self._by_pool[key].discard(obj["metadata"]["name"])
            if not self._by_pool[key]:
                del self._by_pool[key]
            self._parsed.pop(obj["metadata"]["uid"], None)
        else:
            self._by_pool[key].add(obj["metadata"]["name"])

    def all_tasks(self, key: Key) -> Iterator[Task]:
        """The tasks of a pool whose objects can be read, final ones among them."""
        for name in sorted(self._by_pool.get(key, ())):
            obj = self.tasks.get(key[0], name)
            if obj is not None and isinstance(task := self._task(obj), Task):
                yield task

    def _task(self, obj: Object) -> Task | InvalidObject:
        uid, version = obj["metadata"]["uid"], obj["metadata"]["resourceVersion"]
        known = self._parsed.get(uid)
        if known is not None and known[0] == version:
            return known[1]
        parsed: Task | InvalidObject
        try:
            parsed = Task.parse(obj)
        except InvalidObject as problem:
            parsed = problem
        self._parsed[uid] = (version, parsed)
        return parsed

    def node_of(self, pod: Object) -> Object | None:
        """The Node a Pod is bound to, if there is one."""
        name = (pod.get("spec") or {}).get("nodeName")
        return self.nodes.get(None, name) if name else None

    def proof_of_death(self, pod: Object) -> str | None:
        """Why a Pod is certainly dead; None if that is not proven."""
        return death_proof(pod, self.node_of(pod))

    def reason_to_bury(self, pod: Object) -> str | None:
        """Why a Pod can be deleted without asking its agent; None if it can't."""
        return self.proof_of_death(pod) or ended_unopened(pod)

    def pod_views(self, key: Key) -> tuple[PodView, ...]:
        """The Pods that carry the pool's label."""
        return tuple(self._pod_view(pod) for pod in self.pods.of_pool(*key))

    def _pod_view(self, pod: Object) -> PodView:
        uid = pod["metadata"]["uid"]
        promised = PodOperation.DISPATCH if uid in self.under_way.dispatching.values() else None
        key = pool_of(pod)
        pool = self.pools.get(*key) if key is not None else None
        return observe_pod(
            pod,
            self.node_of(pod),
            self._report(pod),
            in_flight=self.under_way.pods.get(uid, promised),
            pool_uid=pool["metadata"]["uid"] if pool is not None else None,
        )

    def _report(self, pod: Object) -> Report:
        uid = pod["metadata"]["uid"]
        report = self.fleet.report(uid)
        if report is not None and report.connected:
            self._silent_since.pop(uid, None)
            return Report(state=report.state, connected=True)
        now = asyncio.get_running_loop().time()
        silent = now - self._silent_since.setdefault(uid, now)
        return Report(state=report.state if report else None, contacting=silent < _CONTACT_SECONDS)

    def view(self, key: Key, pool: Object, spec: PoolSpec, tasks: Iterable[Task], pods: Iterable[PodView]) -> PoolView:
        """The pool as decisions see it."""
        live = tuple(task for task in tasks if not task.final)
        return PoolView(
            namespace=key[0],
            name=key[1],
            uid=pool["metadata"]["uid"],
            spec=spec,
            pods=tuple(pods),
            tasks=live,
            now=self.now(),
            creating=sum(self.pods.get(key[0], name) is None for name in self.under_way.creating.get(key, ())),
            blocked=blocked(self._tasks_with_locks(key[0], live), self.locks.holders(key[0])),
            dispatching={
                task.uid: self.under_way.dispatching[task.uid]
                for task in live
                if task.queued and task.uid in self.under_way.dispatching
            },
            deleting="deletionTimestamp" in pool["metadata"],
            synced=self.synced,
        )

    def _tasks_with_locks(self, namespace: str, live: Iterable[Task]) -> list[Task]:
        """Those of the pool, and those of other pools that contend for the same lockKeys.

        A task that no slot can take holds up nobody: it says so in its conditions.
        """
        keys = {task.spec.lock_key for task in live if task.spec.lock_key}
        if not keys:
            return []
        parsed = (self._task(obj) for obj in self.tasks.items(namespace))
        return [
            task
            for task in parsed
            if isinstance(task, Task) and task.spec.lock_key in keys and not task.final and not is_refused(task)
        ]

    def whereabouts(self, task: Task, pods: dict[str, PodView]) -> Whereabouts:
        """What is known of the Pod that `task` was assigned to; `pods` are the pool's by UID."""
        uid = task.status.pod_uid
        if uid is None:
            return Whereabouts(pod=None)
        pod = pods.get(uid)
        known = self.pods.get(task.namespace, task.status.pod or "") if pod is None or pod.dead else None
        if known is not None and known["metadata"]["uid"] == uid:
            # What lets a Pod be deleted that was never opened proves nothing about a task that is said to be there.
            pod = replace(pod or self._pod_view(known), dead=self.proof_of_death(known) is not None)
        final = self.pods.final(uid) if pod is None else None
        buried = (
            final is not None
            and final.seen
            and (was_drained(final.object) or self.proof_of_death(final.object) is not None)
        )
        return Whereabouts(pod=pod, buried=buried, synced=self.synced)

    def recheck_seconds(self, view: PoolView) -> float | None:
        """When the view changes by the clock alone; None if it doesn't.

        That is when the youngest idle Pod has been idle long enough to go, and when an agent that should have answered
        is no longer taken for one that is about to.
        """
        now = asyncio.get_running_loop().time()
        waits = [
            self._silent_since[pod.uid] + _CONTACT_SECONDS - now
            for pod in view.pods
            if pod.contacting and pod.uid in self._silent_since
        ]
        if (scaler := view.spec.scaler) is not None:
            waits.extend(
                scaler.min_idle_seconds - (view.now - since).total_seconds()
                for pod in view.pods
                if (since := pod.idle_since) is not None
            )
        return min((wait for wait in waits if wait > 0), default=None)

    def pool_keys(self) -> set[Key]:
        """Every pool there is, or that something still belongs to."""
        pools = {(obj["metadata"]["namespace"], obj["metadata"]["name"]) for obj in self.pools.items()}
        return pools | set(self._by_pool) | {key for pod in self.pods.items() if (key := pool_of(pod))}

    def holds_lock(self, task: Task) -> bool:
        """Whether the task holds its lockKey, as last seen."""
        key = task.spec.lock_key
        return bool(key) and self.locks.holder(task.namespace, key or "") == task.uid

    def lock_holder(self, task: Task) -> str:
        """Who has the lockKey that `task` waits for, in words. Only a person may let go of a lost apply's."""
        name = self.locks.holder_name(task.namespace, task.spec.lock_key or "")
        if name is None:
            return "whose turn is another's"
        held = self.tasks.get(task.namespace, name)
        holder = self._task(held) if held is not None else None
        if holder is None or (isinstance(holder, Task) and holder.status.phase is TaskPhase.LOST):
            return f"held for {name}, whose end is not known: podslots unlock {task.spec.lock_key}"
        return f"held by {name}"

    def follow_agent(self, pod: Object) -> None:
        """Have a Pod's agent watched as long as it may answer."""
        key, address, uid = pool_of(pod), agent_address(pod, self.node_of(pod)), pod["metadata"]["uid"]
        if key is not None and address is not None:
            tls = pod_tls(pod)
            self.fleet.add(uid, agent_url(address, tls=tls is not None), *key, tls)
        else:
            self.fleet.forget(uid)

    def forget_pod(self, uid: str) -> None:
        """The Pod is gone from the API."""
        self.fleet.forget(uid)
        self._silent_since.pop(uid, None)


def pool_of(pod: Object) -> Key | None:
    """The pool whose label a Pod carries."""
    metadata = pod["metadata"]
    pool = (metadata.get("labels") or {}).get(names.POOL_LABEL)
    return (metadata["namespace"], pool) if pool else None
