"""The component schemas of a group: of custom resources as their definitions have them, of built-in kinds by type.

Built-in kinds have types and merge keys but no descriptions: kubectl's validation and patches need the former.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from controller.local.apiserver.openapi.operations import common, reference
from controller.local.apiserver.schema.merge_keys import MERGE_KEYS
from controller.local.apiserver.schema.typed import LATER_FIELDS, struct_types
from controller.local.apiserver.store.registry import Resource

Json = dict[str, Any]

_META = "io.k8s.apimachinery.pkg.apis.meta.v1"
_CONVENTIONS = "https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md"
_API_VERSION: Json = {
    "description": (
        "APIVersion defines the versioned schema of this representation of an object. Servers should convert "
        "recognized schemas to the latest internal value, and may reject unrecognized values. More info: "
        f"{_CONVENTIONS}#resources"
    ),
    "type": "string",
}
_KIND: Json = {
    "description": (
        "Kind is a string value representing the REST resource this object represents. Servers may infer this from the "
        "endpoint the client submits requests to. Cannot be updated. In CamelCase. More info: "
        f"{_CONVENTIONS}#types-kinds"
    ),
    "type": "string",
}
_SCALARS: Mapping[str, Json] = {
    "string": {"type": "string"},
    "integer": {"type": "integer", "format": "int64"},
    "number": {"type": "number", "format": "double"},
    "boolean": {"type": "boolean"},
    "time": {"type": "string", "format": "date-time"},
    "bytes": {"type": "string", "format": "byte"},
    "intorstring": {"oneOf": [{"type": "integer"}, {"type": "string"}], "format": "int-or-string"},
    "quantity": {"oneOf": [{"type": "string"}, {"type": "number"}]},
    "any": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
}
# Where the schemas of a group's types have their names; the others are found by turning the group round.
_PACKAGES = {
    "": "io.k8s.api.core",
    "apps": "io.k8s.api.apps",
    "coordination.k8s.io": "io.k8s.api.coordination",
    "policy": "io.k8s.api.policy",
    "rbac.authorization.k8s.io": "io.k8s.api.rbac",
    "admissionregistration.k8s.io": "io.k8s.api.admissionregistration",
    "authorization.k8s.io": "io.k8s.api.authorization",
    "authentication.k8s.io": "io.k8s.api.authentication",
    "apiextensions.k8s.io": "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions",
}


def name_of(resource: Resource) -> str:
    """The name of the component for a resource's kind."""
    package = _PACKAGES.get(resource.group) or ".".join(reversed(resource.group.split(".")))
    return f"{package}.{resource.version}.{resource.kind}"


def components(resources: list[Resource]) -> Json:
    """The schemas of these resources, their lists, and what they refer to."""
    shared = common()["schemas"]
    scaled = any("scale" in resource.subresources for resource in resources)
    found: Json = {name: schema for name, schema in shared.items() if scaled or "autoscaling" not in name}
    for resource in resources:
        name = name_of(resource)
        if resource.custom is not None:
            found[name] = _custom(resource)
        else:
            _Structs(name.rpartition(".")[0], found).add(resource.kind)
            found[name] = {**found[name], "x-kubernetes-group-version-kind": _kinds(resource, resource.kind)}
        found[f"{name}List"] = _list(resource, name)
    return found


def _kinds(resource: Resource, kind: str) -> list[Json]:
    return [{"group": resource.group, "kind": kind, "version": resource.version}]


def _custom(resource: Resource) -> Json:
    if resource.custom is None:
        raise TypeError(f"{resource.key} is not a custom resource")
    schema = dict(resource.custom.document)
    metadata = {
        "description": f"Standard object's metadata. More info: {_CONVENTIONS}#metadata",
        "allOf": [reference(f"{_META}.ObjectMeta")],
    }
    given = schema.get("properties") or {}
    schema["properties"] = {**given, "apiVersion": _API_VERSION, "kind": _KIND, "metadata": metadata}
    schema["x-kubernetes-group-version-kind"] = _kinds(resource, resource.kind)
    return schema


def _list(resource: Resource, name: str) -> Json:
    kind = resource.list_kind or f"{resource.kind}List"
    items = {
        "description": f"List of {resource.plural}. More info: {_CONVENTIONS}",
        "type": "array",
        "items": reference(name),
    }
    metadata = {
        "description": f"Standard list metadata. More info: {_CONVENTIONS}#types-kinds",
        "allOf": [reference(f"{_META}.ListMeta")],
    }
    return {
        "description": f"{kind} is a list of {resource.kind}",
        "type": "object",
        "required": ["items"],
        "properties": {"apiVersion": _API_VERSION, "items": items, "kind": _KIND, "metadata": metadata},
        "x-kubernetes-group-version-kind": _kinds(resource, kind),
    }


class _Structs:
    """Adds built-in types to a document's components, each with all that it refers to."""

    def __init__(self, package: str, found: Json) -> None:
        self._package = package
        self._found = found

    def add(self, type_name: str) -> str:
        """The name of a type's component."""
        shared = f"{_META}.{type_name}"
        if shared in self._found:
            return shared
        name = shared if type_name.startswith("LabelSelector") else f"{self._package}.{type_name}"
        if name in self._found:
            return name
        self._found[name] = {}  # some types refer to themselves
        properties = {}
        keys = MERGE_KEYS.get(type_name, {})
        for field, field_type in struct_types()[type_name].items():
            if field in LATER_FIELDS.get(type_name, ()):
                continue
            schema = self._schema(field_type)
            if field in keys:
                rule = keys[field]
                if "$ref" in schema:
                    schema = {"allOf": [schema]}
                schema = {**schema, "x-kubernetes-patch-strategy": rule.strategy}
                if rule.key:
                    schema["x-kubernetes-patch-merge-key"] = rule.key
            properties[field] = schema
        self._found[name] = {"type": "object", "properties": properties}
        return name

    def _schema(self, field_type: str) -> Json:
        container, _, item = field_type.partition(":")
        if container == "list":
            return {"type": "array", "items": self._schema(item)}
        if container == "map":
            return {"type": "object", "additionalProperties": self._schema(item)}
        return dict(_SCALARS[field_type]) if field_type in _SCALARS else reference(self.add(field_type))
