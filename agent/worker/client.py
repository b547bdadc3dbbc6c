"""HTTP/1.1 to the agent, without waiting: one connection a channel, driven by `shell`'s poll.

http.client would block, and brings in ssl and email: 25 ms and 4 MiB, as much as all the rest of the worker. This
speaks the little that is needed: requests with a length, answers with a length, chunked, or ended by the connection's
end. A request is sent once: whether to repeat it is for `loop` to say. TLS is in `tls`, which is imported if needed.
"""

import errno
import json
import os
import select
import socket
from typing import Any

from agent.codec import WireError, decode, encode
from agent.work_messages import Empty, OutputAnswer, WorkAnswer
from agent.worker.errors import LinkError
from agent.worker.ports import Answer, Call, Channel, Clock, Request

CALL_TIMEOUT_SECONDS = 10.0
POLL_TIMEOUT_SECONDS = 35.0
"""The agent holds a poll for 20 s."""
HEAD_BYTES = 64 * 1024
BODY_BYTES = 8 << 20
"""An assignment carries at most 1 MiB of work, which JSON may lengthen."""

_PATHS = {
    Call.REGISTER: ("POST", "/work/register"),
    Call.POLL: ("GET", "/work"),
    Call.STARTED: ("POST", "/work/started"),
    Call.OUTPUT: ("POST", "/work/output"),
    Call.EXIT: ("POST", "/work/exit"),
}
_ANSWERS: dict[Call, type[Any]] = {Call.REGISTER: WorkAnswer, Call.POLL: WorkAnswer, Call.OUTPUT: OutputAnswer}


class RefusedError(Exception):
    """The agent answered with an error."""

    def __init__(self, status: int, code: str) -> None:
        super().__init__(f"{status} {code}")
        self.status = status
        self.code = code


class Link:
    """The two connections to the agent. The credential is read anew for each request: it may come late, or change."""

    def __init__(self, host: str, port: int, credential_dir: str, clock: Clock, *, tls: bool = False) -> None:
        self._host = host
        self._port = port
        self._tls = tls
        self._credential_dir = credential_dir
        self._credential = os.path.join(credential_dir, "token")
        self._clock = clock
        self._connections: dict[Channel, Connection] = {}
        self._calls: dict[Channel, tuple[Call, float]] = {}

    def send(self, channel: Channel, request: Request) -> None:
        """Begin a request. Raises LinkError."""
        try:
            with open(self._credential, encoding="ascii") as file:
                token = file.read().strip()
        except (OSError, ValueError) as error:
            raise LinkError(f"the credential can't be read: {error}") from error
        content = _compose(request, f"{self._host}:{self._port}", token)
        connection = self._connections.get(channel)
        if connection is None or not connection.reusable():
            self._drop(channel)
            connection = self._connections[channel] = self._connect()
        timeout = POLL_TIMEOUT_SECONDS if request.call is Call.POLL else CALL_TIMEOUT_SECONDS
        self._calls[channel] = (request.call, self._clock.monotonic() + timeout)
        connection.send(content)

    def waits(self) -> list[tuple[int, int, Channel]]:
        """What to poll for: descriptor, events, and the channel to call `ready` with."""
        return [
            (self._connections[channel].fd, self._connections[channel].events, channel)
            for channel in self._calls
            if channel in self._connections
        ]

    def ready(self, channel: Channel) -> Answer | None:
        """Go on with a channel's request; None while there is no answer yet. Raises LinkError and RefusedError."""
        call, _ = self._calls[channel]
        try:
            answer = self._connections[channel].advance()
        except (OSError, LinkError) as error:
            self._drop(channel)
            raise LinkError(str(error)) from error
        if answer is None:
            return None
        del self._calls[channel]
        return _understand(call, *answer)

    def expired(self) -> list[Channel]:
        """The channels whose request took too long; it is given up."""
        now = self._clock.monotonic()
        late = [channel for channel, (_, until) in self._calls.items() if now >= until]
        for channel in late:
            self._drop(channel)
        return late

    def deadline(self) -> float | None:
        """When the next request will have taken too long, on monotonic time."""
        return min((until for _, until in self._calls.values()), default=None)

    def _connect(self) -> "Connection":
        if not self._tls:
            return Connection(self._host, self._port)
        from agent.worker.tls import TlsConnection  # noqa: PLC0415 - 4 MiB that a plain agent's worker does without

        return TlsConnection(self._host, self._port, self._credential_dir)

    def _drop(self, channel: Channel) -> None:
        self._calls.pop(channel, None)
        if connection := self._connections.pop(channel, None):
            connection.close()


def _compose(request: Request, host: str, token: str) -> bytes:
    """The request's bytes. Parameters hold ids and numbers only, so that nothing needs escaping."""
    method, path = _PATHS[request.call]
    body = request.data if request.message is None else json.dumps(encode(request.message)).encode()
    kind = "application/octet-stream" if request.message is None else "application/json"
    query = "&".join(f"{name}={value}" for name, value in request.params.items())
    if request.message is not None or not query:
        query = ""
    lines = [
        f"{method} {path}{'?' if query else ''}{query} HTTP/1.1",
        f"Host: {host}",
        f"Authorization: Bearer {token}",
    ]
    if method == "POST":
        lines += [f"Content-Type: {kind}", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode() + body


def _understand(call: Call, status: int, body: bytes) -> Answer:
    try:
        data = json.loads(body) if body else {}
    except ValueError as error:
        if status >= 400:  # noqa: PLR2004 - HTTP's own number
            raise RefusedError(status, "") from error
        raise LinkError(f"the answer is not JSON: {error}") from error
    if status >= 400:  # noqa: PLR2004 - HTTP's own number
        code = data.get("error") if isinstance(data, dict) else None
        raise RefusedError(status, code if isinstance(code, str) else "")
    if status >= 300:  # noqa: PLR2004 - HTTP's own number
        raise LinkError(f"unexpected status {status}")
    try:
        answer: Answer = decode(_ANSWERS.get(call, Empty), data)
    except WireError as error:
        raise LinkError(f"the answer is not understood: {error}") from error
    return answer


class Connection:
    """One TCP connection, and the request under way on it."""

    def __init__(self, host: str, port: int) -> None:
        try:
            # The host as bytes: a str brings in the IDNA codec, 1 MiB of tables.
            family, kind, protocol, _, address = socket.getaddrinfo(host.encode("ascii"), port, 0, socket.SOCK_STREAM)[
                0
            ]
            self._socket = socket.socket(family, kind, protocol)
        except (OSError, UnicodeError) as error:
            raise LinkError(str(error)) from error
        self._socket.setblocking(False)
        self._connected = False
        self._address = address
        self._outgoing = memoryview(b"")
        self._incoming = bytearray()
        self._busy = False
        self._keep = True

    @property
    def fd(self) -> int:
        """What to poll."""
        return self._socket.fileno()

    @property
    def events(self) -> int:
        """What to poll it for."""
        return select.POLLOUT if self._outgoing or not self._connected else select.POLLIN

    def reusable(self) -> bool:
        """Whether another request may go out here: all is read, and the agent has not closed it."""
        if self._busy or self._incoming or not self._keep or not self._connected:
            return False
        try:
            self._receive(1)
        except BlockingIOError:
            return True
        except OSError:
            return False
        # The end of the connection, or an answer to nothing.
        return False

    def send(self, content: bytes) -> None:
        """Begin a request."""
        self._outgoing = memoryview(content)
        self._busy = True
        if not self._connected:
            code = self._socket.connect_ex(self._address)
            if code not in {0, errno.EINPROGRESS}:
                raise LinkError(os.strerror(code))

    def advance(self) -> tuple[int, bytes] | None:
        """Send and receive what is possible. The answer's status and body, once it is whole."""
        if not self._connected:
            if code := self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                raise LinkError(os.strerror(code))
            self._connected = True
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        ended = False
        try:
            self._establish()
            while self._outgoing:
                self._outgoing = self._outgoing[self._transmit(self._outgoing) :]
            while not ended:
                data = self._receive(65536)
                ended = not data
                self._incoming += data
                if len(self._incoming) > HEAD_BYTES + BODY_BYTES:
                    raise LinkError("the answer is too long")
        except BlockingIOError:
            pass
        answer = parse(self._incoming, ended=ended)
        if answer is None:
            if ended:
                raise LinkError("the connection ended before the answer did")
            return None
        status, body, self._keep = answer
        self._incoming.clear()
        self._busy = False
        return status, body

    def close(self) -> None:
        """End it."""
        self._socket.close()

    def _establish(self) -> None:
        """What comes before the first request. Raises BlockingIOError while it lasts."""

    def _transmit(self, data: memoryview) -> int:
        return self._socket.send(data)

    def _receive(self, size: int) -> bytes:
        return self._socket.recv(size)


def parse(data: bytes | bytearray, *, ended: bool) -> tuple[int, bytes, bool] | None:
    """Status, body, and whether the connection lives on; None while the answer is not whole. Raises LinkError."""
    head_end = data.find(b"\r\n\r\n")
    if head_end < 0:
        if len(data) > HEAD_BYTES:
            raise LinkError("the answer's head is too long")
        return None
    first, *lines = bytes(data[:head_end]).decode("latin-1").split("\r\n")
    version, _, status = first.partition(" ")
    if not version.startswith("HTTP/1.") or not status[:3].isdecimal():
        raise LinkError("not an HTTP answer")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    keep = headers.get("connection", "").lower() != "close" and version == "HTTP/1.1"
    code, start = int(status[:3]), head_end + 4
    if code in {204, 304}:
        return code, b"", keep
    if "chunked" in headers.get("transfer-encoding", "").lower():
        chunked = _dechunk(bytes(data[start:]))
        return None if chunked is None else (code, chunked, keep)
    length = headers.get("content-length")
    if length is None:
        return (code, bytes(data[start:]), False) if ended else None
    if not length.isdecimal():
        raise LinkError("not an HTTP answer")
    if len(data) - start < int(length):
        return None
    return code, bytes(data[start : start + int(length)]), keep


def _dechunk(data: bytes) -> bytes | None:
    """The body of a chunked answer; None while the last chunk is missing."""
    body, position = b"", 0
    while (end := data.find(b"\r\n", position)) >= 0:
        try:
            size = int(data[position:end].partition(b";")[0], 16)
        except ValueError as error:
            raise LinkError("not an HTTP answer") from error
        if size == 0:
            return body if data.find(b"\r\n", end + 2) >= 0 else None
        body += data[end + 2 : end + 2 + size]
        position = end + 2 + size + 2
    return None
