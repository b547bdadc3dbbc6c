"""Whether the policies are there that keep others from active Pods. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

Object = Mapping[str, Any]

POLICIES = {
    "podslots-pod-delete": "deletion of active Pods",
    "podslots-pod-create": "Pods that pass themselves off as a pool's",
    "podslots-workload": "Deployments and ReplicaSets that make such Pods, and changes of a pool's Deployment",
    "podslots-pod-eviction": "eviction of active Pods that do not run yet",
    "podslots-namespace-delete": "deletion of namespaces with active Pods",
    "podslots-pod-update": "changes of Pods' labels, annotations and specs",
    "podslots-pod-end": "an end written over active Pods by others than their node",
    "podslots-budget": "deletion of pools' PodDisruptionBudgets",
    "podslots-lock": "lockKeys that others take or release",
    "podslots-approval": "approvals by everyone who may write tasks",
    "podslots-automatic-approval": "tasks that approve themselves",
    "podslots-task-update": "changes of tasks by who may only approve",
    "podslots-task-files": "paths and changes of a task's files",
}
"""The policies of manifests/protection, and what nothing holds back where one is missing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Whether Pods are protected from others, with a reason, and a message that names what is not held back."""

    protected: bool
    reason: str
    message: str = ""


def finding(policies: Iterable[Object], bindings: Iterable[Object]) -> Finding:
    """What the policies that were found come to."""
    found = unprotected(policies, bindings)
    if not found:
        return Finding(protected=True, reason="PoliciesInForce")
    texts = [f"{POLICIES[name]} ({name} {why})" for name, why in found.items()]
    return Finding(protected=False, reason="PoliciesMissing", message=f"nothing holds back {'; '.join(texts)}")


def not_served() -> Finding:
    """A cluster without such policies."""
    text = (
        "this cluster has no ValidatingAdmissionPolicies, which Kubernetes has from 1.30 on: only evictions are refused"
    )
    return Finding(protected=False, reason="PoliciesNotServed", message=text)


def not_readable(why: str) -> Finding:
    """The controller may not look."""
    return Finding(protected=False, reason="PoliciesNotKnown", message=why)


def without_budget(why: str) -> Finding:
    """The pool's own part is missing."""
    return Finding(protected=False, reason="NoDisruptionBudget", message=f"nothing holds back evictions: {why}")


def unprotected(policies: Iterable[Object], bindings: Iterable[Object]) -> dict[str, str]:
    """The policies that do not bite, each with why not."""
    by_name = {policy["metadata"]["name"]: policy["spec"] for policy in policies}
    denying = {
        binding["spec"].get("policyName")
        for binding in bindings
        if "Deny" in (binding["spec"].get("validationActions") or ())
    }
    found = {}
    for name in POLICIES:
        spec = by_name.get(name)
        if spec is None:
            found[name] = "is missing"
        elif name not in denying:
            found[name] = "has no binding that denies"
        elif spec.get("failurePolicy", "Fail") != "Fail":
            found[name] = "lets pass what it can't decide (failurePolicy)"
    return found
