"""Discovery: which groups, versions and resources there are."""

from __future__ import annotations

from typing import Any

from controller.local.apiserver.access.reviews import REVIEWS
from controller.local.apiserver.store.registry import Registry, Resource

Json = dict[str, Any]

# The Kubernetes version whose behaviour is kept to.
VERSION: Json = {
    "major": "1",
    "minor": "36",
    "emulationMajor": "1",
    "emulationMinor": "36",
    "minCompatibilityMajor": "1",
    "minCompatibilityMinor": "35",
    "gitVersion": "v1.36.2+podslots",
    "gitCommit": "",
    "gitTreeState": "clean",
    "buildDate": "1970-01-01T00:00:00Z",
    "goVersion": "",
    "compiler": "",
    "platform": "linux/amd64",
}

_SUBRESOURCES: dict[tuple[str, str], Json] = {
    ("pods", "log"): {"kind": "Pod", "verbs": ["get"]},
    ("pods", "binding"): {"kind": "Binding", "verbs": ["create"]},
    ("pods", "eviction"): {"group": "policy", "version": "v1", "kind": "Eviction", "verbs": ["create"]},
    ("namespaces", "finalize"): {"kind": "Namespace", "verbs": ["update"]},
}


def document(registry: Registry, parts: list[str], host: str) -> Json | None:
    """The discovery document at a path, given in its parts; None if there is none."""
    match parts:
        case ["version"]:
            return VERSION
        case ["api"]:
            return api_versions(host)
        case ["apis"]:
            return group_list(registry)
        case ["api", version]:
            return resource_list(registry, "", version)
        case ["apis", group_name]:
            return group(registry, group_name)
        case ["apis", group_name, version]:
            return resource_list(registry, group_name, version)
        case _:
            return None


def api_versions(server_address: str) -> Json:
    """`/api`."""
    return {
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": server_address}],
    }


def _versions(registry: Registry) -> dict[str, list[str]]:
    """The versions of each group, those included that have reviews alone."""
    return {**registry.group_versions(), **{group_name: ["v1"] for group_name, _ in REVIEWS}}


def group_list(registry: Registry) -> Json:
    """`/apis`."""
    groups = [_group(name, versions) for name, versions in _versions(registry).items() if name]
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}


def group(registry: Registry, name: str) -> Json | None:
    """`/apis/GROUP`."""
    versions = _versions(registry).get(name)
    return {"kind": "APIGroup", "apiVersion": "v1", **_group(name, versions)} if versions and name else None


def _group(name: str, versions: list[str]) -> Json:
    listed = [{"groupVersion": f"{name}/{version}", "version": version} for version in versions]
    return {"name": name, "versions": listed, "preferredVersion": listed[0]}


def resource_list(registry: Registry, group_name: str, version: str) -> Json | None:
    """`/api/v1` and `/apis/GROUP/VERSION`."""
    resources = registry.resources(group_name, version)
    reviews = [
        {"name": plural, "singularName": kind.lower(), "namespaced": namespaced, "kind": kind, "verbs": ["create"]}
        for (owner, plural), (kind, namespaced) in REVIEWS.items()
        if (owner, "v1") == (group_name, version)
    ]
    if not resources and not reviews:
        return None
    entries: list[Json] = reviews
    for resource in sorted(resources, key=lambda r: r.plural):
        entries.append(_entry(resource))
        # Definitions list status before scale, the built-in kinds are sorted.
        names = sorted(resource.subresources, reverse=resource.custom is not None)
        entries += [_subresource_entry(resource, name) for name in names]
    if not group_name:
        entries.append(
            {"name": "bindings", "singularName": "binding", "namespaced": True, "kind": "Binding", "verbs": ["create"]}
        )
    head: Json = {"kind": "APIResourceList"}
    if group_name:
        head["apiVersion"] = "v1"
    head["groupVersion"] = f"{group_name}/{version}" if group_name else version
    return {**head, "resources": sorted(entries, key=lambda entry: str(entry["name"]).partition("/")[0])}


def _entry(resource: Resource) -> Json:
    entry: Json = {
        "name": resource.plural,
        "singularName": resource.singular,
        "namespaced": resource.namespaced,
        "kind": resource.kind,
        "verbs": list(resource.verbs),
    }
    if resource.short_names:
        entry["shortNames"] = list(resource.short_names)
    if resource.categories:
        entry["categories"] = list(resource.categories)
    entry["storageVersionHash"] = resource.storage_version_hash
    return entry


def _subresource_entry(resource: Resource, name: str) -> Json:
    entry: Json = {
        "name": f"{resource.plural}/{name}",
        "singularName": "",
        "namespaced": resource.namespaced,
        "kind": resource.kind,
        "verbs": ["get", "patch", "update"],
    }
    if name == "scale":
        entry.update(group="autoscaling", version="v1", kind="Scale")
    entry.update(_SUBRESOURCES.get((resource.plural, name), {}))
    return entry
