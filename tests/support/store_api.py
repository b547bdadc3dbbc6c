"""`controller.kube.api.Api` straight to the embedded cluster's store: its real decisions, without HTTP or a journal.

The store is the one that is held to a real API server's transcripts: CRD schemas and rules, status subresources,
finalizers, graceful deletion and the garbage collector are its own. Faults are hooks around each call.
"""

import asyncio
import functools
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime
from typing import Any

import orjson
import yaml

from controller import crds
from controller.errors import ApiError, Gone
from controller.kube.api import Object, Resource
from controller.local.apiserver import lists
from controller.local.apiserver.errors import ApiError as Refusal
from controller.local.apiserver.store import patches, selectors
from controller.local.apiserver.store.controllers.workloads import Workloads
from controller.local.apiserver.store.deletion import DeleteOptions
from controller.local.apiserver.store.outcomes import Outcome
from controller.local.apiserver.store.registry import Resource as Served
from controller.local.apiserver.store.store import Store
from controller.local.apiserver.store.versions import Change, ChangeType, HistoryExpiredError, Record

Hook = Callable[[str, Resource, str], Awaitable[None]]
"""`hook(verb, resource, name)`: may wait, or raise. `verb` is that of the call, or `event`."""
Carry = Callable[[str, Resource, Callable[[], Object]], Awaitable[Object]]
"""`carry(verb, resource, effect)`: the answer of `effect()`, or raises."""
Observer = Callable[[Change], None]

IDLE_SECONDS = 75.0


class Cluster:
    """One store and those who watch it. What happens in it is told to `observers` at once, in order.

    Without `rules` the CRDs' CEL rules are left out: they take ten times as long as all the rest.
    """

    def __init__(self, now: Callable[[], datetime], rng: random.Random, *, rules: bool = True) -> None:
        self.store = Store(history_limit=512)
        self.now = now
        self.rng = rng
        self._workloads = Workloads(self.store, rng)
        self.observers: list[Observer] = []
        self._changed: dict[str, asyncio.Event] = {}
        self.epoch = 0
        self.published(self.store.bootstrap(now(), rng))
        for document in definitions(rules=rules):
            self.published(self.store.apply(document, now=now(), rng=rng))

    def served(self, resource: Resource) -> Served:
        found = self.store.registry.find(resource.group, resource.version, resource.plural)
        assert found is not None, resource
        return found

    def published(self, changes: tuple[Change, ...]) -> None:
        for change in changes:
            for observer in self.observers:
                observer(change)
        for key in {change.record.resource for change in changes}:
            self._wake(key)

    def collect(self) -> None:
        """What the garbage collector, the namespace controller, and those of Deployments and ReplicaSets do."""
        while changes := (*self.store.collect(self.now()), *self._workloads.sync(self.now())):
            self.published(changes)

    def drop_watches(self) -> None:
        """End every watch, as a restarted API server does."""
        self.epoch += 1
        for key in list(self._changed):
            self._wake(key)

    def compact(self) -> None:
        """Forget the history: watches from before must list again."""
        self.store.versions.compact()
        self.drop_watches()

    async def changed(self, key: str, seconds: float) -> None:
        """Until anything of a resource changes, or the time is over."""
        changed = self._changed.setdefault(key, asyncio.Event())
        try:
            async with asyncio.timeout(seconds):
                await changed.wait()
        except TimeoutError:
            return

    def _wake(self, key: str) -> None:
        if (changed := self._changed.pop(key, None)) is not None:
            changed.set()

    # --- what others than the controller do ---------------------------------------------------------------------------

    def find(self, resource: Resource, namespace: str, name: str) -> Object | None:
        """An object as it is now."""
        record = self.store.versions.get(self.served(resource).key, (namespace, name))
        return None if record is None else decoded(self.served(resource), record)

    def all(self, resource: Resource) -> list[Object]:
        served = self.served(resource)
        return [decoded(served, record) for record in self.store.matching(served, "")]

    def create(self, resource: Resource, namespace: str, body: Object) -> Object:
        served = self.served(resource)
        return self._done(served, self.store.create(served, namespace, body, now=self.now(), rng=self.rng))

    def patch(self, resource: Resource, namespace: str, name: str, body: Object, *, subresource: str = "") -> Object:
        served = self.served(resource)
        outcome = self.store.patch(served, namespace, name, patches.MERGE, body, subresource=subresource)
        return self._done(served, outcome)

    def delete(self, resource: Resource, namespace: str, name: str, options: DeleteOptions | None = None) -> Object:
        served = self.served(resource)
        outcome = self.store.delete(served, namespace, name, options or DeleteOptions(), now=self.now())
        return self._done(served, outcome)

    def _done(self, served: Served, outcome: Outcome) -> Object:
        self.published(outcome.changes)
        if outcome.record is None:
            assert outcome.status is not None
            return outcome.status
        return decoded(served, outcome.record)


class StoreApi:
    """One client's `Api`. Each client has faults of its own."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.before: Hook = _nothing
        self.after: Hook = _nothing
        self.carry: Carry = _at_once
        """Brings a call to its effect."""

    async def get(self, resource: Resource, namespace: str | None, name: str) -> Object:
        served = self.cluster.served(resource)
        return await self._call(
            "get", resource, name, lambda: decoded(served, self.cluster.store.get(served, namespace or "", name))
        )

    async def list_page(
        self,
        resource: Resource,
        namespace: str | None,
        *,
        label_selector: str = "",
        limit: int = 500,
        continue_token: str = "",
    ) -> Object:
        served = self.cluster.served(resource)
        query = {"labelSelector": label_selector, "limit": str(limit), "continue": continue_token}

        def read() -> Object:
            page = lists.read(self.cluster.store, served, namespace or "", lists.ListRequest.parse(served, query))
            document: Object = orjson.loads(lists.encode_list(served, page))
            return document

        return await self._call("list", resource, "", read)

    async def watch(
        self, resource: Resource, namespace: str | None, *, resource_version: str, label_selector: str = ""
    ) -> AsyncIterator[Object]:
        await self.before("watch", resource, "")
        cluster, served = self.cluster, self.cluster.served(resource)
        selector = selectors.parse(served, label_selector, "")
        collection = cluster.store.versions.collection(served.key)
        position, epoch = int(resource_version), cluster.epoch
        quiet_since = asyncio.get_running_loop().time()
        while cluster.epoch == epoch:
            try:
                news = collection.changes_after(position)
            except HistoryExpiredError as error:
                raise Gone(410, "Expired", str(error)) from error
            for change in news:
                position = change.version
                event = seen(served, change, namespace or "", selector)
                if event is not None:
                    quiet_since = asyncio.get_running_loop().time()
                    await self.after("event", resource, change.record.name)
                    yield event
            waited = asyncio.get_running_loop().time() - quiet_since
            if waited >= IDLE_SECONDS:
                return  # as a server does after a while, so that its clients spread
            if not news:
                await cluster.changed(served.key, IDLE_SECONDS - waited)

    async def create(self, resource: Resource, namespace: str | None, body: Object) -> Object:
        effect = functools.partial(self.cluster.create, resource, namespace or "", body)
        return await self._call("create", resource, body["metadata"]["name"], effect)

    async def replace(
        self, resource: Resource, namespace: str | None, name: str, body: Object, *, subresource: str = ""
    ) -> Object:
        raise NotImplementedError

    async def patch(
        self, resource: Resource, namespace: str | None, name: str, body: Object, *, subresource: str = ""
    ) -> Object:
        effect = functools.partial(self.cluster.patch, resource, namespace or "", name, body, subresource=subresource)
        return await self._call("patch", resource, name, effect)

    async def delete(
        self,
        resource: Resource,
        namespace: str | None,
        name: str,
        *,
        uid: str | None = None,
        resource_version: str | None = None,
        grace_period_seconds: int | None = None,
    ) -> Object:
        options = DeleteOptions(uid=uid, resource_version=resource_version, grace_seconds=grace_period_seconds)
        effect = functools.partial(self.cluster.delete, resource, namespace or "", name, options)
        return await self._call("delete", resource, name, effect)

    async def _call(self, verb: str, resource: Resource, name: str, effect: Callable[[], Object]) -> Object:
        await self.before(verb, resource, name)
        try:
            answer = await self.carry(verb, resource, effect)
        except Refusal as refusal:
            raise ApiError.of(refusal.code, refusal.reason, refusal.message) from refusal
        await self.after(verb, resource, name)
        return answer


@functools.cache
def definitions(*, rules: bool) -> tuple[Any, ...]:
    """The CRDs as they are shipped, with or without their CEL rules."""
    documents = (yaml.safe_load(file.read_text()) for file in sorted(crds.folder().glob("*.yaml")))
    return tuple(document if rules else _without_rules(document) for document in documents)


def _without_rules(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_rules(item) for key, item in value.items() if key != "x-kubernetes-validations"}
    return [_without_rules(item) for item in value] if isinstance(value, list) else value


def decoded(served: Served, record: Record) -> Object:
    """An object as a client gets it: its own copy."""
    document: Object = orjson.loads(lists.encode_object(served, record))
    return document


def seen(served: Served, change: Change, namespace: str, selector: Any) -> Object | None:
    """The event of a change as a watch with this selector sees it."""
    if namespace and change.record.namespace != namespace:
        return None
    was = change.previous is not None and selector.matches(change.previous.body)
    matches = change.type is not ChangeType.DELETED and selector.matches(change.record.body)
    if not (was or matches):
        return None
    kind = ChangeType.DELETED if not matches else ChangeType.MODIFIED if was else ChangeType.ADDED
    return {"type": kind.value, "object": decoded(served, change.record)}


async def _at_once(verb: str, resource: Resource, effect: Callable[[], Object]) -> Object:
    del verb, resource
    return effect()


async def _nothing(verb: str, resource: Resource, name: str) -> None:
    del verb, resource, name
