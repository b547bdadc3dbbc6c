"""What the controller does to pools themselves: prepare one, make its Pods, write its status, and see it off."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from controller import names
from controller.act.budgets import Budgets
from controller.act.deployments import Deployments
from controller.act.events import EventRecorder
from controller.act.pod_owners import PodOwners
from controller.act.pods import Pods
from controller.act.tokens import PoolTokens
from controller.decide.pools.rotation import RotationStep
from controller.decide.problem import Problem
from controller.decide.view import PodView
from controller.errors import ApiError, ApiUnavailable, Forbidden, Invalid, InvalidObject, NotFound, TooManyRequests
from controller.kube.api import SLOTPOOLS, Api, Object
from controller.kube.cache import Cache
from controller.objects import agent_address, disruption
from controller.objects.pool import PoolSpec
from controller.objects.template import TokenSecret, build_pod
from controller.objects.template_rules import hazards
from controller.objects.token_secret import TokenState

log = logging.getLogger(__name__)

Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Images:
    """Images that the controller puts into Pods."""

    agent: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterTraits:
    """What Pods made now owe to the cluster, and no pool says: it is no part of a template's hash.

    `answers_evictions`: whether they name the controller as their eviction responder. `ipv6`: whether their addresses
    are IPv6.
    """

    answers_evictions: Callable[[], bool] = lambda: False
    ipv6: bool = False


class Pools:
    """Operations on pools."""

    def __init__(
        self,
        api: Api,
        cache: Cache,
        *,
        pods: Pods,
        tokens: PoolTokens,
        owners: PodOwners,
        budgets: Budgets,
        events: EventRecorder,
        images: Images,
        deployments: Deployments,
        traits: ClusterTraits | None = None,
    ) -> None:
        self._api = api
        self._cache = cache
        self._pods = pods
        self._tokens = tokens
        self._owners = owners
        self._budgets = budgets
        self._events = events
        self._images = images
        self.deployments = deployments
        self._traits = traits or ClusterTraits()
        self._unbudgeted: dict[Key, str] = {}
        self._budget_failed: set[Key] = set()
        """Pools whose budget could not be written at the last try."""
        self._create_failed: dict[Key, Problem] = {}
        self._templates: dict[str, tuple[str, str | InvalidObject]] = {}
        """By the pool's UID: the version looked at, and the template's hash or what is wrong with it."""
        self._told: dict[Key, tuple[Problem, ...]] = {}

    def prepared(self, pool: Object) -> bool:
        """Whether the pool has its finalizer and its token."""
        namespace, name = key_of(pool)
        return names.POOL_FINALIZER in pool["metadata"].get("finalizers", ()) and self._tokens.usable(namespace, name)

    def has_tokens(self, pool: Object) -> bool:
        """Whether the pool's token Secret is there to stay: nobody has deleted it."""
        return self._tokens.stays(*key_of(pool))

    def awaits_end_of_tokens(self, pool: Object) -> bool:
        """Whether a Secret is being deleted, and still there: its name is not free yet."""
        return self._tokens.goes(*key_of(pool))

    def tokens(self, pool: Object) -> TokenState:
        """How far a rotation of the pool's tokens has come, as last seen."""
        return self._tokens.state(*key_of(pool))

    def token_secret(self, pool: Object) -> str | None:
        """The UID of the pool's token Secret, as last seen."""
        return self._tokens.uid(*key_of(pool))

    async def remake_tokens(self, pool: Object) -> None:
        """Make the token Secret again, which somebody deleted while its Pods are there."""
        await self._tokens.ensure(*key_of(pool))

    async def set_owner(self, namespace: str, name: str, pod: PodView, secret_uid: str) -> None:
        """Make the pool's token Secret, which has this UID, the second owner of a Pod."""
        secret = TokenSecret(name=names.token_secret(name), uid=secret_uid)
        await self._owners.set(namespace, pod.name, pod.uid, secret)

    def has_holder(self, pool: Object) -> bool:
        """Whether there is a holder that owns Pods while the token Secret is made again, as last seen."""
        return self._tokens.has_holder(*key_of(pool))

    async def drop_holder(self, pool: Object) -> None:
        """Every Pod has the token Secret as its owner again: the holder may go."""
        await self._owners.drop_holder(*key_of(pool))

    async def rotate(self, pool: Object, step: RotationStep) -> None:
        """Make the next write of a rotation."""
        words = await self._tokens.rotate(*key_of(pool), step, requested=rotation_request(pool))
        if words is not None:
            log.info(
                "token rotation",
                extra={"pool": "/".join(key_of(pool)), "step": type(step).__name__, "reason": words},
            )
            self._events.event(pool, "TokenRotation", words)

    async def prepare(self, pool: Object) -> None:
        """Give the pool its finalizer, then its token Secret."""
        metadata = pool["metadata"]
        finalizers = metadata.get("finalizers", [])
        if names.POOL_FINALIZER not in finalizers:
            await self._patch_finalizers(pool, [*finalizers, names.POOL_FINALIZER])
        await self._tokens.ensure(*key_of(pool), requested=rotation_request(pool))

    def needs_budget(self, pool: Object) -> bool:
        """Whether its PodDisruptionBudget is missing, or not as it should be."""
        return self._budgets.needs_work(*key_of(pool))

    async def keep_budget(self, pool: Object) -> None:
        """Have its PodDisruptionBudget as it should be; that it can't be done stands in the pool's conditions."""
        key = key_of(pool)
        try:
            await self._budgets.ensure(*key)
        except (ApiError, ApiUnavailable) as error:
            # What is refused stays so. What fails otherwise may be over at the next try; a webhook may fail for long.
            if isinstance(error, Forbidden | Invalid) or key in self._budget_failed:
                self._unbudgeted[key] = str(error)
            self._budget_failed.add(key)
            raise
        self._budget_failed.discard(key)
        if self.needs_budget(pool):
            self._unbudgeted[key] = "something in the cluster changes its PodDisruptionBudget as it is written"
        else:
            self._unbudgeted.pop(key, None)

    def budget_problem(self, pool: Object) -> str | None:
        """Why the pool has no budget, or not the right one; None if it has, or nothing has refused it yet."""
        return self._unbudgeted.get(key_of(pool)) if self.needs_budget(pool) else None

    def can_finish(self, pool: Object) -> bool:
        """Whether `finish` has anything to do, as last seen. A pool may wait for somebody else's finalizer alone."""
        return names.POOL_FINALIZER in pool["metadata"].get("finalizers", ()) or self.has_leftovers(*key_of(pool))

    async def finish(self, pool: Object) -> None:
        """The pool has no Pods any more: remove its budget, its Secret and its finalizer."""
        metadata = pool["metadata"]
        if await self._pods.any_left(metadata["namespace"], metadata["name"]):
            return
        await self._budgets.remove(metadata["namespace"], metadata["name"])
        await self._tokens.remove(metadata["namespace"], metadata["name"])
        kept = [entry for entry in metadata.get("finalizers", ()) if entry != names.POOL_FINALIZER]
        await self._patch_finalizers(pool, kept)
        self.forget(pool)

    def forget(self, pool: Object) -> None:
        """The pool is gone."""
        self._create_failed.pop(key_of(pool), None)
        self._unbudgeted.pop(key_of(pool), None)
        self._budget_failed.discard(key_of(pool))
        self._told.pop(key_of(pool), None)
        self._templates.pop(pool["metadata"]["uid"], None)

    def has_leftovers(self, namespace: str, name: str) -> bool:
        """Whether anything of a pool is there, as last seen: a Secret, its budget."""
        return self._tokens.can_remove(namespace, name) or self._budgets.can_remove(namespace, name)

    async def remove_leftovers(self, namespace: str, name: str) -> None:
        """There is no pool of this name, and what it left is still there: as where both came and went at once."""
        try:
            await self._api.get(SLOTPOOLS, namespace, name)
        except NotFound:
            if not await self._pods.any_left(namespace, name):
                await self._budgets.remove(namespace, name)
                await self._tokens.remove(namespace, name)

    async def _patch_finalizers(self, pool: Object, finalizers: list[str]) -> None:
        metadata = pool["metadata"]
        body = {"metadata": {"resourceVersion": metadata["resourceVersion"], "finalizers": finalizers}}
        try:
            self._cache.note(await self._api.patch(SLOTPOOLS, metadata["namespace"], metadata["name"], body))
        except NotFound:
            self._cache.note_gone(metadata["namespace"], metadata["name"], metadata["uid"])

    def new_pod(self, pool: Object, spec: PoolSpec) -> Object:
        """The document of a new Pod, under a name of its own. Raises InvalidObject if the template can't be used."""
        namespace, name = key_of(pool)
        pod = build_pod(
            pool,
            spec,
            name=self._pods.new_name(name),
            token_secret=self._tokens.secret(namespace, name),
            agent_image=self._images.agent,
        )
        if self._traits.answers_evictions():
            disruption.name_responder(pod["spec"])
        if self._traits.ipv6:
            agent_address.bracket(pod["spec"])
        return pod

    async def make_deployment(self, pool: Object, pod: Object) -> None:
        """Make the Deployment for Pods like `pod`. If that fails, the pool's conditions say so."""
        try:
            await self.deployments.make(pool, pod)
        except (ApiError, ApiUnavailable) as error:
            self._note_refusal(pool, "creating a Deployment", str(error), error)
            raise
        self._create_failed.pop(key_of(pool), None)
        self._events.event(pool, "SuccessfulCreate", f"Created Deployment {pod['metadata']['name']}")

    def _note_refusal(self, pool: Object, what: str, words: str, error: Exception) -> None:
        """`words`: the error's, without what is another at each try, as a Pod's name."""
        # A 5xx is as often one of an admission webhook as of the server: nobody would look for it elsewhere.
        answered = isinstance(error, ApiUnavailable) and error.code is not None
        if answered or isinstance(error, Forbidden | Invalid | TooManyRequests):
            reason = "QuotaExceeded" if "exceeded quota" in words else "FailedCreate"
            self._create_failed[key_of(pool)] = Problem(reason=reason, message=words)
            self._events.event(pool, reason, f"{what}: {words}", warning=True)

    async def create_pod(self, pool: Object, pod: Object) -> None:
        """Create a Pod. If that fails, the pool's conditions say so until it succeeds."""
        key = key_of(pool)
        try:
            created = await self._pods.create(pod)
        except (ApiError, ApiUnavailable) as error:
            self._note_refusal(pool, "creating a Pod", str(error).replace(pod["metadata"]["name"], "…"), error)
            raise
        self._create_failed.pop(key, None)
        if found := hazards(created):
            message = f"Kubernetes may end Pods that have work, by what it added to them: {', '.join(found)}"
            self._events.event(pool, "PodsEndangered", message, warning=True)
        self._events.event(pool, "SuccessfulCreate", f"Created Pod {pod['metadata']['name']}")

    def template_hash(self, pool: Object, spec: PoolSpec) -> str | InvalidObject:
        """What Pods made now would carry as their template's hash, or why none can be made."""
        metadata = pool["metadata"]
        known = self._templates.get(metadata["uid"])
        if known is not None and known[0] == metadata["resourceVersion"]:
            return known[1]
        found: str | InvalidObject
        try:
            found = str(self.new_pod(pool, spec)["metadata"]["annotations"][names.TEMPLATE_HASH])
        except InvalidObject as problem:
            found = problem
        self._templates[metadata["uid"]] = (metadata["resourceVersion"], found)
        return found

    def nothing_to_create(self, pool: Object) -> None:
        """No Pod is missing: what kept one from being made is over."""
        self._create_failed.pop(key_of(pool), None)

    def create_problem(self, pool: Object) -> Problem | None:
        """Why the API server took no Pod the last time."""
        return self._create_failed.get(key_of(pool))

    def removed(self, pool: Object | None, pod: PodView, how: str) -> None:
        """Say that a Pod was deleted. `how` completes `Pod p-1 was …`."""
        where = "/".join(key_of(pool)) if pool is not None else None
        log.info("pod deleted", extra={"pool": where, "pod": pod.name, "pod_uid": pod.uid, "how": how})
        if pool is not None:
            self._events.event(pool, "SuccessfulDelete", f"Pod {pod.name} was {how}")

    def scaled(self, pool: Object, current: int, desired: int, reason: str, message: str) -> None:
        """Say that the size changes, and why."""
        log.info(
            "scale",
            extra={
                "pool": "/".join(key_of(pool)),
                "from": current,
                "to": desired,
                "reason": reason,
                "because": message,
            },
        )
        self._events.event(pool, reason, f"Scaled from {current} to {desired} Pods: {message}")

    def tell(self, pool: Object, problems: tuple[Problem, ...]) -> None:
        """Say once, as Events, what keeps the pool from working as it should; again when it is something else."""
        key, before = key_of(pool), self._told.get(key_of(pool), ())
        for problem in problems:
            if problem not in before:
                log.warning("pool", extra={"pool": "/".join(key), "reason": problem.reason, "because": problem.message})
                self._events.event(pool, problem.reason, problem.message, warning=True)
        self._told[key] = problems

    async def write(self, pool: Object, status: dict[str, Any]) -> None:
        """PATCH the status of exactly this version of the pool."""
        metadata = pool["metadata"]
        body = {"metadata": {"resourceVersion": metadata["resourceVersion"]}, "status": status}
        try:
            written = await self._api.patch(
                SLOTPOOLS, metadata["namespace"], metadata["name"], body, subresource="status"
            )
        except NotFound:
            self._cache.note_gone(metadata["namespace"], metadata["name"], metadata["uid"])
        else:
            self._cache.note(written)


def key_of(obj: Object) -> Key:
    """Namespace and name."""
    return obj["metadata"]["namespace"], obj["metadata"]["name"]


def rotation_request(pool: Object) -> str | None:
    """What the pool's annotation asks for: a new text in it asks for a rotation of its tokens."""
    annotations: dict[str, str] = pool["metadata"].get("annotations") or {}
    return annotations.get(names.ROTATION_REQUESTED)


def differs(pool: Object, status: dict[str, Any]) -> bool:
    """Whether the pool's status lacks something of `status`."""
    present = pool.get("status") or {}
    return any(present.get(name) != value for name, value in status.items() if value is not None)
