"""Mistakes of the controller with tasks."""

import contextlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from unittest.mock import patch

from agent import wire as agent_wire
from controller.act import tasks
from controller.act.locks import Locks
from controller.act.outputs import TaskOutputs
from controller.act.task_acks import TaskAcks
from controller.act.task_results import TaskResults
from controller.act.task_writer import TaskWriter
from controller.act.tasks import Tasks
from controller.agents.client import AgentClient
from controller.decide.tasks import task_actions, trying_again
from controller.decide.tasks.task_actions import Whereabouts
from controller.errors import AgentUnreachable, ApiUnavailable
from controller.kube import reflector
from controller.kube.api import SLOTTASKS
from controller.objects.task import Task, TaskPhase
from controller.world import views
from tests.simulation.planted.registry import Plant, bug


@bug("silence taken for death", seed=6)
def _() -> Plant:
    def dead(self: Whereabouts) -> bool:
        return self.buried or (self.pod is not None and (self.pod.dead or not self.pod.connected))

    return patch.object(Whereabouts, "dead", property(dead))


@bug("intent after acquire")
def _() -> Plant:
    async def assign(self: Tasks, task: Task, pod: Any, agent: AgentClient, *, reservation_ttl_seconds: int) -> None:
        if pod.agent is None or not await self._locks.take(task):
            return
        attempt = max(1, task.status.attempt)
        numbered = replace(task, status=replace(task.status, attempt=attempt))
        answer = await agent.acquire(
            pod.agent.incarnation, numbered.task_id, task.spec.type, numbered.to_work(reservation_ttl_seconds)
        )
        step = agent_wire.Step.PLAN if task.spec.steps.plan else agent_wire.Step.APPLY
        await self._writer.write(
            task,
            phase=TaskPhase.RUNNING,
            queued_reason=None,
            attempt=attempt,
            pod=pod.name,
            pod_uid=pod.uid,
            slot=answer.slot,
            step=step,
            started_at=self._now(),
        )

    return patch.object(Tasks, "assign", assign)


@bug("retry on another agent", theme="tokens that rotate", seed=0)
def _() -> Plant:
    original = Tasks._acquire

    async def acquire(self: Tasks, task: Task, pod: Any, agent: AgentClient, **options: Any) -> None:
        try:
            await original(self, task, pod, agent, **options)
        except AgentUnreachable:
            await self._writer.write(task, phase=TaskPhase.QUEUED, pod=None, pod_uid=None, step=None, slot=None)
            raise

    return patch.object(Tasks, "_acquire", acquire)


@bug("ack before the status write")
def _() -> Plant:
    original = Tasks._ended

    async def follow(self: Tasks, task: Task, pod: Any, agent: AgentClient, **options: Any) -> None:
        known = await agent.task(task.task_id)
        if known.state is agent_wire.TaskState.ENDED:
            await self.acks.ack(task.task_id, pod, agent)
            await original(self, task, known, {}, None)
        else:
            await unchanged(self, task, pod, agent, **options)

    unchanged = Tasks.follow
    return patch.object(Tasks, "follow", follow)


@bug("ack before the output is kept", seed=33)
def _() -> Plant:
    """An output that could not be written at once is left out, as if the next pass could still read it."""

    async def keep(self: TaskOutputs, task: Task, wanted: Any, agent: AgentClient) -> str | None:
        try:
            return await original(self, task, wanted, agent)
        except (ApiUnavailable, AgentUnreachable):
            return None

    original = TaskOutputs.keep
    return patch.object(TaskOutputs, "keep", keep)


@bug("ack before the file that is handed over is kept", theme="plans that end otherwise")
def _() -> Plant:
    """It is fetched and kept as the last thing of all."""
    hand_over, ack = TaskResults.hand_over, TaskAcks.ack
    later: dict[str, tuple[Task, agent_wire.Task]] = {}

    async def keep_in_mind(self: TaskResults, task: Task, known: agent_wire.Task, agent: AgentClient) -> str | None:
        del self, agent
        later[task.task_id] = task, known
        return None

    async def ack_first(self: TaskAcks, task_id: str, pod: Any, agent: AgentClient) -> None:
        await ack(self, task_id, pod, agent)
        if (left := later.pop(task_id, None)) is not None:
            await hand_over(self._results, *left, agent)

    stack = contextlib.ExitStack()
    stack.enter_context(patch.object(TaskResults, "hand_over", keep_in_mind))
    stack.enter_context(patch.object(TaskAcks, "ack", ack_first))
    return stack


@bug("a failed apply is tried again", theme="plans that end otherwise", seed=20)
def _() -> Plant:
    """For an exit code that its task names, as a plan is."""
    original = trying_again.after_end

    def after_end(task: Task, known: agent_wire.Task, now: Any) -> Any:
        return original(
            task, replace(known, step=agent_wire.Step.PLAN, apply=None, plan=known.apply or known.plan), now
        )

    stack = contextlib.ExitStack()
    stack.enter_context(patch.object(tasks, "after_end", after_end))
    stack.enter_context(patch.object(trying_again, "may_retry", lambda task: task.status.attempt < 3))
    return stack


def _approved(same: Callable[[Any, Any], bool]) -> Plant:
    def approved(self: Task) -> bool:
        return self.spec.approval is not None and same(self.spec.approval, self.status)

    return patch.object(Task, "approved", property(approved))


@bug("approval not bound to digest", theme="approvals")
def _() -> Plant:
    return _approved(lambda approval, status: bool(approval.attempt == status.attempt))


@bug("approval not bound to attempt", theme="approvals", seed=6)
def _() -> Plant:
    return _approved(lambda approval, status: bool(approval.plan_digest == status.plan_digest))


@bug("approval taken from the step's end", theme="approvals", seed=2)
def _() -> Plant:
    """As if `approvalPolicy` were Auto once the agent has restarted."""
    original = task_actions._reserved

    def reserved(task: Task, pod: Any) -> Any:
        if pod.agent.warnings:
            return task_actions.Approve()
        return original(task, pod)

    return patch.object(task_actions, "_reserved", reserved)


@bug("final phase overwritten", theme="leaders that come back", seed=17)
def _() -> Plant:
    async def write(self: TaskWriter, task: Task, **changes: Any) -> Task:
        after = replace(task.status, observed_generation=task.generation, **changes).to_json()
        document = await self._api.patch(SLOTTASKS, task.namespace, task.name, {"status": after}, subresource="status")
        self._cache.note(document)
        return Task.parse(document)

    return patch.object(TaskWriter, "write", write)


@bug("apply tried again", theme="one lock", seed=6)
def _() -> Plant:
    def may_retry(task: Task) -> bool:
        return task.status.attempt < task.spec.plan_max_attempts

    stack = contextlib.ExitStack()
    stack.enter_context(patch.object(task_actions, "may_retry", may_retry))
    stack.enter_context(patch.object(tasks, "may_retry", may_retry))
    return stack


@bug("lock released on Lost", theme="one lock", seed=14)
def _() -> Plant:
    return patch.object(task_actions, "keeps_lock", lambda _task: False)


@bug("lock not looked at", seed=26)
def _() -> Plant:
    async def take(self: Locks, task: Task) -> bool:
        del self, task
        return True

    stack = contextlib.ExitStack()
    stack.enter_context(patch.object(Locks, "take", take))
    stack.enter_context(patch.object(views, "blocked", lambda _tasks, _locks: frozenset()))
    return stack


@bug("lock's holder not looked at", seed=20)
def _() -> Plant:
    original = Locks.take

    async def take(self: Locks, task: Task) -> bool:
        await original(self, task)
        return True

    stack = contextlib.ExitStack()
    stack.enter_context(patch.object(Locks, "take", take))
    stack.enter_context(patch.object(views, "blocked", lambda _tasks, _locks: frozenset()))
    return stack


@bug("a final task's result is not acknowledged")
def _() -> Plant:
    async def ack(self: Tasks, task_id: str, pod: Any, agent: AgentClient) -> None:
        del self, task_id, pod, agent

    return patch.object(Tasks, "ack", ack)


@bug("a new leader trusts its watch", theme="leaders that take over", seed=23)
def _() -> Plant:
    async def refresh(self: reflector.Reflector) -> None:
        del self

    return patch.object(reflector.Reflector, "refresh", refresh)
