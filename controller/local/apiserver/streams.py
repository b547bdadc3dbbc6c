"""Answers without an end: watches and container logs, sent as they come."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime

from aiohttp import web

from controller.local.apiserver.errors import ApiError, bad_request
from controller.local.apiserver.logs import parse as parse_log_options
from controller.local.apiserver.store.versions import Record
from controller.local.apiserver.watch_hub import WatchHub
from controller.local.log_source import LogSource, LogUnavailableError


async def send_events(
    request: web.Request, events: AsyncIterator[bytes], hub: WatchHub, audit_id: str
) -> web.StreamResponse:
    """Sends a watch until it ends, its client goes, or the hub cuts all watches."""
    response = web.StreamResponse(headers={"Content-Type": "application/json", "Audit-Id": audit_id})
    epoch = hub.epoch
    try:
        await response.prepare(request)
        async for lines in events:
            if lines:
                await response.write(lines)
            elif gone(request):
                break
        if hub.epoch != epoch:
            abort(request)  # cut in the middle, as by a dying load balancer, not ended politely
        else:
            await response.write_eof()
    except ConnectionError:
        pass  # the client has gone, which is how most watches end
    return response


async def open_log(
    request: web.Request, pod: Record, source: LogSource | None, now: datetime
) -> tuple[bytes, AsyncIterator[bytes]]:
    """The first piece of a container's log, and the rest to come. Raises ApiError."""
    options = parse_log_options(pod, request.query, now)
    if not pod.body["spec"].get("nodeName"):
        raise bad_request(f"pod {pod.name} does not have a host assigned")
    if source is None:
        raise ApiError(503, "ServiceUnavailable", "no kubelet is registered", {})
    pieces = source.stream(pod.namespace, pod.name, pod.uid, options)
    try:
        return await anext(pieces, b""), pieces
    except LogUnavailableError as error:
        raise bad_request(str(error)) from error


async def send_log(
    request: web.Request, first: bytes, pieces: AsyncIterator[bytes], audit_id: str
) -> web.StreamResponse:
    """Sends a log until it ends or its reader goes."""
    response = web.StreamResponse(headers={"Content-Type": "text/plain", "Audit-Id": audit_id})
    try:
        await response.prepare(request)
        await response.write(first)
        async for piece in pieces:
            if gone(request):
                break
            await response.write(piece)
        await response.write_eof()
    except ConnectionError:
        pass  # the reader has gone
    return response


def gone(request: web.Request) -> bool:
    """True once the client has closed the connection."""
    return request.transport is None or request.transport.is_closing()


def abort(request: web.Request) -> None:
    """Closes the connection without an answer, as a cut network does."""
    if request.transport is not None:
        request.transport.abort()
