"""Indexes of the caches for decisions: the tasks of a pool, and the tasks that contend for a lockKey.

An object is parsed once a version, as it comes. Tasks that have ended are kept apart. A pass looks at one only while it
holds its lockKey, is being deleted or due to be, or its agent still has its result. Those that still have our finalizer
are looked at a few at a time.
"""

import heapq
import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from datetime import datetime

from controller import names
from controller.act.locks import Locks
from controller.decide.death import death_proof, ended_unopened
from controller.decide.tasks.task_actions import is_refused
from controller.errors import InvalidObject
from controller.kube.api import Object
from controller.kube.cache import Cache
from controller.objects.ended_task import EndedTask, has_ended
from controller.objects.pool import PoolSpec
from controller.objects.task import Task, TaskPhase

Key = tuple[str, str]
"""Namespace and name of a pool."""


class Index:
    """Kept up by the caches' changes."""

    def __init__(self, *, pools: Cache, pods: Cache, tasks: Cache, nodes: Cache, secrets: Cache, locks: Locks) -> None:
        self.pools = pools
        self.pods = pods
        self.tasks = tasks
        self.nodes = nodes
        self.secrets = secrets
        self.locks = locks
        self._phases: dict[Key, Counter[TaskPhase]] = defaultdict(Counter)
        self._plans: dict[Key, Counter[bool]] = defaultdict(Counter)
        self._live: dict[Key, dict[str, Task]] = defaultdict(dict)
        self._unreadable: dict[Key, dict[str, tuple[Object, InvalidObject]]] = defaultdict(dict)
        self._ended: dict[Key, dict[str, Object]] = defaultdict(dict)
        """The cache's own objects: there may be a hundred thousand, and few are ever asked for."""
        self._open_ends: dict[Key, dict[str, None]] = defaultdict(dict)
        self._held: dict[Key, dict[str, None]] = defaultdict(dict)
        self._due: dict[Key, list[tuple[datetime, str]]] = defaultdict(list)
        self._contenders: dict[Key, dict[str, Task]] = defaultdict(dict)
        """Live tasks with a lockKey, by namespace and lockKey."""
        self._specs: dict[Key, PoolSpec | InvalidObject] = {}
        pools.subscribe(self._pool_changed)
        tasks.subscribe(self._task_changed)

    @property
    def synced(self) -> bool:
        """Whether every list that decisions rest on was read completely at least once."""
        return all(cache.synced for cache in (self.pools, self.pods, self.tasks, self.nodes, self.locks.cache))

    def spec(self, key: Key) -> PoolSpec | InvalidObject | None:
        """What a pool's object asks for, or why that can't be read. None: there is no such pool."""
        return self._specs.get(key)

    def _pool_changed(self, old: Object | None, new: Object | None) -> None:
        metadata = (new or old or {})["metadata"]
        key = (metadata["namespace"], metadata["name"])
        if new is None:
            self._specs.pop(key, None)
            return
        try:
            self._specs[key] = PoolSpec.parse(new)
        except InvalidObject as problem:
            self._specs[key] = problem

    # --- tasks --------------------------------------------------------------------------------------------------------

    def live(self, key: Key) -> Mapping[str, Task]:
        """The tasks of a pool that have not ended and can be read, by UID."""
        return self._live.get(key, {})

    def unreadable(self, key: Key) -> Iterable[tuple[Object, InvalidObject]]:
        """The tasks of a pool whose objects can't be read, and why."""
        return self._unreadable.get(key, {}).values()

    def is_unreadable(self, namespace: str, uid: str) -> bool:
        """Whether there is such a task, and its object can't be read."""
        return any(uid in tasks for key, tasks in self._unreadable.items() if key[0] == namespace)

    def ended(self, key: Key) -> AbstractSet[str]:
        """UIDs of the tasks of a pool that have ended and still exist."""
        return self._ended.get(key, {}).keys()

    def ended_task(self, key: Key, uid: str) -> EndedTask | None:
        """One of them."""
        obj = self._ended.get(key, {}).get(uid)
        return EndedTask.parse(obj) if obj is not None else None

    def phases(self, key: Key) -> Mapping[TaskPhase, int]:
        """How many tasks of a pool are in each phase, ended ones too."""
        return self._phases.get(key, {})

    def plans(self, key: Key) -> Mapping[bool, int]:
        """How many tasks of a pool have a plan that found something to change, and one that found nothing."""
        return self._plans.get(key, {})

    def lost_locks(self, key: Key) -> int:
        """How many lockKeys lost tasks of a pool hold: nobody knows whether their applies still run."""
        if not self.phases(key).get(TaskPhase.LOST):
            return 0
        ends = [EndedTask.parse(self._ended[key][uid]) for uid in self._open_ends.get(key, ())]
        return sum(end.keeps_lock and self.holds_lock(key[0], end.lock_key, end.uid) for end in ends)

    def open_ends(self, key: Key, now: datetime) -> list[EndedTask]:
        """The ended tasks of a pool that may have something left to be done; see `settled`."""
        due = self._due.get(key, [])
        while due and due[0][0] <= now:
            self.reopen(key, heapq.heappop(due)[1])
        return [EndedTask.parse(self._ended[key][uid]) for uid in self._open_ends.get(key, ())]

    def held_ends(self, key: Key, most: int) -> list[EndedTask]:
        """Up to `most` of a pool's ended tasks that still have our finalizer. Each call goes on with the next ones."""
        held = self._held.get(key, {})
        turn = list(itertools.islice(held, most))
        for uid in turn:
            del held[uid]
            held[uid] = None
        return [EndedTask.parse(self._ended[key][uid]) for uid in turn]

    def next_due(self, key: Key) -> datetime | None:
        """When the next ended task of a pool is to be deleted."""
        due = self._due.get(key)
        return due[0][0] if due else None

    def settled(self, key: Key, task: EndedTask) -> None:
        """Nothing is left to be done for an ended task, unless something about it changes or its time has come."""
        self._open_ends[key].pop(task.uid, None)

    def reopen(self, key: Key, uid: str) -> None:
        """Have an ended task looked at again, if there is one of this UID."""
        if uid in self.ended(key):
            self._open_ends[key][uid] = None

    def contenders(self, namespace: str, lock_keys: Iterable[str]) -> list[Task]:
        """The tasks of all pools of a namespace that contend for these lockKeys.

        A task that no slot can take does not block the others; its conditions show it.
        """
        groups = (self._contenders.get((namespace, lock_key), {}) for lock_key in lock_keys)
        return [task for group in groups for task in group.values() if not is_refused(task)]

    def rival_pools(self, namespace: str, lock_key: str) -> set[Key]:
        """The pools with tasks that contend for a lockKey: when one of these tasks changes, another may be next."""
        return {(namespace, task.spec.pool) for task in self._contenders.get((namespace, lock_key), {}).values()}

    def _task_changed(self, old: Object | None, new: Object | None) -> None:
        before = old if old is not None and new is not None and key_of_task(old) == key_of_task(new) else None
        if old is not None:
            self._forget_task(old, stays=before is not None)
        if new is not None:
            self._note_task(new, before)

    def _note_task(self, obj: Object, before: Object | None) -> None:
        key, uid = key_of_task(obj), obj["metadata"]["uid"]
        if has_ended(obj):
            self._ended[key][uid] = obj
            ended = EndedTask.parse(obj)
            self._count(key, ended.phase, ended.changed)
            if ended.deleting or self.holds_lock(key[0], ended.lock_key, uid):
                self.reopen(key, uid)
            if names.TASK_FINALIZER in ended.finalizers:
                self._held[key][uid] = None
            known = EndedTask.parse(before).delete_at if before is not None and has_ended(before) else None
            if ended.delete_at is not None and ended.delete_at != known:
                heapq.heappush(self._due[key], (ended.delete_at, uid))
            return
        try:
            task = Task.parse(obj)
        except InvalidObject as problem:
            self._unreadable[key][uid] = (obj, problem)
            return
        self._live[key][uid] = task
        self._count(key, task.status.phase, task.status.changed)
        if task.spec.lock_key:
            self._contenders[key[0], task.spec.lock_key][uid] = task

    def _forget_task(self, obj: Object, *, stays: bool) -> None:
        key, uid = key_of_task(obj), obj["metadata"]["uid"]
        self._unreadable.get(key, {}).pop(uid, None)
        if (known := self._ended.get(key, {}).pop(uid, None)) is not None:
            ended = EndedTask.parse(known)
            self._count(key, ended.phase, ended.changed, -1)
            self._open_ends[key].pop(uid, None)
            self._held[key].pop(uid, None)
        elif (task := self._live.get(key, {}).pop(uid, None)) is not None:
            self._count(key, task.status.phase, task.status.changed, -1)
            if task.spec.lock_key:
                place = (key[0], task.spec.lock_key)
                self._contenders[place].pop(uid, None)
                if not self._contenders[place]:
                    del self._contenders[place]
        if not (stays or self.live(key) or self.ended(key) or self._unreadable.get(key)):
            tasks = (self._live, self._ended, self._unreadable, self._open_ends, self._held, self._due)
            for kept in (*tasks, self._phases, self._plans):
                kept.pop(key, None)

    def _count(self, key: Key, phase: TaskPhase, changed: bool | None, one: int = 1) -> None:
        self._phases[key][phase] += one
        if not self._phases[key][phase]:
            del self._phases[key][phase]
        if changed is not None:
            self._plans[key][changed] += one

    # --- the rest -----------------------------------------------------------------------------------------------------

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

    def pool_keys(self) -> set[Key]:
        """Every pool there is, or that something still belongs to."""
        pools = {(obj["metadata"]["namespace"], obj["metadata"]["name"]) for obj in self.pools.items()}
        tasks = {*self._live, *self._ended, *self._unreadable}
        owned = itertools.chain(self.pods.items(), self.secrets.items())
        return pools | tasks | {key for obj in owned if (key := pool_of(obj))}

    def task_keys(self) -> set[Key]:
        """Every pool that a task which has not ended names, whether there is one or not."""
        return {*self._live, *self._unreadable}

    def holds_any_lock(self, metadata: Object) -> bool:
        """Whether a task that can't be read holds a lock, as last seen. Its lockKey can't be read either."""
        return bool(self.locks.held_by(metadata["namespace"], metadata["uid"]))

    def holds_lock(self, namespace: str, lock_key: str | None, uid: str) -> bool:
        """Whether a task holds its lockKey, as last seen."""
        return bool(lock_key) and self.locks.holder(namespace, lock_key or "") == uid


def key_of_task(task: Object) -> Key:
    """The pool that a SlotTask object names."""
    spec = task.get("spec")
    return task["metadata"]["namespace"], str(spec.get("pool")) if isinstance(spec, dict) else ""


def pool_of(obj: Object) -> Key | None:
    """The pool whose label an object carries."""
    metadata = obj["metadata"]
    pool = (metadata.get("labels") or {}).get(names.POOL_LABEL)
    return (metadata["namespace"], pool) if pool else None
