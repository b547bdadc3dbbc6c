"""The calls on the agent itself: its health, its figures, what it can be asked, and its end."""

from aiohttp import hdrs, web

from agent.http.asked import Asked, Parts
from agent.http.bodies import respond
from agent.wire import Empty

TEXT_HEADERS = {hdrs.CONTENT_TYPE: "text/plain; charset=utf-8"}


async def health(parts: Parts, asked: Asked[None]) -> web.StreamResponse:
    """It serves. Whether a slot is free is no part of it."""
    del parts, asked
    return web.Response(body=b"ok\n", headers=TEXT_HEADERS)


async def metrics(parts: Parts, asked: Asked[None]) -> web.StreamResponse:
    """The figures, as Prometheus scrapes them."""
    body, content_type = parts.service.render_metrics(asked.request.headers.get(hdrs.ACCEPT, ""))
    return web.Response(body=body, headers={hdrs.CONTENT_TYPE: content_type})


async def openapi(parts: Parts, asked: Asked[None]) -> web.StreamResponse:
    """The calls that there are."""
    del parts, asked
    from agent.http.openapi import document  # noqa: PLC0415 - it is made from the table that this handler stands in

    return respond(document())


async def close(parts: Parts, asked: Asked[None]) -> web.StreamResponse:
    """The Pod is being stopped."""
    del asked
    parts.service.close()
    return respond(Empty())
