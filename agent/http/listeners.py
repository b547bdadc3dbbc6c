"""The addresses that the agent listens on, and a change of their certificate without a connection lost.

The sockets stay, and only the server that accepts from them is replaced. Connections that wait in the queue are
accepted by the next server. Those that were accepted before are not touched.
"""

import asyncio
import socket
import ssl
from collections.abc import Iterable
from typing import Any

from aiohttp import web

from agent.http import server
from agent.log import Log

BACKLOG = 512


class Listeners:
    """Listening sockets, and those who accept from them."""

    def __init__(self, runner: web.ServerRunner, log: Log) -> None:
        self._runner = runner
        self._log = log
        self._sockets: list[socket.socket] = []
        self._sites: list[web.SockSite] = []

    async def open(self, addresses: Iterable[str], port: int, context: ssl.SSLContext | None) -> None:
        """Listen. The first address, the Pod's own, must work; the others are a convenience. Raises OSError."""
        for index, address in enumerate(addresses):
            try:
                self._sockets.append(_listen(address, port))
            except OSError as error:
                if index == 0:
                    raise
                if ":" not in address or socket.has_ipv6:
                    self._log.event("address not bound", address=address, error=error.strerror)
        await self.accept(context)

    async def accept(self, context: ssl.SSLContext | None) -> None:
        """Accept by this context from now on."""
        before, self._sites = self._sites, []
        for listening in self._sockets:
            site: web.SockSite = _Site(self._runner, listening.dup(), ssl_context=context, backlog=BACKLOG)
            await site.start()
            self._sites.append(site)
        for site in before:
            await site.stop()

    def close(self) -> None:
        """Listen no more."""
        while self._sockets:
            self._sockets.pop().close()


class _Site(web.SockSite):
    """Accepts, and gives a handshake as long as the head of a request: aiohttp has no setting for that."""

    async def start(self) -> None:
        """Accept from now on."""
        await web.BaseSite.start(self)
        handlers: Any = self._runner.server
        context = self._ssl_context
        self._server = await asyncio.get_running_loop().create_server(
            handlers,
            sock=self._sock,
            ssl=context,
            backlog=self._backlog,
            ssl_handshake_timeout=None if context is None else server.HEAD_SECONDS,
        )


def _listen(address: str, port: int) -> socket.socket:
    is_six = ":" in address
    listening = socket.socket(socket.AF_INET6 if is_six else socket.AF_INET, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if is_six:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listening.bind((address, port))
        listening.listen(BACKLOG)
        listening.setblocking(False)
    except BaseException:
        listening.close()
        raise
    return listening
