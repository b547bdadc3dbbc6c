"""What may never happen to a pool's size while its signal is lost: it is not lowered. Rule 5."""

from datetime import datetime
from typing import TYPE_CHECKING

from agent.wire import parse_time
from controller.decide.scaling.signal import POLL_SECONDS
from controller.kube.api import Object

if TYPE_CHECKING:
    from tests.simulation.rules import Rules
    from tests.simulation.world import World

GOOD_FOR_SECONDS = 3 * POLL_SECONDS + 5.0
"""An answer is good until two more should have come. The rest is what it may take to come, and a pass to be told."""


class SignalRules:
    """Goes by the history that a pool's status keeps of its size, with the moment of each decision."""

    def __init__(self, world: "World", rules: "Rules") -> None:
        self._world = world
        self._rules = rules
        self._known: set[tuple[str, str]] = set()

    def pool_changed(self, pool: Object) -> None:
        if not (pool["spec"].get("autoscaling") or {}).get("signal"):
            return
        for entry in ((pool.get("status") or {}).get("scaling") or {}).get("downs", ()):
            change = pool["metadata"]["uid"], entry["time"]
            if change not in self._known:
                self._known.add(change)
                self._check(parse_time(entry["time"]))

    def _check(self, moment: datetime) -> None:
        at = self._world.elapsed - (self._world.now() - moment).total_seconds()
        for begin, end in self._world.prometheus.lost:
            if begin + GOOD_FOR_SECONDS < at < end:
                self._rules.breach(f"the size was lowered {at - begin:.0f} s after its signal was lost")
