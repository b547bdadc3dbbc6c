"""Mistakes of the controller with pools: what they leave behind, how many Pods they have, whom they wake."""

import contextlib
import dataclasses
from typing import Any
from unittest.mock import patch

from agent.wire import parse_time
from controller import names
from controller.act.pod_owners import PodOwners
from controller.act.pods import Pods
from controller.act.pools import Pools
from controller.act.tokens import PoolTokens
from controller.decide.pods import pod_actions, rollout
from controller.decide.pools import rotation
from controller.decide.view import PodState, PodView
from controller.objects import template
from controller.passes import reconcile
from controller.world.index import Index
from controller.world.start_failures import StartFailures
from tests.simulation.planted.registry import Plant, bug


@bug("nobody looks for what a pool left behind", theme="pools that come and go", seed=2)
def _() -> Plant:
    return patch.object(Pools, "has_leftovers", lambda _self, _namespace, _name: False)


@bug("Pods have no owner but their pool", theme="pools that come and go", seed=1)
def _() -> Plant:
    original, stack = template._owners, contextlib.ExitStack()
    stack.enter_context(patch.object(template, "_owners", lambda pool, secret: original(pool, secret)[:1]))
    stack.enter_context(patch.object(pod_actions, "_owners", lambda _view: []))
    return stack


@bug("Pods have no owner while their Secret is made again", theme="token Secrets that are deleted", seed=7)
def _() -> Plant:
    async def hold(_self: PodOwners, _namespace: str, _pool: str) -> None:
        return

    return patch.object(PodOwners, "hold", hold)


@bug("the next token is used before the agents accept it", theme="tokens that rotate", seed=1)
def _() -> Plant:
    return patch.object(rotation, "_accepts", lambda _pod, _token: True)


@bug("the age of a token is that of its Secret", theme="tokens that rotate", seed=0)
def _() -> Plant:
    original = PoolTokens.state

    def state(self: PoolTokens, namespace: str, pool: str) -> Any:
        found, secret = original(self, namespace, pool), self._cache.get(namespace, names.token_secret(pool))
        made = parse_time(secret["metadata"]["creationTimestamp"]) if secret is not None else None
        return dataclasses.replace(found, since=made)

    return patch.object(PoolTokens, "state", state)


@bug("Pods that did not start are made again at once", theme="Pods that can't start", seed=2)
def _() -> Plant:
    return patch.object(StartFailures, "wait_seconds", lambda _self, _template, _now: 0.0)


@bug("a Pod too many gets tasks", theme="sizes that are lowered", seed=16)
def _() -> Plant:
    return patch.object(reconcile, "surplus", lambda _view, _decision, leaving: leaving)


@bug("a new template takes every idle Pod at once", theme="templates that change", seed=0)
def _() -> Plant:
    def retiring(_view: Any, outdated: Any, *_: Any, **__: Any) -> frozenset[str]:
        return frozenset(pod.uid for pod in outdated)

    return patch.object(rollout, "_retiring", retiring)


@bug("a new template needs no proof", theme="templates that change", seed=13)
def _() -> Plant:
    original = rollout.roll_out
    stack = contextlib.ExitStack()
    stack.enter_context(patch.object(rollout, "_problem", lambda _view, _starts: None))
    proven = rollout.Starts(proven=True)
    stack.enter_context(patch.object(reconcile, "roll_out", lambda view, _starts: original(view, proven)))
    return stack


@bug("a Pod that retires takes new tasks", theme="templates that change", seed=0)
def _() -> Plant:
    def leaving(self: PodView) -> bool:
        return self.drain_requested or self.node_cordoned or self.disowned

    return patch.object(PodView, "leaving", property(leaving))


@bug("a lockKey's other pools are not woken", theme="pools that share a lock", seed=3)
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
