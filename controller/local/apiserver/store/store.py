"""The API server's state and every decision about it, free of I/O, clocks and randomness.

An operation takes the request, the time and a source of randomness, and gives an `Outcome`: the answer, and the
changes it made. Whoever calls it makes the changes durable before anybody hears of them. A simulation calls the store
directly; `server` puts HTTP before it and a journal behind it.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from controller.local.apiserver.errors import ApiError
from controller.local.apiserver.store import creation, deletion, evictions, updates
from controller.local.apiserver.store.controllers import collection
from controller.local.apiserver.store.core import Core
from controller.local.apiserver.store.outcomes import DEFAULT_OPTIONS, Outcome, WriteOptions, stamp
from controller.local.apiserver.store.registry import Resource
from controller.local.apiserver.store.selectors import EVERYTHING, Selector
from controller.local.apiserver.store.suspects import CRDS
from controller.local.apiserver.store.versions import Change, Record

Json = dict[str, Any]

SYSTEM_NAMESPACES = ("default", "kube-system", "kube-public", "kube-node-lease")
# Kubernetes keeps Events for an hour (--event-ttl).
EVENT_TTL = timedelta(hours=1)


class Store(Core):
    """All objects of a cluster, and what may become of them."""

    def __init__(self, *, history_limit: int = 8192) -> None:
        super().__init__(history_limit=history_limit)

    # --- beginning ----------------------------------------------------------------------------------------

    def restore(self, version: int, bodies: Iterable[tuple[str, int, Json]]) -> None:
        """Begins from what was stored: (resource key, version, body)."""
        rows = list(bodies)
        for key, _, body in rows:
            if key == CRDS:
                self.serve_crd(body)
        self.versions.restore(version, [row for row in rows if self.registry.serves(row[0])])
        self.garbage.suspect_all(self.versions)

    def bootstrap(self, now: datetime, rng: random.Random) -> tuple[Change, ...]:
        """Makes the namespaces every cluster has."""
        namespaces = self.registry.by_key("namespaces")
        changes: list[Change] = []
        for name in SYSTEM_NAMESPACES:
            if self.versions.get("namespaces", ("", name)) is None:
                changes += self.create(namespaces, "", {"metadata": {"name": name}}, now=now, rng=rng).changes
        return tuple(changes)

    def apply(self, document: Json, *, now: datetime, rng: random.Random) -> tuple[Change, ...]:
        """Creates an object that stands in no namespace, or brings it up to date. Kinds not known here are left out."""
        resource = self.registry.by_kind(document["apiVersion"], document["kind"])
        if resource is None:
            return ()
        name = document["metadata"]["name"]
        old = self.versions.get(resource.key, ("", name))
        if old is None:
            return self.create(resource, "", document, now=now, rng=rng).changes
        metadata = {**old.body["metadata"], **document["metadata"]}
        metadata["resourceVersion"] = old.body["metadata"]["resourceVersion"]
        return self.update(resource, "", name, {**document, "metadata": metadata}, now=now, rng=rng).changes

    # --- reading ------------------------------------------------------------------------------------------

    def matching(self, resource: Resource, namespace: str, selector: Selector = EVERYTHING) -> list[Record]:
        """The objects a selector accepts, in order."""
        records = self.versions.collection(resource.key).current(namespace)
        return [record for record in records if selector.matches(record.body)] if selector else list(records)

    # --- writing ------------------------------------------------------------------------------------------

    def create(
        self,
        resource: Resource,
        namespace: str,
        document: Any,
        *,
        now: datetime,
        rng: random.Random,
        options: WriteOptions = DEFAULT_OPTIONS,
    ) -> Outcome:
        """A POST to a collection."""
        return creation.create(self, resource, namespace, document, now=now, rng=rng, options=options)

    def update(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        document: Any,
        *,
        now: datetime,
        rng: random.Random,
        subresource: str = "",
        options: WriteOptions = DEFAULT_OPTIONS,
    ) -> Outcome:
        """A PUT."""
        return updates.update(
            self, resource, namespace, name, document, now=now, rng=rng, subresource=subresource, options=options
        )

    def patch(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        content_type: str,
        patch: Any,
        *,
        subresource: str = "",
        options: WriteOptions = DEFAULT_OPTIONS,
    ) -> Outcome:
        """A PATCH in one of the JSON formats."""
        return updates.patch(
            self,
            resource,
            namespace,
            name,
            content_type=content_type,
            patch=patch,
            subresource=subresource,
            options=options,
        )

    def bind(self, namespace: str, name: str, node: str, *, now: datetime) -> Outcome:
        """Assigns a Pod to a node, as a scheduler does through `pods/binding`."""
        return updates.bind(self, namespace, name, node, now=now)

    def evict(
        self, namespace: str, name: str, document: Any, options: deletion.DeleteOptions, *, now: datetime
    ) -> Outcome:
        """A POST to `pods/eviction`."""
        return evictions.evict(self, namespace, name, document, options=options, now=now)

    def delete(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        options: deletion.DeleteOptions = deletion.DEFAULT,
        *,
        now: datetime,
    ) -> Outcome:
        """A DELETE of one object."""
        return deletion.delete(self, self.get(resource, namespace, name), options, now)

    def delete_collection(
        self,
        resource: Resource,
        namespace: str,
        selector: Selector,
        options: deletion.DeleteOptions = deletion.DEFAULT,
        *,
        now: datetime,
    ) -> tuple[list[Record], tuple[Change, ...]]:
        """A DELETE of a collection: the objects as they were, and what changed."""
        records = self.matching(resource, namespace, selector)
        changes: list[Change] = []
        options = replace(options, of_collection=True)
        for record in records:
            try:
                changes += deletion.delete(self, record, options, now).changes
            except ApiError as error:
                error.changes = tuple(changes)  # it stops at the first that is refused; what is gone is gone
                raise
        return records, tuple(changes)

    def collect(self, now: datetime, *, limit: int = 1000) -> tuple[Change, ...]:
        """What the garbage collector and the namespace controller do next; empty once nothing is left to do."""
        return collection.collect(self, now, limit)

    def expire_events(self, now: datetime) -> tuple[Change, ...]:
        """Removes Events past their time."""
        oldest = stamp(now - EVENT_TTL)
        events = self.matching(self.registry.by_key("events"), "")
        old = [e for e in events if self._event_time(e.body) < oldest]
        return tuple(self.remove(record) for record in old)

    @staticmethod
    def _event_time(body: Json) -> str:
        return max(str(body.get("lastTimestamp") or ""), str(body["metadata"]["creationTimestamp"]))


__all__ = ["DEFAULT_OPTIONS", "Outcome", "Store", "WriteOptions"]
