"""How a strategic merge patch merges: the `patchStrategy` and `patchMergeKey` tags of the API types served here.

What is not named is replaced: lists whole, objects field by field.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class MergeRule:
    """Merges a list by a key, or as a set without one. `retainKeys` drops fields that the patch doesn't name."""

    key: str = ""
    strategy: str = "merge"


def _by(key: str) -> MergeRule:
    return MergeRule(key)


_CONTAINER = {
    "ports": _by("containerPort"),
    "env": _by("name"),
    "volumeMounts": _by("mountPath"),
    "volumeDevices": _by("devicePath"),
}
_RETAINED = MergeRule("name", "merge,retainKeys")

# Type → field → rule.
MERGE_KEYS: Mapping[str, Mapping[str, MergeRule]] = {
    "ObjectMeta": {"finalizers": MergeRule(), "ownerReferences": _by("uid")},
    "PodSpec": {
        "volumes": _RETAINED,
        "initContainers": _by("name"),
        "containers": _by("name"),
        "ephemeralContainers": _by("name"),
        "imagePullSecrets": _by("name"),
        "hostAliases": _by("ip"),
        "topologySpreadConstraints": _by("topologyKey"),
        "resourceClaims": _RETAINED,
        "schedulingGates": _by("name"),
    },
    "Container": _CONTAINER,
    "EphemeralContainer": _CONTAINER,
    "PodStatus": {
        "conditions": _by("type"),
        "podIPs": _by("ip"),
        "hostIPs": _by("ip"),
        "resourceClaimStatuses": _RETAINED,
    },
    "NodeSpec": {"podCIDRs": MergeRule()},
    "NodeStatus": {"conditions": _by("type"), "addresses": _by("type")},
    "NamespaceStatus": {"conditions": _by("type")},
    "PodDisruptionBudgetSpec": {"selector": MergeRule("", "replace")},
    "PodDisruptionBudgetStatus": {"conditions": _by("type")},
    "ValidatingAdmissionPolicySpec": {"matchConditions": _by("name"), "variables": _by("name")},
}
