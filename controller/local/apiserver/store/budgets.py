"""PodDisruptionBudgets: their rules, and the status that the disruption controller of a real cluster keeps.

After k8s.io/kubernetes/pkg/controller/disruption. Owners' scale is not asked: what is expected is what is there.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import orjson

from controller.local.apiserver.errors import Cause, invalid_value
from controller.local.apiserver.store.outcomes import stamp
from controller.local.apiserver.store.selectors import label_selector
from controller.local.apiserver.store.strategy import Strategy
from controller.local.apiserver.store.versions import Record

Json = dict[str, Any]

# An admitted eviction counts against the budget for so long, unless its Pod is seen to go.
_DISRUPTION_TIMEOUT = timedelta(minutes=2)
_EMPTY_STATUS = {"disruptionsAllowed": 0, "currentHealthy": 0, "desiredHealthy": 0, "expectedPods": 0}
_POLICIES = ("AlwaysAllow", "IfHealthyBudget")


class BudgetStrategy(Strategy):
    """PodDisruptionBudgets."""

    def prepare_create(self, body: Json, now: datetime) -> Json:
        """Nothing may be disrupted until the budget has been looked at."""
        del now
        return {"metadata": body["metadata"], "spec": body.get("spec") or {}, "status": dict(_EMPTY_STATUS)}

    def validate(self, body: Json) -> list[Cause]:
        """One of two bounds, each a number or a percentage."""
        spec = body.get("spec") or {}
        causes = []
        if "minAvailable" in spec and "maxUnavailable" in spec:
            shown = orjson.dumps(spec).decode()
            causes.append(invalid_value("spec", shown, "minAvailable and maxUnavailable cannot be both set"))
        for name in ("minAvailable", "maxUnavailable"):
            why = _bound_error(spec.get(name, 0))
            if why:
                causes.append(invalid_value(f"spec.{name}", orjson.dumps(spec[name]).decode(), why))
        policy = spec.get("unhealthyPodEvictionPolicy")
        if policy is not None and policy not in _POLICIES:
            text = f"supported values: {', '.join(_POLICIES)}"
            causes.append(
                Cause(
                    "FieldValueNotSupported",
                    f'Unsupported value: "{policy}": {text}',
                    "spec.unhealthyPodEvictionPolicy",
                )
            )
        return causes


def _bound_error(bound: Any) -> str:
    if isinstance(bound, int):
        return "" if bound >= 0 else "must be greater than or equal to 0"
    if not (bound.endswith("%") and bound[:-1].isdigit()):
        return "a valid percent string must be a numeric string followed by an ending '%'"
    return "" if int(bound[:-1]) <= 100 else "must not be greater than 100%"  # noqa: PLR2004 - percent


def is_ready(pod: Record) -> bool:
    """True for a Pod with the condition Ready."""
    conditions = (pod.body.get("status") or {}).get("conditions") or ()
    return any(c["type"] == "Ready" and c.get("status") == "True" for c in conditions)


def selects(budget: Record, pod: Record) -> bool:
    """True if the budget is about the Pod."""
    selector = (budget.body.get("spec") or {}).get("selector")
    return selector is not None and label_selector(selector)(pod.body["metadata"].get("labels") or {})


def current_status(budget: Record, pods: list[Record], now: datetime) -> Json:
    """The status of a budget, given the Pods of its namespace."""
    old = budget.body.get("status") or {}
    spec = budget.body.get("spec") or {}
    selector = spec.get("selector")
    test = label_selector(selector) if selector is not None else lambda _: False
    chosen = {pod.name: pod for pod in pods if test(pod.body["metadata"].get("labels") or {})}
    disrupted = {
        name: moment
        for name, moment in (old.get("disruptedPods") or {}).items()
        if name in chosen
        and "deletionTimestamp" not in chosen[name].body["metadata"]
        and now < datetime.fromisoformat(moment) + _DISRUPTION_TIMEOUT
    }
    healthy = sum(
        is_ready(pod) and name not in disrupted and "deletionTimestamp" not in pod.body["metadata"]
        for name, pod in chosen.items()
    )
    desired = _desired(spec, len(chosen))
    allowed = max(0, healthy - desired) if chosen else 0
    status: Json = {
        "observedGeneration": budget.body["metadata"].get("generation", 0),
        "disruptionsAllowed": allowed,
        "currentHealthy": healthy,
        "desiredHealthy": desired,
        "expectedPods": len(chosen),
    }
    if disrupted:
        status["disruptedPods"] = disrupted
    status["conditions"] = [_condition(status, old, now)]
    return status


def _desired(spec: Json, expected: int) -> int:
    if "maxUnavailable" in spec:
        return max(0, expected - _scaled(spec["maxUnavailable"], expected))
    return _scaled(spec.get("minAvailable", 0), expected)


def _scaled(bound: int | str, total: int) -> int:
    return bound if isinstance(bound, int) else -(-total * int(bound.rstrip("%")) // 100)


def _condition(status: Json, old: Json, now: datetime) -> Json:
    possible = status["disruptionsAllowed"] > 0
    before = next((c for c in old.get("conditions") or () if c["type"] == "DisruptionAllowed"), None)
    value = "True" if possible else "False"
    since = stamp(now) if before is None or before["status"] != value else before["lastTransitionTime"]
    return {
        "type": "DisruptionAllowed",
        "status": value,
        "observedGeneration": status["observedGeneration"],
        "lastTransitionTime": since,
        "reason": "SufficientPods" if possible else "InsufficientPods",
        "message": "",
    }


def taken(budget: Record, pod: str, now: datetime) -> Json:
    """The status once an eviction of this Pod was admitted."""
    status = dict(budget.body["status"])
    status["disruptionsAllowed"] -= 1
    status["disruptedPods"] = {**(status.get("disruptedPods") or {}), pod: stamp(now)}
    status["conditions"] = [_condition(status, status, now)]
    return status
