"""The policies on Pods of pools: who creates, deletes, evicts and changes them."""

from controller import names
from manifests.policies.policy import (
    ACTIVE,
    OF_A_POOL,
    Json,
    Policy,
    glass_broken,
    is_going,
    is_one_of,
    is_user,
    may,
    others_than,
    refuse_unless,
    refuse_without,
    tracked,
)

REPLICASET_USERS = (names.REPLICASET_CONTROLLER, names.CLUSTER_MANAGER)

RIGHTS = {names.BREAK_GLASS: "break-glass", names.FORGET: "forget", names.DRAIN_REQUESTED: "drain"}
"""Annotation that people set on Pods → the subresource of `pods` in our group that they need `update` on."""

_DRAIN = "`podslots drain` has it deleted once it is idle, `podslots break-glass` lets it be deleted now"


def pod_delete() -> Policy:
    """Who deletes active Pods: nobody."""
    return Policy(
        name="podslots-pod-delete",
        why=(
            "Nobody deletes an active Pod: not kubectl, even with --force or for a collection, and not the "
            "garbage collector, the namespace controller, the taint manager or the scheduler. The controller "
            "labels a Pod draining first. The last delete, which the kubelet makes, is let through."
        ),
        operations=("DELETE",),
        resources=("pods",),
        selector=ACTIVE,
        validations=(
            refuse_unless(
                f"{is_going('oldObject')} || {glass_broken('oldObject')}",
                f"the Pod is active: {_DRAIN}",
                computed="'Pod ' + oldObject.metadata.name + ' of pool ' + "
                f"oldObject.metadata.labels['{names.POOL_LABEL}'] + ' is active: {_DRAIN}'",
            ),
        ),
    )


def pod_create(user: str) -> Policy:
    """Who makes Pods of pools."""
    return Policy(
        name="podslots-pod-create",
        why=(
            "Only the controller and the ReplicaSets of its Deployments make Pods of pools. A Pod that somebody else "
            "makes would count as one with a silent agent. With the label active it could not be deleted, nor could "
            "its namespace."
        ),
        operations=("CREATE",),
        resources=("pods",),
        selector=OF_A_POOL,
        validations=(
            refuse_unless(
                is_one_of(user, *REPLICASET_USERS), f"only the controller makes Pods with the label {names.POOL_LABEL}"
            ),
        ),
    )


def pod_eviction() -> Policy:
    """Which active Pods are evicted: none that does not run."""
    allowed = (
        "params.metadata.name != request.name",
        "params.status.?phase.orValue('') == 'Running'",
        is_going("params"),
        glass_broken("params"),
    )
    return Policy(
        name="podslots-pod-eviction",
        why=(
            "An active Pod that does not run is not evicted, because a PodDisruptionBudget does not protect it. A "
            "running one is left to the budget: its 429 makes `kubectl drain` wait, but a 403 would end it."
        ),
        operations=("CREATE",),
        resources=("pods/eviction",),
        over_active_pods=True,
        validations=(
            refuse_unless(
                " || ".join(allowed),
                f"the Pod is active: {_DRAIN}",
                computed=f"'Pod ' + params.metadata.name + ' is active: {_DRAIN}'",
            ),
        ),
    )


def pod_update(user: str) -> Policy:
    """Who changes the labels, annotations and specs of Pods of pools."""
    labels = [names.POOL_LABEL, names.STATE_LABEL, names.DEPLOYMENT_LABEL]
    notes = [names.DRAIN_ID, names.OPENED, names.TEMPLATE_HASH, names.POOL_UID]
    return Policy(
        name="podslots-pod-update",
        why=(
            "Only the controller changes the labels and annotations that say whether a Pod may be deleted. People "
            "set the others, and need a right for each: `update` on the subresource of `pods` in podslots.dev that "
            "is named for it."
        ),
        operations=("UPDATE",),
        resources=("pods", "pods/status", "pods/ephemeralcontainers", "pods/resize"),
        selector=OF_A_POOL,
        conditions=(others_than(user),),
        variables={
            "oldLabels": "oldObject.metadata.?labels.orValue({})",
            "newLabels": "object.metadata.?labels.orValue({})",
            "oldNotes": "oldObject.metadata.?annotations.orValue({})",
            "newNotes": "object.metadata.?annotations.orValue({})",
            "active": f"variables.oldLabels[?'{names.STATE_LABEL}'].orValue('') == 'active'",
        },
        validations=(
            refuse_unless(
                f"{labels}.all(k, variables.oldLabels[?k] == variables.newLabels[?k])",
                f"only the controller sets the labels {', '.join(labels)}",
            ),
            refuse_unless(
                f"{notes}.all(k, variables.oldNotes[?k] == variables.newNotes[?k])",
                f"only the controller sets the annotations {', '.join(notes)}",
            ),
            refuse_unless(
                "!variables.active || object.spec == oldObject.spec", "the spec of an active Pod stays as it is"
            ),
            refuse_unless(
                f"!({tracked('oldObject')}) || {tracked('object')} || {glass_broken('oldObject')}",
                f"the finalizer {names.POD_FINALIZER} is taken off by the controller, once the Pod's end is recorded",
            ),
            *(_changed_by_right(annotation, right) for annotation, right in RIGHTS.items()),
        ),
    )


def _changed_by_right(annotation: str, right: str) -> Json:
    same = f"variables.oldNotes[?'{annotation}'] == variables.newNotes[?'{annotation}']"
    what = f"change {annotation}"
    return refuse_without(f"pods/{right}", "podslots-operate", what, unless=f"{same} || {may('pods', right)}")


def pod_end(user: str) -> Policy:
    """Who says that an active Pod has ended."""
    phase = "object.status.?phase"
    return Policy(
        name="podslots-pod-end",
        why=(
            "Only a node, or the controller, says that an active Pod has ended. When a Node object vanishes, "
            "Kubernetes' Pod garbage collector would write Failed over containers that still run."
        ),
        operations=("UPDATE",),
        resources=("pods/status",),
        selector=ACTIVE,
        conditions=(
            {
                "name": "ends",
                "expression": f"{phase}.orValue('') in ['Failed', 'Succeeded'] && {phase} != oldObject.status.?phase",
            },
        ),
        validations=(
            refuse_unless(
                f"{is_user(user)} || 'system:nodes' in request.userInfo.?groups.orValue([])",
                "only its node says that an active Pod has ended; `podslots forget` declares it dead",
            ),
        ),
    )
