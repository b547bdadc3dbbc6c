"""What an admission policy is made of, and the CEL expressions that several policies share.

The rules of writing them, each learned from a real API server:

- Every access that may fail is written with `has`, `.?` or `orValue`: an expression that errs refuses the request.
- Selectors of objects come before expressions, so that other people's Pods cost nothing.
- An Eviction shows neither the Pod nor its labels, and what it deletes meets no policy on DELETE. So the active Pods
  are the parameters of the policies on evictions and on namespaces.
- A write of `pods/status` may change labels and annotations too.
- The authorizer is never asked on DELETE: the garbage collector and administrators hold every verb, and would pass
  unnoticed. It is asked when the annotation is set that lets a delete pass.
"""

from dataclasses import dataclass, field
from typing import Any

from controller import names

Json = dict[str, Any]

ACTIVE: Json = {
    "matchExpressions": [
        {"key": names.POOL_LABEL, "operator": "Exists"},
        {"key": names.STATE_LABEL, "operator": "In", "values": ["active"]},
    ]
}
OF_A_POOL: Json = {"matchExpressions": [{"key": names.POOL_LABEL, "operator": "Exists"}]}

NAMESPACE_GOES = "has(namespaceObject.metadata.deletionTimestamp)"


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
    """Whether somebody with the right to do so has allowed the Pod's deletion."""
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


def others_than(user: str) -> Json:
    """The condition that leaves the controller's own requests alone."""
    return {"name": "not-the-controller", "expression": f"!({is_user(user)})"}


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
    """A validation that refuses with a 403. `computed` is the message as an expression, to name the object."""
    return {
        "expression": expression,
        "message": message,
        **({"messageExpression": computed} if computed else {}),
        "reason": "Forbidden",
    }


def refuse_invalid(expression: str, message: str) -> Json:
    """A validation that refuses with a 422, as the definition does."""
    return {"expression": expression, "message": message, "reason": "Invalid"}


def refuse_without(right: str, role: str, what: str, *, unless: str, in_full: str = "") -> Json:
    """A validation that refuses `what`, and names the right that it takes (`pods/drain`) and a role that has it.

    `unless` is the expression that lets a request pass. `in_full` says more than `what` where the user is named.
    """
    takes = f"it takes update on {right} in {names.GROUP}"
    return refuse_unless(
        unless,
        f"may not {what}: {takes}",
        computed=f"request.userInfo.username + ' {in_full or f'may not {what}'}: {takes} (ClusterRole {role})'",
    )
