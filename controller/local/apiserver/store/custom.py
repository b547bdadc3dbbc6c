"""Custom resources: what a CustomResourceDefinition makes of its objects."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from controller.local.apiserver.errors import Cause
from controller.local.apiserver.schema.structural import CustomSchema
from controller.local.apiserver.schema.typed import Decoder
from controller.local.apiserver.schema.validation import validate
from controller.local.apiserver.store.registry import CUSTOM_VERBS, Resource
from controller.local.apiserver.store.strategy import Decoded, Strategy

Json = dict[str, Any]


def served_versions(definition: Json) -> tuple[Resource, ...]:
    """The resources a definition serves, the storage version first."""
    spec = definition["spec"]
    names = spec["names"]
    versions = sorted(spec.get("versions", ()), key=lambda version: not version.get("storage"))
    return tuple(
        Resource(
            group=spec["group"],
            version=version["name"],
            plural=names["plural"],
            singular=names.get("singular") or names["kind"].lower(),
            kind=names["kind"],
            list_kind=names.get("listKind") or f"{names['kind']}List",
            namespaced=spec["scope"] == "Namespaced",
            verbs=CUSTOM_VERBS,
            short_names=tuple(names.get("shortNames", ())),
            categories=tuple(names.get("categories", ())),
            subresources=frozenset(version.get("subresources") or {}),
            custom=CustomSchema.compile(version),
            unconditional_update=False,
            has_generation=True,
        )
        for version in versions
        if version.get("served")
    )


class CustomStrategy(Strategy):
    """Objects of a custom resource."""

    def __init__(self, resource: Resource) -> None:
        super().__init__(resource)
        if resource.custom is None:
            raise TypeError(f"{resource.key} is not a custom resource")
        self._schema = resource.custom

    def decode(self, document: Json, original: Json | None = None) -> Decoded:
        """Metadata is typed; the rest is pruned and defaulted by the schema."""
        decoder = Decoder(self.resource.kind)
        body = {key: value for key, value in document.items() if key not in ("kind", "apiVersion", "metadata")}
        metadata = decoder.metadata(document.get("metadata") or {})
        body, pruned = self._schema.prune(body)
        body = self._schema.default(body)
        del original
        return Decoded({"metadata": metadata, **body}, (*decoder.unknown, *pruned))

    def prepare_create(self, body: Json, now: datetime) -> Json:
        """Status comes later, where it is a subresource; until then it is what the schema has as its default."""
        del now
        if "status" in self.resource.subresources:
            body.pop("status", None)
            body = self._schema.default(body)
        return body

    def prepare_update(self, new: Json, old: Json, subresource: str) -> Json:
        """The status subresource changes status and nothing else, not even metadata."""
        if subresource == "status":
            merged = {key: value for key, value in old.items() if key != "status"}
            if "status" in new:
                merged["status"] = new["status"]
            return merged
        return super().prepare_update(new, old, subresource)

    def validate(self, body: Json) -> list[Cause]:
        """By the schema."""
        return validate(self._schema, body, None)

    def validate_update(self, new: Json, old: Json, subresource: str) -> list[Cause]:
        """By the schema, transition rules included."""
        del subresource
        return validate(self._schema, new, old)

    def spec_changed(self, new: Json, old: Json) -> bool:
        """Without a status subresource, status counts as well."""
        ignored = ("metadata", "status") if "status" in self.resource.subresources else ("metadata",)
        return any(new.get(part) != old.get(part) for part in {*new, *old} if part not in ignored)
