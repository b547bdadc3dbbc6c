"""All that is known, put together."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from controller.act.locks import Locks
from controller.agents.fleet import Fleet
from controller.kube.cache import Cache
from controller.world.following import Following
from controller.world.index import Index
from controller.world.under_way import UnderWay
from controller.world.views import Views


@dataclass(frozen=True, slots=True)
class World:
    """What a pass reads."""

    index: Index
    following: Following
    under_way: UnderWay
    views: Views

    @staticmethod
    def of(
        *,
        pools: Cache,
        pods: Cache,
        tasks: Cache,
        nodes: Cache,
        locks: Locks,
        fleet: Fleet,
        now: Callable[[], datetime],
    ) -> "World":
        """Made on these caches, and kept up by their changes."""
        index = Index(pools=pools, pods=pods, tasks=tasks, nodes=nodes, locks=locks)
        following, under_way = Following(fleet, index), UnderWay()
        return World(index, following, under_way, Views(index, following, under_way, now=now))
