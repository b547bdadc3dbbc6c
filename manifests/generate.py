"""The policies of manifests/protection, which keep others from active Pods.

They are generated because they share expressions: whom they let through, which Pods they are about, how somebody who
may do so opens the way. Who the controller is stands in `controller.names` alone; `python -m manifests.generate` writes
them for one that runs elsewhere.

The rules of writing them, each learned from a real API server:

- Every access that may fail is written with `has`, `.?` or `orValue`: an expression that errs refuses the request.
- Selectors of objects come before expressions, so that other people's Pods cost nothing.
- An Eviction shows neither the Pod nor its labels, and what it deletes meets no policy on DELETE. So the active Pods
  are the parameters of the policies on evictions and on namespaces.
- A write of `pods/status` may change labels and annotations too.
- The authorizer is never asked on DELETE: the garbage collector and administrators hold every verb, and would pass
  unnoticed. It is asked when the annotation is set that lets a delete pass.
"""

import argparse
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from controller import names

Json = dict[str, Any]

FOLDER = Path(__file__).parent / "protection"
HEADER = "# Made by `make manifests` of manifests/generate.py: change it there.\n"

ACTIVE: Json = {
    "matchExpressions": [
        {"key": names.POOL_LABEL, "operator": "Exists"},
        {"key": names.STATE_LABEL, "operator": "In", "values": ["active"]},
    ]
}
OF_A_POOL: Json = {"matchExpressions": [{"key": names.POOL_LABEL, "operator": "Exists"}]}
A_LOCK: Json = {"matchExpressions": [{"key": names.LOCK_LABEL, "operator": "Exists"}]}

REPLICASET_USERS = (names.REPLICASET_CONTROLLER, names.CLUSTER_MANAGER)
DEPLOYMENT_USERS = (names.DEPLOYMENT_CONTROLLER, names.CLUSTER_MANAGER)

NAMESPACE_GOES = "has(namespaceObject.metadata.deletionTimestamp)"

RIGHTS = {names.BREAK_GLASS: "break-glass", names.FORGET: "forget", names.DRAIN_REQUESTED: "drain"}
"""Annotation that people set on Pods → the subresource of `pods` in our group that they need `update` on."""

_DRAIN = "`podslots drain` has it deleted once it is idle, `podslots break-glass` lets it be deleted now"
_FIRST = "delete its SlotPools first, and wait until they are gone"


def may(resource: str, subresource: str) -> str:
    """Whether the requester has `update` on a subresource that is there for this alone, of the object in question."""
    return (
        f"authorizer.group('{names.GROUP}').resource('{resource}').subresource('{subresource}')"
        ".namespace(request.namespace).name(request.name).check('update').allowed()"
    )


def is_going(variable: str) -> str:
    """Whether an object was deleted already, and only waits for its end."""
    return f"has({variable}.metadata.deletionTimestamp)"


def glass_broken(variable: str) -> str:
    """Whether somebody who may do so has opened the way for a Pod."""
    return f"'{names.BREAK_GLASS}' in {variable}.metadata.?annotations.orValue({{}})"


def tracked(variable: str) -> str:
    """Whether a Pod has our finalizer."""
    return f"'{names.POD_FINALIZER}' in {variable}.metadata.?finalizers.orValue([])"


def is_user(user: str) -> str:
    """Whether this user asks."""
    return f"request.userInfo.username == '{user}'"


def is_one_of(*users: str) -> str:
    """Whether one of these asks."""
    return f"request.userInfo.username in {list(users)}"


@dataclass(frozen=True, kw_only=True)
class Policy:
    """One policy and its binding."""

    name: str
    why: str
    operations: tuple[str, ...]
    resources: tuple[str, ...]
    validations: tuple[Json, ...]
    group: str = ""
    version: str = "v1"
    selector: Json | None = None
    conditions: tuple[Json, ...] = ()
    variables: Json = field(default_factory=dict)
    over_active_pods: bool = False

    def documents(self, *, prefix: str = "", namespaces: Json | None = None) -> list[Json]:
        """The objects, for all namespaces or those that a selector names."""
        rule = {
            "apiGroups": [self.group],
            "apiVersions": [self.version],
            "operations": list(self.operations),
            "resources": list(self.resources),
        }
        spec: Json = {
            "failurePolicy": "Fail",
            **({"paramKind": {"apiVersion": "v1", "kind": "Pod"}} if self.over_active_pods else {}),
            "matchConstraints": {
                "resourceRules": [rule],
                **({"objectSelector": self.selector} if self.selector else {}),
            },
            **({"matchConditions": list(self.conditions)} if self.conditions else {}),
        }
        if self.variables:
            spec["variables"] = [{"name": name, "expression": text} for name, text in self.variables.items()]
        spec["validations"] = list(self.validations)
        binding: Json = {"policyName": prefix + self.name, "validationActions": ["Deny"]}
        if self.over_active_pods:
            binding["paramRef"] = {"selector": ACTIVE, "parameterNotFoundAction": "Allow"}
        if namespaces:
            binding["matchResources"] = {"namespaceSelector": namespaces}
        head = {"apiVersion": "admissionregistration.k8s.io/v1"}
        name = {"metadata": {"name": prefix + self.name}}
        return [
            {**head, "kind": "ValidatingAdmissionPolicy", **name, "spec": spec},
            {**head, "kind": "ValidatingAdmissionPolicyBinding", **name, "spec": binding},
        ]


def refuse_unless(expression: str, message: str, *, computed: str = "") -> Json:
    """A validation whose refusal is a 403. `computed` is the message as an expression, which may name the object."""
    return {
        "expression": expression,
        "message": message,
        **({"messageExpression": computed} if computed else {}),
        "reason": "Forbidden",
    }


def policies(user: str = names.CONTROLLER_USER) -> tuple[Policy, ...]:
    """All policies. `user` is the controller's."""
    return (
        _pod_delete(),
        _pod_create(user),
        _workload(user),
        _pod_eviction(),
        _namespace_delete(),
        _pod_update(user),
        _pod_end(user),
        _budget(user),
        _lock(user),
        _approval(),
        _automatic_approval(),
        _task_update(user),
        _task_files(),
    )


def _pod_create(user: str) -> Policy:
    return Policy(
        name="podslots-pod-create",
        why=(
            "Only the controller makes Pods of pools, and ReplicaSets of its Deployments do. One of somebody else's "
            "would count as a Pod whose agent is silent, and, labelled active, keep itself and its namespace."
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


def _workload(user: str) -> Policy:
    label = f"?template.?metadata.?labels[?'{names.POOL_LABEL}']"
    same = "object.spec.template == oldObject.spec.template && object.spec.?paused == oldObject.spec.?paused"
    return Policy(
        name="podslots-workload",
        why=(
            "Whose template has a pool's label makes Pods of that pool. So such Deployments are the controller's, and "
            "such ReplicaSets Kubernetes' own. Anyone who may sets their size: the controller puts it right."
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
            {"name": "not-the-controller", "expression": f"!({is_user(user)})"},
        ),
        validations=(
            refuse_unless(
                f"request.operation == 'UPDATE' ? {same} : "
                f"request.resource.resource == 'replicasets' && {is_one_of(*DEPLOYMENT_USERS)}",
                "the Deployment of a pool is the controller's: change the SlotPool's template",
            ),
        ),
    )


def _pod_delete() -> Policy:
    return Policy(
        name="podslots-pod-delete",
        why=(
            "An active Pod is deleted by nobody: not by kubectl, with --force or as a collection, not by the "
            "garbage collector, the namespace controller, the taint manager or the scheduler. The controller "
            "labels a Pod draining first. The kubelet's last delete passes."
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


def _pod_eviction() -> Policy:
    allowed = (
        "params.metadata.name != request.name",
        "params.status.?phase.orValue('') == 'Running'",
        is_going("params"),
        glass_broken("params"),
    )
    return Policy(
        name="podslots-pod-eviction",
        why=(
            "An active Pod that does not run is not evicted: no PodDisruptionBudget keeps it. One that runs is "
            "left to the budget, whose 429 makes `kubectl drain` wait; a 403 would end it."
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


def _namespace_delete() -> Policy:
    return Policy(
        name="podslots-namespace-delete",
        why=(
            "A namespace with active Pods is not deleted. Were it, the namespace controller would be refused "
            "these Pods, and delete everything else at once: budgets, roles, tasks, Secrets."
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


def _pod_update(user: str) -> Policy:
    labels = [names.POOL_LABEL, names.STATE_LABEL, names.DEPLOYMENT_LABEL]
    notes = [names.DRAIN_ID, names.OPENED, names.TEMPLATE_HASH, names.POOL_UID]
    return Policy(
        name="podslots-pod-update",
        why=(
            "What tells whether a Pod may go is the controller's. Other annotations are people's, who need a "
            "right for each: `update` on the subresource of that name of `pods` in podslots.dev."
        ),
        operations=("UPDATE",),
        resources=("pods", "pods/status", "pods/ephemeralcontainers", "pods/resize"),
        selector=OF_A_POOL,
        conditions=({"name": "not-the-controller", "expression": f"!({is_user(user)})"},),
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
    return refuse_unless(
        f"variables.oldNotes[?'{annotation}'] == variables.newNotes[?'{annotation}'] || {may('pods', right)}",
        f"may not change {annotation}: it takes update on pods/{right} in {names.GROUP}",
        computed=f"request.userInfo.username + ' may not change {annotation}: "
        f"it takes update on pods/{right} in {names.GROUP} (ClusterRole podslots-operate)'",
    )


def _pod_end(user: str) -> Policy:
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


def _budget(user: str) -> Policy:
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


def _lock(user: str) -> Policy:
    return Policy(
        name="podslots-lock",
        why=("The Lease that stands for a lockKey is released by the controller, or by who may unlock."),
        operations=("UPDATE", "DELETE"),
        resources=("leases",),
        group="coordination.k8s.io",
        selector=A_LOCK,
        conditions=({"name": "not-the-controller", "expression": f"!({is_user(user)})"},),
        validations=(
            refuse_unless(
                f"{NAMESPACE_GOES} || {may('leases', 'unlock')}",
                f"may not unlock: it takes update on leases/unlock in {names.GROUP}",
                computed="request.userInfo.username + ' may not release this lockKey: "
                f"it takes update on leases/unlock in {names.GROUP} (ClusterRole podslots-operate)'",
            ),
        ),
    )


def _approval() -> Policy:
    approval = "object.spec.?approval"
    return Policy(
        name="podslots-approval",
        why=(
            "Plans are approved by who has `update` on slottasks/approval, in their own name, once the plan is "
            "there. This holds for the controller and administrators as for all others."
        ),
        operations=("CREATE", "UPDATE"),
        resources=("slottasks",),
        group=names.GROUP,
        version=names.VERSION,
        conditions=(
            {
                "name": "changes-the-approval",
                "expression": "request.operation == 'CREATE' ? has(object.spec.approval) : "
                f"{approval} != oldObject.spec.?approval",
            },
        ),
        validations=(
            refuse_unless(
                "request.operation != 'CREATE'", "a task is approved once its plan is there, not at its creation"
            ),
            refuse_unless(
                f"request.operation == 'CREATE' || {may('slottasks', 'approval')}",
                f"may not approve: it takes update on slottasks/approval in {names.GROUP}",
                computed="request.userInfo.username + ' may not approve: "
                f"it takes update on slottasks/approval in {names.GROUP} (ClusterRole podslots-approve)'",
            ),
            refuse_unless(
                "request.operation == 'CREATE' || !has(object.spec.approval) || "
                "object.spec.approval.?by.orValue('') == request.userInfo.username",
                "spec.approval.by must name who approves",
                computed="'spec.approval.by must name who approves: ' + request.userInfo.username",
            ),
        ),
    )


def _automatic_approval() -> Policy:
    return Policy(
        name="podslots-automatic-approval",
        why=(
            "Who creates a task that approves itself approves it: the same right is needed, or this were the way round."
        ),
        operations=("CREATE",),
        resources=("slottasks",),
        group=names.GROUP,
        version=names.VERSION,
        conditions=({"name": "approves-itself", "expression": "object.spec.?approvalPolicy.orValue('') == 'Auto'"},),
        validations=(
            refuse_unless(
                may("slottasks", "approval"),
                f"approvalPolicy: Auto takes update on slottasks/approval in {names.GROUP}",
                computed="request.userInfo.username + ' may not submit a task with approvalPolicy: Auto: "
                f"it takes update on slottasks/approval in {names.GROUP} (ClusterRole podslots-approve)'",
            ),
        ),
    )


def _task_update(user: str) -> Policy:
    """The approval alone is for who has only that right; the rest of a spec that can change is for editors."""
    changed = " || ".join(
        f"object.{field} != oldObject.{field}"
        for field in (
            "spec.?cancel",
            "spec.?priority",
            "metadata.?labels",
            "metadata.?annotations",
            "metadata.?finalizers",
            "metadata.?ownerReferences",
        )
    )
    editor = (
        f"authorizer.group('{names.GROUP}').resource('slottasks').namespace(request.namespace).name(request.name)"
        ".check('update').allowed()"
    )
    return Policy(
        name="podslots-task-update",
        why=(
            "Approving takes `patch` on tasks, which RBAC grants whole. Who has no `update` on them changes the "
            "approval and nothing else: they can't cancel a task, or keep it from going."
        ),
        operations=("UPDATE",),
        resources=("slottasks",),
        group=names.GROUP,
        version=names.VERSION,
        conditions=(
            {"name": "not-the-controller", "expression": f"!({is_user(user)})"},
            {"name": "changes-more-than-the-approval", "expression": changed},
        ),
        validations=(
            refuse_unless(
                editor,
                f"may not change this task: it takes update on slottasks in {names.GROUP}",
                computed="request.userInfo.username + ' may approve this task, and not change it: "
                f"it takes update on slottasks in {names.GROUP} (ClusterRole podslots-edit)'",
            ),
        ),
    )


def _task_files() -> Policy:
    """The one field of a task whose equality no rule of the definition can tell: its entries have no schema.

    There kube-apiserver compares the entries that both have, and their number: a file under a new name, or another in
    its place, passes. A policy compares all of it.
    """
    return Policy(
        name="podslots-task-files",
        why=(
            "A task's files stay as they are, as all of its spec but approval, cancel and priority. The rule in the "
            "definition overlooks files that get another name: Kubernetes compares no keys of what has no schema."
        ),
        operations=("UPDATE",),
        resources=("slottasks",),
        group=names.GROUP,
        version=names.VERSION,
        validations=(
            refuse_unless(
                "object.spec.?files == oldObject.spec.?files", "only approval, cancel and priority can be changed"
            ),
        ),
    )


def texts(user: str = names.CONTROLLER_USER) -> dict[str, str]:
    """What the folder holds: file name → text."""
    found = {}
    for policy in policies(user):
        comment = "".join(f"# {line}\n" for line in textwrap.wrap(policy.why, 118))
        body = yaml.dump_all(policy.documents(), Dumper=_Dumper, sort_keys=False, width=100_000)
        found[f"{policy.name.removeprefix('podslots-')}.yaml"] = HEADER + comment + body
    return found


class _Dumper(yaml.SafeDumper):
    """Without anchors: what serves twice is written out twice."""

    def ignore_aliases(self, data: Any) -> bool:
        del data
        return True


def files() -> Iterator[tuple[Path, str]]:
    """The files for a controller where the base has it, and what is to stand in them."""
    for name, text in texts().items():
        yield FOLDER / name, text


def main() -> int:
    """Write the files for a controller elsewhere; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m manifests.generate", description="Write manifests/protection.")
    parser.add_argument("--namespace", default=names.CONTROLLER_NAMESPACE, help="where the controller runs")
    parser.add_argument("--account", default=names.CONTROLLER_ACCOUNT, help="its ServiceAccount")
    parser.add_argument("--output", type=Path, default=FOLDER, help="folder to write to")
    options = parser.parse_args()
    for name, text in texts(f"system:serviceaccount:{options.namespace}:{options.account}").items():
        (options.output / name).write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
