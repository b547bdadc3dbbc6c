"""The HTTP server under `http_api`: aiohttp's, with its words replaced by ours.

aiohttp answers and logs what it can't parse by quoting it, and what a client sends may be a token with a slip of the
pen beside it. Here such a request gets the error body that all others get, and the log says the kind of mistake only.
"""

from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from agent.errors import Refusal
from agent.eventlog import Log
from agent.http_messages import dump
from agent.whole_response import JSON_HEADERS
from agent.wire import ErrorCode

SERVER_ERROR = 500


class Server(web.Server):
    """Makes a connection's handler. `handler` answers the requests."""

    def __init__(self, handler: Any, log: Log) -> None:
        super().__init__(handler)
        self._log = log

    def __call__(self) -> web.RequestHandler:
        """A new connection."""
        return _Connection(self, self._log)


class _Connection(web.RequestHandler):
    __slots__ = ("_events",)

    def __init__(self, manager: Server, log: Log) -> None:
        quiet: Any = None
        super().__init__(manager, loop=manager._loop, access_log=quiet)  # noqa: SLF001 - as the base class does it
        self._events = log

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = SERVER_ERROR,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The answer to what is no HTTP request, or what broke on the way to a handler."""
        del message  # it quotes what was sent
        self.log_exception("request not understood", exc_info=exc)
        if request.writer.output_size > 0:
            raise ConnectionError("an answer had begun already")
        if status < SERVER_ERROR:
            kind = type(exc).__name__ if isinstance(exc, HttpProcessingError) else "not HTTP"
            refusal = Refusal(ErrorCode.BAD_REQUEST, f"this is no request that the agent can read: {kind}")
        else:
            refusal = Refusal(ErrorCode.INTERNAL, "see the agent's log")
        response = web.Response(status=refusal.status, body=dump(refusal.body()), headers=JSON_HEADERS)
        response.force_close()
        return response

    def log_debug(self, *args: Any, **kw: Any) -> None:
        """Nobody reads it."""

    def log_exception(self, *args: Any, **kw: Any) -> None:
        """One line, without what the client sent."""
        error = kw.get("exc_info")
        self._events.event("connection failed", what=str(args[0]).partition(" from ")[0], error=type(error).__name__)
