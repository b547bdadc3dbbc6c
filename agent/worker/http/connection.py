"""One HTTP/1.1 connection that never waits. `client` says what is asked on it; `tls` has the same over TLS.

Requests have a length; answers have one, or are chunked, or end with the connection.
"""

import errno
import os
import select
import socket

from agent.worker.errors import LinkError

HEAD_BYTES = 64 * 1024
BODY_BYTES = 8 << 20
"""An assignment carries at most 1 MiB of work, which JSON may lengthen."""


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
        """Close the socket. A request that is under way gets no answer."""
        self._socket.close()

    def _establish(self) -> None:
        """Make ready for the first request, as TLS does by its handshake. Raises BlockingIOError while it lasts."""

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
