"""The documents below `/openapi/v3`, and their index. An address with a document's hash may be kept for ever."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import orjson

from controller.local.apiserver.discovery import VERSION
from controller.local.apiserver.openapi.operations import paths
from controller.local.apiserver.openapi.schemas import components, name_of
from controller.local.apiserver.store.registry import Registry, Resource

Json = dict[str, Any]

PREFIX = "/openapi/v3"


@dataclass(frozen=True)
class Document:
    """One group and version."""

    body: bytes

    @cached_property
    def hash(self) -> str:
        """What changes when the document does."""
        return hashlib.sha512(self.body).hexdigest().upper()


class Documents:
    """All documents, made anew when the served kinds have changed."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._made: dict[str, Document] = {}
        self._revision = -1

    def index(self) -> bytes:
        """Where each document is."""
        addresses = {
            path: {"serverRelativeURL": f"{PREFIX}/{path}?hash={document.hash}"}
            for path, document in self._current().items()
        }
        return orjson.dumps({"paths": addresses})

    def find(self, path: str) -> Document | None:
        """The document of `api/v1` or `apis/GROUP/VERSION`."""
        return self._current().get(path)

    def _current(self) -> Mapping[str, Document]:
        if self._revision != self._registry.revision:
            self._revision = self._registry.revision
            self._made = {
                (f"apis/{group}/{version}" if group else f"api/{version}"): _document(
                    self._registry.resources(group, version)
                )
                for group, versions in sorted(self._registry.group_versions().items())
                for version in versions
            }
        return self._made


def _document(resources: list[Resource]) -> Document:
    custom = any(resource.custom is not None for resource in resources)
    everything: Json = {}
    for resource in sorted(resources, key=lambda r: r.plural):
        everything.update(paths(resource, name_of(resource)))
    title = {"title": "Kubernetes CRD Swagger", "version": "v0.1.0"}
    if not custom:
        title = {"title": "Kubernetes", "version": f"{VERSION['major']}.{VERSION['minor']}"}
    return Document(
        orjson.dumps(
            {
                "openapi": "3.0.0",
                "info": title,
                "paths": everything,
                "components": {"schemas": components(resources)},
            }
        )
    )
