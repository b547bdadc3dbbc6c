"""The controller's own HTTP server: health, metrics, the status page and its API. All of it is read-only.

A setting says which pages need a token (`controller.config.Guarded`). A request from this Pod itself, as by `kubectl
port-forward`, may need none: the API server has checked already who may forward to this Pod.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterable
from importlib import resources
from importlib.metadata import PackageNotFoundError, version
from typing import Any, TypeVar

import orjson
from aiohttp import web
from prometheus_client import CollectorRegistry

from agent.wire import RECOVERING, SlotState
from controller.app import Controller
from controller.config import Config, Guarded
from controller.errors import ApiError, ApiUnavailable
from controller.status_page import schema
from controller.status_page.access import Reviewer, Verdict, right_to
from controller.status_page.live import FORMAT, Live, TooManyReaders
from controller.status_page.model import MOST_LISTED, SILENT, Listed, PodsWanted, PoolKnown
from controller.status_page.pod_entries import pods_said
from controller.status_page.pool_entries import pool_said
from controller.status_page.task_entries import merged_plans, merged_queue, plans_said, queue_said
from metrics.exposition import render

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

T = TypeVar("T")

PAGE_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-store",
}
"""Nothing but this server's own files, no code in texts, and in nobody's frame."""

_ASSETS = {
    "index.html": "text/html",
    "page.css": "text/css",
    "page.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}
_OPEN = frozenset({"/healthz", "/readyz"})
_ASSETS_AT = "/assets/"
_METRICS = "/metrics"

log = logging.getLogger(__name__)

_LOOPBACK = frozenset({"127.0.0.1", "::1"})
"""Whence a forwarded port comes. Not all of 127.0.0.0/8: proxies of service meshes hand on from 127.0.0.6."""
_LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})
"""Another name that resolves to loopback is refused: pages of other sites read local servers that way."""

_SLOW_SECONDS = 10.0
"""A reader that takes nothing for so long is dropped."""

MOST_AT_ONCE = 500


class _BadQuery(Exception):
    """A parameter that can't be used. The text says which."""


def create_app(
    controller: Controller,
    registry: CollectorRegistry,
    config: Config,
    reviewer: Reviewer,
    live: Live | None = None,
) -> web.Application:
    """The application: `/`, `/api/v1/…`, `/healthz`, `/readyz`, `/metrics`."""
    live = live or Live(controller)
    app = web.Application(middlewares=[_with_headers, _guard(config, reviewer)])
    files = {name: _asset(name) for name in _ASSETS}

    async def metrics(request: web.Request) -> web.Response:
        body, content_type = render(registry, request.headers.get("Accept", ""))
        return web.Response(body=body, headers={"Content-Type": content_type})

    async def page(request: web.Request) -> web.Response:
        del request
        return _file("index.html", files["index.html"])

    async def asset(request: web.Request) -> web.Response:
        name = request.match_info["name"]
        if name not in files:
            raise web.HTTPNotFound
        return _file(name, files[name])

    app.router.add_get("/", page)
    app.router.add_get(_ASSETS_AT + "{name}", asset)
    app.router.add_get(_METRICS, metrics)
    app.router.add_get("/healthz", _probe(controller.healthy, "reconciling has stopped"))
    app.router.add_get("/readyz", _probe(lambda: controller.synced, "not everything was read yet"))
    Calls(live, controller, config, reviewer).add_to(app)

    async def end_streams(_: web.Application) -> None:
        live.close()

    app.on_shutdown.append(end_streams)
    return app


class Calls:
    """The calls of the page's API: who may read what, and the answers as JSON."""

    def __init__(self, live: Live, controller: Controller, config: Config, reviewer: Reviewer) -> None:
        self._live = live
        self._controller = controller
        self._config = config
        self._reviewer = reviewer
        self._described = orjson.dumps(schema.document(_version()))

    def add_to(self, app: web.Application) -> None:
        """Add the routes."""
        for name, handler in (
            ("status", self.status),
            ("pools", self.pools),
            ("plans", self.plans),
            ("queue", self.queue),
            ("pods", self.pods),
            ("decisions", self.decisions),
            ("openapi.json", self.openapi),
        ):
            app.router.add_get(f"/api/v1/{name}", handler)
        app.router.add_get("/api/v1/stream", self.stream, allow_head=False)

    async def status(self, request: web.Request) -> web.Response:
        """Everything but the Pods."""
        del request
        return _json((await self._live.latest()).body(self._live.now))

    async def pools(self, request: web.Request) -> web.Response:
        """A page of the pools."""
        known = [pool_said(pool, 0) for pool in await self._chosen(request)]
        return _json(_page(known, *_range(request)))

    async def plans(self, request: web.Request) -> web.Response:
        """A page of the plans that await an approval."""
        offset, limit = _range(request)
        most = offset + limit
        found = merged_plans((plans_said(pool.tasks, most) for pool in await self._chosen(request)), most)
        return _json(Listed(total=found.total, items=found.items[offset:]))

    async def queue(self, request: web.Request) -> web.Response:
        """A page of the queue."""
        offset, limit = _range(request)
        most = offset + limit
        parts = (queue_said(pool.tasks, pool.unreadable, most) for pool in await self._chosen(request))
        found = merged_queue(parts, most)
        return _json(Listed(total=found.total, items=found.items[offset:]))

    async def pods(self, request: web.Request) -> web.Response:
        """A page of the Pods."""
        wanted = _pods_wanted(request)
        return _json(pods_said(await self._chosen(request), wanted))

    async def decisions(self, request: web.Request) -> web.Response:
        """What was decided lately."""
        return _json(_page(self._controller.events.recent.newest_first(), *_range(request)))

    async def openapi(self, request: web.Request) -> web.Response:
        """This API's description."""
        del request
        return _json(self._described)

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """Server-sent events, until the reader goes, is too slow, or may not read any more."""
        since = request.headers.get("Last-Event-ID") or request.query.get("since")
        events = self._live.follow(since)
        first = await anext(events)
        response = web.StreamResponse(headers={**PAGE_HEADERS, "X-Accel-Buffering": "no"})
        response.content_type = "text/event-stream"
        async with contextlib.aclosing(events):
            try:
                await response.prepare(request)
                await _write(response, first)
                async for event in events:
                    if await refusal(request, self._config, self._reviewer) is not None:
                        break
                    await _write(response, event)
            except (TimeoutError, ConnectionError):
                if request.transport is not None:
                    request.transport.abort()
        return response

    async def _chosen(self, request: web.Request) -> list[PoolKnown]:
        """The pools that a query names."""
        namespace, name = request.query.get("namespace"), request.query.get("pool")
        if namespace and name:
            return await self._live.pools({(namespace, name)})
        return [
            pool
            for pool in await self._live.pools()
            if namespace in {None, "", pool.namespace} and name in {None, "", pool.name}
        ]


async def _write(response: web.StreamResponse, event: bytes) -> None:
    async with asyncio.timeout(_SLOW_SECONDS):
        await response.write(event)


def _pods_wanted(request: web.Request) -> PodsWanted:
    offset, limit = _range(request)
    states = ("", *(state.value for state in SlotState), RECOVERING, SILENT)
    return PodsWanted(
        state=_choice(request, "state", states),
        text=request.query.get("text", ""),
        oldest_first=_choice(request, "sort", ("", "name", "age")) == "age",
        offset=offset,
        limit=limit,
    )


def _choice(request: web.Request, name: str, options: tuple[str, ...]) -> str:
    value = request.query.get(name, "")
    if value not in options:
        raise _BadQuery(f"{name} is one of {', '.join(filter(None, options))}")
    return value


def _range(request: web.Request) -> tuple[int, int]:
    """Offset and limit."""
    found = []
    for name, default, most in (("offset", 0, 10**6), ("limit", MOST_LISTED, MOST_AT_ONCE)):
        text = request.query.get(name, str(default))
        if not (text.isascii() and text.isdecimal() and len(text) <= len(str(most)) and int(text) <= most):
            raise _BadQuery(f"{name} is a number from 0 to {most}")
        found.append(int(text))
    return found[0], found[1]


def _page(entries: Iterable[T], offset: int, limit: int) -> Listed[T]:
    every = list(entries)
    return Listed(total=len(every), items=tuple(every[offset : offset + limit]))


# --- answers ----------------------------------------------------------------------------------------------------------


def _json(value: Any) -> web.Response:
    body = value if isinstance(value, bytes) else orjson.dumps(value, option=FORMAT)
    return web.Response(body=body, content_type="application/json")


def _problem(status: int, error: str, message: str) -> web.Response:
    response = _json({"error": error, "message": message})
    response.set_status(status)
    if status == web.HTTPUnauthorized.status_code:
        response.headers["WWW-Authenticate"] = "Bearer"
    return response


def _asset(name: str) -> bytes:
    return resources.files("controller.status_page").joinpath("assets", name).read_bytes()


def _file(name: str, content: bytes) -> web.Response:
    return web.Response(body=content, content_type=_ASSETS[name], charset="utf-8")


def _probe(check: Callable[[], bool], problem: str) -> Handler:
    async def probe(request: web.Request) -> web.Response:
        del request
        fine = check()
        return web.Response(text="ok\n" if fine else f"{problem}\n", status=200 if fine else 503)

    return probe


def _version() -> str:
    try:
        return version("podslots")
    except PackageNotFoundError:
        return "unknown"


@web.middleware
async def _with_headers(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        response = await handler(request)
    except _BadQuery as error:
        response = _problem(400, "bad_request", str(error))
    except TooManyReaders as error:
        response = _problem(503, "too_many_readers", str(error))
    except web.HTTPNotFound:
        response = _problem(404, "not_found", f"there is nothing here; what there is: {', '.join(_paths(request))}")
    except web.HTTPMethodNotAllowed as error:
        allowed = ", ".join(sorted(error.allowed_methods))
        response = _problem(405, "method_not_allowed", f"nothing is written here; allowed: {allowed}")
        response.headers["Allow"] = allowed
    except web.HTTPException as error:
        error.headers.update(PAGE_HEADERS)
        raise
    except (ConnectionError, TimeoutError):
        raise
    except Exception:
        log.exception("a request of the status page broke")
        response = _problem(500, "internal", "see the controller's log")
    if not response.prepared:
        response.headers.update(PAGE_HEADERS)
    return response


def _paths(request: web.Request) -> list[str]:
    return sorted({resource.canonical for resource in request.app.router.resources()})


# --- who may read -----------------------------------------------------------------------------------------------------


def _guard(config: Config, reviewer: Reviewer) -> Any:
    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        refused = await refusal(request, config, reviewer)
        return await handler(request) if refused is None else refused

    return guard


async def refusal(request: web.Request, config: Config, reviewer: Reviewer) -> web.Response | None:
    """The answer to a request that is not to be served; None if it is."""
    if not _takes_token(request.path, config.guarded) or (config.trust_loopback and _is_from_here(request)):
        return None
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        return _problem(401, "unauthorized", "a bearer token is needed; `kubectl port-forward` to this Pod needs none")
    try:
        verdict = await reviewer.judge(token.strip(), request.path)
    except (ApiError, ApiUnavailable, TimeoutError) as error:
        return _problem(503, "unavailable", f"tokens can't be checked now: {error or 'no answer in time'}")
    match verdict:
        case Verdict.ALLOWED:
            return None
        case Verdict.FORBIDDEN:
            return _problem(403, "forbidden", f"this needs `get` on the nonResourceURL {right_to(request.path)}")
        case Verdict.UNKNOWN:
            return _problem(401, "unauthorized", "the API server does not know this token")


def _takes_token(path: str, guarded: Guarded) -> bool:
    """The page's files contain nothing about what runs here."""
    if path in _OPEN or path.startswith(_ASSETS_AT):
        return False
    return guarded is Guarded.ALL or (guarded is Guarded.PAGE and path != _METRICS)


def _is_from_here(request: web.Request) -> bool:
    if request.remote not in _LOOPBACK:
        return False
    try:
        return (request.url.host or "") in _LOOPBACK_HOSTS
    except ValueError:  # of a header Host that names no host
        return False
