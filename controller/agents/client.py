"""Talk to one agent: typed calls over a transport, each write stamped, one after the other.

A write that got no answer may have taken effect, and may still arrive: it is asked again of the same agent, and its
stamp keeps it from taking effect after a later one. Nothing here repeats a write by itself: agents' writes are POSTs,
which aiohttp sends once.
"""

import asyncio
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Protocol, TypeVar

import aiohttp
import orjson
from yarl import URL

from agent.wire import (
    PORT,
    AckRequest,
    AcquireAnswer,
    AcquireRequest,
    AgentState,
    ApproveRequest,
    CancelRequest,
    DrainRequest,
    Empty,
    ErrorCode,
    PhaseAnswer,
    Stamp,
    Step,
    Task,
    WireError,
    Work,
    decode,
    encode,
)
from controller.decide.agent_version import MINIMUM, is_too_old
from controller.errors import AgentRefused, AgentUnreachable

OK = 200
SERVER_ERROR = 500
REFUSALS = frozenset({ErrorCode.STORAGE, ErrorCode.NOT_READY})
"""Codes that say the write was not done even where the status is a 5xx."""
MAX_LINE_BYTES = 4 * 2**20

T = TypeVar("T")
Token = Callable[[], str | None]


class Transport(Protocol):
    """HTTP to agents. Raises AgentUnreachable when there is no answer."""

    async def request(
        self, method: str, url: str, *, headers: dict[str, str], body: bytes | None, timeout_seconds: float
    ) -> tuple[int, bytes]:
        """Status and body of one request, sent once."""
        ...

    def stream(self, url: str, *, headers: dict[str, str], idle_timeout_seconds: float) -> AsyncIterator[bytes]:
        """The lines of an endless GET. Ends when the server ends it; AgentUnreachable after the idle timeout too.

        Raises AgentRefused for any status but 200.
        """
        ...


class Stamps:
    """The stamps of one process' writes. `term` raises NotLeader where nothing may be written."""

    def __init__(self, term: Callable[[], int]) -> None:
        self._term = term
        self._counter = 0

    def next(self) -> Stamp:
        """A stamp above every one before."""
        term = self._term()
        self._counter += 1
        return Stamp(term=term, counter=self._counter)


class AgentClient:
    """The calls to one agent. Writes name the Pod, and the incarnation whose state they were decided on."""

    def __init__(
        self,
        transport: Transport,
        url: str,
        pod_uid: str,
        *,
        token: Token,
        stamps: Stamps,
        timeout_seconds: float = 5.0,
    ) -> None:
        self.url = url
        self.pod_uid = pod_uid
        self._transport = transport
        self._token = token
        self._stamps = stamps
        self._timeout_seconds = timeout_seconds
        self._turn = asyncio.Lock()
        self._last_state: tuple[bytes, AgentState] | None = None
        """The last state and its bytes: most reads find it unchanged, and decoding costs a third of a read."""

    async def state(self) -> AgentState:
        """`GET /slots`. An answer of another Pod's agent, behind a reused address, is no answer."""
        status, body = await self._get("/slots")
        known = self._last_state
        if known is not None and status == OK and body == known[0]:
            return known[1]
        state = _answer(status, body, AgentState)
        if state.pod_uid != self.pod_uid:
            raise AgentUnreachable(f"{self.url} is another Pod's now: {state.pod_uid}")
        self._last_state = (body, state)
        return state

    async def task(self, task_id: str) -> Task:
        """`GET /tasks/{id}`."""
        status, body = await self._get(f"/tasks/{task_id}")
        return _answer(status, body, Task)

    async def output_page(self, task_id: str, step: Step, offset: int) -> bytes:
        """`GET /tasks/{id}/log?part=page`: a part of a step's output as it is kept; empty at its end."""
        return await self._bytes(f"/tasks/{task_id}/log?step={step.value}&part=page&offset={offset}")

    async def output_end(self, task_id: str, step: Step) -> bytes:
        """`GET /tasks/{id}/log?part=end`: the end of output that was too much to keep."""
        return await self._bytes(f"/tasks/{task_id}/log?step={step.value}&part=end")

    async def outputs(self, task_id: str) -> bytes:
        """`GET /tasks/{id}/outputs`: the file that an ended task handed over."""
        return await self._bytes(f"/tasks/{task_id}/outputs")

    async def acquire(self, incarnation: str, task_id: str, task_type: str, work: Work | None = None) -> AcquireAnswer:
        """`POST /slots/acquire`. The same task again gets the same answer."""
        return await self._write(
            "/slots/acquire",
            lambda stamp: AcquireRequest(
                pod_uid=self.pod_uid,
                incarnation=incarnation,
                stamp=stamp,
                task_id=task_id,
                task_type=task_type,
                work=work,
            ),
            AcquireAnswer,
        )

    async def open(self, incarnation: str, drain_id: str) -> PhaseAnswer:
        """`POST /open`: take back exactly this drain."""
        return await self._write("/open", self._drain_request(incarnation, drain_id), PhaseAnswer)

    async def drain(self, incarnation: str, drain_id: str) -> PhaseAnswer:
        """`POST /drain`: granted only if nothing is held and every result was acknowledged."""
        return await self._write("/drain", self._drain_request(incarnation, drain_id), PhaseAnswer)

    async def approve(self, incarnation: str, task_id: str, *, plan_digest: str, attempt: int) -> Task:
        """`POST /tasks/{id}/approve`."""
        return await self._write(
            f"/tasks/{task_id}/approve",
            lambda stamp: ApproveRequest(
                pod_uid=self.pod_uid,
                incarnation=incarnation,
                stamp=stamp,
                plan_digest=plan_digest,
                attempt=attempt,
            ),
            Task,
        )

    async def cancel(self, incarnation: str, task_id: str) -> Task:
        """`POST /tasks/{id}/cancel`."""
        return await self._write(
            f"/tasks/{task_id}/cancel",
            lambda stamp: CancelRequest(pod_uid=self.pod_uid, incarnation=incarnation, stamp=stamp),
            Task,
        )

    async def ack(self, incarnation: str, task_id: str) -> None:
        """`POST /tasks/{id}/ack`: the result is stored elsewhere."""
        await self._write(
            f"/tasks/{task_id}/ack",
            lambda stamp: AckRequest(pod_uid=self.pod_uid, incarnation=incarnation, stamp=stamp),
            Empty,
        )

    def headers(self) -> dict[str, str]:
        """The headers of a read: reads may be locked too."""
        token = self._token()
        return {"Accept": "application/json", "Authorization": f"Bearer {token}"} if token else _ACCEPT

    def _drain_request(self, incarnation: str, drain_id: str) -> Callable[[Stamp], DrainRequest]:
        return lambda stamp: DrainRequest(pod_uid=self.pod_uid, incarnation=incarnation, stamp=stamp, drain_id=drain_id)

    async def _get(self, path: str) -> tuple[int, bytes]:
        return await self._transport.request(
            "GET", self.url + path, headers=self.headers(), body=None, timeout_seconds=self._timeout_seconds
        )

    async def _bytes(self, path: str) -> bytes:
        status, body = await self._get(path)
        if status != OK:
            raise refusal(status, body)
        return body

    async def _write(self, path: str, message: Callable[[Stamp], Any], kind: type[T]) -> T:
        # The stamp is drawn in turn, so that stamps rise in the order in which they are sent.
        async with self._turn:
            body = orjson.dumps(encode(message(self._stamps.next())))
            status, answer = await self._transport.request(
                "POST",
                self.url + path,
                headers={**self.headers(), "Content-Type": "application/json"},
                body=body,
                timeout_seconds=self._timeout_seconds,
            )
        return _answer(status, answer, kind)


_ACCEPT = {"Accept": "application/json"}


def agent_url(pod_ip: str, port: int = PORT, *, tls: bool = False) -> str:
    """The address of a Pod's agent."""
    host = f"[{pod_ip}]" if ":" in pod_ip else pod_ip
    return f"http{'s' if tls else ''}://{host}:{port}"


def _answer(status: int, body: bytes, kind: type[T]) -> T:
    if status != OK:
        raise refusal(status, body)
    document: Any = None
    try:
        document = orjson.loads(body)
        return decode(kind, document)
    except (orjson.JSONDecodeError, WireError) as error:
        raise misunderstood(error, document) from error


def misunderstood(error: Exception, document: Any) -> AgentUnreachable:
    """The error for a body that is no agent's answer. That of an agent too old to be understood names its version."""
    state = document.get("state", document) if isinstance(document, dict) else None
    version = state.get("version") if isinstance(state, dict) else None
    if isinstance(version, str) and is_too_old(version):
        return AgentUnreachable(f"the agent's version {version} is older than {MINIMUM}")
    return AgentUnreachable(f"not an agent's answer: {error}")


def refusal(status: int, body: bytes) -> AgentRefused | AgentUnreachable:
    """What an answer other than 200 means. Only an agent's own word says that a write was not done."""
    try:
        document = orjson.loads(body)
        code, message = document["error"], str(document.get("message", ""))
    except (orjson.JSONDecodeError, TypeError, KeyError):
        return AgentUnreachable(f"not an agent's answer: status {status}")
    if status >= SERVER_ERROR and code not in REFUSALS:
        return AgentUnreachable(f"{status} {code}: {message}")
    return AgentRefused(status, str(code), message)


@asynccontextmanager
async def http_transport(
    *, max_requests: int = 100, max_streams: int = 0, connect_timeout_seconds: float = 3.0
) -> AsyncIterator["HttpTransport"]:
    """A transport over aiohttp.

    At most `max_requests` at once over all agents; streams have connections of their own, one an
    agent, at most `max_streams` (0: unbounded): who finds none free is polled.
    The environment's proxies are not used: agents are in the cluster.
    """
    async with _session(max_requests) as calls, _session(max_streams) as streams:
        yield HttpTransport(calls, streams, connect_timeout_seconds)


def _session(limit: int) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        # Agents keep connections for longer than this, so that a kept one is rarely found closed.
        connector=aiohttp.TCPConnector(limit=limit, keepalive_timeout=10.0, use_dns_cache=False),
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=False,
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
        """The same by TLS: to servers whose certificate has this name, whatever address they are reached at."""
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
                return response.status, await response.read()
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
        """The lines of a GET."""
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
                    raise refusal(response.status, await response.read())
                rest = b""
                async for chunk in response.content.iter_any():
                    *lines, rest = (rest + chunk).split(b"\n")
                    for line in lines:
                        if line:
                            yield line
                    if len(rest) > MAX_LINE_BYTES:
                        raise AgentUnreachable("not an agent's answer: a line without end")
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
        """One request."""
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
        """The lines of a GET."""
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


def _unreachable(url: str, error: Exception) -> AgentUnreachable:
    text = "no answer in time" if isinstance(error, TimeoutError) else str(error) or type(error).__name__
    return AgentUnreachable(f"{url}: {text}")
