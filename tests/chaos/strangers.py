"""What people and Kubernetes do to Pods, without asking: deletes, evictions, drains of the node, labels, owners.

None of it may end a Pod whose slots are held. What the policies and budgets refuse is counted as refused.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import aiohttp

from controller import names
from controller.errors import ApiError, ApiUnavailable
from controller.kube.answers import path_of
from controller.kube.api import (
    BUDGETS,
    CONTROLLERREVISIONS,
    DEPLOYMENTS,
    LEASES,
    NODES,
    PODS,
    REPLICASETS,
    SECRETS,
    SLOTPOOLS,
    Object,
    Resource,
)
from tests.chaos.load import PASSING
from tests.support.cluster import NAMESPACE, Cluster, until

Json = dict[str, Any]

TROUBLE = (ApiError, ApiUnavailable, aiohttp.ClientError, OSError, TimeoutError)
ACTIVE_SHARE = 0.8
POLICIES = ("Background", "Foreground", "Orphan")
TAINT = {"key": "chaos", "value": "maintenance", "effect": "NoExecute"}


class Strangers:
    """Meddles with a cluster. `counts` has what was done by kind, and what of it was refused."""

    def __init__(self, cluster: Cluster, rng: random.Random, say: Callable[[str], None]) -> None:
        self.counts: Counter[str] = Counter()
        self._cluster = cluster
        self._rng = rng
        self._say = say
        self._kinds: dict[Callable[[], Awaitable[tuple[str, int] | None]], float] = {
            self._delete_a_pod: 6,
            self._evict_a_pod: 6,
            self._delete_all_pods: 1,
            self._take_the_finalizer: 2,
            self._change_the_label: 2,
            self._ask_for_a_drain: 3,
            self._drain_the_node: 1,
            self._taint_the_node: 1,
            self._delete_a_secret: 1,
            self._delete_a_budget: 1,
            self._delete_a_workload: 2,
            self._shrink_a_deployment: 2,
            self._delete_a_revision: 1,
            self._delete_a_pool: 1,
            self._delete_the_lease: 0.5,
        }

    async def run(self, mean_pause_seconds: float) -> None:
        """Go on until cancelled; then see that the node is as it was."""
        try:
            while True:
                await asyncio.sleep(self._rng.expovariate(1 / mean_pause_seconds))
                (kind,) = self._rng.choices(list(self._kinds), weights=list(self._kinds.values()))
                with suppress(*TROUBLE):
                    async with asyncio.timeout(20):
                        if (done := await kind()) is not None:
                            self._note(kind.__name__.lstrip("_"), *done)
        finally:
            await until(self._node_is_free, "the node can be given back", seconds=60)

    def _note(self, kind: str, what: str, status: int) -> None:
        refused = status >= 400
        self.counts[f"{kind}, refused" if refused else kind] += 1
        self._say(f"{kind}: {what}: {status}")

    # --- Pods ---------------------------------------------------------------------------------------------------------

    async def _delete_a_pod(self) -> tuple[str, int] | None:
        if (pod := await self._pick(PODS)) is None:
            return None
        options = self._options()
        if self._rng.random() < 0.5:
            options["gracePeriodSeconds"] = self._rng.choice([0, 1, 600])
        return await self._delete(PODS, pod, options)

    async def _evict_a_pod(self) -> tuple[str, int] | None:
        if (pod := await self._pick(PODS)) is None:
            return None
        name = pod["metadata"]["name"]
        body = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": name, "namespace": NAMESPACE},
            "deleteOptions": self._options(),
        }
        path = path_of(PODS, NAMESPACE, name, "eviction")
        return f"{name} {pod['metadata']['labels'][names.STATE_LABEL]}", await self._cluster.ask("POST", path, body)

    async def _delete_all_pods(self) -> tuple[str, int] | None:
        path = f"{path_of(PODS, NAMESPACE)}?labelSelector={names.POOL_LABEL}"
        return "all", await self._cluster.ask("DELETE", path, self._options())

    async def _take_the_finalizer(self) -> tuple[str, int] | None:
        return await self._patch_pod({"finalizers": []})

    async def _change_the_label(self) -> tuple[str, int] | None:
        return await self._patch_pod({"labels": {names.STATE_LABEL: self._rng.choice(["draining", "starting", None])}})

    async def _ask_for_a_drain(self) -> tuple[str, int] | None:
        """And, half of the times, think better of it."""
        return await self._patch_pod({"annotations": {names.DRAIN_REQUESTED: self._rng.choice(["chaos", None])}})

    async def _patch_pod(self, metadata: Json) -> tuple[str, int] | None:
        if (pod := await self._pick(PODS)) is None:
            return None
        name = pod["metadata"]["name"]
        path = path_of(PODS, NAMESPACE, name)
        return f"{name} {metadata}", await self._cluster.ask("PATCH", path, {"metadata": metadata})

    # --- the node -----------------------------------------------------------------------------------------------------

    async def _drain_the_node(self) -> tuple[str, int] | None:
        """As `kubectl drain` does: cordon it, and ask again and again for the eviction of what is there."""
        seconds = self._rng.uniform(1.0, 8.0)
        await self._node({"unschedulable": True})
        clock = asyncio.get_running_loop().time
        end = clock() + seconds
        try:
            while clock() < end:
                for _ in range(3):
                    await self._evict_a_pod()
                await asyncio.sleep(0.5)
        finally:
            await self._free_the_node()
        return f"for {seconds:.1f} s", 200

    async def _taint_the_node(self) -> tuple[str, int] | None:
        """The taint manager deletes what does not tolerate it."""
        seconds = self._rng.uniform(0.5, 4.0)
        await self._node({"taints": [TAINT]})
        try:
            await asyncio.sleep(seconds)
        finally:
            await self._free_the_node()
        return f"for {seconds:.1f} s", 200

    async def _free_the_node(self) -> None:
        with suppress(*TROUBLE):  # else it is done at the end
            await self._node({"unschedulable": None, "taints": None})

    async def _node_is_free(self) -> bool:
        try:
            await self._node({"unschedulable": None, "taints": None})
        except TROUBLE:
            return False
        return True

    async def _node(self, spec: Json) -> None:
        for node in (await self._cluster.api.list_page(NODES, None))["items"]:
            await self._cluster.api.patch(NODES, None, node["metadata"]["name"], {"spec": spec})

    # --- what belongs to a pool ---------------------------------------------------------------------------------------

    async def _delete_a_secret(self) -> tuple[str, int] | None:
        return await self._delete_one(SECRETS)

    async def _delete_a_budget(self) -> tuple[str, int] | None:
        return await self._delete_one(BUDGETS)

    async def _delete_a_revision(self) -> tuple[str, int] | None:
        return await self._delete_one(CONTROLLERREVISIONS)

    async def _delete_a_workload(self) -> tuple[str, int] | None:
        return await self._delete_one(self._rng.choice([DEPLOYMENTS, REPLICASETS]))

    async def _shrink_a_deployment(self) -> tuple[str, int] | None:
        if (found := await self._pick(DEPLOYMENTS)) is None:
            return None
        name = found["metadata"]["name"]
        path = path_of(DEPLOYMENTS, NAMESPACE, name, "scale")
        return f"Deployment {name}", await self._cluster.ask("PATCH", path, {"spec": {"replicas": 0}})

    async def _delete_a_pool(self) -> tuple[str, int] | None:
        """As `kubectl delete --cascade` with each of its words does."""
        found = [pool for pool in await self._list(SLOTPOOLS) if pool["metadata"]["name"] in PASSING]
        return await self._delete(SLOTPOOLS, self._rng.choice(found), self._options()) if found else None

    async def _delete_the_lease(self) -> tuple[str, int] | None:
        path = path_of(LEASES, self._cluster.controller_namespace, names.LEADER_LEASE)
        return names.LEADER_LEASE, await self._cluster.ask("DELETE", path, {})

    async def _delete_one(self, resource: Resource) -> tuple[str, int] | None:
        found = await self._pick(resource)
        return await self._delete(resource, found, self._options()) if found is not None else None

    # ------------------------------------------------------------------------------------------------------------------

    async def _list(self, resource: Resource) -> list[Object]:
        """Those of pools."""
        page = await self._cluster.api.list_page(resource, NAMESPACE)
        if resource == SLOTPOOLS:
            return list(page["items"])
        return [item for item in page["items"] if names.POOL_LABEL in self._labels(item)]

    @staticmethod
    def _labels(item: Object) -> Json:
        template = (item.get("spec") or {}).get("template") or {}
        return {**(item["metadata"].get("labels") or {}), **((template.get("metadata") or {}).get("labels") or {})}

    async def _pick(self, resource: Resource) -> Object | None:
        """One of them; of Pods mostly one that is active: were the others deleted as often, few would come to work."""
        found = await self._list(resource)
        active = [item for item in found if self._labels(item).get(names.STATE_LABEL) == "active"]
        if resource == PODS and self._rng.random() < ACTIVE_SHARE:
            found = active
        return self._rng.choice(found) if found else None

    async def _delete(self, resource: Resource, found: Object, options: Json) -> tuple[str, int]:
        name, state = found["metadata"]["name"], self._labels(found).get(names.STATE_LABEL, "")
        path = path_of(resource, NAMESPACE, name)
        return f"{resource.kind} {name} {state} {options}", await self._cluster.ask("DELETE", path, options)

    def _options(self) -> Json:
        return {"propagationPolicy": self._rng.choice(POLICIES)} if self._rng.random() < 0.5 else {}
