"""Mistakes of the controller with Pods."""

import contextlib
from dataclasses import replace
from typing import Any
from unittest.mock import patch

from agent import wire as agent_wire
from controller.act.pods import Pods
from controller.agents.client import AgentClient
from controller.decide import observe
from controller.decide.view import PodState
from controller.errors import AgentRefused, ApiUnavailable, NotFound
from controller.kube import reflector
from controller.kube.api import PODS
from controller.world import index
from tests.simulation.planted.registry import Plant, bug
from tests.support.cache_lists import apply_list


async def _grant(pod: Any, agent: AgentClient, drain_id: str) -> bool:
    try:
        await agent.drain(pod.agent.incarnation, drain_id)
    except AgentRefused as refusal:
        if refusal.code != agent_wire.ErrorCode.BUSY:
            raise
        return False
    return True


@bug("Pod deleted without asking its agent")
def _() -> Plant:
    async def drain_and_delete(self: Pods, pod: Any, namespace: str, agent: AgentClient) -> bool:
        del agent
        live = await self._read(pod.name, pod.uid, namespace)
        if live is None or live["metadata"].get("deletionTimestamp"):
            return False
        await self._delete(live)
        return True

    return patch.object(Pods, "drain_and_delete", drain_and_delete)


@bug("delete without preconditions", theme="Pods that come and go", seed=53)
def _() -> Plant:
    async def delete(self: Pods, pod: Any, *, grace_period_seconds: int | None = None) -> None:
        metadata = pod["metadata"]
        with contextlib.suppress(NotFound):
            await self._api.delete(
                PODS, metadata["namespace"], metadata["name"], grace_period_seconds=grace_period_seconds
            )

    return patch.object(Pods, "_delete", delete)


@bug("resourceVersion read after the agent was asked", theme="leaders that never stop", seed=26)
def _() -> Plant:
    async def drain_and_delete(self: Pods, pod: Any, namespace: str, agent: AgentClient) -> bool:
        drain_id = self._new_drain_id()
        if pod.agent is None or not await _grant(pod, agent, drain_id):
            return False
        live = await self._read(pod.name, pod.uid, namespace)
        if live is None or live["metadata"].get("deletionTimestamp"):
            return False
        version = live["metadata"]["resourceVersion"]
        await self._delete(await self._label(pod, namespace, PodState.DRAINING, drain_id, resource_version=version))
        return True

    return patch.object(Pods, "drain_and_delete", drain_and_delete)


@bug("undo without a new annotation")
def _() -> Plant:
    original = Pods._label

    async def label(self: Pods, pod: Any, namespace: str, to: PodState, drain_id: str, **options: Any) -> Any:
        if to is PodState.ACTIVE:
            body = {"metadata": {"uid": pod.uid, "labels": {"podslots.dev/state": to.value}}}
            patched = await self._api.patch(PODS, namespace, pod.name, body)
            self._cache.note(patched)
            return patched
        return await original(self, pod, namespace, to, drain_id, **options)

    return patch.object(Pods, "_label", label)


@bug("open although the Pod is being deleted", theme="Pods that come and go", seed=11)
def _() -> Plant:
    """The finalizer, which can't be added to a Pod that goes, and the version that it comes with guard that too."""
    original = Pods._label

    async def label(self: Pods, pod: Any, namespace: str, to: PodState, drain_id: str, **options: Any) -> Any:
        if to is not PodState.ACTIVE:
            return await original(self, pod, namespace, to, drain_id, **options)
        unguarded = {**options, "resource_version": None, "finalizers": None}
        patched = await original(self, pod, namespace, to, drain_id, **unguarded)
        kept = {name: value for name, value in patched["metadata"].items() if name != "deletionTimestamp"}
        return {**patched, "metadata": kept}

    # Without the live read before it, which sees the deletion too.
    opened = Pods.open

    async def open_blindly(self: Pods, pod: Any, *given: Any, **options: Any) -> None:
        await opened(self, replace(pod, tracked=True), *given, **options)

    stack = contextlib.ExitStack()
    stack.enter_context(patch.object(Pods, "_label", label))
    stack.enter_context(patch.object(Pods, "open", open_blindly))
    return stack


@bug("phase Failed taken for death", seed=29)
def _() -> Plant:
    def proof(pod: Any, node: Any) -> str | None:
        del node
        return "failed" if (pod.get("status") or {}).get("phase") in {"Failed", "Succeeded"} else None

    stack = contextlib.ExitStack()
    stack.enter_context(patch.object(index, "death_proof", proof))
    stack.enter_context(patch.object(observe, "death_proof", proof))
    return stack


@bug("empty list after an error trusted", theme="leaders that come back", seed=0)
def _() -> Plant:
    original = reflector.Reflector._list

    async def trusting(self: reflector.Reflector) -> None:
        try:
            await original(self)
        except ApiUnavailable:
            apply_list(self.cache, [], str(10**15))
            raise

    return patch.object(reflector.Reflector, "_list", trusting)
