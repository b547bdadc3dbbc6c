"""What the controller does to Pods: create, open, drain and delete. Safety rests on the order of the writes.

A Pod is deleted only after its agent granted a drain that still holds. Each write carries a resourceVersion that was
read before the agent last confirmed this drain; before a Pod is opened its resourceVersion is changed. So if one
replica deletes a Pod and another opens it, the second write fails, or finds the Pod being deleted, and stops.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine
from datetime import datetime
from typing import Any

from agent import wire
from controller import names
from controller.agents.client import AgentClient
from controller.decide.view import PodState, PodView
from controller.errors import (
    AgentRefused,
    AlreadyExists,
    ApiUnavailable,
    Conflict,
    NotFound,
)
from controller.kube.api import PODS, Api, Object
from controller.kube.cache import Cache
from controller.objects import disruption

log = logging.getLogger(__name__)

_STARTING_GRACE_SECONDS = 30
"""What a Pod that was never opened gets to end: nothing runs in it that anybody waits for."""

_COSTS = {PodState.ACTIVE: "1000", PodState.DRAINING: "-1000"}
"""Of Pods that are ready a ReplicaSet takes the cheapest first. One that is not ready goes before all of them."""

_DRAIN_TRIES = 5
_CREATE_TRIES = 5
_CREATE_PAUSE_SECONDS = 0.2
"""How long after an answer that never came a create is tried again, at most; doubled each time."""


DrainAnswered = Callable[[tuple[str, str], bool], None]
"""Told of each agent that was asked for its drain: its pool's namespace and name, and whether it was granted."""


class Pods:
    """Operations on Pods."""

    def __init__(
        self,
        api: Api,
        cache: Cache,
        *,
        rng: random.Random,
        drain_answered: DrainAnswered = lambda _pool, _granted: None,
    ) -> None:
        self._api = api
        self._cache = cache
        self._rng = rng
        self._drain_answered = drain_answered

    def new_name(self, pool: str) -> str:
        """A name for a Pod that is to be created."""
        return names.pod_name(pool, self._rng.choice)

    async def create(self, pod: Object) -> Object:
        """Create `pod`, whose name was chosen before. If the answer is lost, the Pod is looked for under that name.

        A server error counts as no answer, but its text is kept: it may name an
        admission webhook that fails for every Pod.
        """
        namespace, name = pod["metadata"]["namespace"], pod["metadata"]["name"]
        failure = ApiUnavailable("no answer")
        for tried_before in range(_CREATE_TRIES):
            try:
                created = await self._api.create(PODS, namespace, pod)
            except AlreadyExists:
                if not tried_before:
                    raise  # the name is another Pod's: the next try chooses a new one
                created = await self._api.get(PODS, namespace, name)
                break
            except ApiUnavailable as error:
                failure = error
                await asyncio.sleep(_CREATE_PAUSE_SECONDS * 2**tried_before * self._rng.uniform(0.5, 1.0))
                continue
            break
        else:
            said = f"creating Pod {name}: not done after {_CREATE_TRIES} tries: {failure}"
            raise ApiUnavailable(said, code=failure.code) from failure
        self._cache.note(created)
        return created

    async def open(
        self, pod: PodView, namespace: str, agent: AgentClient, *, opened_at: datetime | None = None
    ) -> None:
        """Let a Pod take work: one that starts, or one whose drain is taken back."""
        state = pod.agent
        if state is None:
            return
        if not await self._activate(pod, namespace, opened_at=opened_at):
            return
        if state.phase is wire.Phase.DRAINED and state.drain_id:
            await agent.open(state.incarnation, state.drain_id)

    async def _activate(self, pod: PodView, namespace: str, *, opened_at: datetime | None = None) -> bool:
        """Label a Pod `active`, which it is only with our finalizer; False if it is being deleted or gone.

        The list of finalizers is written as a whole: guarded, so that nobody else's is lost. What is known of it may be
        old, if another replica has drained the Pod meanwhile: the answer to the write tells.
        """
        live: Object | None
        if pod.tracked:
            live = await self._label(pod, namespace, PodState.ACTIVE, self._new_drain_id(), opened_at=opened_at)
        else:
            live = await self._read(pod.name, pod.uid, namespace)
        if live is None or live["metadata"].get("deletionTimestamp"):
            return False  # no finalizer can be added any more
        if pod.deployment and not _has_second_owner(live):
            return False  # its ReplicaSet made it without: the garbage collector would take it along
        if pod.tracked and names.POD_FINALIZER in (live["metadata"].get("finalizers") or ()):
            return True
        patched = await self._label(
            pod,
            namespace,
            PodState.ACTIVE,
            self._new_drain_id(),
            resource_version=version_of(live),
            opened_at=opened_at,
            finalizers=[*_others(live), names.POD_FINALIZER],
        )
        return not patched["metadata"].get("deletionTimestamp")

    async def protect(self, pod: PodView, namespace: str) -> bool:
        """Label a drained Pod active again; False if it is being deleted. Its agent is opened after that."""
        return await self._activate(pod, namespace)

    async def unprotect(self, pod: PodView, namespace: str) -> None:
        """The agent was never opened, and nobody will open it."""
        live = await self._read(pod.name, pod.uid, namespace)
        if live is not None and not live["metadata"].get("deletionTimestamp"):
            await self._label(
                pod,
                namespace,
                PodState.DRAINING,
                self._new_drain_id(),
                resource_version=version_of(live),
                finalizers=_others(live),
            )

    async def drain_and_delete(self, pod: PodView, namespace: str, agent: AgentClient) -> bool:
        """Drain a Pod and delete it; False if its agent refused, or the Pod was already being deleted."""
        return await self._drain(pod, namespace, agent, self._delete)

    async def mark(self, pod: PodView, namespace: str, agent: AgentClient) -> bool:
        """Drain a Pod of a Deployment, and have it the first to go when that gets smaller; False as above."""
        return await self._drain(pod, namespace, agent, None)

    async def mark_starting(self, pod: PodView, namespace: str) -> bool:
        """The same of one that was never opened: opening it would have moved its resourceVersion."""
        live = await self._read(pod.name, pod.uid, namespace)
        if live is None or live["metadata"]["labels"].get(names.STATE_LABEL) != PodState.STARTING:
            return False
        drain_id = self._new_drain_id()
        await self._label(pod, namespace, PodState.DRAINING, drain_id, resource_version=version_of(live))
        return True

    async def _drain(
        self,
        pod: PodView,
        namespace: str,
        agent: AgentClient,
        then: Callable[[Object], Coroutine[None, None, None]] | None,
    ) -> bool:
        if pod.agent is None:
            return False
        for _ in range(_DRAIN_TRIES):
            live = await self._read(pod.name, pod.uid, namespace)
            if live is None or live["metadata"].get("deletionTimestamp"):
                return False
            # A new id each time: another replica may know the last one, and be about to take that drain back.
            drain_id = self._new_drain_id()
            if not await self._granted(pod, namespace, agent, drain_id):
                self._say_drain(live, pod, granted=False)
                return False
            try:
                labelled = await self._label(
                    pod,
                    namespace,
                    PodState.DRAINING,
                    drain_id,
                    resource_version=version_of(live),
                    finalizers=_others(live),
                )
                if then is not None:
                    if not await self._granted(pod, namespace, agent, drain_id):
                        self._say_drain(live, pod, granted=False)
                        return False
                    await then(labelled)
            except Conflict:
                continue
            self._say_drain(live, pod, granted=True)
            return True
        raise Conflict(409, "Conflict", f"Pod {pod.name} changed {_DRAIN_TRIES} times while it was to be deleted")

    def _say_drain(self, live: Object, pod: PodView, *, granted: bool) -> None:
        """An agent's answer: once for each drain that was asked for, however often it was confirmed."""
        pool = live["metadata"]["namespace"], live["metadata"]["labels"][names.POOL_LABEL]
        log.info(
            "drain",
            extra={
                "pool": "/".join(pool),
                "pod": pod.name,
                "pod_uid": pod.uid,
                "from": pod.state.value,
                "to": (PodState.DRAINING if granted else PodState.ACTIVE).value,
                "result": "granted" if granted else "refused",
                "reason": pod.why_leaving,
            },
        )
        self._drain_answered(pool, granted)

    async def _granted(self, pod: PodView, namespace: str, agent: AgentClient, drain_id: str) -> bool:
        """Ask the agent for the drain. Where it refuses, a label that says otherwise is put right."""
        if pod.agent is None:
            return False
        try:
            await agent.drain(pod.agent.incarnation, drain_id)
        except AgentRefused as refusal:
            if refusal.code != wire.ErrorCode.BUSY:
                raise
            if pod.state is PodState.DRAINING:
                await self._activate(pod, namespace)
            return False
        return True

    async def delete_starting(self, pod: PodView, namespace: str) -> bool:
        """Delete a Pod that was never opened: opening it would have moved its resourceVersion."""
        live = await self._read(pod.name, pod.uid, namespace)
        if live is None or live["metadata"]["labels"].get(names.STATE_LABEL) != PodState.STARTING:
            return False
        await self._delete(live, grace_period_seconds=_STARTING_GRACE_SECONDS)
        return True

    async def delete_dead(
        self, pod: PodView, namespace: str, proof: Callable[[Object], str | None], *, force: bool
    ) -> bool:
        """Delete a Pod that is provably dead, judged on a live read. `force`: no kubelet is left to finish that."""
        live = await self._read(pod.name, pod.uid, namespace)
        if live is None or proof(live) is None:
            return False
        live = await self._buried(live)
        if live["metadata"].get("deletionTimestamp") and not force:
            return True
        try:
            await self._delete(live, grace_period_seconds=0 if force else None)
        except NotFound:
            self._cache.note_gone(namespace, pod.name, pod.uid)
        return True

    async def let_go(self, pod: PodView, namespace: str, proof: Callable[[Object], str | None]) -> None:
        """Take our finalizer off a Pod that is being deleted and provably dead, judged on a live read."""
        live = await self._read(pod.name, pod.uid, namespace)
        if live is not None and live["metadata"].get("deletionTimestamp") and proof(live) is not None:
            await self._untracked(live)

    async def _buried(self, live: Object) -> Object:
        """A dead Pod that can be deleted: without our finalizer, and not labelled active, for that nobody deletes."""
        metadata = live["metadata"]
        if metadata.get("deletionTimestamp") or metadata["labels"].get(names.STATE_LABEL) != PodState.ACTIVE:
            return await self._untracked(live)
        labels = {names.STATE_LABEL: PodState.DRAINING.value}
        return await self._write_off(live, {"labels": labels, "annotations": disruption.notes(PodState.DRAINING)})

    async def _untracked(self, live: Object) -> Object:
        """The Pod without our finalizer. With it, the last of the object may go."""
        if names.POD_FINALIZER not in (live["metadata"].get("finalizers") or ()):
            return live
        return await self._write_off(live, {})

    async def _write_off(self, live: Object, changes: dict[str, Any]) -> Object:
        """PATCH exactly this version of a dead Pod: our finalizer goes."""
        metadata = live["metadata"]
        finalizers = _others(live)
        patch = {
            "metadata": {
                "resourceVersion": version_of(live),
                "uid": metadata["uid"],
                "finalizers": finalizers,
                **changes,
            }
        }
        patched = await self._api.patch(PODS, metadata["namespace"], metadata["name"], patch)
        self._cache.note(patched)
        return patched

    async def exists(self, namespace: str, name: str, uid: str) -> bool:
        """Whether the API still has this Pod, with this UID. It is read live."""
        return await self._read(name, uid, namespace) is not None

    async def any_left(self, namespace: str, pool: str) -> bool:
        """Whether the API still has any Pod of a pool, read live."""
        page = await self._api.list_page(PODS, namespace, label_selector=f"{names.POOL_LABEL}={pool}", limit=1)
        for pod in page.get("items") or ():
            self._cache.note(pod)
        return bool(page.get("items"))

    async def _read(self, name: str, uid: str, namespace: str) -> Object | None:
        """The Pod, read live; None if it is gone, or another Pod has its name now. Either is news for the cache."""
        try:
            live = await self._api.get(PODS, namespace, name)
        except NotFound:
            self._cache.note_gone(namespace, name, uid)
            return None
        self._cache.note(live)
        if live["metadata"]["uid"] != uid:
            self._cache.note_gone(namespace, name, uid)
            return None
        return live

    async def _label(
        self,
        pod: PodView,
        namespace: str,
        state: PodState,
        drain_id: str,
        *,
        resource_version: str | None = None,
        opened_at: datetime | None = None,
        finalizers: list[str] | None = None,
    ) -> Object:
        """PATCH the state label and a new drain-id annotation, so that the resourceVersion always moves."""
        metadata: dict[str, Any] = {
            "uid": pod.uid,
            "labels": {names.STATE_LABEL: state.value},
            "annotations": {**disruption.notes(state.value), names.DRAIN_ID: drain_id},
        }
        if pod.deployment:
            metadata["annotations"][names.DELETION_COST] = _COSTS.get(state)
        if opened_at is not None:
            metadata["annotations"][names.OPENED] = wire.format_time(opened_at)
        if resource_version is not None:
            metadata["resourceVersion"] = resource_version
        if finalizers is not None:
            metadata["finalizers"] = finalizers
        patched = await self._api.patch(PODS, namespace, pod.name, {"metadata": metadata})
        self._cache.note(patched)
        return patched

    async def _delete(self, pod: Object, *, grace_period_seconds: int | None = None) -> None:
        metadata = pod["metadata"]
        answer = await self._api.delete(
            PODS,
            metadata["namespace"],
            metadata["name"],
            uid=metadata["uid"],
            resource_version=metadata["resourceVersion"],
            grace_period_seconds=grace_period_seconds,
        )
        self._cache.note_deleted(metadata["namespace"], metadata["name"], answer)

    def _new_drain_id(self) -> str:
        return f"{self._rng.getrandbits(64):016x}"


def _has_second_owner(pod: Object) -> bool:
    return any(owner["kind"] == "Secret" for owner in pod["metadata"].get("ownerReferences") or ())


def _others(pod: Object) -> list[str]:
    """The finalizers that are not ours."""
    return [entry for entry in pod["metadata"].get("finalizers") or () if entry != names.POD_FINALIZER]


def version_of(pod: Object) -> str:
    """The resourceVersion of an object."""
    return str(pod["metadata"]["resourceVersion"])
