"""SlotTaskOutputs: a step's output, read from its agent and kept as an object. `kept_output` decides which."""

import asyncio

from agent.wire import ErrorCode, Step, StepResult
from controller.agents.client import AgentClient
from controller.decide.tasks.kept_output import ToKeep
from controller.errors import AgentRefused, AgentUnreachable, AlreadyExists
from controller.kube.api import SLOTTASKOUTPUTS, Api, Object
from controller.objects.output import Gap, Output, Source, belongs_to, document, packed
from controller.objects.task import Task

LARGE_BYTES = 64 * 1024
"""Output from this size on is compressed in a thread: 64 KiB take a few milliseconds."""
MOST_LARGE = 2
"""How many large outputs are in memory at a time: an agent keeps 16 MiB of each."""
MAX_KEPT_BYTES = 64 * 2**20
"""More is not read: what imitates an agent could go on for ever."""


class TaskOutputs:
    """Keeps the outputs of steps as SlotTaskOutput objects."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._large = asyncio.Semaphore(MOST_LARGE)

    async def keep(self, task: Task, wanted: ToKeep, agent: AgentClient) -> str | None:
        """Keep the output of one step; returns the object's name, or None if the agent no longer has the output.

        Raises ApiError if the API server will not have the object: then it can't be kept.
        """
        size = wanted.result.log_bytes
        if size < LARGE_BYTES:
            made = await self._document(task, wanted, agent)
        else:
            async with self._large:
                made = await self._document(task, wanted, agent)
        return None if made is None else await self._create(task, made)

    async def _document(self, task: Task, wanted: ToKeep, agent: AgentClient) -> Object | None:
        output = await _read(task.task_id, wanted.step, wanted.result, agent)
        if output is None:
            return None
        source = Source(
            namespace=task.namespace,
            task=task.name,
            task_uid=task.uid,
            attempt=task.status.attempt,
            step=wanted.step,
        )
        if len(output.kept) < LARGE_BYTES:
            return document(source, *packed(output, wanted.limit_bytes))
        return await asyncio.to_thread(lambda: document(source, *packed(output, wanted.limit_bytes)))

    async def _create(self, task: Task, made: Object) -> str:
        """Create it once: a second call finds the object of the first.

        An earlier task's object of this name is deleted.
        """
        name: str = made["metadata"]["name"]
        try:
            await self._api.create(SLOTTASKOUTPUTS, task.namespace, made)
        except AlreadyExists:
            found = await self._api.get(SLOTTASKOUTPUTS, task.namespace, name)
            if not belongs_to(found, task.uid):
                await self._api.delete(SLOTTASKOUTPUTS, task.namespace, name, uid=found["metadata"]["uid"])
                await self._api.create(SLOTTASKOUTPUTS, task.namespace, made)
        return name


async def _read(task_id: str, step: Step, result: StepResult, agent: AgentClient) -> Output | None:
    """All that the agent has of a step's output; None if it has forgotten the task."""
    tail = result.log_tail.encode()
    if len(tail) == result.log_bytes and "\ufffd" not in result.log_tail:
        return Output(kept=tail, size_bytes=len(tail))  # short, and plain text: it came with the task
    try:
        kept = bytearray()
        while page := await agent.output_page(task_id, step, len(kept)):
            kept += page
            if len(kept) > MAX_KEPT_BYTES:
                raise AgentUnreachable(f"not an agent's answer: more than {MAX_KEPT_BYTES} bytes of output")
        end = await agent.output_end(task_id, step) if result.log_end_bytes else b""
    except AgentRefused as refusal:
        if refusal.code == ErrorCode.NOT_FOUND:
            return None
        raise
    size = max(result.log_bytes, len(kept) + len(end))
    missing = size - len(kept) - len(end)
    gaps = (Gap(len(kept), missing),) if missing else ()
    return Output(kept=bytes(kept) + end, size_bytes=size, missing=gaps)
