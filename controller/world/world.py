"""All that decisions are made from: indexes and views of the caches, agents followed, operations under way."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from controller import names
from controller.act.locks import Locks
from controller.agents.fleet import Fleet
from controller.decide.start_problem import StartProblem
from controller.decide.view import PodState
from controller.kube.api import Object
from controller.prometheus.readers import Readers
from controller.world.caches import Caches
from controller.world.deployments import PoolDeployments
from controller.world.evictions import Evictions
from controller.world.following import Following
from controller.world.index import Index, pool_of
from controller.world.sizes import Sizes
from controller.world.start_failures import StartFailures
from controller.world.under_way import UnderWay
from controller.world.views import Views


@dataclass(frozen=True, slots=True)
class World:
    """What a pass reads."""

    index: Index
    following: Following
    under_way: UnderWay
    views: Views
    start_failures: StartFailures
    evictions: Evictions
    sizes: Sizes
    signals: Readers
    deployments: PoolDeployments

    def note_end(self, pod: Object) -> None:
        """A Pod is gone. One that was never opened, and that was not ours to take, has failed to start.

        A ReplicaSet takes such Pods before all others, whichever it was meant to take.
        """
        metadata, key = pod["metadata"], pool_of(pod)
        pool = self.index.pools.get(*key) if key is not None else None
        starting = (metadata.get("labels") or {}).get(names.STATE_LABEL) == PodState.STARTING
        if self.under_way.was_taken(metadata["uid"]) or pool is None or not starting or _has_manager(metadata):
            return
        template = (pool["metadata"]["uid"], (metadata.get("annotations") or {}).get(names.TEMPLATE_HASH, ""))
        problem = StartProblem(reason="PodDeleted", message=f"Pod {metadata['name']} was deleted before it was opened")
        self.start_failures.failed(template, metadata["uid"], problem, asyncio.get_running_loop().time())

    @staticmethod
    def of(
        caches: Caches,
        *,
        locks: Locks,
        fleet: Fleet,
        evictions: Evictions,
        signals: Readers,
        now: Callable[[], datetime],
    ) -> "World":
        """Made on these caches, and kept up by their changes."""
        index = Index(
            pools=caches.pools,
            pods=caches.pods,
            tasks=caches.tasks,
            nodes=caches.nodes,
            secrets=caches.secrets,
            locks=locks,
        )
        following, under_way = Following(fleet, index), UnderWay()
        views = Views(index, following, under_way, now=now, asked_to_go=evictions.asks_for)
        failures, sizes = StartFailures(), Sizes()

        def pool_changed(old: Object | None, new: Object | None) -> None:
            if old is not None and new is None:
                failures.forget(old["metadata"]["uid"])
                sizes.forget(old["metadata"]["uid"])

        caches.pools.subscribe(pool_changed)
        found = PoolDeployments(caches.deployments, caches.replica_sets)
        return World(index, following, under_way, views, failures, evictions, sizes, signals, found)


def _has_manager(metadata: Object) -> bool:
    owners = metadata.get("ownerReferences") or ()
    return any(owner.get("controller") and owner["kind"] == "ReplicaSet" for owner in owners)
