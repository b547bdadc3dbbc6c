"""The calls on tasks with work: their state and output, approval, cancel and acknowledgement."""

from aiohttp import hdrs, web

from agent.errors import Refusal
from agent.http.asked import Asked, Parts
from agent.http.bodies import MAX_BODY_BYTES, read_flag, read_integer, read_step, respond
from agent.http.streams import log_pieces, send_log, task_answer
from agent.http.validation import check_task_id
from agent.rules import tasks
from agent.rules.state import TaskEntry
from agent.wire import AckRequest, ApproveRequest, CancelRequest, Empty, ErrorCode, Step, TaskState

BYTES_HEADERS = {hdrs.CONTENT_TYPE: "application/octet-stream", hdrs.CACHE_CONTROL: "no-store"}


async def read(parts: Parts, asked: Asked[None]) -> web.StreamResponse:
    """A task's state."""
    return await _answer(parts, asked.part)


async def log(parts: Parts, asked: Asked[None]) -> web.StreamResponse:
    """A task's output as it comes, or a part of one step's as it is kept."""
    query, task_id = asked.request.query, asked.part
    _known_task(parts, task_id)
    offset = read_integer(query.get("offset"), "offset") or 0
    if "part" in query:
        return await _log_part(parts, task_id, query["part"], read_step(query.get("step", Step.PLAN)), offset)
    pieces = log_pieces(
        parts.service,
        parts.outputs,
        task_id,
        step=read_step(query["step"]) if "step" in query else None,
        offset=offset,
        following=read_flag(query.get("follow"), "follow"),
    )
    return await send_log(asked.request, pieces)


async def _log_part(parts: Parts, task_id: str, part: str, step: Step, offset: int) -> web.Response:
    """`page`: up to MAX_BODY_BYTES of what is kept, from an offset on; `end`: the end of what was too much to keep."""
    if part == "end":
        return web.Response(body=await parts.outputs.end(task_id, step), headers=BYTES_HEADERS)
    if part != "page":
        raise Refusal(ErrorCode.BAD_REQUEST, "part: `page` or `end`")
    return web.Response(body=await parts.outputs.page(task_id, step, offset, MAX_BODY_BYTES), headers=BYTES_HEADERS)


async def outputs(parts: Parts, asked: Asked[None]) -> web.StreamResponse:
    """The file that a task handed over. It is for a Secret: only the pool's token reads it."""
    _known_task(parts, asked.part)
    content = await parts.outputs.got(asked.part)
    if content is None:
        raise Refusal(ErrorCode.NOT_FOUND, "the task has handed over no file")
    return web.Response(body=content, headers=BYTES_HEADERS)


async def approve(parts: Parts, asked: Asked[ApproveRequest]) -> web.StreamResponse:
    """Let the apply run."""
    body = asked.body
    command = tasks.Approve(task_id=asked.part, plan_digest=body.plan_digest, attempt=body.attempt)
    await _execute(parts, asked, command)
    return await _answer(parts, asked.part)


async def cancel(parts: Parts, asked: Asked[CancelRequest]) -> web.StreamResponse:
    """End the task."""
    await _execute(parts, asked, tasks.Cancel(task_id=asked.part))
    return await _answer(parts, asked.part)


async def acknowledge(parts: Parts, asked: Asked[AckRequest]) -> web.StreamResponse:
    """The result is stored elsewhere: forget the task."""
    parts.check(asked.identity, asked.body)
    check_task_id(asked.part)
    task = parts.service.state.tasks.get(asked.part)
    if task is not None and task.state is TaskState.ENDED:
        # First: on a full disk the journal may need the room to take the acknowledgement.
        await parts.outputs.forget([asked.part])
    command = tasks.Ack(task_id=asked.part)
    await parts.service.execute(lambda state, now: tasks.decide(state, command, now))
    return respond(Empty())


async def _execute(
    parts: Parts, asked: Asked[ApproveRequest] | Asked[CancelRequest], command: tasks.Approve | tasks.Cancel
) -> None:
    parts.check(asked.identity, asked.body)
    check_task_id(asked.part)
    await parts.service.execute(lambda state, now: tasks.decide(state, command, now))


async def _answer(parts: Parts, task_id: str) -> web.Response:
    return respond(await task_answer(parts.service, parts.outputs, _known_task(parts, task_id)))


def _known_task(parts: Parts, task_id: str) -> TaskEntry:
    check_task_id(task_id)
    return tasks.find_task(parts.service.state, task_id)
