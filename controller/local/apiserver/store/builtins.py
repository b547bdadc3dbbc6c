"""The other built-in kinds, each where it differs from a plain object, and the choice of a kind's strategy."""

from __future__ import annotations

import base64
import re
from datetime import datetime
from typing import Any

from controller.local.apiserver.errors import Cause, forbidden_field, invalid_value, required
from controller.local.apiserver.schema.cel import CelSyntaxError
from controller.local.apiserver.schema.structural import CustomSchema
from controller.local.apiserver.store.budgets import BudgetStrategy
from controller.local.apiserver.store.pods import PodStrategy
from controller.local.apiserver.store.registry import ADMISSION, RBAC, Resource
from controller.local.apiserver.store.rights import PolicyBindingStrategy, PolicyStrategy, RbacStrategy
from controller.local.apiserver.store.strategy import LABEL_RULE, Decoded, Strategy, is_dns_label
from controller.local.apiserver.store.suspects import BUDGETS, DEPLOYMENTS, REPLICASETS
from controller.local.apiserver.store.workloads import DeploymentStrategy, ReplicaSetStrategy
from controller.local.apiserver.tables import custom as printer_columns

Json = dict[str, Any]

# k8s.io/kubernetes/pkg/apis/core: MaxSecretSize, also for ConfigMaps.
_MAX_DATA_BYTES = 1024 * 1024


class NamespaceStrategy(Strategy):
    """Namespaces: Active until deleted, then Terminating until empty."""

    def prepare_create(self, body: Json, now: datetime) -> Json:
        """A new namespace is Active and held by the namespace collector."""
        del now
        name = body["metadata"].get("name", "")
        labels = {**body["metadata"].get("labels", {}), "kubernetes.io/metadata.name": name}
        return {
            "metadata": {**body["metadata"], "labels": labels},
            "spec": {"finalizers": ["kubernetes"]},
            "status": {"phase": "Active"},
        }

    def prepare_update(self, new: Json, old: Json, subresource: str) -> Json:
        """spec.finalizers changes through `finalize` alone."""
        if subresource == "finalize":
            return {**old, "metadata": new["metadata"], "spec": new.get("spec") or {}}
        if subresource == "status":
            return {**old, "metadata": new["metadata"], "status": new.get("status") or {}}
        return {**old, "metadata": new["metadata"]}

    def validate_name(self, name: str, *, prefix: bool = False) -> str | None:
        """A namespace is part of DNS names."""
        checked = name.rstrip("-") + "a" if prefix and name.endswith("-") else name
        return None if is_dns_label(checked) else LABEL_RULE


class NodeStrategy(Strategy):
    """Nodes: a kubelet registers with its status, later changes it through the subresource."""

    def prepare_create(self, body: Json, now: datetime) -> Json:
        """A Node without taints and with nothing to say still has spec and status."""
        del now
        return {"metadata": body["metadata"], "spec": body.get("spec") or {}, "status": body.get("status") or {}}


class SecretStrategy(Strategy):
    """Secrets: stringData is folded into data; an immutable one keeps its data."""

    def decode(self, document: Json, original: Json | None = None) -> Decoded:
        """Secrets take text in stringData, which is write-only."""
        decoded = super().decode(document, original)
        text: Json | None = decoded.body.pop("stringData", None)
        if text:
            encoded = {key: base64.b64encode(value.encode()).decode() for key, value in text.items()}
            decoded.body["data"] = {**decoded.body.get("data", {}), **encoded}
        return decoded

    def prepare_create(self, body: Json, now: datetime) -> Json:
        """The type is Opaque unless it says otherwise."""
        del now
        body.setdefault("type", "Opaque")
        return body

    def prepare_update(self, new: Json, old: Json, subresource: str) -> Json:
        """The type may be left out of an update."""
        del subresource
        new.setdefault("type", old.get("type", "Opaque"))
        return new

    def validate(self, body: Json) -> list[Cause]:
        """Size and keys."""
        return _data_causes(body, ("data",))

    def validate_update(self, new: Json, old: Json, subresource: str) -> list[Cause]:
        """The type never changes."""
        del subresource
        causes = self.validate(new)
        if new.get("type") != old.get("type"):
            causes.append(invalid_value("type", f'"{new.get("type")}"', "field is immutable"))
        return [*causes, *_immutable_causes(new, old, ("data",))]


class ConfigMapStrategy(Strategy):
    """ConfigMaps."""

    def validate(self, body: Json) -> list[Cause]:
        """Size and keys."""
        return _data_causes(body, ("data", "binaryData"))

    def validate_update(self, new: Json, old: Json, subresource: str) -> list[Cause]:
        """An immutable one keeps its data."""
        del subresource
        return [*self.validate(new), *_immutable_causes(new, old, ("data", "binaryData"))]


def _data_causes(body: Json, parts: tuple[str, ...]) -> list[Cause]:
    causes: list[Cause] = []
    size = 0
    for part in parts:
        for key, value in body.get(part, {}).items():
            if not key or not all(c.isascii() and (c.isalnum() or c in "-_.") for c in key):
                causes.append(
                    invalid_value(
                        f"{part}[{key}]",
                        f'"{key}"',
                        "a valid config key must consist of alphanumeric characters, '-', '_' or '.'",
                    )
                )
            size += len(value)
    if size > _MAX_DATA_BYTES:
        causes.append(
            Cause(
                "FieldValueTooLong",
                f"Too long: may not be more than {_MAX_DATA_BYTES} bytes",
                parts[0] if len(parts) == 1 else "",
            )
        )
    return causes


def _immutable_causes(new: Json, old: Json, parts: tuple[str, ...]) -> list[Cause]:
    if not old.get("immutable"):
        return []
    text = "field is immutable when `immutable` is set"
    causes = [] if new.get("immutable") else [forbidden_field("immutable", text)]
    causes.extend(forbidden_field(part, text) for part in parts if new.get(part) != old.get(part))
    return causes


class EventStrategy(Strategy):
    """Events: must stand in the namespace of what they speak of."""

    def prepare_create(self, body: Json, now: datetime) -> Json:
        """Go keeps these fields although they are empty."""
        del now
        return {
            "involvedObject": {},
            "source": {},
            "firstTimestamp": None,
            "lastTimestamp": None,
            "eventTime": None,
            "reportingComponent": "",
            "reportingInstance": "",
            **body,
        }

    def prepare_update(self, new: Json, old: Json, subresource: str) -> Json:
        """As at creation."""
        del subresource
        return {**{key: value for key, value in old.items() if value in (None, "", {})}, **new}

    def validate(self, body: Json) -> list[Cause]:
        """Cluster-scoped subjects are spoken of in `default`."""
        about = body.get("involvedObject", {}).get("namespace", "")
        namespace = body["metadata"].get("namespace", "")
        if (about or "default") != namespace and not (not about and namespace in ("default", "kube-system")):
            return [invalid_value("involvedObject.namespace", f'"{about}"', "does not match event.namespace")]
        return []


class LeaseStrategy(Strategy):
    """Leases."""

    def prepare_create(self, body: Json, now: datetime) -> Json:
        """A Lease always has a spec."""
        del now
        body.setdefault("spec", {})
        return body

    def validate(self, body: Json) -> list[Cause]:
        """Durations are positive, transitions are counted."""
        spec = body.get("spec") or {}
        causes: list[Cause] = []
        if spec.get("leaseDurationSeconds") is not None and spec["leaseDurationSeconds"] <= 0:
            causes.append(
                invalid_value("spec.leaseDurationSeconds", str(spec["leaseDurationSeconds"]), "must be greater than 0")
            )
        if (spec.get("leaseTransitions") or 0) < 0:
            causes.append(
                invalid_value(
                    "spec.leaseTransitions", str(spec["leaseTransitions"]), "must be greater than or equal to 0"
                )
            )
        return causes


class RevisionStrategy(Strategy):
    """ControllerRevisions: what they hold never changes, their number may."""

    def prepare_create(self, body: Json, now: datetime) -> Json:
        """Go keeps a number that is 0."""
        del now
        body.setdefault("revision", 0)
        return body

    def validate(self, body: Json) -> list[Cause]:
        """Numbers are counted."""
        number = body.get("revision") or 0
        if number < 0:
            return [invalid_value("revision", str(number), "must be greater than or equal to 0")]
        return []

    def validate_update(self, new: Json, old: Json, subresource: str) -> list[Cause]:
        """The data is fixed."""
        del subresource
        changed = new.get("data") != old.get("data")
        return [*self.validate(new), *([invalid_value("data", "{}", "field is immutable")] if changed else [])]


class CrdStrategy(Strategy):
    """CustomResourceDefinitions: established as soon as they are stored."""

    def prepare_create(self, body: Json, now: datetime) -> Json:
        """Names are accepted at once: there is one server and no aggregation."""
        spec = _default_crd_spec(body.get("spec") or {})
        stamp = now.strftime("%Y-%m-%dT%H:%M:%SZ")
        conditions = [
            {"type": "NamesAccepted", "status": "True", "lastTransitionTime": stamp, "reason": "NoConflicts",
             "message": "no conflicts found"},
            {"type": "Established", "status": "True", "lastTransitionTime": stamp, "reason": "InitialNamesAccepted",
             "message": "the initial names have been accepted"},
        ]  # fmt: skip
        stored = [version["name"] for version in spec.get("versions", ()) if version.get("storage")]
        status = {"conditions": conditions, "acceptedNames": spec.get("names", {}), "storedVersions": stored}
        return {"metadata": body["metadata"], "spec": spec, "status": status}

    def prepare_update(self, new: Json, old: Json, subresource: str) -> Json:
        """A new storage version is remembered."""
        merged = super().prepare_update(new, old, subresource)
        if subresource != "status":
            merged["spec"] = _default_crd_spec(merged.get("spec") or {})
            stored = list(old["status"].get("storedVersions", ()))
            stored += [
                v["name"] for v in merged["spec"].get("versions", ()) if v.get("storage") and v["name"] not in stored
            ]
            merged["status"] = {
                **old["status"],
                "acceptedNames": merged["spec"].get("names", {}),
                "storedVersions": stored,
            }
        return merged

    def validate(self, body: Json) -> list[Cause]:
        """Enough for the rest of the server to rely on."""
        spec = body["spec"]
        causes = [required(f"spec.{part}") for part in ("group", "names", "scope", "versions") if not spec.get(part)]
        if causes:
            return causes
        names = spec["names"]
        causes = [required(f"spec.names.{part}") for part in ("plural", "kind") if not names.get(part)]
        if causes:
            return causes
        if body["metadata"]["name"] != f"{names['plural']}.{spec['group']}":
            causes.append(
                invalid_value(
                    "metadata.name", f'"{body["metadata"]["name"]}"', 'must be spec.names.plural+"."+spec.group'
                )
            )
        if sum(bool(version.get("storage")) for version in spec["versions"]) != 1:
            causes.append(
                invalid_value("spec.versions", "[]", "must have exactly one version marked as storage version")
            )
        causes.extend(
            required(f"spec.versions[{index}].schema.openAPIV3Schema", "schemas are required")
            for index, version in enumerate(spec["versions"])
            if not (version.get("schema") or {}).get("openAPIV3Schema")
        )
        for index, version in enumerate(spec["versions"]):
            try:
                CustomSchema.compile(version)
            except (CelSyntaxError, re.error) as error:
                path = f"spec.versions[{index}].schema.openAPIV3Schema"
                causes.append(invalid_value(path, '""', f"compilation failed: {error}"))
            try:
                printer_columns.layout(version.get("additionalPrinterColumns") or ())
            except printer_columns.InvalidPathError as error:
                path = f"spec.versions[{index}].additionalPrinterColumns"
                causes.append(invalid_value(path, '""', str(error)))
        return causes


def _default_crd_spec(given: Json) -> Json:
    spec = dict(given)
    names = dict(spec.get("names") or {})
    kind = names.get("kind", "")
    names.setdefault("singular", kind.lower())
    names.setdefault("listKind", f"{kind}List")
    spec["names"] = names
    spec.setdefault("conversion", {"strategy": "None"})
    return spec


_STRATEGIES: dict[str, type[Strategy]] = {
    "pods": PodStrategy,
    "namespaces": NamespaceStrategy,
    "nodes": NodeStrategy,
    "secrets": SecretStrategy,
    "configmaps": ConfigMapStrategy,
    "events": EventStrategy,
    "leases.coordination.k8s.io": LeaseStrategy,
    "controllerrevisions.apps": RevisionStrategy,
    DEPLOYMENTS: DeploymentStrategy,
    REPLICASETS: ReplicaSetStrategy,
    BUDGETS: BudgetStrategy,
    "serviceaccounts": Strategy,
    "services": Strategy,
    **{f"{plural}.{RBAC}": RbacStrategy for plural in ("roles", "rolebindings", "clusterroles", "clusterrolebindings")},
    f"validatingadmissionpolicies.{ADMISSION}": PolicyStrategy,
    f"validatingadmissionpolicybindings.{ADMISSION}": PolicyBindingStrategy,
    "customresourcedefinitions.apiextensions.k8s.io": CrdStrategy,
}


def builtin_strategy(resource: Resource) -> Strategy:
    """The strategy of a built-in kind."""
    return _STRATEGIES[resource.key](resource)
