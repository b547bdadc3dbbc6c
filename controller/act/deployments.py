"""What the controller does to Deployments: make one, pause it, give it a size, let go of it.

Lowering the number of replicas has Kubernetes delete Pods. So it is done only as far as there are Pods that are marked,
and whose agents confirm, after the Deployment was read, that their drain holds. To take a drain back, the Pod's label
is changed first, then the Deployment's resourceVersion, and only then is the agent opened.
"""

import logging
import random
from collections.abc import Callable

from controller import names
from controller.act.pods import Pods, version_of
from controller.agents.client import AgentClient
from controller.decide.view import DeploymentView, PodState, PodView
from controller.errors import AgentRefused, AgentUnreachable, NotFound
from controller.kube.api import DEPLOYMENTS, PODS, REPLICASETS, Api, Object, Resource
from controller.kube.cache import Cache
from controller.objects.deployment import deployment_of

log = logging.getLogger(__name__)

_PAGE = 500
_TERMINAL = frozenset({"Failed", "Succeeded"})

Clients = Callable[[str], AgentClient | None]
"""The client of an agent, by its Pod's UID."""


class Deployments:
    """Operations on the Deployments of pools. Each reads what it goes by live, and can be repeated."""

    def __init__(self, api: Api, cache: Cache, replica_sets: Cache, *, pods: Pods, rng: random.Random) -> None:
        self._api = api
        self._cache = cache
        self._replica_sets = replica_sets
        self._pods = pods
        self._rng = rng

    async def make(self, pool: Object, pod: Object) -> None:
        """Make the one whose Pods are as `pod`. If the answer is lost another one is made: this one stays empty."""
        document = deployment_of(pool, pod)
        self._cache.note(await self._api.create(DEPLOYMENTS, document["metadata"]["namespace"], document))

    async def pause(self, namespace: str, deployment: DeploymentView) -> None:
        """From now on it replaces no Pod by itself."""
        if (live := await self._read(namespace, deployment)) is not None:
            await self._write(live, {"spec": {"paused": True}})

    async def scale(
        self,
        namespace: str,
        deployment: DeploymentView,
        replicas: int,
        marked: tuple[PodView, ...],
        agents: Clients,
    ) -> None:
        """Give it `replicas`, but no fewer than it has Pods that are not marked, or whose drain does not hold."""
        live = await self._read(namespace, deployment)
        if live is None or not (live["spec"].get("paused") and live["spec"].get("replicas") is not None):
            return
        counted = await self._replicas(namespace, deployment)
        going = [pod for pod in counted if _state(pod) == PodState.DRAINING]
        size = max(replicas, len(counted) - len(going))
        if size == live["spec"]["replicas"]:
            return
        if size < len(counted) and not await self._all_go(namespace, going, {pod.uid: pod for pod in marked}, agents):
            return
        await self._write(live, {"spec": {"replicas": size}})
        words = {"from": live["spec"]["replicas"], "to": size}
        log.info("deployment scaled", extra={"deployment": f"{namespace}/{deployment.name}", **words})

    async def _all_go(self, namespace: str, going: list[Object], marked: dict[str, PodView], agents: Clients) -> bool:
        """Whether every marked Pod may be deleted: the ReplicaSet chooses which one is.

        If a Pod's agent can't confirm its drain, the Pod is labelled active again, so that it can't be deleted.
        """
        for pod in going:
            if names.OPENED not in (pod["metadata"].get("annotations") or {}):
                continue  # it never was
            view = marked.get(pod["metadata"]["uid"])
            if view is None:
                return False  # marked since: the next pass sees it
            if not await self._holds(pod, view, agents):
                await self._pods.protect(view, namespace)
                return False
        return True

    async def _holds(self, pod: Object, view: PodView, agents: Clients) -> bool:
        """Whether the agent confirms the drain that a marked Pod names. The Pod is read live."""
        agent, annotations = agents(view.uid), pod["metadata"].get("annotations") or {}
        if agent is None or view.agent is None:
            return False
        try:
            await agent.drain(view.agent.incarnation, annotations.get(names.DRAIN_ID, ""))
        except (AgentRefused, AgentUnreachable):
            return False
        return True

    async def take_back(
        self, namespace: str, deployment: DeploymentView, pod: PodView, agent: AgentClient, *, needed: bool
    ) -> bool:
        """Open a Pod that was marked, unless its Deployment was told to have fewer than it has; tells whether it was.

        First the Pod's label is changed, then the Deployment's resourceVersion. A replica that lowers the size and has
        not seen the label fails because of the resourceVersion. `needed`: it holds something after all, and is opened
        in any case.
        """
        if not needed and await self._is_told_to_shrink(namespace, deployment):
            return False
        if not await self._pods.protect(pod, namespace):
            return False
        live = await self._read(namespace, deployment)
        if live is not None:
            count = len(await self._replicas(namespace, deployment))
            if count > live["spec"]["replicas"] and not needed:
                await self._pods.unprotect(pod, namespace)
                return False
            note = {"annotations": {names.DRAIN_ID: f"{self._rng.getrandbits(64):016x}"}}
            await self._write(live, {"metadata": note, "spec": {"replicas": max(count, live["spec"]["replicas"])}})
        await self._pods.open(pod, namespace, agent)
        return True

    async def _is_told_to_shrink(self, namespace: str, deployment: DeploymentView) -> bool:
        live = await self._read(namespace, deployment)
        return live is not None and len(await self._replicas(namespace, deployment)) > live["spec"]["replicas"]

    async def drop(self, namespace: str, deployment: DeploymentView) -> None:
        """Delete it: because nothing is left of it, or because it is not as it was made."""
        live = await self._read(namespace, deployment)
        if live is None:
            return
        sets = await self._list(REPLICASETS, namespace, names.DEPLOYMENT_LABEL, deployment.name)
        for replica_set in sets:
            self._replica_sets.note(replica_set)
        whole = len(sets) == 1 or not deployment.known
        pods = await self._list(PODS, namespace, names.DEPLOYMENT_LABEL, deployment.name)
        if any(_is_replica(pod) for pod in pods) and (whole or not all(map(_outlives, pods))):
            return
        if whole and (live["spec"].get("replicas") or not deployment.sound):
            return  # its ReplicaSet is there: it was not seen yet
        await self._delete(DEPLOYMENTS, self._cache, live)

    async def drop_set(self, namespace: str, pool: str, uid: str, name: str) -> None:
        """Delete a ReplicaSet whose Deployment is gone, or goes. Its Pods stay if they have another owner."""
        try:
            live = await self._api.get(REPLICASETS, namespace, name)
        except NotFound:
            self._replica_sets.note_gone(namespace, name, uid)
            return
        self._replica_sets.note(live)
        if live["metadata"]["uid"] != uid or await self._is_managed(namespace, live):
            return
        pods = await self._list(PODS, namespace, names.POOL_LABEL, pool)
        if all(_outlives(pod) for pod in pods if _manager(pod) == uid):
            await self._delete(REPLICASETS, self._replica_sets, live)

    async def _is_managed(self, namespace: str, replica_set: Object) -> bool:
        """Whether its Deployment is there to stay."""
        owners = replica_set["metadata"].get("ownerReferences") or ()
        owner = next((owner for owner in owners if owner.get("controller")), None)
        if owner is None:
            return False
        try:
            found = await self._api.get(DEPLOYMENTS, namespace, owner["name"])
        except NotFound:
            return False
        return found["metadata"]["uid"] == owner["uid"] and "deletionTimestamp" not in found["metadata"]

    async def _read(self, namespace: str, deployment: DeploymentView) -> Object | None:
        """The Deployment, read live; None if it is gone, or being deleted. Either is news for the cache."""
        try:
            live = await self._api.get(DEPLOYMENTS, namespace, deployment.name)
        except NotFound:
            self._cache.note_gone(namespace, deployment.name, deployment.uid)
            return None
        self._cache.note(live)
        if live["metadata"]["uid"] != deployment.uid or "deletionTimestamp" in live["metadata"]:
            return None
        return live

    async def _replicas(self, namespace: str, deployment: DeploymentView) -> list[Object]:
        """The Pods that its ReplicaSet counts, read live."""
        pods = await self._list(PODS, namespace, names.DEPLOYMENT_LABEL, deployment.name)
        return [pod for pod in pods if _is_replica(pod)]

    async def _list(self, resource: Resource, namespace: str, label: str, value: str) -> list[Object]:
        found: list[Object] = []
        token = ""
        while True:
            page = await self._api.list_page(
                resource,
                namespace,
                label_selector=f"{label}={value}",
                limit=_PAGE,
                continue_token=token,
            )
            found.extend(page.get("items") or ())
            token = (page.get("metadata") or {}).get("continue") or ""
            if not token:
                return found

    async def _write(self, live: Object, patch: Object) -> None:
        """PATCH exactly this version."""
        metadata = live["metadata"]
        guard = {"uid": metadata["uid"], "resourceVersion": version_of(live)}
        body = {**patch, "metadata": {**guard, **patch.get("metadata", {})}}
        self._cache.note(await self._api.patch(DEPLOYMENTS, metadata["namespace"], metadata["name"], body))

    async def _delete(self, resource: Resource, cache: Cache, live: Object) -> None:
        metadata = live["metadata"]
        try:
            answer = await self._api.delete(
                resource,
                metadata["namespace"],
                metadata["name"],
                uid=metadata["uid"],
                resource_version=version_of(live),
            )
        except NotFound:
            cache.note_gone(metadata["namespace"], metadata["name"], metadata["uid"])
            return
        cache.note_deleted(metadata["namespace"], metadata["name"], answer)


def _manager(pod: Object) -> str:
    owners = pod["metadata"].get("ownerReferences") or ()
    return next((owner["uid"] for owner in owners if owner.get("controller")), "")


def _state(pod: Object) -> str | None:
    return (pod["metadata"].get("labels") or {}).get(names.STATE_LABEL)


def _is_replica(pod: Object) -> bool:
    """Whether a ReplicaSet counts the Pod."""
    ended = (pod.get("status") or {}).get("phase") in _TERMINAL
    return bool(_manager(pod)) and "deletionTimestamp" not in pod["metadata"] and not ended


def _outlives(pod: Object) -> bool:
    """Whether a Pod stays when what manages it goes, or was never opened, so that it may go too."""
    metadata = pod["metadata"]
    owned = any(owner["kind"] == "Secret" for owner in metadata.get("ownerReferences") or ())
    return owned or _state(pod) == PodState.STARTING
