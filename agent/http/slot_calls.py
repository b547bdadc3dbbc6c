"""The calls on slots: reading them, acquiring one, and what its holder and the controller do with it."""

from dataclasses import replace

from aiohttp import hdrs, web

from agent.auth import Identity, Kind
from agent.counters import WATCH
from agent.errors import Refusal
from agent.http.asked import Asked, Parts
from agent.http.bodies import JSON_HEADERS, prefers_text, read_flag, read_integer, respond
from agent.http.streams import watch
from agent.http.text_table import render as render_table
from agent.http.validation import check_fence, check_name, check_seconds, check_task_id, check_task_type, check_work
from agent.rules import slots
from agent.rules.recovery import vouch
from agent.rules.state import Event
from agent.wire import AcquireRequest, DrainRequest, ErrorCode, HoldRequest, Origin, PhaseAnswer

MAX_SLOT_DIGITS = 3
"""More than enough for 16 slots."""


async def read(parts: Parts, asked: Asked[None]) -> web.StreamResponse:
    """The state: as JSON, as a table for people, or as a stream of its changes."""
    request, service = asked.request, parts.service
    if request.query_string:
        query = request.query
        revision = read_integer(query.get("revision"), "revision")
        if read_flag(query.get("watch"), "watch"):
            service.counters.requests[WATCH] += 1
            return await watch(request, service, revision)
    if prefers_text(request.headers.get(hdrs.ACCEPT, "")):
        return web.Response(text=render_table(service.view, parts.now()))
    return web.Response(body=service.body, headers=JSON_HEADERS)


async def acquire(parts: Parts, asked: Asked[AcquireRequest]) -> web.StreamResponse:
    """Give a task a slot."""
    body, origin = asked.body, _origin(asked.identity)
    parts.check(asked.identity, body)
    check_task_id(body.task_id)
    check_task_type(body.task_type)
    if body.work is not None:
        if origin is Origin.LOCAL:
            raise Refusal(ErrorCode.FORBIDDEN, "a local holder does its work itself; leave `work` out")
        if not parts.with_workers:
            raise Refusal(ErrorCode.INVALID, "work: this Pod has no workers")
        check_work(body.work)
    command = slots.Acquire(task_id=body.task_id, task_type=body.task_type, work=body.work, origin=origin)
    return respond(await parts.service.execute(lambda state, now: slots.decide(state, command, now)))


async def reserve(parts: Parts, asked: Asked[HoldRequest]) -> web.StreamResponse:
    """A holder keeps its slot and waits."""
    return await _hold(Event.RESERVE, parts, asked)


async def resume(parts: Parts, asked: Asked[HoldRequest]) -> web.StreamResponse:
    """A holder goes on."""
    return await _hold(Event.RESUME, parts, asked)


async def release(parts: Parts, asked: Asked[HoldRequest]) -> web.StreamResponse:
    """A holder gives its slot back."""
    return await _hold(Event.RELEASE, parts, asked)


async def _hold(call: Event, parts: Parts, asked: Asked[HoldRequest]) -> web.StreamResponse:
    body, slot = asked.body, asked.part
    parts.check(asked.identity, body)
    check_task_id(body.task_id)
    check_seconds("ttl_seconds", body.ttl_seconds)
    check_fence(body.fence)
    if not (slot.isascii() and slot.isdigit() and len(slot) <= MAX_SLOT_DIGITS):
        raise Refusal(ErrorCode.NOT_FOUND, f"there is no slot {slot[:20]!r}")
    command = slots.Hold(
        call=call,
        slot=int(slot),
        task_id=body.task_id,
        fence=body.fence,
        origin=_origin(asked.identity),
        ttl_seconds=body.ttl_seconds,
    )
    speaks_for_slots = not parts.with_workers and asked.identity.kind is not Kind.POOL
    decide = vouch if speaks_for_slots else slots.decide
    answer = await parts.service.execute(lambda state, now: decide(state, command, now))
    if answer.expires_at is not None:
        answer = replace(answer, expires_at=answer.expires_at + parts.service.shift)
    return respond(answer)


def _origin(identity: Identity) -> Origin:
    return Origin.CONTROLLER if identity.kind is Kind.POOL else Origin.LOCAL


async def open_again(parts: Parts, asked: Asked[DrainRequest]) -> web.StreamResponse:
    """Take back a drain."""
    return await _change_phase(slots.Open(drain_id=asked.body.drain_id), parts, asked)


async def drain(parts: Parts, asked: Asked[DrainRequest]) -> web.StreamResponse:
    """Take no new work, if nothing is held."""
    return await _change_phase(slots.Drain(drain_id=asked.body.drain_id), parts, asked)


async def _change_phase(
    command: slots.Open | slots.Drain, parts: Parts, asked: Asked[DrainRequest]
) -> web.StreamResponse:
    parts.check(asked.identity, asked.body)
    check_name("drain_id", command.drain_id)
    service = parts.service
    await service.execute(lambda state, now: slots.decide(state, command, now))
    state = service.state
    return respond(PhaseAnswer(phase=state.phase, drain_id=state.drain_id, revision=service.revision))
