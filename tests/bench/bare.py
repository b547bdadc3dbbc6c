"""The references that serve: aiohttp as its documentation has it, on uvloop, with nothing in the handlers.

Run as `python -m tests.bench.bare HOST PORT MODE`, with the answer's bytes on stdin.
"""

import asyncio
import sys

import uvloop
from aiohttp import web

HEADERS = {"Content-Type": "application/json"}


def reading(body: bytes) -> web.Application:
    """`GET /slots` is answered by the same bytes each time."""

    async def slots(_: web.Request) -> web.Response:
        return web.Response(body=body, headers=HEADERS)

    application = web.Application()
    application.router.add_get("/slots", slots)
    return application


def writing() -> web.Application:
    """Reads a JSON body, answers with a little JSON."""
    import orjson  # noqa: PLC0415 - the other modes have no use for it, and are measured for their memory

    async def acquire(request: web.Request) -> web.Response:
        asked = orjson.loads(await request.read())
        return web.Response(body=orjson.dumps({"slot": 0, "fence": len(asked)}), headers=HEADERS)

    application = web.Application()
    application.router.add_post("/slots/acquire", acquire)
    return application


def measured(body: bytes) -> web.Application:
    """A service with metrics: what memory a program of this kind starts from."""
    from prometheus_client import Counter, generate_latest  # noqa: PLC0415

    requests = Counter("requests", "Requests")

    async def slots(_: web.Request) -> web.Response:
        requests.inc()
        return web.Response(body=body, headers=HEADERS)

    async def acquire(request: web.Request) -> web.Response:
        requests.inc()
        await request.read()
        return web.Response(body=b"{}", headers=HEADERS)

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest())

    application = web.Application()
    application.router.add_get("/slots", slots)
    application.router.add_post("/slots/acquire", acquire)
    application.router.add_get("/metrics", metrics)
    return application


async def serve(host: str, port: int, mode: str) -> None:
    body = sys.stdin.buffer.read()
    application = writing() if mode == "writing" else measured(body) if mode == "measured" else reading(body)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, host, port).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as loop:
        loop.run(serve(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
