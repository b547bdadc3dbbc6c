"""HTTP to agents over aiohttp: one request, or a stream of lines. What is said over it is for `client`.

Whatever answers may be a Pod's own code in the place of its agent. So no answer is read past a bound, none is unfolded
(nothing here asks for a coding), and what is said of a broken one is short.
"""

import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Protocol

import aiohttp
from aiohttp import hdrs
from yarl import URL

from controller.agents.answers import OK, refusal
from controller.errors import AgentUnreachable
from controller.unreached import why_unreached

MAX_LINE_BYTES = 256 * 1024
"""The state of an agent with the largest layout there can be is 20 KiB."""
MAX_BODY_BYTES = 2 * 2**20
"""The largest answer of an agent is a page of output: 1 MiB."""
MAX_REASON_LENGTH = 500
"""Characters of what aiohttp says of a broken answer, which it quotes."""


class Transport(Protocol):
    """HTTP to agents. Raises AgentUnreachable when there is no answer."""

    async def request(
        self, method: str, url: str, *, headers: dict[str, str], body: bytes | None, timeout_seconds: float
    ) -> tuple[int, bytes]:
        """Status and body of one request, sent once."""
        ...

    def stream(self, url: str, *, headers: dict[str, str], idle_timeout_seconds: float) -> AsyncIterator[bytes]:
        """The lines of an endless GET: all that have come at a time, with newlines between them.

        Ends when the server ends it. Raises AgentUnreachable, after the idle timeout too, and AgentRefused for any
        status but 200.
        """
        ...


@asynccontextmanager
async def http_transport(
    *, max_requests: int = 100, max_streams: int = 0, connect_timeout_seconds: float = 3.0
) -> AsyncIterator["HttpTransport"]:
    """A transport over aiohttp.

    At most `max_requests` at once over all agents; streams have connections of their own, one an agent, at most
    `max_streams` (0: unbounded): agents without a stream are polled. The environment's proxies are not used: agents are
    in the cluster.
    """
    async with _session(max_requests) as calls, _session(max_streams) as streams:
        yield HttpTransport(calls, streams, connect_timeout_seconds)


def _session(limit: int) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        # Agents keep connections for longer than this, so that a kept one is rarely found closed.
        connector=aiohttp.TCPConnector(limit=limit, keepalive_timeout=10.0, use_dns_cache=False),
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
        auto_decompress=False,
        skip_auto_headers=("User-Agent", "Accept-Encoding"),
    )


class HttpTransport:
    """`Transport` over aiohttp. Made by `http_transport`."""

    def __init__(
        self, calls: aiohttp.ClientSession, streams: aiohttp.ClientSession, connect_timeout_seconds: float
    ) -> None:
        self._calls = calls
        self._streams = streams
        self._connect_timeout_seconds = connect_timeout_seconds

    def over_tls(self, context: Callable[[], Awaitable[ssl.SSLContext]], server_name: str) -> Transport:
        """The same over TLS. The server's certificate must have this name; its address does not matter."""
        return _TlsTransport(self, context, server_name)

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: dict[str, str],
        body: bytes | None,
        timeout_seconds: float,
        context: ssl.SSLContext | None = None,
        server_name: str | None = None,
    ) -> tuple[int, bytes]:
        """One request. Redirects are not followed: the token is for this agent."""
        timeout = aiohttp.ClientTimeout(total=timeout_seconds, sock_connect=self._connect_timeout_seconds)
        try:
            async with self._calls.request(
                method,
                URL(url, encoded=True),
                headers=headers,
                data=body,
                timeout=timeout,
                allow_redirects=False,
                ssl=context or True,
                server_hostname=server_name,
            ) as response:
                return response.status, await _read(response)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _unreachable(url, error) from error

    async def stream(
        self,
        url: str,
        *,
        headers: dict[str, str],
        idle_timeout_seconds: float,
        context: ssl.SSLContext | None = None,
        server_name: str | None = None,
    ) -> AsyncGenerator[bytes, None]:
        """The lines of a GET: all that have come at a time, with newlines between them."""
        timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=self._connect_timeout_seconds, sock_read=idle_timeout_seconds
        )
        try:
            async with self._streams.get(
                URL(url, encoded=True),
                headers=headers,
                timeout=timeout,
                allow_redirects=False,
                ssl=context or True,
                server_hostname=server_name,
            ) as response:
                if response.status != OK:
                    raise refusal(response.status, await _read(response))
                _check_coding(response)
                rest = bytearray()
                async for chunk in response.content.iter_any():
                    rest += chunk
                    if b"\n" in chunk:
                        lines, _, rest = rest.rpartition(b"\n")
                        _check_lines(lines)
                        if lines:
                            yield bytes(lines)
                    _check_lines(rest)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _unreachable(url, error) from error


class _TlsTransport:
    """`Transport` that adds a context to each request."""

    def __init__(
        self, transport: HttpTransport, context: Callable[[], Awaitable[ssl.SSLContext]], server_name: str
    ) -> None:
        self._transport = transport
        self._context = context
        self._server_name = server_name

    async def request(
        self, method: str, url: str, *, headers: dict[str, str], body: bytes | None, timeout_seconds: float
    ) -> tuple[int, bytes]:
        """As `Transport.request`, over TLS with this agent's certificate."""
        return await self._transport.request(
            method,
            url,
            headers=headers,
            body=body,
            timeout_seconds=timeout_seconds,
            context=await self._context(),
            server_name=self._server_name,
        )

    async def stream(self, url: str, *, headers: dict[str, str], idle_timeout_seconds: float) -> AsyncIterator[bytes]:
        """The lines of a GET, as they come."""
        lines = self._transport.stream(
            url,
            headers=headers,
            idle_timeout_seconds=idle_timeout_seconds,
            context=await self._context(),
            server_name=self._server_name,
        )
        try:
            async for line in lines:
                yield line
        finally:
            await lines.aclose()


async def _read(response: aiohttp.ClientResponse) -> bytes:
    """The body. Raises AgentUnreachable if it is not as an agent would send one."""
    _check_coding(response)
    if (response.content_length or 0) > MAX_BODY_BYTES:
        raise AgentUnreachable(f"not an agent's answer: {response.content_length} bytes")
    body = await response.content.readany()
    if response.content.at_eof():
        return body  # nearly all come in one piece
    pieces, size = [body], len(body)
    async for piece in response.content.iter_any():
        pieces.append(piece)
        size += len(piece)
        if size > MAX_BODY_BYTES:
            raise AgentUnreachable("not an agent's answer: a body without end")
    return b"".join(pieces)


def _check_coding(response: aiohttp.ClientResponse) -> None:
    if coding := response.headers.get(hdrs.CONTENT_ENCODING):
        raise AgentUnreachable(f"not an agent's answer: its coding is {coding[:MAX_REASON_LENGTH]}")


def _check_lines(lines: bytearray) -> None:
    if len(lines) > MAX_LINE_BYTES and max(map(len, lines.split(b"\n"))) > MAX_LINE_BYTES:
        raise AgentUnreachable("not an agent's answer: a line without end")


def _unreachable(url: str, error: Exception) -> AgentUnreachable:
    return AgentUnreachable(f"{url}: {why_unreached(error)[:MAX_REASON_LENGTH]}")
