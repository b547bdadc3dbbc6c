"""Mistakes of the controller with how fast sizes change."""

from unittest.mock import patch

from controller.decide.scaling import behavior, size
from controller.kube.api import Object
from controller.objects.scaling_history import ScalingHistory
from controller.world.sizes import Sizes
from tests.simulation.planted.registry import Plant, bug


@bug("a new leader knows nothing of how a size has changed", theme="sizes that change slowly", seed=0)
def _() -> Plant:
    def of(self: Sizes, pool: Object) -> ScalingHistory:
        return self._known.get(pool["metadata"]["uid"], ScalingHistory())

    return patch.object(Sizes, "of", of)


@bug("each decision on a size forgets the one before", theme="sizes that change slowly", seed=4)
def _() -> Plant:
    return patch.object(Sizes, "of", lambda _self, _pool: ScalingHistory())


@bug("nobody looks for a freeze", theme="sizes that change slowly", seed=0)
def _() -> Plant:
    return patch.object(size, "frozen_until", lambda _windows, _now: None)


@bug("changes of a size are not counted", theme="sizes that change slowly", seed=0)
def _() -> Plant:
    return patch.object(
        behavior, "_limit", lambda _rules, base, _same, _opposite, _now, *, up: base + (1 if up else -1)
    )
