"""The paths of a resource and the operations on them, as a real API server describes them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from importlib import resources
from typing import Any

import orjson

from controller.local.apiserver.store.registry import Resource

Json = dict[str, Any]

_META = "io.k8s.apimachinery.pkg.apis.meta.v1"
_SCALE = "io.k8s.api.autoscaling.v1.Scale"
_LIST = (
    "allowWatchBookmarks", "continue", "fieldSelector", "labelSelector", "limit", "resourceVersion",
    "resourceVersionMatch", "sendInitialEvents", "shardSelector", "timeoutSeconds", "watch",
)  # fmt: skip
_WRITE = ("dryRun", "fieldManager", "fieldValidation")
_PATCH = ("dryRun", "fieldManager of a patch", "fieldValidation", "force")
_DELETE = (
    "dryRun", "gracePeriodSeconds", "ignoreStoreReadErrorWithClusterBreakingPotential", "orphanDependents",
    "propagationPolicy",
)  # fmt: skip
_WORDS = {"200": "OK", "201": "Created", "202": "Accepted", "401": "Unauthorized"}
_MEDIA = ("application/json", "application/yaml")
_PATCHES = ("application/apply-patch+yaml", "application/json-patch+json", "application/merge-patch+json")
_STRATEGIC = "application/strategic-merge-patch+json"


@lru_cache(maxsize=1)
def common() -> Json:
    """Schemas and parameters that all documents share."""
    document: Json = orjson.loads(
        resources.files("controller.local.apiserver.openapi").joinpath("common.json").read_bytes()
    )
    return document


def reference(schema: str) -> Json:
    """A `$ref` to a component."""
    return {"$ref": f"#/components/schemas/{schema}"}


def paths(resource: Resource, schema: str) -> Json:
    """Every path of a resource; `schema` names the component of its kind."""
    return _Paths(resource, schema).document()


class _Paths:
    def __init__(self, resource: Resource, schema: str) -> None:
        self._resource = resource
        self._schema = schema
        words = resource.group.replace(".k8s.io", "") if resource.custom is None else resource.group
        parts = (words or "core").split(".")
        camel = parts[0] + "".join(part.capitalize() for part in parts[1:])
        self._tag = f"{camel}_{resource.version}"
        self._group = camel[0].upper() + camel[1:] + resource.version.capitalize()
        self._scope = "Namespaced" if resource.namespaced else ""

    def document(self) -> Json:
        resource = self._resource
        prefix = f"/apis/{resource.group}/{resource.version}" if resource.group else f"/api/{resource.version}"
        within = "/namespaces/{namespace}" if resource.namespaced else ""
        collection = f"{prefix}{within}/{resource.plural}"
        found = {
            collection: {**self._collection(), "parameters": self._path_parameters(name=False)},
            collection + "/{name}": {**self._object(), "parameters": self._path_parameters(name=True)},
        }
        for subresource in sorted(resource.subresources & {"scale", "status"}):
            operations = self._subresource(subresource)
            found[f"{collection}/{{name}}/{subresource}"] = {
                **operations,
                "parameters": self._path_parameters(name=True),
            }
        if resource.namespaced:
            everywhere = self._operation("list", f"list{self._group}{resource.kind}ForAllNamespaces", "list objects of")
            everywhere["responses"] = _responses(f"{self._schema}List", ["200"])
            found[f"{prefix}/{resource.plural}"] = {
                "get": everywhere,
                "parameters": _parameters(sorted([*_LIST, "pretty"])),
            }
        return found

    def _path_parameters(self, *, name: bool) -> list[Json]:
        found = []
        if name:
            text = f"name of the {self._resource.kind}"
            schema = {"type": "string", "uniqueItems": True}
            found.append({"name": "name", "in": "path", "description": text, "required": True, "schema": schema})
        return found + _parameters((["namespace"] if self._resource.namespaced else []) + ["pretty"])

    def _operation(self, action: str, identity: str, words: str, parameters: Sequence[str] = ()) -> Json:
        resource = self._resource
        kind = f"kind {resource.kind}" if words == "list objects of" else resource.kind
        operation: Json = {
            "tags": [self._tag],
            "description": f"{words} {kind}",
            "operationId": identity,
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": {
                "group": resource.group,
                "version": resource.version,
                "kind": resource.kind,
            },
        }
        if parameters:
            operation["parameters"] = _parameters(parameters)
        return operation

    def _collection(self) -> Json:
        kind, schema = self._resource.kind, self._schema
        listing = self._operation("list", f"list{self._group}{self._scope}{kind}", "list objects of", _LIST)
        listing["responses"] = _responses(f"{schema}List", ["200"])
        create = self._operation("post", f"create{self._group}{self._scope}{kind}", "create a", _WRITE)
        create["requestBody"] = _body(schema)
        create["responses"] = _responses(schema, ["200", "201", "202"])
        clear_id = f"delete{self._group}Collection{self._scope}{kind}"
        clear = self._operation("deletecollection", clear_id, "delete collection of", _LIST)
        clear["responses"] = _responses(f"{_META}.Status", ["200"])
        found = {"get": listing, "post": create}
        if "deletecollection" in self._resource.verbs:
            found["delete"] = clear
        return found

    def _object(self) -> Json:
        kind, schema = self._resource.kind, self._schema
        read = self._operation(
            "get", f"read{self._group}{self._scope}{kind}", "read the specified", ["resourceVersion"]
        )
        read["responses"] = _responses(schema, ["200"])
        delete = self._operation("delete", f"delete{self._group}{self._scope}{kind}", "delete a", _DELETE)
        delete["requestBody"] = _body(f"{_META}.DeleteOptions", required=False)
        delete["responses"] = _responses(f"{_META}.Status", ["200", "202"])
        if self._resource.custom is None:
            del read["parameters"]
        return {"get": read, **self._writes("", schema), "delete": delete}

    def _subresource(self, name: str) -> Json:
        resource = self._resource
        schema = _SCALE if name == "scale" else self._schema
        identity = f"read{self._group}{self._scope}{resource.kind}{name.capitalize()}"
        read = self._operation("get", identity, f"read {name} of the specified", ["resourceVersion"])
        read["responses"] = _responses(schema, ["200"])
        return {"get": read, **self._writes(name, schema)}

    def _writes(self, subresource: str, schema: str) -> Json:
        what = f"{subresource} of the specified" if subresource else "the specified"
        tail = f"{self._group}{self._scope}{self._resource.kind}{subresource.capitalize()}"
        put = self._operation("put", f"replace{tail}", f"replace {what}", _WRITE)
        put["requestBody"] = _body(schema)
        put["responses"] = _responses(schema, ["200", "201"])
        patch = self._operation("patch", f"patch{tail}", f"partially update {what}", _PATCH)
        formats = _PATCHES if self._resource.custom is not None else (*_PATCHES, _STRATEGIC)
        content = {media: {"schema": reference(f"{_META}.Patch")} for media in formats}
        patch["requestBody"] = {"content": content, "required": True}
        patch["responses"] = _responses(schema, ["200"])
        return {"put": put, "patch": patch}


def _parameters(names: Sequence[str]) -> list[Json]:
    known = common()["parameters"]
    return [known[name] for name in names]


def _content(schema: str) -> Json:
    return {media: {"schema": reference(schema)} for media in _MEDIA}


def _body(schema: str, *, required: bool = True) -> Json:
    body: Json = {"content": _content(schema)}
    if required:
        body["required"] = True
    return body


def _responses(schema: str, codes: Sequence[str]) -> Json:
    found: Json = {code: {"description": _WORDS[code], "content": _content(schema)} for code in codes}
    found["401"] = {"description": _WORDS["401"]}
    return found
