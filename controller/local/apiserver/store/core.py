"""The objects of a cluster, and the only places that change them.

Creation, updates and deletion decide and end here; `store` puts them together for those outside.
"""

from __future__ import annotations

from typing import Any

from controller.local.apiserver.errors import not_found
from controller.local.apiserver.store.admission_request import Admit, admit_all
from controller.local.apiserver.store.builtins import builtin_strategy
from controller.local.apiserver.store.custom import CustomStrategy, served_versions
from controller.local.apiserver.store.registry import Registry, Resource
from controller.local.apiserver.store.strategy import Strategy
from controller.local.apiserver.store.suspects import CRDS, Suspects
from controller.local.apiserver.store.versions import Change, Record, Versions

Json = dict[str, Any]


class Core:
    """All objects, the kinds that they are of, and what the collectors are to look at."""

    def __init__(self, *, history_limit: int) -> None:
        self.registry = Registry()
        self.versions = Versions(history_limit=history_limit)
        self.garbage = Suspects()
        # What policies say to a write; whoever puts a server before the store sets it.
        self.admit: Admit = admit_all
        self._strategies: dict[Resource, Strategy] = {}

    def strategy(self, resource: Resource) -> Strategy:
        """The behaviour of a resource's kind."""
        found = self._strategies.get(resource)
        if found is None:
            found = CustomStrategy(resource) if resource.custom is not None else builtin_strategy(resource)
            self._strategies[resource] = found
        return found

    def get(self, resource: Resource, namespace: str, name: str) -> Record:
        """The object as it is now."""
        record = self.versions.get(resource.key, (namespace, name))
        if record is None:
            raise not_found(resource.target(name))
        return record

    def put(self, resource: Resource, body: Json) -> Change:
        """Stores a new version of an object that has been checked."""
        change = self.versions.put(resource.key, body)
        self.garbage.noticed(change)
        if resource.key == CRDS:
            self.serve_crd(body)
        return change

    def remove(self, record: Record, last_body: Json | None = None) -> Change:
        """Takes an object away whose deletion is complete."""
        change = self.versions.remove(record, last_body)
        self.garbage.noticed(change)
        for dependent in self.versions.dependents(record.uid):
            self.garbage.add(dependent)
        for reference in record.body["metadata"].get("ownerReferences", ()):
            owner = self.versions.by_uid(reference["uid"])
            if owner is not None:
                self.garbage.add(owner)
        if record.resource == CRDS:
            self.registry.replace_custom(record.name, ())
        return change

    def serve_crd(self, body: Json) -> None:
        """Serve the kinds of a CustomResourceDefinition as it is now."""
        self.registry.replace_custom(body["metadata"]["name"], served_versions(body))
