"""HTTP in front of the service: who may call, what the request says, and how the answer is written.

The router is a table of our own over aiohttp's low-level server: the paths are few, and `GET /slots` and the acquire
are in every controller's loop.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from http import HTTPStatus
from urllib.parse import unquote

from aiohttp import hdrs, web

from agent.auth import Identity, Kind
from agent.codec import WireError
from agent.counters import RequestKind
from agent.errors import Refusal
from agent.http.access import CLOSERS, HOLDERS, POOL_ONLY, READERS, WORKERS, Access
from agent.http.bodies import (
    MAX_BODY_BYTES,
    dump,
    prefers_text,
    read_body,
    read_flag,
    read_integer,
    read_step,
    respond,
    too_large,
)
from agent.http.ready_answers import JSON_HEADERS, Answers
from agent.http.streams import log_pieces, send_log, task_answer, watch
from agent.http.text_table import render as render_table
from agent.http.validation import check_fence, check_name, check_seconds, check_task_id, check_task_type, check_work
from agent.http.work import WorkCalls
from agent.log import Log, place_of
from agent.rules import slots, tasks
from agent.rules.recovery import vouch
from agent.rules.state import Event, TaskEntry
from agent.service import Service
from agent.store.output import Outputs
from agent.wire import (
    AckRequest,
    AcquireRequest,
    ApproveRequest,
    CancelRequest,
    DrainRequest,
    Empty,
    ErrorCode,
    HoldRequest,
    Origin,
    PhaseAnswer,
    Step,
    TaskState,
    Write,
)
from agent.workers import Workers

BYTES_HEADERS = {hdrs.CONTENT_TYPE: "application/octet-stream", hdrs.CACHE_CONTROL: "no-store"}
TEXT_HEADERS = {hdrs.CONTENT_TYPE: "text/plain; charset=utf-8"}

Handler = Callable[[web.BaseRequest, Identity, str], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class _Route:
    kind: RequestKind
    handler: Handler
    allowed: frozenset[Kind] | None


class HttpApi:
    """Answers every request."""

    def __init__(
        self,
        *,
        service: Service,
        workers: Workers,
        outputs: Outputs,
        access: Access,
        now: Callable[[], datetime],
        log: Log,
        with_workers: bool,
    ) -> None:
        self._service = service
        self._outputs = outputs
        self._access = access
        self._now = now
        self._log = log
        self._with_workers = with_workers
        self._counters = service.counters
        self._requests = self._counters.requests
        self._answers = Answers()
        self.tick()
        self._routes = self._make_routes(WorkCalls(service, workers))

    def _make_routes(self, work: WorkCalls) -> dict[str, dict[str, _Route]]:
        """By path, `*` for the one part that varies, then by method."""
        kinds = RequestKind
        reads: dict[str, tuple[RequestKind, frozenset[Kind] | None, Handler]] = {
            "/slots": (kinds.SLOTS, READERS, self._slots),
            "/tasks/*": (kinds.TASK, READERS, self._task),
            "/tasks/*/log": (kinds.LOG, READERS, self._task_log),
            "/tasks/*/outputs": (kinds.TASK, POOL_ONLY, self._task_outputs),
            "/metrics": (kinds.METRICS, READERS, self._metrics),
            "/healthz": (kinds.HEALTH, None, self._health),
            "/readyz": (kinds.HEALTH, None, self._health),
            "/openapi.json": (kinds.OTHER, READERS, self._openapi),
            "/work": (kinds.POLL, WORKERS, work.poll),
        }
        writes: dict[str, tuple[RequestKind, frozenset[Kind] | None, Handler]] = {
            "/slots/acquire": (kinds.ACQUIRE, HOLDERS, self._acquire),
            "/slots/*/reserve": (kinds.HOLD, HOLDERS, partial(self._hold, Event.RESERVE)),
            "/slots/*/resume": (kinds.HOLD, HOLDERS, partial(self._hold, Event.RESUME)),
            "/slots/*/release": (kinds.HOLD, HOLDERS, partial(self._hold, Event.RELEASE)),
            "/open": (kinds.OPEN, POOL_ONLY, self._open),
            "/drain": (kinds.DRAIN, POOL_ONLY, self._drain),
            "/tasks/*/approve": (kinds.APPROVE, POOL_ONLY, self._approve),
            "/tasks/*/cancel": (kinds.CANCEL, POOL_ONLY, self._cancel),
            "/tasks/*/ack": (kinds.ACK, POOL_ONLY, self._ack),
            "/work/register": (kinds.REGISTER, WORKERS, work.register),
            "/work/started": (kinds.STARTED, WORKERS, work.started),
            "/work/output": (kinds.OUTPUT, WORKERS, work.output),
            "/work/exit": (kinds.EXIT, WORKERS, work.exit),
            "/close": (kinds.CLOSE, CLOSERS, self._close),
        }
        routes: dict[str, dict[str, _Route]] = {}
        for method, calls in ((hdrs.METH_GET, reads), (hdrs.METH_POST, writes)):
            for path, (kind, allowed, handler) in calls.items():
                routes.setdefault(path, {})[method] = _Route(kind, handler, allowed)
        return routes

    def tick(self) -> None:
        """Called every second: answers have a date."""
        self._answers.set_date(self._now())

    # --- every request ----------------------------------------------------------------------------------------------

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """The one handler of the server."""
        plainly = request.raw_path == "/slots" and request.method == "GET" and hdrs.ACCEPT not in request.headers
        if plainly and self._access.reads_are_open:
            # What every reader of state asks for, as fast as it can be said.
            self._requests[RequestKind.SLOTS] += 1
            return self._answers.answer(request, self._service.body)
        try:
            route, part = self._route(request)
            self._requests[route.kind] += 1
            identity = await self._access.admit(request, route.allowed)
            return await route.handler(request, identity, part)
        except Refusal as refusal:
            return self._refuse(request, refusal)
        except WireError as error:
            return self._refuse(request, Refusal(ErrorCode.BAD_REQUEST, str(error)))
        except web.HTTPRequestEntityTooLarge:
            return self._refuse(request, too_large())
        except (ConnectionError, asyncio.CancelledError):
            raise
        except Exception as error:  # noqa: BLE001 - one request's mistake is not the others'
            # Not the error's text, which may quote the request.
            self._log.event("request failed", error=type(error).__name__, at=place_of(error))
            return self._refuse(request, Refusal(ErrorCode.INTERNAL, "see the agent's log"))

    def _route(self, request: web.BaseRequest) -> tuple[_Route, str]:
        path, part = request.raw_path, ""
        if "?" in path or "%" in path or path[:1] != "/":
            path = _plain_path(path.partition("?")[0])
        methods = self._routes.get(path)
        if methods is None:
            pieces = path.split("/")
            if len(pieces) > 2:  # noqa: PLR2004 - "", the first word, the part that varies
                part, pieces[2] = pieces[2], "*"
                methods = self._routes.get("/".join(pieces))
        if methods is None:
            self._requests[RequestKind.OTHER] += 1
            raise Refusal(ErrorCode.NOT_FOUND, f"there is no {path[:200] or 'such path'}")
        route = methods.get(request.method)
        if route is None:
            self._requests[RequestKind.OTHER] += 1
            raise Refusal(ErrorCode.METHOD_NOT_ALLOWED, f"{path[:200]} takes {', '.join(methods)}")
        return route, part

    def _refuse(self, request: web.BaseRequest, refusal: Refusal) -> web.StreamResponse:
        self._counters.refused(refusal.code)
        if refusal.status == HTTPStatus.CONFLICT:
            return self._answers.conflict(request, dump(refusal.body()))
        headers = dict(JSON_HEADERS)
        if refusal.code is ErrorCode.UNAUTHORIZED:
            headers[hdrs.WWW_AUTHENTICATE] = 'Bearer realm="podslots"'
        elif refusal.code is ErrorCode.STORAGE:
            headers[hdrs.RETRY_AFTER] = "1"
        elif refusal.code is ErrorCode.METHOD_NOT_ALLOWED:
            headers[hdrs.ALLOW] = refusal.message.rsplit(" takes ", 1)[-1]
        return web.Response(status=refusal.status, body=dump(refusal.body()), headers=headers)

    def _check(self, identity: Identity, write: Write) -> None:
        """The order of writes is the controller's own affair; a local holder must not disturb it."""
        if identity.kind is Kind.POOL:
            self._service.check(write)
        else:
            self._service.check_address(write)

    # --- slots ------------------------------------------------------------------------------------------------------

    async def _slots(self, request: web.BaseRequest, identity: Identity, part: str) -> web.StreamResponse:
        del identity, part
        if request.query_string:
            query = request.query
            revision = read_integer(query.get("revision"), "revision")
            if read_flag(query.get("watch"), "watch"):
                self._requests[RequestKind.WATCH] += 1
                return await watch(request, self._service, revision)
        accept = request.headers.get(hdrs.ACCEPT)
        if accept is not None and "text/plain" in accept and prefers_text(accept):
            return web.Response(text=render_table(self._service.view, self._now()))
        return web.Response(body=self._service.body, headers=JSON_HEADERS)

    async def _acquire(self, request: web.BaseRequest, identity: Identity, part: str) -> web.StreamResponse:
        del part
        asked = await read_body(request, AcquireRequest)
        self._check(identity, asked)
        check_task_id(asked.task_id)
        check_task_type(asked.task_type)
        origin = Origin.CONTROLLER if identity.kind is Kind.POOL else Origin.LOCAL
        if asked.work is not None:
            if origin is Origin.LOCAL:
                raise Refusal(ErrorCode.FORBIDDEN, "a local holder does its work itself; leave `work` out")
            if not self._with_workers:
                raise Refusal(ErrorCode.INVALID, "work: this Pod has no workers")
            check_work(asked.work)
        command = slots.Acquire(task_id=asked.task_id, task_type=asked.task_type, work=asked.work, origin=origin)
        answer = await self._service.execute(lambda state, now: slots.decide(state, command, now))
        body = b'{"slot":%d,"fence":%d}\n' % (answer.slot, answer.fence)
        return self._answers.answer(request, body)

    async def _hold(self, call: Event, request: web.BaseRequest, identity: Identity, part: str) -> web.StreamResponse:
        asked = await read_body(request, HoldRequest)
        self._check(identity, asked)
        check_task_id(asked.task_id)
        check_seconds("ttl_seconds", asked.ttl_seconds)
        check_fence(asked.fence)
        if not (part.isascii() and part.isdigit() and len(part) <= 3):  # noqa: PLR2004 - 16 slots at most
            raise Refusal(ErrorCode.NOT_FOUND, f"there is no slot {part[:20]!r}")
        command = slots.Hold(
            call=call,
            slot=int(part),
            task_id=asked.task_id,
            fence=asked.fence,
            origin=Origin.CONTROLLER if identity.kind is Kind.POOL else Origin.LOCAL,
            ttl_seconds=asked.ttl_seconds,
        )
        decide = slots.decide if self._with_workers or identity.kind is Kind.POOL else vouch
        answer = await self._service.execute(lambda state, now: decide(state, command, now))
        if answer.expires_at is not None:
            return respond(replace(answer, expires_at=answer.expires_at + self._service.shift))
        body = b'{"slot":%d,"fence":%d,"state":"%b"}\n' % (answer.slot, answer.fence, answer.state.encode())
        return self._answers.answer(request, body)

    async def _open(self, request: web.BaseRequest, identity: Identity, part: str) -> web.StreamResponse:
        del part
        asked = await read_body(request, DrainRequest)
        self._check(identity, asked)
        check_name("drain_id", asked.drain_id)
        command = slots.Open(drain_id=asked.drain_id)
        await self._service.execute(lambda state, now: slots.decide(state, command, now))
        return self._phase()

    async def _drain(self, request: web.BaseRequest, identity: Identity, part: str) -> web.StreamResponse:
        del part
        asked = await read_body(request, DrainRequest)
        self._check(identity, asked)
        check_name("drain_id", asked.drain_id)
        command = slots.Drain(drain_id=asked.drain_id)
        await self._service.execute(lambda state, now: slots.decide(state, command, now))
        return self._phase()

    def _phase(self) -> web.Response:
        state = self._service.state
        return respond(PhaseAnswer(phase=state.phase, drain_id=state.drain_id, revision=self._service.revision))

    # --- tasks ------------------------------------------------------------------------------------------------------

    async def _task(self, request: web.BaseRequest, identity: Identity, part: str) -> web.StreamResponse:
        del request, identity
        return await self._answer_task(part)

    async def _answer_task(self, task_id: str) -> web.Response:
        return respond(await task_answer(self._service, self._outputs, self._known_task(task_id)))

    async def _task_log(self, request: web.BaseRequest, identity: Identity, part: str) -> web.StreamResponse:
        del identity
        self._known_task(part)
        query = request.query
        if "part" in query:
            return await self._log_part(part, query)
        pieces = log_pieces(
            self._service,
            self._outputs,
            part,
            step=read_step(query["step"]) if "step" in query else None,
            offset=read_integer(query.get("offset"), "offset") or 0,
            following=read_flag(query.get("follow"), "follow"),
        )
        return await send_log(request, pieces)

    async def _task_outputs(self, request: web.BaseRequest, identity: Identity, part: str) -> web.StreamResponse:
        """The file that a task handed over. It is for a Secret: only the pool's token reads it."""
        del request, identity
        self._known_task(part)
        content = await self._outputs.got(part)
        if content is None:
            raise Refusal(ErrorCode.NOT_FOUND, "the task has handed over no file")
        return web.Response(body=content, headers=BYTES_HEADERS)

    async def _log_part(self, task_id: str, query: Mapping[str, str]) -> web.Response:
        """A part of one step's output, as it is kept: by offset, or the end of what was too much."""
        step = read_step(query.get("step", Step.PLAN))
        if query["part"] == "end":
            return web.Response(body=await self._outputs.end(task_id, step), headers=BYTES_HEADERS)
        if query["part"] != "page":
            raise Refusal(ErrorCode.BAD_REQUEST, "part: `page` or `end`")
        offset = read_integer(query.get("offset"), "offset") or 0
        return web.Response(body=await self._outputs.page(task_id, step, offset, MAX_BODY_BYTES), headers=BYTES_HEADERS)

    async def _approve(self, request: web.BaseRequest, identity: Identity, part: str) -> web.StreamResponse:
        asked = await read_body(request, ApproveRequest)
        self._check(identity, asked)
        check_task_id(part)
        command = tasks.Approve(task_id=part, plan_digest=asked.plan_digest, attempt=asked.attempt)
        await self._service.execute(lambda state, now: tasks.decide(state, command, now))
        return await self._answer_task(part)

    async def _cancel(self, request: web.BaseRequest, identity: Identity, part: str) -> web.StreamResponse:
        self._check(identity, await read_body(request, CancelRequest, may_be_empty=True))
        check_task_id(part)
        command = tasks.Cancel(task_id=part)
        await self._service.execute(lambda state, now: tasks.decide(state, command, now))
        return await self._answer_task(part)

    async def _ack(self, request: web.BaseRequest, identity: Identity, part: str) -> web.StreamResponse:
        self._check(identity, await read_body(request, AckRequest, may_be_empty=True))
        check_task_id(part)
        task = self._service.state.tasks.get(part)
        if task is not None and task.state is TaskState.ENDED:
            # First: on a full disk the journal may need the room to take the acknowledgement.
            await self._outputs.forget([part])
        command = tasks.Ack(task_id=part)
        await self._service.execute(lambda state, now: tasks.decide(state, command, now))
        return respond(Empty())

    def _known_task(self, task_id: str) -> TaskEntry:
        check_task_id(task_id)
        return tasks.find_task(self._service.state, task_id)

    # --- the agent itself -------------------------------------------------------------------------------------------

    async def _close(self, request: web.BaseRequest, identity: Identity, part: str) -> web.StreamResponse:
        del request, identity, part
        self._service.close()
        return respond(Empty())

    async def _metrics(self, request: web.BaseRequest, identity: Identity, part: str) -> web.StreamResponse:
        del identity, part
        body, content_type = self._service.render_metrics(request.headers.get(hdrs.ACCEPT, ""))
        return web.Response(body=body, headers={hdrs.CONTENT_TYPE: content_type})

    async def _health(self, request: web.BaseRequest, identity: Identity, part: str) -> web.StreamResponse:
        del request, identity, part
        return web.Response(body=b"ok\n", headers=TEXT_HEADERS)

    async def _openapi(self, request: web.BaseRequest, identity: Identity, part: str) -> web.StreamResponse:
        del request, identity, part
        from agent.http.openapi import document  # noqa: PLC0415 - rarely asked for

        return web.Response(body=dump(document()), headers=JSON_HEADERS)


def _plain_path(path: str) -> str:
    """A path without escapes and without scheme and host, which some clients name; empty if it can't be one of ours.

    An escaped slash parts nothing: `/tasks/a%2Fack` must not be the ack of task a.
    """
    if path.startswith(("http://", "https://")):
        path = "/" + path.split("/", 3)[3] if path.count("/") > 2 else "/"  # noqa: PLR2004 - those of `http://host/`
    pieces = [unquote(piece) for piece in path.split("/")]
    return "" if any("/" in piece for piece in pieces) else "/".join(pieces)
