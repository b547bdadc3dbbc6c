"""What a replica watches. Those that stand by do so too: one that takes over decides at once."""

import random
from collections.abc import Callable

from controller import names
from controller.kube.api import (
    BUDGETS,
    DEPLOYMENTS,
    LEASES,
    NODES,
    PODS,
    REPLICASETS,
    SECRETS,
    SLOTPOOLS,
    SLOTTASKS,
    Api,
    Resource,
)
from controller.kube.cache import Cache
from controller.kube.reflector import Reflector, ReflectorSettings
from controller.kube.rest import Stopwatch
from controller.kube.trimming import trim_metadata, trim_pod, trim_workload
from controller.objects.ended_task import trim_task

_TRIM = {DEPLOYMENTS: trim_workload, REPLICASETS: trim_workload, PODS: trim_pod, SLOTTASKS: trim_task}
"""What is kept of objects of which there are many."""

_PODS_PAGE = ReflectorSettings(page_limit=100)
"""Nothing else is done while a page is parsed: 500 Pods took 70 ms, and their garbage half as much again."""


class Caches:
    """One cache for each kind of object, and the reflectors that fill them once they are run.

    `namespace`: the only one that is looked after; None: all.
    """

    def __init__(
        self,
        api: Api,
        rng: random.Random,
        *,
        namespace: str | None,
        stopwatch: Stopwatch,
        page_kept: Callable[[], object],
    ) -> None:
        self._api = api
        self._rng = rng
        self._namespace = namespace
        self._stopwatch = stopwatch
        self._page_kept = page_kept
        self.reflectors: list[Reflector] = []
        self.pools = self._cache(SLOTPOOLS)
        self.tasks = self._cache(SLOTTASKS)
        self.pods = self._cache(PODS, selector=names.POOL_LABEL)
        self.secrets = self._cache(SECRETS, selector=names.POOL_LABEL)
        self.leases = self._cache(LEASES, selector=names.LOCK_LABEL)
        self.nodes = self._cache(NODES)
        self.budgets = self._cache(BUDGETS, selector=names.POOL_LABEL)
        self.deployments = self._cache(DEPLOYMENTS, selector=names.POOL_LABEL, optional=True)
        self.replica_sets = self._cache(REPLICASETS, selector=names.POOL_LABEL, optional=True)

    def _cache(self, resource: Resource, *, selector: str = "", optional: bool = False) -> Cache:
        """`optional`: an older role may not allow to list it. A call that needs it then fails with a clear error."""
        cache = Cache(resource, _TRIM.get(resource, trim_metadata))
        self.reflectors.append(
            Reflector(
                self._api,
                cache,
                self._rng,
                namespace=self._namespace if resource.namespaced else None,
                label_selector=selector,
                # A controller of one namespace may have no rights for cluster-wide objects.
                optional=optional or (not resource.namespaced and self._namespace is not None),
                stopwatch=self._stopwatch,
                page_kept=self._page_kept,
                settings=_PODS_PAGE if resource is PODS else None,
            )
        )
        return cache
