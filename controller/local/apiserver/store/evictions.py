"""Evictions: a delete that asks the Pod's budget first. After the `pods/eviction` storage of the real server."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

from controller.local.apiserver.errors import ApiError, Cause, bad_request
from controller.local.apiserver.store import budgets
from controller.local.apiserver.store.admission_request import CREATE, AdmissionRequest
from controller.local.apiserver.store.core import Core
from controller.local.apiserver.store.deletion import DeleteOptions, delete
from controller.local.apiserver.store.outcomes import Outcome, stamp
from controller.local.apiserver.store.suspects import BUDGETS
from controller.local.apiserver.store.versions import Change, Record

Json = dict[str, Any]

_REFUSED = "Cannot evict pod as it would violate the pod's disruption budget."
_SUCCESS: Json = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}
_PROCESSING_SECONDS = 10
# Nothing is running there, or it is on its way out already: budgets don't count.
_UNGUARDED = ("Pending", "Succeeded", "Failed")


def evict(core: Core, namespace: str, name: str, document: Any, *, options: DeleteOptions, now: datetime) -> Outcome:
    """Deletes a Pod if its budget allows. Raises TooManyRequests otherwise."""
    document = document if isinstance(document, dict) else {}
    named = (document.get("metadata") or {}).get("name", name)
    if named != name:
        raise bad_request("name in URL does not match name in Eviction object")
    pods = core.registry.by_key("pods")
    pod = core.get(pods, namespace, name)
    metadata = {"name": name, "namespace": namespace}
    eviction = {"metadata": metadata, "deleteOptions": document.get("deleteOptions") or {}}
    asked = AdmissionRequest(CREATE, pods, namespace, name, eviction, None, options.user, "eviction", options.dry_run)
    warnings = core.admit(asked)
    options = replace(options, evicts=True)
    changes: list[Change] = []
    if not _unguarded(pod):
        changes += _ask_budget(core, pod, options, now)
    try:
        changes += _condition_and_delete(core, pod, options, now)
    except ApiError as error:
        error.changes = tuple(changes)  # what was taken from the budget stays taken, as in the real server
        raise
    return Outcome(201, None, tuple(changes), warnings, _SUCCESS)


def _unguarded(pod: Record) -> bool:
    phase = (pod.body.get("status") or {}).get("phase")
    return phase in _UNGUARDED or "deletionTimestamp" in pod.body["metadata"]


def _ask_budget(core: Core, pod: Record, options: DeleteOptions, now: datetime) -> list[Change]:
    resource = core.registry.by_key(BUDGETS)
    found = [
        budget for budget in core.versions.collection(BUDGETS).current(pod.namespace) if budgets.selects(budget, pod)
    ]
    if not found:
        return []
    if len(found) > 1:
        text = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."
        raise ApiError(500, "", text)
    budget = found[0]
    status, spec = budget.body["status"], budget.body.get("spec") or {}
    if not budgets.is_ready(pod):
        policy = spec.get("unhealthyPodEvictionPolicy", "IfHealthyBudget")
        met = 0 < status["desiredHealthy"] <= status["currentHealthy"]
        if policy == "AlwaysAllow" or met:
            return []
    if status.get("observedGeneration", 0) < budget.body["metadata"].get("generation", 0):
        text = f"The disruption budget {budget.name} is still being processed by the server."
        raise _too_many(text, retry_after_seconds=_PROCESSING_SECONDS)
    if status["disruptionsAllowed"] <= 0:
        raise _too_many(
            f"The disruption budget {budget.name} needs {status['desiredHealthy']} healthy pods and has "
            f"{status['currentHealthy']} currently"
        )
    if options.dry_run:
        return []
    return [core.put(resource, {**budget.body, "status": budgets.taken(budget, pod.name, now)})]


def _too_many(why: str, *, retry_after_seconds: int = 0) -> ApiError:
    details: Json = {"causes": [Cause("DisruptionBudget", why, "").document()]}
    del details["causes"][0]["field"]
    headers = {}
    if retry_after_seconds:
        details["retryAfterSeconds"] = retry_after_seconds
        headers["Retry-After"] = str(retry_after_seconds)
    return ApiError(429, "TooManyRequests", _REFUSED, details, headers=headers)


def _condition_and_delete(core: Core, pod: Record, options: DeleteOptions, now: datetime) -> list[Change]:
    # Tried first: what a precondition refuses leaves no condition behind.
    delete(core, pod, replace(options, dry_run=True), now)
    if options.dry_run:
        return []
    changes: list[Change] = []
    status = pod.body.get("status") or {}
    others = [c for c in status.get("conditions") or () if c["type"] != "DisruptionTarget"]
    if len(others) == len(status.get("conditions") or ()):
        condition = {
            "type": "DisruptionTarget",
            "status": "True",
            "lastProbeTime": None,
            "lastTransitionTime": stamp(now),
            "reason": "EvictionByEvictionAPI",
            "message": "Eviction API: evicting",
        }
        body = {**pod.body, "status": {**status, "conditions": [*others, condition]}}
        changes.append(core.put(core.registry.by_key("pods"), body))
    # Its resourceVersion has just changed; the precondition was met before.
    current = changes[-1].record if changes else pod
    return [*changes, *delete(core, current, replace(options, resource_version=None), now).changes]
