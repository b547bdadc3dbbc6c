"""The calls below /work: what a worker says over HTTP, for `workers`. The credential has said which slot it is."""

from aiohttp import web

from agent.http.asked import Asked, Parts
from agent.http.bodies import read_integer, read_step, respond
from agent.http.validation import check_fence, check_name, check_task_id
from agent.wire import Empty, ExitReport, OutputAnswer, RegisterRequest, StartedReport


async def register(parts: Parts, asked: Asked[RegisterRequest]) -> web.StreamResponse:
    """A worker instance takes over its slot."""
    body = asked.body
    check_name("instance", body.instance)
    for kept in body.tasks:
        check_task_id(kept.assignment.task_id)
        check_fence(kept.assignment.fence)
    return respond(await parts.workers.register(asked.identity.slot, body))


async def poll(parts: Parts, asked: Asked[None]) -> web.StreamResponse:
    """What the worker is to do; held until there is something."""
    request = asked.request
    query = request.query
    answer = await parts.workers.poll(
        asked.identity.slot,
        query.get("instance", ""),
        query.get("task_id"),
        read_step(query["step"]) if "step" in query else None,
        listening=lambda: request.transport is not None and not parts.service.stopping,
    )
    return respond(answer)


async def started(parts: Parts, asked: Asked[StartedReport]) -> web.StreamResponse:
    """The worker's command is about to run."""
    await parts.workers.started(asked.identity.slot, asked.body)
    return respond(Empty())


async def output(parts: Parts, asked: Asked[bytes]) -> web.StreamResponse:
    """The worker's step has written more."""
    query = asked.request.query
    task_id = query.get("task_id", "")
    check_task_id(task_id)
    have = await parts.workers.output(
        asked.identity.slot,
        instance=query.get("instance", ""),
        task_id=task_id,
        step=read_step(query.get("step", "")),
        offset=read_integer(query.get("offset"), "offset") or 0,
        data=asked.body,
    )
    return respond(OutputAnswer(offset=have))


async def ended(parts: Parts, asked: Asked[ExitReport]) -> web.StreamResponse:
    """The worker's step ended."""
    await parts.workers.exited(asked.identity.slot, asked.body)
    return respond(Empty())
