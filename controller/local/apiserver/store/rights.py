"""RBAC objects and admission policies, as objects: their defaults and what makes one invalid.

What they mean is in `controller.local.apiserver.access` and `controller.local.apiserver.admission`.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import orjson

from controller.local.apiserver.errors import Cause, invalid_value, required
from controller.local.apiserver.schema.cel import CelSyntaxError, compile_rule
from controller.local.apiserver.store.strategy import Strategy

Json = dict[str, Any]


class RbacStrategy(Strategy):
    """Roles and bindings."""

    def validate_name(self, name: str, *, prefix: bool = False) -> str | None:
        """Names of roles may have colons: anything that is one part of a path."""
        del prefix
        if name in (".", ".."):
            return f"may not be '{name}'"
        bad = next((part for part in ("/", "%") if part in name), None)
        return f"may not contain '{bad}'" if bad else None

    def prepare_create(self, body: Json, now: datetime) -> Json:
        """Subjects and references get the groups that are meant when none is named."""
        del now
        if "roleRef" in body:
            reference = dict(body["roleRef"])
            reference["apiGroup"] = reference.get("apiGroup") or self.resource.group
            body["roleRef"] = reference
        if "subjects" in body:
            body["subjects"] = [self._subject(subject) for subject in body["subjects"]]
        if "Binding" not in self.resource.kind:
            body.setdefault("rules", None)
        return body

    def _subject(self, given: Json) -> Json:
        if given.get("kind") in ("User", "Group") and not given.get("apiGroup"):
            return {**given, "apiGroup": self.resource.group}
        return given

    def prepare_update(self, new: Json, old: Json, subresource: str) -> Json:
        """As at creation."""
        del old, subresource
        return self.prepare_create(new, datetime.min)  # noqa: DTZ901 - not looked at

    def validate(self, body: Json) -> list[Cause]:
        """A rule has verbs; a binding names a role."""
        causes = [
            required(f"rules[{index}].verbs", "verbs must contain at least one value")
            for index, rule in enumerate(body.get("rules") or ())
            if not rule.get("verbs")
        ]
        if "Binding" in self.resource.kind and not (body.get("roleRef") or {}).get("name"):
            causes.append(required("roleRef.name"))
        return causes

    def validate_update(self, new: Json, old: Json, subresource: str) -> list[Cause]:
        """A binding keeps its role."""
        del subresource
        causes = self.validate(new)
        if new.get("roleRef") != old.get("roleRef"):
            shown = orjson.dumps(new.get("roleRef")).decode()
            causes.append(invalid_value("roleRef", shown, "cannot change roleRef"))
        return causes


class PolicyStrategy(Strategy):
    """ValidatingAdmissionPolicies."""

    def prepare_create(self, body: Json, now: datetime) -> Json:
        """Go writes an empty status; the selectors accept everything unless they say otherwise."""
        del now
        return {**body, "spec": _default_policy(body.get("spec") or {}), "status": body.get("status") or {}}

    def prepare_update(self, new: Json, old: Json, subresource: str) -> Json:
        """As at creation."""
        merged = super().prepare_update(new, old, subresource)
        return merged if subresource else {**merged, "spec": _default_policy(merged.get("spec") or {})}

    def validate(self, body: Json) -> list[Cause]:
        """Every expression must parse."""
        spec = body["spec"]
        causes: list[Cause] = []
        if not (spec.get("matchConstraints") or {}).get("resourceRules"):
            causes.append(required("spec.matchConstraints.resourceRules"))
        if not spec.get("validations") and not spec.get("auditAnnotations"):
            text = "validations or auditAnnotations must contain at least one item"
            causes += [required(f"spec.{part}", text) for part in ("validations", "auditAnnotations")]
        for part in ("validations", "matchConditions", "variables"):
            for index, entry in enumerate(spec.get(part) or ()):
                causes += _expression_causes(entry, f"spec.{part}[{index}]")
        return causes


def _expression_causes(entry: Json, path: str) -> list[Cause]:
    causes = []
    for name in ("expression", "messageExpression"):
        text = entry.get(name)
        if text is None and name == "expression":
            causes.append(required(f"{path}.expression", "expression is not specified"))
        elif text is not None:
            try:
                compile_rule(text)
            except CelSyntaxError as error:
                shown = orjson.dumps(text).decode()
                causes.append(invalid_value(f"{path}.{name}", shown, f"compilation failed: {error}"))
    return causes


def _default_policy(given: Json) -> Json:
    spec = {"failurePolicy": "Fail", **given}
    if "matchConstraints" in spec:
        spec["matchConstraints"] = _default_match(spec["matchConstraints"])
    return spec


def _default_match(given: Json) -> Json:
    match = {"namespaceSelector": {}, "objectSelector": {}, "matchPolicy": "Equivalent", **given}
    for part in ("resourceRules", "excludeResourceRules"):
        if part in match:
            match[part] = [{"scope": "*", **rule} for rule in match[part]]
    return match


class PolicyBindingStrategy(Strategy):
    """ValidatingAdmissionPolicyBindings."""

    def prepare_create(self, body: Json, now: datetime) -> Json:
        """The resources of a binding have the defaults of a policy's."""
        del now
        spec = dict(body.get("spec") or {})
        if "matchResources" in spec:
            spec["matchResources"] = _default_match(spec["matchResources"])
        return {**body, "spec": spec}

    def prepare_update(self, new: Json, old: Json, subresource: str) -> Json:
        """As at creation."""
        del old, subresource
        return self.prepare_create(new, datetime.min)  # noqa: DTZ901 - not looked at

    def validate(self, body: Json) -> list[Cause]:
        """It binds a policy, and says what a failure does."""
        spec = body["spec"]
        causes = [required(f"spec.{part}") for part in ("policyName", "validationActions") if not spec.get(part)]
        actions = spec.get("validationActions") or ()
        if "Deny" in actions and "Warn" in actions:
            text = (
                "must not contain both Deny and Warn (repeating the same validation failure information in the API "
                "response and headers serves no purpose)"
            )
            causes.append(invalid_value("spec.validationActions", orjson.dumps(actions).decode(), text))
        return causes
