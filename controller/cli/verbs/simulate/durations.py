"""How long steps and approvals take where nobody measured: spread around a middle, from a seed."""

import math
import random
from dataclasses import dataclass

from controller.cli.verbs.simulate.trace import MAX_SECONDS, Arrival

PLAN_SPREAD, APPLY_SPREAD, APPROVAL_SPREAD = 0.6, 0.8, 1.3
"""Sigma of log-normal durations. A tenth of plans takes over twice the middle; of approvals, over five times."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Durations:
    """Medians, in seconds; and which part of plan_and_apply tasks find something to change, and so need an approval."""

    plan_seconds: float = 90.0
    approval_seconds: float = 1800.0
    apply_seconds: float = 180.0
    changed: float = 0.75

    def arrival(self, rng: random.Random, at: float, task_type: str, lock_key: str | None = None) -> Arrival:
        """A task with steps that its type has; types of a layout's own have a plan step alone."""
        plan = _spread(rng, self.plan_seconds, PLAN_SPREAD)
        apply = _spread(rng, self.apply_seconds, APPLY_SPREAD)
        approval = _spread(rng, self.approval_seconds, APPROVAL_SPREAD)
        changed = rng.random() < self.changed
        if task_type == "apply":
            return Arrival(at=at, type=task_type, apply_seconds=apply, lock_key=lock_key)
        if task_type != "plan_and_apply" or not changed:
            return Arrival(at=at, type=task_type, plan_seconds=plan, lock_key=lock_key)
        return Arrival(
            at=at,
            type=task_type,
            plan_seconds=plan,
            approval_seconds=approval,
            apply_seconds=apply,
            lock_key=lock_key,
        )


def _spread(rng: random.Random, median_seconds: float, sigma: float) -> float:
    """Log-normal, in tenths of a second: what a trace in CSV can say again."""
    seconds = min(MAX_SECONDS, median_seconds * math.exp(rng.gauss(0.0, sigma)))
    return round(seconds, 1)
