"""Evaluates ValidatingAdmissionPolicies and their bindings.

After k8s.io/apiserver/pkg/admission/plugin/policy/validating. A policy bites at once here; a real server takes a
second or two to notice it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from controller.local.apiserver.access.authorization import Authorizer
from controller.local.apiserver.admission.matching import matches
from controller.local.apiserver.admission.variables import Bindings, object_to_cel
from controller.local.apiserver.errors import ApiError
from controller.local.apiserver.schema.cel import CelEvaluationError, compile_rule, is_true
from controller.local.apiserver.store.admission_request import AdmissionRequest
from controller.local.apiserver.store.core import Core
from controller.local.apiserver.store.registry import ADMISSION
from controller.local.apiserver.store.selectors import label_selector
from controller.local.apiserver.store.versions import Record

Json = dict[str, Any]

_POLICIES = f"validatingadmissionpolicies.{ADMISSION}"
_BINDINGS = f"validatingadmissionpolicybindings.{ADMISSION}"
_CODES = {"Unauthorized": 401, "Forbidden": 403, "RequestEntityTooLarge": 413, "Invalid": 422}
_NONE: Any = object()


class _Failure(Exception):
    """A validation that did not pass, or came to no result."""

    def __init__(self, message: str, reason: str = "Invalid") -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason


class Policies:
    """Says what the policies of a cluster say."""

    def __init__(self, core: Core, authorizer: Authorizer) -> None:
        self._core = core
        self._authorizer = authorizer

    def admit(self, request: AdmissionRequest) -> tuple[str, ...]:
        """Warnings of policies that only warn. Raises ApiError for what a policy refuses."""
        if request.resource.group == ADMISSION:
            return ()  # policies can't guard themselves
        bindings = list(self._core.versions.collection(_BINDINGS).current(""))
        if not bindings:
            return ()
        warnings: list[str] = []
        context: Bindings | None = None
        namespace = self._namespace(request)
        for binding in bindings:
            policy = self._core.versions.get(_POLICIES, ("", binding.body["spec"]["policyName"]))
            if policy is None or not _concerns(policy, binding, request, namespace):
                continue
            context = context or Bindings(request, namespace, self._authorizer)
            for failure in self._failures(policy, binding, request, context):
                _refuse_or_warn(failure, policy, binding, request, warnings)
        return tuple(warnings)

    def _namespace(self, request: AdmissionRequest) -> Json | None:
        home = request.namespace or (request.name if request.resource.key == "namespaces" else "")
        record = self._core.versions.get("namespaces", ("", home)) if home else None
        return None if record is None else record.body

    def _failures(
        self, policy: Record, binding: Record, request: AdmissionRequest, context: Bindings
    ) -> Iterator[_Failure]:
        """What does not pass; errors count as such unless the policy ignores them."""
        spec = policy.body["spec"]
        ignored = spec.get("failurePolicy") == "Ignore"
        try:
            for params in self._params(spec, binding.body["spec"], request):
                variables = context.with_params(params, spec.get("variables") or [])
                if not _conditions_hold(spec, variables):
                    continue
                yield from _validate(spec, variables, ignored=ignored)
        except _Failure as failure:
            if not ignored:
                yield failure

    def _params(self, spec: Json, binding: Json, request: AdmissionRequest) -> list[Any]:
        """The parameter objects to evaluate with; one null for a policy without."""
        kind, reference = spec.get("paramKind"), binding.get("paramRef")
        if not kind or not reference:
            return [None]
        resource = self._core.registry.by_kind(kind["apiVersion"], kind["kind"])
        if resource is None:
            named = f"{kind['apiVersion']}, Kind={kind['kind']}"
            raise _Failure(f"failed to find resource referenced by paramKind: '{named}'")
        home = (reference.get("namespace") or request.namespace) if resource.namespaced else ""
        if request.resource.key == "namespaces" and resource.namespaced:
            home = home or request.name
        records = self._core.versions.collection(resource.key).current(home)
        if reference.get("name"):
            found = [record for record in records if record.name == reference["name"]]
        else:
            test = label_selector(reference.get("selector") or {})
            found = [record for record in records if test(record.body["metadata"].get("labels") or {})]
        if not found and reference.get("parameterNotFoundAction") != "Allow":
            raise _Failure("no params found for policy binding with `Deny` parameterNotFoundAction")
        return [object_to_cel(resource, record.body) for record in found]


def _concerns(policy: Record, binding: Record, request: AdmissionRequest, namespace: Json | None) -> bool:
    constraints = policy.body["spec"].get("matchConstraints") or {}
    narrowed = binding.body["spec"].get("matchResources") or {}
    return matches(constraints, request, namespace) and matches(narrowed, request, namespace)


def _conditions_hold(spec: Json, variables: Mapping[str, Any]) -> bool:
    """True unless a match condition says that the policy is not about this. Raises _Failure for an error."""
    errors = []
    for condition in spec.get("matchConditions") or ():
        try:
            if not is_true(compile_rule(condition["expression"]).evaluate(variables)):
                return False
        except CelEvaluationError as error:
            errors.append(f"matchConditions {condition['name']}: expression '{condition['expression']}': {error}")
    if errors:
        raise _Failure("; ".join(errors))
    return True


def _validate(spec: Json, variables: Mapping[str, Any], *, ignored: bool) -> Iterator[_Failure]:
    for validation in spec.get("validations") or ():
        expression = validation["expression"].strip()
        try:
            passed = is_true(compile_rule(validation["expression"]).evaluate(variables))
        except CelEvaluationError as error:
            if not ignored:
                yield _Failure(f"expression '{expression}' resulted in error: {error}")
            continue
        if not passed:
            yield _Failure(_message(validation, variables), validation.get("reason") or "Invalid")


def _message(validation: Json, variables: Mapping[str, Any]) -> str:
    computed = ""
    if validation.get("messageExpression"):
        try:
            computed = str(compile_rule(validation["messageExpression"]).evaluate(variables))
        except CelEvaluationError:
            computed = ""
    if computed.strip() and "\n" not in computed:
        return computed.strip()
    return str(validation.get("message") or f"failed expression: {validation['expression'].strip()}").strip()


def _refuse_or_warn(
    failure: _Failure, policy: Record, binding: Record, request: AdmissionRequest, warnings: list[str]
) -> None:
    actions = binding.body["spec"].get("validationActions") or ()
    who = f"ValidatingAdmissionPolicy '{policy.name}' with binding '{binding.name}'"
    if "Deny" in actions:
        raise _refusal(f"{who} denied request: {failure.message}", failure.reason, request)
    if "Warn" in actions:
        warnings.append(f"Validation failed for {who}: {failure.message}")


def _refusal(text: str, reason: str, request: AdmissionRequest) -> ApiError:
    target = request.resource.target(request.name or "Unknown")
    details = target.details(target.plural)
    details["causes"] = [{"message": text}]
    message = f'{target.resource} "{target.name}" is forbidden: {text}'
    return ApiError(_CODES.get(reason, 422), reason, message, details)
