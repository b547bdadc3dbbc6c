"""Deployments and ReplicaSets: their defaults and rules. What becomes of them is in `controllers`."""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar

import orjson

from controller.local.apiserver.errors import Cause, invalid_value, required
from controller.local.apiserver.store.pods import default_spec
from controller.local.apiserver.store.selectors import label_selector
from controller.local.apiserver.store.strategy import Strategy

Json = dict[str, Any]

# What a Pod gets as it is admitted, and a template does not.
_AT_ADMISSION = (
    "tolerations", "priority", "preemptionPolicy", "serviceAccountName", "serviceAccount", "enableServiceLinks",
)  # fmt: skip
_SHARE = "25%"
_REVISIONS = 10
_DEADLINE_SECONDS = 600


class WorkloadStrategy(Strategy):
    """What both have in common: a number of replicas, a selector that never changes, and a template."""

    _first_status: ClassVar[Json] = {}

    def prepare_create(self, body: Json, now: datetime) -> Json:
        """A new one has no status to tell."""
        del now
        return {
            "metadata": body["metadata"],
            "spec": self._defaulted(body.get("spec") or {}),
            "status": dict(self._first_status),
        }

    def prepare_update(self, new: Json, old: Json, subresource: str) -> Json:
        """Either the spec changes, or the status does."""
        merged = super().prepare_update(new, old, subresource)
        if subresource != "status" and merged.get("spec") is not old["spec"]:
            merged = {**merged, "spec": self._defaulted(merged.get("spec") or {})}
        return merged

    def _defaulted(self, given: Json) -> Json:
        spec = dict(given)
        spec.setdefault("replicas", 1)
        template = dict(spec.get("template") or {})
        pod_spec = dict(template.get("spec") or {})
        kept = {name: pod_spec[name] for name in _AT_ADMISSION if name in pod_spec}
        default_spec(pod_spec)
        for name in _AT_ADMISSION:
            pod_spec.pop(name, None)
        spec["template"] = {"metadata": template.get("metadata") or {}, "spec": {**pod_spec, **kept}}
        return spec

    def validate(self, body: Json) -> list[Cause]:
        """A selector that selects what is made from the template."""
        spec = body["spec"]
        causes = []
        if spec["replicas"] < 0:
            causes.append(invalid_value("spec.replicas", str(spec["replicas"]), "must be greater than or equal to 0"))
        selector = spec.get("selector")
        if selector is None:
            return [*causes, required("spec.selector")]
        labels = spec["template"]["metadata"].get("labels") or {}
        if not (selector.get("matchLabels") or selector.get("matchExpressions")):
            causes.append(invalid_value("spec.selector", "{}", "empty selector is invalid for deployment"))
        elif not label_selector(selector)(labels):
            text = "`selector` does not match template `labels`"
            causes.append(invalid_value("spec.template.metadata.labels", orjson.dumps(labels).decode(), text))
        if not spec["template"]["spec"].get("containers"):
            causes.append(required("spec.template.spec.containers"))
        return causes

    def validate_update(self, new: Json, old: Json, subresource: str) -> list[Cause]:
        """The selector is fixed."""
        if subresource:
            return []
        causes = self.validate(new)
        if new["spec"].get("selector") != old["spec"].get("selector"):
            shown = orjson.dumps(new["spec"].get("selector")).decode()
            causes.append(invalid_value("spec.selector", shown, "field is immutable"))
        return causes


class ReplicaSetStrategy(WorkloadStrategy):
    """ReplicaSets."""

    _first_status: ClassVar[Json] = {"replicas": 0}


class DeploymentStrategy(WorkloadStrategy):
    """Deployments."""

    def _defaulted(self, given: Json) -> Json:
        spec = super()._defaulted(given)
        strategy = dict(spec.get("strategy") or {})
        strategy.setdefault("type", "RollingUpdate")
        if strategy["type"] == "RollingUpdate":
            bounds = {"maxUnavailable": _SHARE, "maxSurge": _SHARE}
            strategy["rollingUpdate"] = {**bounds, **(strategy.get("rollingUpdate") or {})}
        spec["strategy"] = strategy
        spec.setdefault("revisionHistoryLimit", _REVISIONS)
        spec.setdefault("progressDeadlineSeconds", _DEADLINE_SECONDS)
        if not spec.get("paused"):
            spec.pop("paused", None)
        return spec
