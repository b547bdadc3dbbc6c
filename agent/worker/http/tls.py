"""The worker's connection to an agent that speaks TLS. Imported only then: `ssl` is as large as the worker.

The worker accepts exactly the certificate that the agent puts beside the worker's credential, whatever its name and
dates. So a step's end can be reported even if the certificate was not renewed in time.
"""

import os
import select
import ssl
from collections.abc import Callable
from typing import TypeVar

from agent.worker.errors import LinkError
from agent.worker.http.connection import Connection

PINNED = "agent.crt"
NO_CHECK_TIME = 0x200000
"""X509_V_FLAG_NO_CHECK_TIME, which Python has no name for."""


def pinned_context(file: str) -> ssl.SSLContext:
    """A client's context that takes the certificates in `file` and no others. Raises OSError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(file)
    context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN | NO_CHECK_TIME
    return context


T = TypeVar("T")


class TlsConnection(Connection):
    """A connection that does its handshake before its first request. Each connection reads the certificate again."""

    def __init__(self, host: str, port: int, credential_dir: str) -> None:
        try:
            self._context = pinned_context(os.path.join(credential_dir, PINNED))
        except OSError as error:
            raise LinkError(f"the agent's certificate can't be read: {error}") from error
        super().__init__(host, port)
        self._secured: ssl.SSLSocket | None = None
        self._established = False
        self._wants: int | None = None

    @property
    def events(self) -> int:
        """What to poll for: TLS may have to read before it can write."""
        return super().events if self._wants is None else self._wants

    def send(self, content: bytes) -> None:
        """Begin a request."""
        self._wants = None
        super().send(content)

    def _establish(self) -> None:
        if self._secured is None:
            self._secured = self._context.wrap_socket(self._socket, do_handshake_on_connect=False)
            self._socket = self._secured
        if not self._established:
            self._unless_it_waits(self._secured.do_handshake)
            self._established = True

    def _transmit(self, data: memoryview) -> int:
        return self._unless_it_waits(lambda: self._socket.send(data))

    def _receive(self, size: int) -> bytes:
        return self._unless_it_waits(lambda: self._socket.recv(size))

    def _unless_it_waits(self, do: Callable[[], T]) -> T:
        """What `do` returns. Raises BlockingIOError, as a plain socket does."""
        self._wants = None
        try:
            return do()
        except ssl.SSLWantReadError as error:
            self._wants = select.POLLIN
            raise BlockingIOError from error
        except ssl.SSLWantWriteError as error:
            self._wants = select.POLLOUT
            raise BlockingIOError from error
