"""Letting agents forget: what has ended and is stored, and what no SlotTask stands for."""

import logging
from contextlib import suppress

from agent import wire
from controller import names
from controller.act.task_results import TaskResults
from controller.agents.client import AgentClient
from controller.decide.tasks.kept_output import lacks_output
from controller.decide.view import PodView
from controller.errors import AgentRefused, InvalidObject, NotFound
from controller.kube.api import SLOTTASKS, Api, Object
from controller.objects.ended_task import EndedTask, has_ended
from controller.objects.pool import OutputLimits
from controller.objects.task import Task

log = logging.getLogger(__name__)


class TaskAcks:
    """Tells agents what they may forget. Until then they keep each task that has ended, and grant no drain."""

    def __init__(self, api: Api, results: TaskResults) -> None:
        self._api = api
        self._results = results

    async def ack_ended(self, ended: EndedTask, pod: PodView, agent: AgentClient, *, limits: OutputLimits) -> None:
        """Let the agent forget a task that has ended. Its end may have been written without its output."""
        with suppress(NotFound, InvalidObject):  # of one that can't be read any more nobody knows what it lacks
            task = Task.parse(await self._api.get(SLOTTASKS, ended.namespace, ended.name))
            if task.final and task.task_id == ended.task_id and lacks_output(task):
                await self._results.keep_lacking(task, agent, limits)
        await self.ack(ended.task_id, pod, agent)

    async def ack(self, task_id: str, pod: PodView, agent: AgentClient) -> None:
        """Let the agent forget a task whose result is stored."""
        if pod.agent is not None:
            await agent.ack(pod.agent.incarnation, task_id)

    async def settle_orphan(self, task_id: str, pod: PodView, agent: AgentClient, *, limits: OutputLimits) -> None:
        """End a task on an agent that has no SlotTask. A running apply is waited for.

        Judged on live reads: the intent is written before an agent gets a task. So a read of the SlotTask after the
        agent's report finds that intent, unless it was withdrawn.
        """
        try:
            known = await agent.task(task_id)
        except AgentRefused as refusal:
            if refusal.code == wire.ErrorCode.NOT_FOUND:
                return  # a slot without work, that a person took with the pool's token; or over in the meantime
            raise
        namespace, _, name = known.name.partition("/")
        parsed = names.split_task_id(task_id)
        if parsed is None or pod.agent is None:
            return
        live = await self._read(namespace, name, parsed[0])
        if live is not None and _stands_for(live, task_id, pod):
            return
        ended = EndedTask.parse(live) if live is not None and has_ended(live) else None
        # Only the Pod that it was assigned to has its output: what imitates an agent may name any task.
        here = ended is not None and (ended.task_id, ended.pod_uid) == (task_id, pod.uid)
        if ended is not None and here and known.state is wire.TaskState.ENDED:
            await self.ack_ended(ended, pod, agent, limits=limits)
            return
        if known.state is wire.TaskState.ENDED:
            await self.ack(task_id, pod, agent)
        elif known.step is not wire.Step.APPLY and not known.cancel_requested:
            log.warning("ending a task that no SlotTask stands for", extra={"task": task_id, "pod": pod.name})
            await agent.cancel(pod.agent.incarnation, task_id)

    async def _read(self, namespace: str, name: str, uid: str) -> Object | None:
        """The SlotTask as it is now; None if there is none, or another one of that name."""
        with suppress(NotFound):
            live = await self._api.get(SLOTTASKS, namespace, name)
            return live if live["metadata"]["uid"] == uid else None
        return None


def _stands_for(live: Object, task_id: str, pod: PodView) -> bool:
    """Whether a SlotTask that has not ended is, or may be, what the Pod's agent has: one that can't be read may."""
    if has_ended(live):
        return False
    try:
        task = Task.parse(live)
    except InvalidObject:
        return True
    return (task.task_id, task.status.pod_uid) == (task_id, pod.uid)
