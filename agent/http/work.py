"""The calls below /work: what a worker says over HTTP, for `workers`. The credential has said which slot it is."""

from aiohttp import web

from agent.auth import Identity
from agent.http.bodies import read_body, read_bytes, read_integer, read_step, respond
from agent.http.validation import check_fence, check_name, check_task_id
from agent.service import Service
from agent.wire import Empty, ExitReport, OutputAnswer, RegisterRequest, StartedReport
from agent.workers import Workers

MAX_REGISTER_BYTES = 4 << 20
"""A worker lists every task it keeps, without the files of those that were started."""


class WorkCalls:
    """Handlers, as `routes` routes to them."""

    def __init__(self, service: Service, workers: Workers) -> None:
        self._service = service
        self._workers = workers

    async def register(self, request: web.BaseRequest, identity: Identity, part: str) -> web.StreamResponse:
        """A worker instance takes over its slot."""
        del part
        asked = await read_body(request.clone(client_max_size=MAX_REGISTER_BYTES), RegisterRequest)
        check_name("instance", asked.instance)
        for kept in asked.tasks:
            check_task_id(kept.assignment.task_id)
            check_fence(kept.assignment.fence)
        return respond(await self._workers.register(identity.slot, asked))

    async def poll(self, request: web.BaseRequest, identity: Identity, part: str) -> web.StreamResponse:
        """What the worker is to do; held until there is something."""
        del part
        query = request.query
        answer = await self._workers.poll(
            identity.slot,
            query.get("instance", ""),
            query.get("task_id"),
            read_step(query["step"]) if "step" in query else None,
            listening=lambda: request.transport is not None and not self._service.stopping,
        )
        return respond(answer)

    async def started(self, request: web.BaseRequest, identity: Identity, part: str) -> web.StreamResponse:
        """The worker's command is about to run."""
        del part
        await self._workers.started(identity.slot, await read_body(request, StartedReport))
        return respond(Empty())

    async def exit(self, request: web.BaseRequest, identity: Identity, part: str) -> web.StreamResponse:
        """The worker's step ended."""
        del part
        await self._workers.exited(identity.slot, await read_body(request, ExitReport))
        return respond(Empty())

    async def output(self, request: web.BaseRequest, identity: Identity, part: str) -> web.StreamResponse:
        """The worker's step has written more."""
        del part
        query = request.query
        task_id = query.get("task_id", "")
        check_task_id(task_id)
        data = await read_bytes(request)
        have = await self._workers.output(
            identity.slot,
            instance=query.get("instance", ""),
            task_id=task_id,
            step=read_step(query.get("step", "")),
            offset=read_integer(query.get("offset"), "offset") or 0,
            data=data,
        )
        return respond(OutputAnswer(offset=have))
