"""One query of Prometheus over aiohttp."""

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp
import orjson
from aiohttp import hdrs
from yarl import URL

from controller.decide.reading import Answer, parse_answer
from controller.errors import SignalError
from controller.unreached import why_unreached

TIMEOUT_SECONDS = 10.0
MAX_ANSWER_BYTES = 8 * 2**20
"""10 000 Pods are 1 MiB."""
_WITH_WORDS = frozenset({200, 400, 422, 503})
"""Status codes under which Prometheus itself says in JSON what it found, or what is wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """Where to ask, and by what right. `context` is for an https URL, None: the system's certificate authorities."""

    url: str
    token: str | None = field(default=None, repr=False)
    context: ssl.SSLContext | None = None
    server_name: str | None = None


Ask = Callable[[Server, str], Awaitable[Answer]]
"""Evaluates a query now. Raises SignalError."""


@asynccontextmanager
async def prometheus() -> AsyncIterator[Ask]:
    """Asks any Prometheus.

    Users give the URL, so it is not trusted: the environment is not read, redirects are not followed, cookies are not
    kept, and only well-formed answers of Prometheus are shown. Compressed answers are refused: a small one can become
    very large.
    """
    async with aiohttp.ClientSession(
        timeout=aiohttp.ClientTimeout(total=TIMEOUT_SECONDS),
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
        auto_decompress=False,
        skip_auto_headers=("Accept-Encoding",),
    ) as session:

        async def ask(server: Server, query: str) -> Answer:
            return await _ask(session, server, query)

        yield ask


async def _ask(session: aiohttp.ClientSession, server: Server, query: str) -> Answer:
    headers = {"Accept": "application/json"}
    if server.token is not None:
        headers["Authorization"] = f"Bearer {server.token}"
    try:
        url = URL(server.url.rstrip("/") + "/api/v1/query", encoded=True)
        async with session.post(
            url,
            data={"query": query},
            headers=headers,
            allow_redirects=False,
            ssl=server.context or True,
            server_hostname=server.server_name,
        ) as response:
            if response.status not in _WITH_WORDS:
                raise SignalError(f"{server.url} answers with status {response.status}")
            if hdrs.CONTENT_ENCODING in response.headers:
                raise SignalError(f"{server.url} answers in a coding that it was not asked for")
            body = await _bounded(response)
    except aiohttp.ClientResponseError as error:
        raise SignalError(f"{server.url}: this is no answer in HTTP") from error  # its text quotes what came
    except (aiohttp.ClientError, OSError, ValueError) as error:  # a timeout is an OSError
        raise SignalError(f"{server.url}: {why_unreached(error)}") from error
    try:
        return parse_answer(orjson.loads(body))
    except orjson.JSONDecodeError as error:
        raise SignalError(f"{server.url}: this is no answer of Prometheus") from error
    except SignalError as error:
        raise SignalError(f"{server.url}: {error}") from error


async def _bounded(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > MAX_ANSWER_BYTES:
            raise SignalError("the answer is too large")
    return bytes(body)
