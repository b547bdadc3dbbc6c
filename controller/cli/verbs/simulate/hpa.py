"""A Deployment with a HorizontalPodAutoscaler on the utilisation of its Pods' slots: what podslots replaces.

The rule is that of `pkg/controller/podautoscaler` of Kubernetes for a Pods metric, with the default behaviour: every 15
s; within 10 % of the target nothing changes; Pods that start count as unused when it would grow; up by four Pods or to
the double, whichever is more; down to the largest size that any of the last five minutes asked for. It needs one Pod at
least to measure. The ReplicaSet chooses which Pods go: those that do not serve yet, then those that serve for the
shortest time, by powers of two. It does not ask whether they are busy.
"""

import math
from collections import deque
from dataclasses import dataclass

from controller.cli.verbs.simulate.engine import Engine, Pod
from controller.cli.verbs.simulate.workers import Workers
from controller.objects.pool import Layout

SYNC_SECONDS = 15.0
TOLERANCE = 0.1
STABILIZATION_SECONDS = 300.0
SCALE_UP_PODS = 4
NANOSECONDS = 1e9


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """Of the size."""

    least: int
    most: int


def wanted_size(current: int, used_percents: list[float], starting: int, target_percent: float) -> int:
    """The size that a metric asks for: `used_percents` of each Pod that serves, and `starting` ones that do not yet."""
    if not used_percents:
        return current
    ratio = sum(used_percents) / len(used_percents) / target_percent
    if not (starting and ratio > 1):
        return current if abs(1 - ratio) <= TOLERANCE else math.ceil(ratio * len(used_percents))
    counted = len(used_percents) + starting
    eased = sum(used_percents) / counted / target_percent
    if abs(1 - eased) <= TOLERANCE or eased < 1:
        return current
    return max(current, math.ceil(eased * counted))


class Hpa(Workers):
    """Aims at a utilisation in per cent, and kills Pods even if they are busy."""

    def __init__(self, layout: Layout, bounds: Bounds, target_percent: float, *, seed: int, name: str) -> None:
        super().__init__(name, layout, seed=seed)
        self._bounds = bounds
        self._target_percent = target_percent
        self._asked: deque[tuple[float, int]] = deque()
        self._lots: dict[int, float] = {}

    def begin(self, engine: Engine) -> None:
        """The least size at first."""
        super().begin(engine)
        self._grow(self._bounds.least)
        engine.after(SYNC_SECONDS, self._sync)

    def _sync(self) -> None:
        engine = self.engine
        pods = [pod for pod in engine.pods.values() if not pod.ending]
        percents = [100 * pod.busy / len(pod.layout) for pod in pods if pod.ready]
        wanted = wanted_size(len(pods), percents, len(pods) - len(percents), self._target_percent)
        size = self._limited(len(pods), self._stabilized(len(pods), wanted))
        if size > len(pods):
            self._grow(size - len(pods))
        elif size < len(pods):
            for pod in sorted(pods, key=self._rank)[: len(pods) - size]:
                engine.kill_pod(pod)
        engine.after(SYNC_SECONDS, self._sync)

    def _stabilized(self, current: int, wanted: int) -> int:
        """No less than what any moment of the window asked for, if it is less than now."""
        now = self.engine.now
        while self._asked and self._asked[0][0] <= now - STABILIZATION_SECONDS:
            self._asked.popleft()
        self._asked.append((now, wanted))
        lowest = max(size for _, size in self._asked)
        return min(max(current, wanted), lowest)

    def _limited(self, current: int, wanted: int) -> int:
        most = min(self._bounds.most, max(current + SCALE_UP_PODS, 2 * current))
        return max(self._bounds.least, min(wanted, most))

    def _grow(self, count: int) -> None:
        for _ in range(count):
            pod = self.engine.create_pod(self.layout)
            self._lots[pod.number] = self.random.random()

    def _rank(self, pod: Pod) -> tuple[bool, int, float]:
        """The first to go is the least. Pods of one power of two are told apart by their UIDs, which are chance."""
        served = max(self.engine.now - pod.ready_since, 0.0) * NANOSECONDS if pod.ready else 0.0
        return pod.ready, int(math.log2(served)) if served > 0 else -1, self._lots[pod.number]
