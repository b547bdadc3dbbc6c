"""What may never happen to how fast a pool's size changes, by the history in its status: whoever led, and when."""

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from agent.wire import parse_time
from controller.kube.api import Object

if TYPE_CHECKING:
    from tests.simulation.rules import Rules

FREEZE_START, FREEZE_EVERY_SECONDS = "*/10 * * * *", 600
"""Of the freezes that are checked: others are for the stories that have them."""

DIRECTIONS = {"ups": "scaleUp", "downs": "scaleDown"}
"""What is kept of each, in the status, and the rules that it follows."""


class PaceRules:
    def __init__(self, rules: "Rules") -> None:
        self._rules = rules
        self._changes: dict[str, dict[tuple[str, datetime], int]] = {}
        """Of each pool, by its UID: in which direction and when its size was changed, and by how many Pods."""

    def pool_changed(self, pool: Object) -> None:
        scaler = pool["spec"].get("autoscaling") or {}
        history = (pool.get("status") or {}).get("scaling") or {}
        known = self._changes.setdefault(pool["metadata"]["uid"], {})
        found = {
            (kept, parse_time(entry["time"])): entry["pods"] for kept in DIRECTIONS for entry in history.get(kept, ())
        }
        new = [change for change in found if change not in known]
        known |= found
        for kept, moment in new:
            behavior = scaler.get("behavior") or {}
            for policy in (behavior.get(DIRECTIONS[kept]) or {}).get("policies") or ():
                self._check_pace(kept, known, moment, policy)
            self._check_freeze(kept, moment, scaler.get("freeze") or [])

    def _check_pace(self, kept: str, known: dict[tuple[str, datetime], int], moment: datetime, policy: Object) -> None:
        """Counted from the size at the beginning of the period, as in autoscaling/v2: what came may go again."""
        since, net = moment - timedelta(seconds=policy["periodSeconds"]), 0
        for (direction, at), pods in known.items():
            if since < at <= moment:
                net += pods if direction == kept else -pods
        if policy["type"] == "Pods" and net > policy["value"]:
            self._rules.breach(f"{kept}: {net} Pods in {policy['periodSeconds']} s, and {policy['value']} are allowed")

    def _check_freeze(self, kept: str, moment: datetime, freezes: list[Object]) -> None:
        for window in freezes:
            if window["start"] != FREEZE_START:
                continue
            if moment.timestamp() % FREEZE_EVERY_SECONDS < window["durationSeconds"]:
                self._rules.breach(f"{kept}: the size changed at {moment}, in a freeze")
