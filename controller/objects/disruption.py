"""What has Kubernetes and autoscalers leave active Pods alone: a budget for each pool, annotations on each Pod."""

from typing import Any

from controller import names

Json = dict[str, Any]

ALL_OF_THEM = 2**31 - 1
"""minAvailable as a number that no pool reaches: no eviction is ever granted, of Pods that are not ready neither. A
percentage, or maxUnavailable, would be counted from the scale of the Pods' owner, and let some through."""


def budget(namespace: str, pool: str) -> Json:
    """The PodDisruptionBudget over a pool's active Pods.

    It has no owner: the garbage collector would take it with the pool, before the Pods. And no
    `unhealthyPodEvictionPolicy`: AlwaysAllow lets Pods go that are not ready.
    """
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {
            "name": names.disruption_budget(pool),
            "namespace": namespace,
            "labels": {names.POOL_LABEL: pool},
        },
        "spec": {
            "minAvailable": ALL_OF_THEM,
            "selector": {"matchLabels": {names.POOL_LABEL: pool, names.STATE_LABEL: "active"}},
        },
    }


def mending(found: Json, wanted: Json) -> Json | None:
    """The merge patch that makes a budget as it should be; None if it is."""
    labels = found["metadata"].get("labels") or {}
    spec = found.get("spec") or {}
    if labels.items() >= wanted["metadata"]["labels"].items() and spec == wanted["spec"]:
        return None
    return {"metadata": {"labels": wanted["metadata"]["labels"]}, "spec": _merge_patch(spec, wanted["spec"])}


def _merge_patch(found: Json, wanted: Json) -> Json:
    """A merge patch leaves what it does not name: what is too much is named with null."""
    patch: Json = dict.fromkeys(found.keys() - wanted.keys())
    for key, value in wanted.items():
        there = found.get(key)
        patch[key] = _merge_patch(there if isinstance(there, dict) else {}, value) if isinstance(value, dict) else value
    return patch


def notes(state: str) -> dict[str, str | None]:
    """Annotations for autoscalers, by a Pod's state; None: it is taken off.

    They are for their planning: they look for another node, instead of asking for evictions that are refused. What
    keeps an active Pod is the budget.
    """
    if state == "active":
        return {names.SAFE_TO_EVICT: "false", names.DO_NOT_DISRUPT: "true"}
    return {names.SAFE_TO_EVICT: "true", names.DO_NOT_DISRUPT: None}


def name_responder(pod_spec: Json) -> None:
    """Have the controller asked before a Pod is evicted, beside those whom its template names.

    A Pod's spec can't get this later. Pods of a scheduling group can't be evicted so, and have none.
    """
    given = pod_spec.get("evictionResponders") or []
    if "schedulingGroup" in pod_spec or any(entry.get("name") == names.EVICTION_RESPONDER for entry in given):
        return
    ours = {"name": names.EVICTION_RESPONDER, "priority": names.EVICTION_PRIORITY}
    pod_spec["evictionResponders"] = [*given, ours]
