"""The HTTP server under `routes`: aiohttp's, with error answers and log lines of our own.

aiohttp quotes a request that it can't parse, in its answer and in the log. That text may contain a token. Here such a
request gets the same error body as others, and the log has only the kind of mistake.
"""

import asyncio
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from agent.errors import Refusal
from agent.http.bodies import JSON_HEADERS, dump
from agent.log import Log
from agent.wire import ErrorCode

SERVER_ERROR = 500

HEAD_SECONDS = 10.0
"""How long the head of a request may take, from the connection's start or from its first byte on."""

IDLE_SECONDS = 75.0
"""How long an idle connection is kept: longer than clients keep theirs, which would else send into a closed one."""


class Server(web.Server):
    """Makes a connection's handler. `handler` answers the requests."""

    def __init__(self, handler: Any, log: Log) -> None:
        super().__init__(handler)
        self._log = log

    def __call__(self) -> web.RequestHandler:
        """A new connection."""
        return _Connection(self, self._log)


class _Connection(web.RequestHandler):
    __slots__ = ("_events", "_late")

    def __init__(self, manager: Server, log: Log) -> None:
        quiet: Any = None
        loop = manager._loop  # noqa: SLF001 - as the base class does it
        super().__init__(manager, loop=loop, access_log=quiet, keepalive_timeout=IDLE_SECONDS)
        self._events = log
        self._late: asyncio.Handle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Somebody has come, and is to ask for something: who opens all connections there are keeps others out."""
        super().connection_made(transport)
        self._late = self._loop.call_later(HEAD_SECONDS, self._give_up)

    def data_received(self, data: bytes) -> None:
        """Bytes came in. A request's head that is not complete after HEAD_SECONDS ends the connection."""
        super().data_received(data)
        waiter = self._waiter
        # Messages: uvloop may hand over data earlier than it lets a new task begin to wait.
        if self._messages or (waiter is not None and waiter.done()):
            self._in_time()
        elif waiter is not None and self._late is None:
            self._late = self._loop.call_later(HEAD_SECONDS, self._give_up)

    def connection_lost(self, exc: BaseException | None) -> None:
        """The connection is gone."""
        self._in_time()
        super().connection_lost(exc)

    def _in_time(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _give_up(self) -> None:
        self._late = None
        self.force_close()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = SERVER_ERROR,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The answer to bytes that are no HTTP request, or to a failure before the handler."""
        del message  # it quotes what was sent
        self.log_exception("request not understood", exc_info=exc)
        if isinstance(exc, ConnectionError):
            # The caller is gone, or has to ask again: this answer reaches nobody.
            self.force_close()
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
        """Leave out what aiohttp has to say for its own developers."""

    def log_exception(self, *args: Any, **kw: Any) -> None:
        """One line, without what the client sent."""
        error = kw.get("exc_info")
        self._events.event("connection failed", what=str(args[0]).partition(" from ")[0], error=type(error).__name__)
