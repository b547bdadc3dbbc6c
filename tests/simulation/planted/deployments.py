"""Mistakes of the controller with Pods that a Deployment makes."""

import contextlib
from collections.abc import Sequence
from typing import Any
from unittest.mock import patch

from controller.act import pods
from controller.act.deployments import Deployments
from controller.act.pods import Pods
from controller.agents.client import AgentClient
from controller.decide.pods import deployment_mode
from controller.decide.pods.pod_actions import PodAction, SetOwner
from controller.decide.view import PodState, PoolView
from controller.passes import reconcile
from tests.simulation.planted.registry import Plant, bug

THEME, NEVER_STOP = "Pods of Deployments", "Deployments and leaders that never stop"


@bug("a ReplicaSet's Pod is opened without our finalizer", theme=THEME, seed=1)
def _() -> Plant:
    original = Pods._label

    async def label(self: Pods, pod: Any, namespace: str, to: PodState, drain_id: str, **options: Any) -> Any:
        if pod.deployment and to is PodState.ACTIVE:
            options["finalizers"] = None
        return await original(self, pod, namespace, to, drain_id, **options)

    return patch.object(Pods, "_label", label)


@bug("a ReplicaSet's Pod is opened without a second owner", theme=THEME, seed=1)
def _() -> Plant:
    original = deployment_mode.for_pods

    def for_pods(view: PoolView, decided: Sequence[PodAction]) -> Any:
        return [
            action for action in original(view, decided) if not (isinstance(action, SetOwner) and action.pod.deployment)
        ]

    stack = contextlib.ExitStack()
    stack.enter_context(patch.object(reconcile, "for_pods", for_pods))
    stack.enter_context(patch.object(deployment_mode, "_may_open", lambda _view, _manager, _pod: True))
    stack.enter_context(patch.object(pods, "_has_second_owner", lambda _pod: True))
    return stack


@bug("a Deployment is lowered before the drains are confirmed", theme=THEME, seed=1)
def _() -> Plant:
    """Its Pods are marked as soon as they seem idle, and their agents not asked then either."""

    async def mark(self: Pods, pod: Any, namespace: str, agent: AgentClient) -> bool:
        del agent
        live = await self._read(pod.name, pod.uid, namespace)
        if live is None or live["metadata"].get("deletionTimestamp"):
            return False
        version = live["metadata"]["resourceVersion"]
        await self._label(pod, namespace, PodState.DRAINING, self._new_drain_id(), resource_version=version)
        return True

    async def all_go(self: Deployments, *_: Any) -> bool:
        del self
        return True

    stack = contextlib.ExitStack()
    stack.enter_context(patch.object(Pods, "mark", mark))
    stack.enter_context(patch.object(Deployments, "_all_go", all_go))
    return stack


@bug("a Deployment is lowered whatever its Pods are by then", theme=NEVER_STOP, seed=11)
def _() -> Plant:
    """As it was decided: by no live look at the Pods, and without a question to their agents."""

    async def scale(self: Deployments, namespace: str, deployment: Any, replicas: int, *_: Any) -> None:
        live = await self._read(namespace, deployment)
        if live is not None:
            await self._write(live, {"spec": {"replicas": replicas}})

    return patch.object(Deployments, "scale", scale)


@bug("a drained Pod is not the cheapest to delete", theme=THEME, seed=3)
def _() -> Plant:
    return patch.dict(pods._COSTS, {PodState.DRAINING: "1000"})


@bug("a drain is taken back without raising the size", theme=NEVER_STOP, seed=5)
def _() -> Plant:
    async def take_back(
        self: Deployments, namespace: str, deployment: Any, pod: Any, agent: AgentClient, *, needed: bool
    ) -> bool:
        del deployment, needed
        if not await self._pods.protect(pod, namespace):
            return False
        await self._pods.open(pod, namespace, agent)
        return True

    return patch.object(Deployments, "take_back", take_back)
