"""The Deployments of pools and their ReplicaSets, found by pool."""

from collections import defaultdict

from controller.decide.pods.deployment_mode import observe_deployments
from controller.decide.view import DeploymentView
from controller.kube.api import Object
from controller.kube.cache import Cache
from controller.world.index import Key, pool_of


class PoolDeployments:
    """Kept up by the caches' changes."""

    def __init__(self, deployments: Cache, replica_sets: Cache) -> None:
        self._deployments: dict[Key, dict[str, Object]] = defaultdict(dict)
        self._replica_sets: dict[Key, dict[str, Object]] = defaultdict(dict)
        self._caches = (deployments, replica_sets)
        for cache, kept in zip(self._caches, (self._deployments, self._replica_sets), strict=True):
            cache.subscribe(lambda old, new, kept=kept: _keep(kept, old, new))  # type: ignore[misc]

    @property
    def synced(self) -> bool:
        """Whether both lists were read."""
        return all(cache.synced for cache in self._caches)

    def of_pool(self, key: Key, pool_uid: str) -> tuple[tuple[DeploymentView, ...], tuple[tuple[str, str], ...]]:
        """The Deployments of this pool (by UID), and the UIDs and names of its ReplicaSets without one."""
        if key not in self._deployments and key not in self._replica_sets:
            return (), ()
        deployments, sets = self._deployments.get(key, {}), self._replica_sets.get(key, {})
        return observe_deployments(deployments.values(), sets.values(), pool_uid)


def _keep(kept: dict[Key, dict[str, Object]], old: Object | None, new: Object | None) -> None:
    for obj in (old, new):
        if obj is None or (key := pool_of(obj)) is None:
            continue
        if obj is new:
            kept[key][obj["metadata"]["uid"]] = obj
        elif key in kept:
            kept[key].pop(obj["metadata"]["uid"], None)
            if not kept[key]:
                del kept[key]
