"""Streamed answers, the watch of the state and the output of a task; and what `GET /tasks/{id}` says of its output."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import replace

from aiohttp import web

from agent.rules.state import TaskEntry
from agent.service import Service
from agent.store.output import Outputs, Stream, cut_notice, follow
from agent.wire import Step, Task, TaskState, WatchType

HEARTBEAT_SECONDS = 5.0
"""Readers wait 10 s for a sign of life: one late heartbeat does not disconnect them."""

WRITE_SECONDS = 30.0
"""A reader that takes nothing for this long is given up."""

LOOK_SECONDS = 2.0
"""How often a quiet log looks whether its reader is still there."""


async def watch(request: web.BaseRequest, service: Service, known_revision: int | None) -> web.StreamResponse:
    """The state, then each change as a line; several changes in one line for a slow reader."""
    response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson", "Cache-Control": "no-store"})
    service.watchers += 1
    try:
        await response.prepare(request)
        current = known_revision == service.revision
        revision = service.revision
        await _write(response, service.watch_line(WatchType.HEARTBEAT if current else WatchType.STATE))
        while not service.stopping and _is_open(request):
            changed = await service.changed_since(revision, HEARTBEAT_SECONDS)
            revision = service.revision
            await _write(response, service.watch_line(WatchType.CHANGE if changed else WatchType.HEARTBEAT))
        await response.write_eof()
    except (ConnectionError, TimeoutError):
        # Nobody reads any more.
        pass
    finally:
        service.watchers -= 1
    return response


async def send_log(
    request: web.BaseRequest,
    pieces: AsyncIterator[bytes],
) -> web.StreamResponse:
    """Bytes as they come."""
    headers = {"Content-Type": "text/plain; charset=utf-8", "Cache-Control": "no-store"}
    response = web.StreamResponse(headers=headers)
    try:
        await response.prepare(request)
        async for piece in pieces:
            if not _is_open(request):
                return response
            if piece:
                await _write(response, piece)
        await response.write_eof()
    except (ConnectionError, TimeoutError):
        # Nobody reads any more.
        pass
    return response


async def log_pieces(
    service: Service, outputs: Outputs, task_id: str, *, step: Step | None, offset: int, following: bool
) -> AsyncIterator[bytes]:
    """The output of one step, or of all in order; `offset` counts over what is sent of them."""
    for part in (step,) if step is not None else tuple(Step):
        stream = await outputs.stream(task_id, part)
        going = _going(service, task_id, part)

        def notice(stream: Stream, part: Step = part, going: Callable[[], bool] = going) -> bytes:
            """Said at the end only: its length counts in the offsets, and what is missing grows until then."""
            task = service.state.tasks.get(task_id)
            result = task.result_of(part) if task is not None else None
            return b"" if going() else cut_notice(stream, result.log_bytes if result is not None else 0)

        sent = stream.kept + len(notice(stream))
        if offset >= sent and not going():
            offset -= sent
            continue
        pieces = follow(
            outputs,
            task_id,
            part,
            offset,
            going=going if following else _never,
            notice=notice,
            look_again_seconds=LOOK_SECONDS,
        )
        async for piece in pieces:
            yield piece
        offset = 0


async def task_answer(service: Service, outputs: Outputs, task: TaskEntry) -> Task:
    """The answer of `GET /tasks/{id}`, with the present end of the output."""
    slot = service.state.slots[task.slot]
    holds = slot.task_id == task.task_id
    answer = {}
    for step in Step:
        result = task.result_of(step)
        if result is not None:
            received, tail = 0, ""
            with suppress(OSError):
                # The result is answered whether or not its output can be read.
                received, tail = await outputs.tail(task.task_id, step)
            result = replace(result, log_bytes=max(received, result.log_bytes), log_tail=tail or result.log_tail)
            with suppress(OSError):
                kept, _ = await outputs.kept(task.task_id, step)
                end = await outputs.end(task.task_id, step)
                result = replace(result, log_kept_bytes=kept, log_end_bytes=len(end))
        answer[step.value] = result
    return Task(
        task_id=task.task_id,
        task_type=task.task_type,
        name=task.name,
        attempt=task.attempt,
        slot=task.slot,
        state=task.state,
        step=task.step,
        plan=answer["plan"],
        apply=answer["apply"],
        outcome=task.outcome,
        reason=task.reason,
        plan_digest=task.plan_digest,
        cancel_requested=task.cancel_requested,
        expires_at=slot.expires_at + service.shift if holds and slot.expires_at is not None else None,
        has_outputs=await outputs.has(task.task_id) if task.state is TaskState.ENDED else None,
    )


def _going(service: Service, task_id: str, step: Step) -> Callable[[], bool]:
    def going() -> bool:
        task = service.state.tasks.get(task_id)
        if task is None or task.state is TaskState.ENDED or service.stopping:
            return False
        return step is Step.APPLY or (task.step is step and task.state is not TaskState.RESERVED)

    return going


def _never() -> bool:
    return False


def _is_open(request: web.BaseRequest) -> bool:
    transport = request.transport
    return transport is not None and not transport.is_closing()


async def _write(response: web.StreamResponse, data: bytes) -> None:
    async with asyncio.timeout(WRITE_SECONDS):
        await response.write(data)
