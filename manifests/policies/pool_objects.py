"""The policies on what belongs to a pool beside its Pods: workloads, namespace, budget, lock."""

from controller import names
from manifests.policies.policy import (
    NAMESPACE_GOES,
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
)

A_LOCK: Json = {"matchExpressions": [{"key": names.LOCK_LABEL, "operator": "Exists"}]}
DEPLOYMENT_USERS = (names.DEPLOYMENT_CONTROLLER, names.CLUSTER_MANAGER)

_FIRST = "delete its SlotPools first, and wait until they are gone"


def workload(user: str) -> Policy:
    """Who makes and changes Deployments and ReplicaSets of pools."""
    label = f"?template.?metadata.?labels[?'{names.POOL_LABEL}']"
    same = "object.spec.template == oldObject.spec.template && object.spec.?paused == oldObject.spec.?paused"
    return Policy(
        name="podslots-workload",
        why=(
            "A workload with a pool's label in its template makes Pods of that pool. So only the controller makes "
            "such Deployments, and only Kubernetes such ReplicaSets. Their size is not protected: the controller "
            "corrects it."
        ),
        operations=("CREATE", "UPDATE"),
        resources=("deployments", "replicasets"),
        group="apps",
        conditions=(
            {
                "name": "of-a-pool",
                "expression": f"object.spec.{label}.hasValue() || "
                f"(request.operation == 'UPDATE' && oldObject.spec.{label}.hasValue())",
            },
            others_than(user),
        ),
        validations=(
            refuse_unless(
                f"request.operation == 'UPDATE' ? {same} : "
                f"request.resource.resource == 'replicasets' && {is_one_of(*DEPLOYMENT_USERS)}",
                "the Deployment of a pool is the controller's: change the SlotPool's template",
            ),
        ),
    )


def namespace_delete() -> Policy:
    """Which namespaces are deleted: none with active Pods."""
    return Policy(
        name="podslots-namespace-delete",
        why=(
            "A namespace with active Pods is not deleted. Otherwise the namespace controller could not delete "
            "these Pods, but would delete everything else at once: budgets, roles, tasks, Secrets."
        ),
        operations=("DELETE",),
        resources=("namespaces",),
        over_active_pods=True,
        validations=(
            refuse_unless(
                f"{is_going('params')} || {glass_broken('params')}",
                f"the namespace has active Pods of pools: {_FIRST}",
                computed="'the namespace has active Pods, as ' + params.metadata.name + ' of pool ' + "
                f"params.metadata.labels['{names.POOL_LABEL}'] + ': {_FIRST}'",
            ),
        ),
    )


def budget(user: str) -> Policy:
    """Who changes the PodDisruptionBudgets of pools."""
    same = (
        "request.operation == 'UPDATE' && object.spec == oldObject.spec && "
        "object.metadata.?labels == oldObject.metadata.?labels"
    )
    return Policy(
        name="podslots-budget",
        why=(
            "A pool's PodDisruptionBudget stays as the controller made it. Kubernetes' role `edit` may delete budgets."
        ),
        operations=("UPDATE", "DELETE"),
        resources=("poddisruptionbudgets",),
        group="policy",
        selector=OF_A_POOL,
        validations=(
            refuse_unless(
                f"{is_user(user)} || {NAMESPACE_GOES} || ({same})",
                "a pool's PodDisruptionBudget is the controller's; it goes with its SlotPool",
            ),
        ),
    )


def lock(user: str) -> Policy:
    """Who makes, changes and releases the Lease of a lockKey."""
    return Policy(
        name="podslots-lock",
        why=(
            "Only the controller, or somebody with the right to unlock, makes, changes or releases the Lease of a "
            "lockKey."
        ),
        operations=("CREATE", "UPDATE", "DELETE"),
        resources=("leases",),
        group="coordination.k8s.io",
        selector=A_LOCK,
        conditions=(others_than(user),),
        validations=(
            refuse_without(
                *("leases/unlock", "podslots-operate", "take or release a lockKey"),
                unless=f"{NAMESPACE_GOES} || {may('leases', 'unlock')}",
            ),
        ),
    )
