"""Mistakes of the controller with pools: what they leave behind, how many Pods they have, whom they wake."""

from typing import Any
from unittest.mock import patch

from controller.act.pods import Pods
from controller.act.pools import Pools
from controller.decide.view import PodState
from controller.objects import template
from controller.passes import reconcile
from controller.world.index import Index
from controller.world.start_failures import StartFailures
from tests.simulation.planted.registry import Plant, bug


@bug("nobody looks for what a pool left behind", theme="pools that come and go", seed=1)
def _() -> Plant:
    return patch.object(Pools, "has_leftovers", lambda _self, _namespace, _name: False)


@bug("Pods have no owner but their pool", theme="pools that come and go", seed=1)
def _() -> Plant:
    original = template._owners
    return patch.object(template, "_owners", lambda pool, token_secret: original(pool, token_secret)[:1])


@bug("Pods that did not start are made again at once", theme="Pods that can't start", seed=2)
def _() -> Plant:
    return patch.object(StartFailures, "wait_seconds", lambda _self, _template, _now: 0.0)


@bug("a Pod too many gets tasks", theme="sizes that are lowered", seed=16)
def _() -> Plant:
    return patch.object(reconcile, "surplus", lambda _view, _decision, leaving: leaving)


@bug("a lockKey's other pools are not woken", theme="pools that share a lock", seed=6)
def _() -> Plant:
    return patch.object(Index, "rival_pools", lambda _self, _namespace, _lock_key: set())


@bug("Pods are opened without a finalizer", theme="Pods that go while nobody looks", seed=1)
def _() -> Plant:
    original = Pods._label

    async def label(self: Pods, pod: Any, namespace: str, to: PodState, drain_id: str, **options: Any) -> Any:
        if to is PodState.ACTIVE:
            options["finalizers"] = None
        return await original(self, pod, namespace, to, drain_id, **options)

    return patch.object(Pods, "_label", label)
