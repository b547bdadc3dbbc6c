"""What is kept of a step that is over: its output, the file that it hands over, and why it was lost."""

from dataclasses import replace

from agent import wire
from controller.act.handed_over import HandedOverFiles
from controller.act.outputs import TaskOutputs
from controller.act.task_writer import TaskWriter
from controller.agents.client import AgentClient
from controller.decide.tasks.kept_output import to_keep
from controller.decide.tasks.memory import ran_out
from controller.errors import AgentRefused, ApiError, Conflict, NotFound, NotOurs, TooManyRequests
from controller.kube.api import PODS, Api
from controller.objects.pool import OutputLimits
from controller.objects.task import Task


class TaskResults:
    """Reads them from the agent, or from the Pod, and stores them."""

    def __init__(self, api: Api, writer: TaskWriter, *, outputs: TaskOutputs, handed_over: HandedOverFiles) -> None:
        self._api = api
        self._writer = writer
        self._outputs = outputs
        self._handed_over = handed_over

    async def keep_outputs(
        self, task: Task, known: wire.Task, agent: AgentClient, limits: OutputLimits
    ) -> dict[str, str]:
        """Keep what is to be kept, and return the fields of the status that name it.

        What the API server will not have is said and left: a task's end must not wait for a quota.
        """
        fields: dict[str, str] = {}
        for wanted in to_keep(task, known, limits):
            try:
                name = await self._outputs.keep(task, wanted, agent)
            except TooManyRequests:
                raise
            except ApiError as error:
                message = f"the output of the {wanted.step} step can't be kept: {error.message}"
                self._writer.warn(task, "OutputNotKept", message)
                continue
            if name is not None:
                fields[f"{wanted.step}_output"] = name
        return fields

    async def hand_over(self, task: Task, known: wire.Task, agent: AgentClient) -> str | None:
        """Put what a task that succeeded hands over into its Secret; returns why that can't be done, if it can't."""
        asked = task.spec.outputs
        if asked is None or known.outcome is not wire.Outcome.SUCCEEDED or changes_nothing(known):
            return None
        if not known.has_outputs:
            problem = f"{asked.path} was not handed over"
        else:
            try:
                content = await agent.outputs(task.task_id)
                await self._handed_over.store(task, asked, content)
            except (Conflict, TooManyRequests):
                raise
            except (ApiError, NotOurs) as error:
                problem = f"{asked.path} can't be put into Secret {asked.secret}: {error}"
            else:
                return None
        self._writer.warn(task, "OutputsNotStored", problem)
        return problem

    async def with_cause(self, task: Task, known: wire.Task) -> wire.Task:
        """`known`, with the cause of a lost step where the Pod's status has one. As of now: the cache may be behind."""
        if known.outcome is not wire.Outcome.LOST or task.status.pod is None:
            return known
        try:
            pod = await self._api.get(PODS, task.namespace, task.status.pod)
        except NotFound:
            return known
        result = known.apply or known.plan
        cause = ran_out(pod, known.slot, result.start_time if result is not None else None)
        if cause is None or pod["metadata"]["uid"] != task.status.pod_uid:
            return known
        return replace(known, reason=f"{known.reason}; {cause}" if known.reason else cause)

    async def keep_lacking(self, task: Task, agent: AgentClient, limits: OutputLimits) -> None:
        """Keep the output of a task whose end was written without it, if the agent still has it."""
        try:
            known = await agent.task(task.task_id)
        except AgentRefused as refusal:
            if refusal.code != wire.ErrorCode.NOT_FOUND:
                raise
            return
        await self.keep_outputs(task, known, agent, limits)


def changes_nothing(known: wire.Task) -> bool:
    """Whether it ended with its plan, as there was nothing to apply."""
    return known.outcome is wire.Outcome.SUCCEEDED and known.reason == wire.NO_CHANGES
