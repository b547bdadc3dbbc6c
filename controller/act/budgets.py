"""Keeps each pool's PodDisruptionBudget as it should be, and removes it with the pool."""

from controller import names
from controller.errors import AlreadyExists, NotFound
from controller.kube.api import BUDGETS, Api, Object
from controller.kube.cache import Cache
from controller.objects.disruption import budget, mending


class Budgets:
    """Operations on budgets. `cache` has those that carry a pool's label."""

    def __init__(self, api: Api, cache: Cache) -> None:
        self._api = api
        self._cache = cache

    def needs_work(self, namespace: str, pool: str) -> bool:
        """Whether the budget, as the cache knows it, is not as `ensure` leaves it."""
        if not self._cache.synced:
            return False
        found = self._cache.get(namespace, names.disruption_budget(pool))
        return found is None or mending(found, budget(namespace, pool)) is not None

    def can_remove(self, namespace: str, pool: str) -> bool:
        """Whether there is one that nobody has deleted, as last seen."""
        known = self._cache.get(namespace, names.disruption_budget(pool))
        return known is not None and "deletionTimestamp" not in known["metadata"]

    async def ensure(self, namespace: str, pool: str) -> None:
        """Have it there, made or mended."""
        wanted = budget(namespace, pool)
        name = wanted["metadata"]["name"]
        try:
            self._cache.note(await self._api.create(BUDGETS, namespace, wanted))
        except AlreadyExists:
            found = await self._api.get(BUDGETS, namespace, name)
            if (patch := mending(found, wanted)) is not None:
                found = await self._api.patch(BUDGETS, namespace, name, _guarded(patch, found))
            self._cache.note(found)

    async def remove(self, namespace: str, pool: str) -> None:
        """The pool is gone, and so are its Pods."""
        name = names.disruption_budget(pool)
        known = self._cache.get(namespace, name)
        if known is None:
            return
        try:
            answer = await self._api.delete(BUDGETS, namespace, name, uid=known["metadata"]["uid"])
        except NotFound:
            self._cache.note_gone(namespace, name, known["metadata"]["uid"])
        else:
            self._cache.note_deleted(namespace, name, answer)


def _guarded(patch: Object, found: Object) -> Object:
    """For this version only: a patch made for another one would leave of its fields what it does not name."""
    version = found["metadata"]["resourceVersion"]
    return {**patch, "metadata": {**patch["metadata"], "resourceVersion": version}}
