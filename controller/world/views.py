"""Frozen views for decisions. A Pod's view is kept until something about that Pod changes."""

import asyncio
import itertools
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from functools import cached_property

from controller.decide.death import was_drained
from controller.decide.observe import observe_pod
from controller.decide.tasks.assignment import blocked
from controller.decide.tasks.task_actions import Whereabouts
from controller.decide.view import PodView, PoolView
from controller.kube.api import Object
from controller.objects.ended_task import EndedTask
from controller.objects.pool import PoolSpec
from controller.objects.task import Task
from controller.world.following import Following
from controller.world.index import Index, Key, pool_of
from controller.world.under_way import UnderWay

STUCK_SECONDS = 60.0
"""How long a Pod that can't start is counted on all the same: images are pulled again, nodes are added."""

DERIVED = tuple(name for name, member in vars(PodView).items() if isinstance(member, cached_property))
"""What a view of a Pod works out of itself once."""


class Views:
    """Makes the views. Other code reports changes by `pod_changed` and similar methods."""

    def __init__(
        self,
        index: Index,
        following: Following,
        under_way: UnderWay,
        *,
        now: Callable[[], datetime],
        asked_to_go: Callable[[str], bool] = lambda _: False,
    ) -> None:
        """`asked_to_go(pod_uid)`: whether an Eviction asks for a Pod."""
        self.now = now
        self._asked_to_go = asked_to_go
        self._index = index
        self._following = following
        self._under_way = under_way
        self._pods: dict[Key, dict[str, PodView]] = defaultdict(dict)
        self._stale: dict[Key, dict[str, None]] = defaultdict(dict)
        self._restless: dict[Key, dict[str, None]] = defaultdict(dict)
        """Pods whose view changes by the clock alone."""
        self._where: dict[str, tuple[Key, str]] = {}
        """The pool and the name of each Pod, by its UID."""
        self._first_idle: dict[str, tuple[datetime, datetime]] = {}
        self._problem_since: dict[str, float] = {}
        self._on_node: dict[str, dict[str, None]] = defaultdict(dict)
        under_way.on_pod_changed = self._touched
        index.pods.subscribe(self._pod_changed)
        index.pools.subscribe(self._pool_changed)

    def _touched(self, pod_uid: str) -> None:
        self.agent_changed(pod_uid)

    # --- what has changed ---------------------------------------------------------------------------------------------

    def agent_changed(self, pod_uid: str) -> Key | None:
        """Something about a Pod has changed that is not in its object. The pool it belongs to, if it is known."""
        if (where := self._where.get(pod_uid)) is None:
            return None
        self._stale[where[0]][pod_uid] = None
        return where[0]

    def node_changed(self, node: str) -> set[Key]:
        """A Node was cordoned, tainted, or is gone. The pools that have Pods there."""
        found = (self.agent_changed(uid) for uid in self._on_node.get(node, ()))
        return {key for key in found if key is not None}

    def pods_on(self, node: str) -> list[Object]:
        """The Pods that are bound to a Node."""
        places = [self._where[uid] for uid in self._on_node.get(node, ()) if uid in self._where]
        found = (self._index.pods.get(key[0], name) for key, name in places)
        return [pod for pod in found if pod is not None]

    def _pod_changed(self, old: Object | None, new: Object | None) -> None:
        if old is not None:
            self._forget(old)
        if new is not None and (key := pool_of(new)) is not None:
            uid = new["metadata"]["uid"]
            self._where[uid] = (key, new["metadata"]["name"])
            self._stale[key][uid] = None
            if node := (new.get("spec") or {}).get("nodeName"):
                self._on_node[node][uid] = None

    def _forget(self, pod: Object) -> None:
        uid, key = pod["metadata"]["uid"], pool_of(pod)
        if (node := (pod.get("spec") or {}).get("nodeName")) and node in self._on_node:
            self._on_node[node].pop(uid, None)
            if not self._on_node[node]:
                del self._on_node[node]
        self._where.pop(uid, None)
        if key is not None:
            self._stale[key][uid] = None

    def _pool_changed(self, old: Object | None, new: Object | None) -> None:
        """A pool that is another one of the same name disowns the Pods that are there."""
        if old is None or new is None or old["metadata"]["uid"] != new["metadata"]["uid"]:
            metadata = (new or old or {})["metadata"]
            key = (metadata["namespace"], metadata["name"])
            self._stale[key].update(dict.fromkeys(self._pods.get(key, ())))

    # --- views --------------------------------------------------------------------------------------------------------

    def keys(self) -> set[Key]:
        """Every pool that has Pods."""
        return {key for kept in (self._pods, self._stale) for key, pods in kept.items() if pods}

    def stale(self, key: Key) -> int:
        """How many views of a pool's Pods have to be made anew."""
        return len(self._stale.get(key, ()))

    def freshen(self, key: Key, most: int) -> None:
        """Make at most so many of them, so that the loop gets to run in between."""
        stale = self._stale.get(key, {})
        for uid in list(itertools.islice(stale, most)):
            view = self._make(key, uid)
            del stale[uid]  # not earlier: if the view of a Pod can't be made, the Pod is still there
            if view is None:
                self._pods[key].pop(uid, None)
                self._restless[key].pop(uid, None)
                self._first_idle.pop(uid, None)
                self._problem_since.pop(uid, None)
                continue
            # Derived here, a few Pods at a time: the pass that comes next would do it for all of them at once.
            for name in DERIVED:
                getattr(view, name)
            self._pods[key][uid] = view
            if view.contacting or (view.start_problem is not None and not view.stuck):
                self._restless[key][uid] = None
            else:
                self._restless[key].pop(uid, None)
        for kept in (self._stale, self._pods, self._restless):
            if not kept.get(key):
                kept.pop(key, None)

    def pods(self, key: Key) -> Mapping[str, PodView]:
        """The Pods that carry a pool's label, by UID, as they are now."""
        if key in self._restless:
            self._stale[key].update(self._restless[key])
        if key in self._stale:
            self.freshen(key, self.stale(key))
        return self._pods.get(key, {})

    def _make(self, key: Key, uid: str) -> PodView | None:
        where = self._where.get(uid)
        pod = self._index.pods.get(key[0], where[1]) if where is not None and where[0] == key else None
        return self._view_of(pod) if pod is not None and pod["metadata"]["uid"] == uid else None

    def _view_of(self, pod: Object) -> PodView:
        uid, key = pod["metadata"]["uid"], pool_of(pod)
        pool = self._index.pools.get(*key) if key is not None else None
        view = observe_pod(
            pod,
            self._index.node_of(pod),
            self._following.report(uid),
            in_flight=self._under_way.with_pod(uid),
            pool_uid=pool["metadata"]["uid"] if pool is not None else None,
            asked_to_go=self._asked_to_go(uid),
        )
        idle_seen, stuck = self._idle_seen(view), self._is_stuck(view)
        return replace(view, idle_seen=idle_seen, stuck=stuck) if idle_seen is not None or stuck else view

    def _idle_seen(self, view: PodView) -> datetime | None:
        """When this controller first saw the Pod idle.

        The Pod's own times are of its node's clock, which may be hours wrong.
        """
        since = view.idle_since
        if since is None:
            self._first_idle.pop(view.uid, None)
            return None
        known = self._first_idle.get(view.uid)
        if known is None or known[0] != since:
            known = self._first_idle[view.uid] = (since, self.now())
        return known[1]

    def _is_stuck(self, view: PodView) -> bool:
        if view.start_problem is None:
            self._problem_since.pop(view.uid, None)
            return False
        now = asyncio.get_running_loop().time()
        return now - self._problem_since.setdefault(view.uid, now) >= STUCK_SECONDS

    def pool(
        self,
        key: Key,
        pool: Object,
        spec: PoolSpec,
        *,
        template_hash: str | None = None,
        token_secret: str | None = None,
    ) -> PoolView:
        """A pool as decisions see it."""
        live, under_way, locks = self._index.live(key), self._under_way, self._index.locks
        lock_keys = {task.spec.lock_key for task in live.values() if task.spec.lock_key}
        return PoolView(
            namespace=key[0],
            name=key[1],
            uid=pool["metadata"]["uid"],
            spec=spec,
            pods=tuple(self.pods(key).values()),
            tasks=tuple(live.values()),
            now=self.now(),
            creating=sum(self._index.pods.get(key[0], name) is None for name in under_way.creating.get(key, ())),
            blocked=blocked(self._index.contenders(key[0], lock_keys), locks.holders(key[0], lock_keys))
            if lock_keys
            else _NONE,
            dispatching={
                uid: pod_uid for uid, pod_uid in under_way.dispatching.items() if uid in live and live[uid].queued
            },
            template_hash=template_hash,
            token_secret=token_secret,
            deleting="deletionTimestamp" in pool["metadata"],
            synced=self._index.synced,
        )

    def whereabouts(self, key: Key, task: Task | EndedTask) -> Whereabouts:
        """What is known of the Pod that a task was assigned to."""
        name, uid = (task.pod, task.pod_uid) if isinstance(task, EndedTask) else (task.status.pod, task.status.pod_uid)
        if uid is None:
            return Whereabouts(pod=None)
        pod = self.pods(key).get(uid)
        known = self._index.pods.get(task.namespace, name or "") if pod is None or pod.dead else None
        if known is not None and known["metadata"]["uid"] == uid:
            # What lets a Pod be deleted that was never opened proves nothing about a task that is said to be there.
            pod = replace(pod or self._view_of(known), dead=self._index.proof_of_death(known) is not None)
        final = self._index.pods.final(uid) if pod is None else None
        buried = (
            final is not None
            and final.seen
            and (was_drained(final.object) or self._index.proof_of_death(final.object) is not None)
        )
        return Whereabouts(pod=pod, buried=buried, synced=self._index.synced)

    def recheck_seconds(self, view: PoolView, size_changes_at: datetime | None) -> float | None:
        """When the view changes by the clock alone; None if it doesn't.

        That is when the youngest idle Pod has been idle long enough to go, and when an agent that should have answered
        is no longer taken for one that is about to; and when the size may change further, as a window or a freeze ends.
        """
        now = asyncio.get_running_loop().time()
        waits = [self._following.given_up_in(pod.uid) for pod in view.others if pod.contacting]
        waits += [
            self._problem_since.get(pod.uid, now) + STUCK_SECONDS - now
            for pod in view.others
            if pod.start_problem is not None and not pod.stuck
        ]
        if (scaler := view.spec.scaler) is not None:
            latest = view.now - timedelta(seconds=scaler.min_idle_seconds)
            young = [since for pod in view.pods if (since := pod.idle_since) is not None and since > latest]
            if young:
                waits.append((min(young) - latest).total_seconds())
        if size_changes_at is not None:
            waits.append((size_changes_at - view.now).total_seconds())
        return min((wait for wait in waits if wait > 0), default=None)


_NONE: frozenset[str] = frozenset()
