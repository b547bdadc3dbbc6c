"""A load generator that is not the bottleneck: bare protocols, no pipelining, answers parsed as far as needed.

What a connection does is a generator: it yields the bytes of a request and is sent the answer. It ends when it sees
that its load is `over`, having put everything back in order.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, cast

import orjson

TIMEOUT_SECONDS = 120.0


class Answer(NamedTuple):
    status: int
    body: bytes


Script = Generator[bytes, Answer, None]


@dataclass(slots=True)
class Load:
    """One run. `over`: nothing new is to be begun. `latencies` are seconds, of what the script chose to time."""

    statuses: Counter[int] = field(default_factory=Counter)
    latencies: list[float] = field(default_factory=list)
    seconds: float = 0.0
    client_cpu_seconds: float = 0.0
    over: bool = False

    clock = staticmethod(time.perf_counter)

    @property
    def requests(self) -> int:
        return self.statuses.total()

    @property
    def rate(self) -> float:
        return self.requests / self.seconds

    @property
    def client_share(self) -> float:
        """How much of its core the client needed: near 1, it is the client that was measured."""
        return self.client_cpu_seconds / self.seconds


def request(
    method: str, path: str, body: object = None, *, token: str | None = None, headers: Mapping[str, str] | None = None
) -> bytes:
    """The bytes of a request. `body`: bytes, or something for JSON."""
    head = [f"{method} {path} HTTP/1.1", "Host: bench"]
    head += [f"{name}: {value}" for name, value in (headers or {}).items()]
    if token is not None:
        head.append(f"Authorization: Bearer {token}")
    data = b"" if body is None else body if isinstance(body, bytes) else orjson.dumps(body)
    if body is not None:
        head += ["Content-Type: application/json", f"Content-Length: {len(data)}"]
    return "\r\n".join([*head, "", ""]).encode() + data


class _Connection(asyncio.Protocol):
    def __init__(self, load: Load, script: Script) -> None:
        self._load = load
        self._script = script
        self._received = b""
        self._transport: asyncio.Transport | None = None
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not isinstance: uvloop's transports are no subclass.
        self._transport = cast("asyncio.Transport", transport)

    def begin(self) -> None:
        try:
            first = next(self._script)
        except StopIteration:
            self._finish()
        else:
            self._write(first)

    def data_received(self, data: bytes) -> None:
        received = self._received + data if self._received else data
        head_end = received.find(b"\r\n\r\n")
        if head_end < 0:
            self._received = received
            return
        at = received.find(b"Content-Length: ", 0, head_end)
        if at < 0:
            self._fail(f"no length in {received[:head_end]!r}")
            return
        length = int(received[at + 16 : received.find(b"\r", at)])
        end = head_end + 4 + length
        if len(received) < end:
            self._received = received
            return
        self._received = b""
        status = int(received[9:12])
        self._load.statuses[status] += 1
        try:
            following = self._script.send(Answer(status, received[head_end + 4 : end]))
        except StopIteration:
            self._finish()
        except Exception as error:  # noqa: BLE001 - the script's mistake ends the run, with its own words
            self.done.set_exception(error)
        else:
            self._write(following)

    def connection_lost(self, error: Exception | None) -> None:
        if not self.done.done():
            self._fail(f"connection lost: {error}")

    def _write(self, data: bytes) -> None:
        assert self._transport
        self._transport.write(data)

    def _finish(self) -> None:
        if not self.done.done():
            self.done.set_result(None)

    def _fail(self, problem: str) -> None:
        self.done.set_exception(ConnectionError(problem))

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()


class Client:
    """Open connections to one server; each run uses them again."""

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port

    async def run(self, make: Callable[[Load], Script], connections: int, seconds: float | None = None) -> Load:
        """Have so many connections follow a script each, for so long or until they end by themselves."""
        load = Load()
        return await self.follow(load, [make(load) for _ in range(connections)], seconds)

    async def follow(self, load: Load, scripts: Sequence[Script], seconds: float | None = None) -> Load:
        loop = asyncio.get_running_loop()
        opened = [
            await loop.create_connection(lambda script=script: _Connection(load, script), self._host, self._port)  # type: ignore[misc]  # of a lambda's default nothing is inferred
            for script in scripts
        ]
        protocols = [protocol for _, protocol in opened]
        timer = None if seconds is None else loop.call_later(seconds, _end, load)
        started, cpu = time.perf_counter(), time.process_time()
        try:
            for protocol in protocols:
                protocol.begin()
            async with asyncio.timeout((seconds or 0.0) + TIMEOUT_SECONDS):
                await asyncio.gather(*(protocol.done for protocol in protocols))
            load.seconds = time.perf_counter() - started
            load.client_cpu_seconds = time.process_time() - cpu
        finally:
            if timer is not None:
                timer.cancel()
            for protocol in protocols:
                protocol.close()
        return load


def _end(load: Load) -> None:
    load.over = True


def repeat(data: bytes) -> Callable[[Load], Script]:
    """The same request again and again; every answer must be 200."""

    def script(load: Load) -> Script:
        while not load.over:
            answer = yield data
            if answer.status != 200:
                raise AssertionError(answer)

    return script
