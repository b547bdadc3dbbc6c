"""What the API server would do: dry runs that the policies must refuse, and the rights of the controller's user.

A dry run goes through admission and is not stored. It is tried on what is there: without active Pods little can be.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from controller import names
from controller.cli.cluster.session import Connection
from controller.cli.verbs.doctor.facts import Facts
from controller.cli.verbs.doctor.findings import Finding, State
from controller.cli.verbs.doctor.reading import APPLY, APPLY_COMMAND, known
from controller.errors import ApiError, Forbidden, NotFound
from controller.kube.api import ACCESS_REVIEWS, BUDGETS, DEPLOYMENTS, PODS, SLOTTASKS, Object, Resource

NAMESPACES = Resource("", "v1", "namespaces", "Namespace", namespaced=False)

CONTROLLER_RIGHTS: dict[tuple[str, str], tuple[str, ...]] = {
    (names.GROUP, "slotpools"): ("get", "list", "watch", "patch"),
    (names.GROUP, "slottasks"): ("get", "list", "watch", "patch", "delete"),
    (names.GROUP, "slotpools/status"): ("patch",),
    (names.GROUP, "slottasks/status"): ("patch",),
    (names.GROUP, "slottaskoutputs"): ("get", "create", "delete"),
    ("", "pods"): ("get", "list", "watch", "create", "patch", "delete"),
    ("", "secrets"): ("get", "list", "watch", "create", "patch", "delete"),
    ("coordination.k8s.io", "leases"): ("get", "list", "watch", "create", "patch", "delete"),
    ("apps", "controllerrevisions"): ("list", "create", "patch", "delete"),
    ("apps", "deployments"): ("get", "list", "watch", "create", "patch", "delete"),
    ("apps", "replicasets"): ("get", "list", "watch", "delete"),
    ("policy", "poddisruptionbudgets"): ("get", "list", "watch", "create", "patch", "delete"),
    ("admissionregistration.k8s.io", "validatingadmissionpolicies"): ("list",),
    ("admissionregistration.k8s.io", "validatingadmissionpolicybindings"): ("list",),
    ("lifecycle.k8s.io", "evictions"): ("get", "list", "watch"),
    ("lifecycle.k8s.io", "evictions/status"): ("patch",),
    ("", "nodes"): ("list", "watch"),
    ("", "events"): ("create", "patch"),
    ("authentication.k8s.io", "tokenreviews"): ("create",),
    ("authorization.k8s.io", "subjectaccessreviews"): ("create",),
}
"""What the controller does, by group and resource: as manifests/base/rbac/controller.yaml grants it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """A write that a policy must refuse."""

    policy: str
    verb: str
    resource: Resource
    namespace: str | None
    name: str = ""
    subresource: str = ""
    body: Object | None = field(default=None)


def refusals(connection: Connection, facts: Facts) -> list[Finding]:
    """Whether the policies refuse what they should."""
    return [_try(connection, trial) for trial in _trials(connection.namespace, facts)]


def _trials(namespace: str, facts: Facts) -> Iterator[Trial]:
    """One for each policy that there is something to try on."""
    approval = {"attempt": 1, "planDigest": f"sha256:{'0' * 64}", "by": "nobody"}
    task: Object = {
        "apiVersion": SLOTTASKS.api_version,
        "kind": SLOTTASKS.kind,
        "metadata": {"name": "podslots-doctor"},
        "spec": {"pool": "none", "type": "plan", "steps": {"plan": {"command": ["true"]}}, "approval": approval},
    }
    yield Trial(policy="podslots-approval", verb="create", resource=SLOTTASKS, namespace=namespace, body=task)
    stranger: Object = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "podslots-doctor", "labels": {names.POOL_LABEL: "none"}},
        "spec": {"containers": [{"name": "none", "image": "registry.invalid/none"}]},
    }
    yield Trial(policy="podslots-pod-create", verb="create", resource=PODS, namespace=namespace, body=stranger)
    labels = {names.POOL_LABEL: "none"}
    workload: Object = {
        "apiVersion": DEPLOYMENTS.api_version,
        "kind": DEPLOYMENTS.kind,
        "metadata": {"name": "podslots-doctor"},
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": stranger["spec"]},
        },
    }
    yield Trial(policy="podslots-workload", verb="create", resource=DEPLOYMENTS, namespace=namespace, body=workload)
    pod = next((pod for pod in known(facts.pods) if _is_active(pod)), None)
    if pod is not None:
        home, name = pod["metadata"]["namespace"], pod["metadata"]["name"]
        relabelled = {"metadata": {"labels": {names.STATE_LABEL: "podslots-doctor"}}}
        ended = {"status": {"phase": "Failed"}}
        yield Trial(policy="podslots-pod-delete", verb="delete", resource=PODS, namespace=home, name=name)
        yield Trial(
            policy="podslots-pod-update", verb="patch", resource=PODS, namespace=home, name=name, body=relabelled
        )
        yield Trial(
            policy="podslots-pod-end",
            verb="patch",
            resource=PODS,
            namespace=home,
            name=name,
            subresource="status",
            body=ended,
        )
        yield Trial(policy="podslots-namespace-delete", verb="delete", resource=NAMESPACES, namespace=None, name=home)
    budget = next((b for b in known(facts.budgets) if names.POOL_LABEL in (b["metadata"].get("labels") or {})), None)
    if budget is not None:
        home, name = budget["metadata"]["namespace"], budget["metadata"]["name"]
        yield Trial(policy="podslots-budget", verb="delete", resource=BUDGETS, namespace=home, name=name)


def _try(connection: Connection, trial: Trial) -> Finding:
    check = f"policy {trial.policy}"
    try:
        connection.api.dry_run(
            trial.verb, trial.resource, trial.namespace, trial.name, body=trial.body, subresource=trial.subresource
        )
    except Forbidden as error:
        if trial.policy in error.message:
            return Finding(check=check, state=State.OK, found="refuses")
        return Finding(check=check, state=State.UNSEEN, found=f"not reached: {error.message}")
    except NotFound:
        return Finding(check=check, state=State.UNSEEN, found="what it was to be tried on is gone")
    except ApiError as error:
        return Finding(check=check, state=State.UNSEEN, found=f"not reached: {error.message}")
    return Finding(
        check=check,
        state=State.FAILS,
        found="the API server accepts what this policy has to refuse",
        object=f"ValidatingAdmissionPolicy {trial.policy}",
        advice=APPLY,
        command=APPLY_COMMAND,
    )


def controller_rights(connection: Connection, user: str) -> Finding:
    """Whether the controller's user may do what the controller does."""
    check, missing = "controller's rights", []
    for (group, resource), verbs in CONTROLLER_RIGHTS.items():
        for verb in verbs:
            try:
                allowed = _may(connection, user, group, resource, verb)
            except ApiError as error:
                return Finding(check=check, state=State.UNSEEN, found=error.message)
            if not allowed:
                missing.append(f"{verb} {resource}" + (f".{group}" if group else ""))
    if missing:
        found = f"{user} may not {', '.join(missing)}"
        return Finding(check=check, state=State.FAILS, found=found, advice=APPLY, command=APPLY_COMMAND)
    return Finding(check=check, state=State.OK, found=user)


def _may(connection: Connection, user: str, group: str, resource: str, verb: str) -> bool:
    plural, _, subresource = resource.partition("/")
    attributes = {"verb": verb, "group": group, "resource": plural, "subresource": subresource}
    spec: dict[str, Any] = {"user": user, "resourceAttributes": {k: v for k, v in attributes.items() if v}}
    if user.startswith("system:serviceaccount:"):
        home = user.split(":")[2]
        spec["groups"] = ["system:serviceaccounts", f"system:serviceaccounts:{home}", "system:authenticated"]
    body = {"apiVersion": ACCESS_REVIEWS.api_version, "kind": ACCESS_REVIEWS.kind, "spec": spec}
    review = connection.api.create(ACCESS_REVIEWS, None, body)
    return bool((review.get("status") or {}).get("allowed"))


def _is_active(pod: Object) -> bool:
    metadata = pod["metadata"]
    opened = (metadata.get("annotations") or {}).get(names.BREAK_GLASS) is None
    return opened and metadata["labels"].get(names.STATE_LABEL) == "active" and "deletionTimestamp" not in metadata
