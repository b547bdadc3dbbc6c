"""What may never happen while a template changes: too few Pods that work, too many at all, a rollout without proof.

Only pools of a fixed size are judged so: of others, Pods come and go for other reasons too.
"""

from typing import TYPE_CHECKING

from controller.kube.api import PODS, SLOTPOOLS, Object
from controller.objects.pool import PoolSpec, UpdateStrategy
from tests.simulation.replica import NS

if TYPE_CHECKING:
    from tests.simulation.node import SimPod
    from tests.simulation.rules import Rules
    from tests.simulation.world import World

LATELY_SECONDS = 30.0
"""A drain may rest on a template that was the pool's so long ago."""


class RolloutRules:
    def __init__(self, world: "World", rules: "Rules") -> None:
        self._world = world
        self._rules = rules
        self._changed: dict[str, float] = {}
        """When each pool's image last changed."""
        self._image: dict[str, str] = {}
        self._served: set[tuple[str, str]] = set()
        """Pools, and images of which a Pod was opened."""

    def pool_changed(self, name: str, spec: Object) -> None:
        image = _image(spec["template"]["spec"])
        if self._image.get(name) != image:
            self._image[name] = image
            self._changed[name] = self._world.elapsed

    def opened(self, pod: "SimPod") -> None:
        if (image := self._image_of(pod)) is not None:
            self._served.add((pod.pool, image))

    def drained(self, pod: "SimPod") -> None:
        """Its agent granted a drain just now, which nobody but a rollout can have asked for."""
        found = self._pool(pod.pool)
        image, now = self._image_of(pod), self._image.get(pod.pool)
        if found is None or image is None or image == now:
            return
        size, update = found
        others = [other for other in self._pods(pod.pool) if other is not pod and other.is_open and not other.doomed]
        if len(others) < size - update.max_unavailable:
            self._rules.breach(f"{pod.name} was drained for a new template, and {len(others)} of {size} Pods work")
        settled = self._world.elapsed > self._changed[pod.pool] + LATELY_SECONDS
        if settled and update.max_surge and (pod.pool, now) not in self._served:
            self._rules.breach(f"{pod.name} was drained for a new template of which no Pod was ever opened")

    def made(self, pool: str) -> None:
        """Somebody makes a Pod just now."""
        found = self._pool(pool)
        if found is None:
            return
        size, update = found
        there = [pod for pod in self._pods(pool) if not pod.doomed and pod.made_at < self._world.elapsed - 20]
        if len(there) >= size + update.max_surge:
            self._rules.breach(f"a Pod more is made although there are {len(there)} of {size} and {update.max_surge}")

    def _pool(self, name: str) -> tuple[int, UpdateStrategy] | None:
        """The size of a pool that has a fixed one, and how its Pods are replaced."""
        pool = self._world.cluster.find(SLOTPOOLS, NS, name)
        if pool is None or "deletionTimestamp" in pool["metadata"] or "autoscaling" in pool["spec"]:
            return None
        spec = PoolSpec.parse(pool)
        return spec.fixed_size(0), spec.update

    def _pods(self, pool: str) -> list["SimPod"]:
        return [pod for pod in self._world.node.alive if pod.pool == pool and not pod.was_said_failed]

    def _image_of(self, pod: "SimPod") -> str | None:
        found = self._world.cluster.find(PODS, pod.namespace, pod.name)
        return _image(found["spec"]) if found is not None else None


def _image(spec: Object) -> str:
    """The image of a template's worker, or of a Pod's first one."""
    images: list[str] = [item["image"] for item in spec["containers"] if item["name"] in {"worker", "worker-0"}]
    return images[0]
