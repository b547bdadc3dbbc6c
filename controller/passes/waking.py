"""Which change wakes which pools. A pool that is woken is put into the queue, and gets a pass."""

from controller.act.work_queue import WorkQueue
from controller.kube.api import Object
from controller.world.caches import Caches
from controller.world.index import Key, key_of_task, pool_of
from controller.world.world import World


class Waking:
    """Knows the pools that a changed object, agent or Eviction is about."""

    def __init__(self, queue: WorkQueue[Key], world: World) -> None:
        self._queue = queue
        self._world = world

    def follow(self, caches: Caches) -> None:
        """Wake pools by what changes in these caches."""
        caches.pools.subscribe(lambda old, new: self._wake_key(new or old))
        caches.tasks.subscribe(self._task_changed)
        caches.secrets.subscribe(lambda old, new: self._wake_labelled(new or old))
        caches.pods.subscribe(self._pod_changed)
        caches.leases.subscribe(self._lease_changed)
        caches.nodes.subscribe(self._node_changed)
        caches.budgets.subscribe(self._budget_changed)
        for cache in (caches.deployments, caches.replica_sets):
            cache.subscribe(lambda old, new: self._wake_labelled(new or old))

    def _wake_key(self, pool: Object | None) -> None:
        if pool is not None:
            self._queue.add((pool["metadata"]["namespace"], pool["metadata"]["name"]))

    def _task_changed(self, old: Object | None, new: Object | None) -> None:
        """Wake its pool, and the pools of tasks that wait for the same lockKey: another one may be next."""
        for task in (old, new):
            if task is None:
                continue
            self._queue.add(key_of_task(task))
            spec = task.get("spec")
            if isinstance(spec, dict) and isinstance(lock_key := spec.get("lockKey"), str):
                for key in self._world.index.rival_pools(task["metadata"]["namespace"], lock_key):
                    self._queue.add(key)

    def wake_all(self) -> None:
        """Wake every pool."""
        for key in self._world.index.pool_keys():
            self._queue.add(key)

    def _wake_labelled(self, obj: Object | None) -> None:
        if obj is not None and (key := pool_of(obj)) is not None:
            self._queue.add(key)

    def _lease_changed(self, old: Object | None, new: Object | None) -> None:
        """A lockKey was taken or released: wake the pools of the namespace.

        Their tasks may wait for it, or still hold it.
        """
        lease = new or old
        if lease is None:
            return
        namespace = lease["metadata"]["namespace"]
        holder = str((lease.get("spec") or {}).get("holderIdentity"))
        for key in self._world.index.pool_keys():
            if key[0] == namespace:
                self._world.index.reopen(key, holder)
                self._queue.add(key)

    def _budget_changed(self, old: Object | None, new: Object | None) -> None:
        """Wake its pool if somebody changed or removed it. Its status changes with each Pod, which is no reason."""
        if old is None or new is None or old["metadata"].get("generation") != new["metadata"].get("generation"):
            self._wake_labelled(new or old)

    def _pod_changed(self, old: Object | None, new: Object | None) -> None:
        if new is not None:
            self._world.following.follow(new)
        elif old is not None:
            self._world.following.forget(old["metadata"]["uid"])
            self._world.note_end(old)
        for pod in (old, new):
            self._wake_labelled(pod)

    def _node_changed(self, old: Object | None, new: Object | None) -> None:
        """Wake the pools with Pods on a node if it was cordoned or tainted. A heartbeat wakes none."""
        node = new or old
        if node is not None and _placement(old) != _placement(new):
            name = node["metadata"]["name"]
            for pod in self._world.views.pods_on(name):
                self._world.following.follow(pod)  # or no more: the taint `out-of-service` proves its death
            for key in self._world.views.node_changed(name):
                self._queue.add(key)

    def agent_changed(self, pod_uid: str) -> None:
        """What is known of a Pod's agent has changed: wake its pool."""
        if (key := self._world.views.agent_changed(pod_uid)) is not None:
            self._queue.add(key)

    def eviction_changed(self, pod_uid: str) -> None:
        """The Pod may be unknown already: its end must still be reported."""
        if (key := self._world.views.agent_changed(pod_uid) or self._world.evictions.pool_of(pod_uid)) is not None:
            self._queue.add(key)


def _placement(node: Object | None) -> tuple[object, object]:
    spec = (node or {}).get("spec") or {}
    return spec.get("unschedulable"), spec.get("taints")
