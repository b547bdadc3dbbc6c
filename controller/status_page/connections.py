"""The HTTP server under the page: aiohttp's, with an end to waiting, and log lines without what clients sent.

aiohttp waits for ever for the rest of a request's head, and logs what it can't parse by quoting it: a token, perhaps,
with a slip of the pen beside it.
"""

import asyncio
import logging
from typing import Any

from aiohttp import web

log = logging.getLogger(__name__)

HEAD_SECONDS = 10.0
"""How long the head of a request may take, from the connection's begin or from its first byte on."""

IDLE_SECONDS = 75.0
"""How long a connection is kept between two requests: longer than clients keep theirs."""


class Runner(web.AppRunner):
    """Runs an application on such a server."""

    async def _make_server(self) -> web.Server:
        made = await super()._make_server()
        return _Server(made.request_handler, request_factory=made.request_factory)


class _Server(web.Server):
    def __call__(self) -> web.RequestHandler:
        """A new connection."""
        quiet: Any = None
        return _Connection(self, loop=self._loop, access_log=quiet, keepalive_timeout=IDLE_SECONDS)


class _Connection(web.RequestHandler):
    __slots__ = ("_late",)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._late: asyncio.Handle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Somebody has come, and is to ask for something."""
        super().connection_made(transport)
        self._late = self._loop.call_later(HEAD_SECONDS, self._give_up)

    def data_received(self, data: bytes) -> None:
        """Bytes came in. A request's head that is not complete after HEAD_SECONDS ends the connection."""
        super().data_received(data)
        if self._messages:  # also before it waits: uvloop may hand over data earlier than it lets a new task begin
            self._in_time()
        elif self._waiter is not None and self._late is None:
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

    def log_debug(self, *args: Any, **kw: Any) -> None:
        """Leave out what aiohttp has to say for its own developers."""

    def log_exception(self, *args: Any, **kw: Any) -> None:
        """Where it came from and what kind of mistake it is. Mistakes of our own are logged where they are answered."""
        what = str(args[0]).partition(" from ")[0]
        log.warning("a request failed", extra={"what": what, "error": type(kw.get("exc_info")).__name__})
