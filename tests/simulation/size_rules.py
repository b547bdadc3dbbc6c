"""What may never happen to a pool's size: more Pods than it may have, or new ones for refused ones without a pause."""

from typing import TYPE_CHECKING

from controller.kube.api import PODS, SLOTPOOLS, Object
from tests.simulation.replica import NS

if TYPE_CHECKING:
    from tests.simulation.node import SimPod
    from tests.simulation.rules import Rules
    from tests.simulation.world import World

LATELY_SECONDS = 120.0
"""A decision may rest on how a pool was so long ago."""
MOST_REFUSED = 12
"""Pods of one template that one controller makes within a minute although their node refuses them."""


class SizeRules:
    def __init__(self, world: "World", rules: "Rules") -> None:
        self._world = world
        self._rules = rules
        self._most: dict[str, list[tuple[float, float]]] = {}
        """By pool: when it changed, and how many Pods it might have from then on."""
        self._templates: dict[str, tuple[Object, str]] = {}
        """What Pods are made from, and how: where either has changed, others take their place."""
        self._surge: dict[str, int] = {}
        """How many Pods more there may be, in pools whose template has changed."""
        self.makers: dict[tuple[str, int], float] = {}
        """When each process of a controller last made a Pod."""
        self._refused: dict[tuple[str, str], list[float]] = {}
        """When nodes refused Pods of a template."""

    def pool_changed(self, name: str, spec: Object) -> None:
        self._most.setdefault(name, []).append((self._world.elapsed, _bound(spec)))
        template = spec["template"], spec.get("mode", "Pods")
        if self._templates.setdefault(name, template) != template:
            self._surge[name] = (spec.get("updateStrategy") or {}).get("maxSurge", 0)

    def bound(self, pool: str) -> float:
        """How many Pods there may be, by the pool as it is and as it was lately: a decision may be that old."""
        known = self._most.get(pool, [])
        lately = [size for at, size in known if at > self._world.elapsed - LATELY_SECONDS]
        before = [size for at, size in known if at <= self._world.elapsed - LATELY_SECONDS]
        return max([*lately, *before[-1:]], default=0)

    def most(self, pool: str) -> float:
        """How many Pods there may be, with those that take the place of others of an earlier template."""
        return self.bound(pool) + self._surge.get(pool, 0)

    def check_room(self, pool: str) -> None:
        """Nobody makes a Pod more than the pool may have, beside those that everybody knows of by now."""
        world = self._world
        most = self.most(pool)
        known = [
            pod
            for pod in world.cluster.all(PODS)
            if "deletionTimestamp" not in pod["metadata"]
            and pod["metadata"]["uid"] in world.node.pods
            and world.node.pods[pod["metadata"]["uid"]].pool == pool
            and not world.node.pods[pod["metadata"]["uid"]].over
            and not world.node.pods[pod["metadata"]["uid"]].was_said_failed
            and world.node.pods[pod["metadata"]["uid"]].made_at < world.elapsed - 20
            and (pod.get("status") or {}).get("phase") in {"Pending", "Running"}
        ]
        if world.cluster.find(SLOTPOOLS, NS, pool) is not None and len(known) >= most:
            self._rules.breach(f"a Pod more is made although there are {len(known)} and {most} is the most")

    def pod_refused(self, pod: "SimPod") -> None:
        """Its node would not have it: those that are made in its place come at longer and longer intervals."""
        now = self._world.elapsed
        refused = self._refused.setdefault(pod.template, [])
        refused.append(now)
        lately = sum(at > now - 60.0 for at in refused)
        # Each process of a controller begins anew.
        makers = sum(at > now - 90.0 for at in self.makers.values())
        if lately > MOST_REFUSED * max(1, makers):
            self._rules.breach(
                f"{lately} Pods of one template were made within a minute, and their node refused them all"
            )


def _bound(spec: Object) -> float:
    """The most Pods that a pool may have. A size set by hand bounds those that stay, not those that are replaced."""
    scaler = spec.get("autoscaling") or {"paused": True}
    return float("inf") if scaler.get("paused") else scaler["maxReplicas"]
