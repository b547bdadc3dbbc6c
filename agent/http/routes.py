"""HTTP in front of the service: finds the call in the table, lets its caller in, reads its body, writes refusals.

The router is a dict of our own over aiohttp's low-level server: the paths are few, and none needs more.
"""

import asyncio
from typing import Any
from urllib.parse import unquote

from aiohttp import hdrs, web

from agent.codec import WireError
from agent.counters import OTHER
from agent.errors import Refusal
from agent.http.access import Access
from agent.http.asked import Asked, Parts
from agent.http.bodies import JSON_HEADERS, dump, read_body, read_json
from agent.http.calls import CALLS, Call
from agent.log import Log, place_of
from agent.wire import ErrorCode

ROUTES: dict[str, dict[str, Call[Any]]] = {}
"""The calls by path, then by method."""
for _call in CALLS:
    ROUTES.setdefault(_call.path, {})[_call.method] = _call


class HttpApi:
    """Answers every request."""

    def __init__(self, parts: Parts, access: Access, log: Log) -> None:
        self._parts = parts
        self._access = access
        self._log = log
        self._counters = parts.service.counters

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """The one handler of the server."""
        try:
            return await self._answer(request)
        except Refusal as refusal:
            return self._refuse(refusal)
        except WireError as error:
            return self._refuse(Refusal(ErrorCode.BAD_REQUEST, str(error)))
        except (ConnectionError, asyncio.CancelledError):
            raise
        except Exception as error:  # noqa: BLE001 - one request's mistake is not the others'
            # Not the error's text, which may quote the request.
            self._log.event("request failed", error=type(error).__name__, at=place_of(error))
            return self._refuse(Refusal(ErrorCode.INTERNAL, "see the agent's log"))

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        call, part = self._find(request.method, request.raw_path)
        self._counters.requests[call.counted] += 1
        identity = await self._access.admit(request, call.who)
        most, may_be_empty = call.max_body_bytes, call.may_be_empty
        if call.as_json:
            body = await read_json(request, max_bytes=most, may_be_empty=may_be_empty)
        else:
            body = await read_body(request, call.body, max_bytes=most, may_be_empty=may_be_empty)
        return await call.handler(self._parts, Asked(request=request, identity=identity, part=part, body=body))

    def _find(self, method: str, target: str) -> tuple[Call[Any], str]:
        """The call, and the value of `{id}` in its path. Raises Refusal not_found, method_not_allowed."""
        path, part = _plain_path(target.partition("?")[0]), ""
        methods = ROUTES.get(path)
        if methods is None:
            pieces = path.split("/")
            if len(pieces) > 2:  # noqa: PLR2004 - "", the first word, the part that varies
                part, pieces[2] = pieces[2], "{id}"
                methods = ROUTES.get("/".join(pieces))
        if methods is not None and method in methods:
            return methods[method], part
        self._counters.requests[OTHER] += 1
        if methods is None:
            raise Refusal(ErrorCode.NOT_FOUND, f"there is no {path[:200] or 'such path'}")
        raise Refusal(ErrorCode.METHOD_NOT_ALLOWED, f"{path[:200]} takes {', '.join(methods)}")

    def _refuse(self, refusal: Refusal) -> web.StreamResponse:
        self._counters.refused(refusal.code)
        headers = dict(JSON_HEADERS)
        if refusal.code is ErrorCode.UNAUTHORIZED:
            headers[hdrs.WWW_AUTHENTICATE] = 'Bearer realm="podslots"'
        elif refusal.code is ErrorCode.STORAGE:
            headers[hdrs.RETRY_AFTER] = "1"
        elif refusal.code is ErrorCode.METHOD_NOT_ALLOWED:
            headers[hdrs.ALLOW] = refusal.message.rsplit(" takes ", 1)[-1]
        return web.Response(status=refusal.status, body=dump(refusal.body()), headers=headers)


def _plain_path(path: str) -> str:
    """A path without escapes and without scheme and host, which some clients name; empty if it can't be one of ours.

    An escaped slash parts nothing: `/tasks/a%2Fack` must not be the ack of task a.
    """
    if path.startswith(("http://", "https://")):
        path = "/" + path.split("/", 3)[3] if path.count("/") > 2 else "/"  # noqa: PLR2004 - those of `http://host/`
    if "%" not in path:
        return path
    pieces = [unquote(piece) for piece in path.split("/")]
    return "" if any("/" in piece for piece in pieces) else "/".join(pieces)
