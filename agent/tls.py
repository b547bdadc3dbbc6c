"""TLS by mounted files: `tls.crt`, `tls.key`, and `ca.crt` if callers from outside the Pod need a certificate too.

The files are a mounted Secret that is replaced while the agent runs. New ones are taken as soon as they fit together;
those in use stay in use until then, and connections that are open stay open.

The Pod's own programs reach the agent at an address that no certificate names. They need no name: the agent puts its
certificate beside each credential, and they take that very certificate and no other.
"""

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from agent.auth import write_beside
from agent.errors import ConfigError
from agent.log import Log

CERTIFICATE = "tls.crt"
KEY = "tls.key"
CLIENT_CA = "ca.crt"
PINNED = "agent.crt"
"""Beside each credential: the certificate to take the agent by."""

MAX_FILE_BYTES = 1 << 20
END = b"-----END CERTIFICATE-----"


@dataclass(frozen=True, slots=True)
class Files:
    """What the folder holds."""

    certificate: bytes
    key: bytes = field(repr=False)
    client_ca: bytes | None


def read_files(folder: Path) -> Files:
    """The folder's files. Raises OSError."""
    client_ca = folder / CLIENT_CA
    return Files(
        certificate=_read(folder / CERTIFICATE),
        key=_read(folder / KEY),
        client_ca=_read(client_ca) if client_ca.exists() else None,
    )


def make_context(folder: Path, files: Files) -> ssl.SSLContext:
    """A server's context of `files`, which `folder` still has. Raises OSError (ssl.SSLError is one)."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # A password that is wrong for every key: an encrypted one must not ask a terminal for its own.
    context.load_cert_chain(folder / CERTIFICATE, folder / KEY, password="")
    if files.client_ca is not None:
        context.load_verify_locations(cadata=files.client_ca.decode("ascii", "replace"))
        # Optional at the handshake: kubelets and the Pod's own programs show none. `http_access` says who must.
        context.verify_mode = ssl.CERT_OPTIONAL
    if read_files(folder) != files:
        raise OSError("the files changed while they were read")
    return context


def leaf_of(certificate: bytes) -> bytes:
    """The server's own certificate of a chain, which comes first."""
    start = certificate.find(b"-----BEGIN CERTIFICATE-----")
    end = certificate.find(END, start)
    return certificate[max(0, start) : end + len(END)] + b"\n"


class TlsFolder:
    """Keeps a server's context as the mounted folder has it. `places` are the folders of the Pod's own credentials."""

    def __init__(self, folder: Path, places: Iterable[Path], log: Log) -> None:
        self._folder = folder
        self._places = tuple(places)
        self._log = log
        self._files: Files | None = None
        self._problem: str | None = None
        self.on_change: Callable[[ssl.SSLContext], Awaitable[None]] | None = None

    @property
    def asks_certificates(self) -> bool:
        """Whether callers from outside the Pod need a certificate."""
        return self._files is not None and self._files.client_ca is not None

    def first(self) -> ssl.SSLContext:
        """The context to begin with. Raises ConfigError: without it nothing must be served."""
        try:
            files = read_files(self._folder)
            context = make_context(self._folder, files)
        except OSError as error:
            raise ConfigError([f"PODSLOTS_TLS_DIR can't be used: {describe(error)}"]) from error
        self._take(files)
        return context

    async def refresh(self) -> None:
        """Look whether the files are others now."""
        try:
            context = await asyncio.to_thread(self._changed)
        except OSError as error:
            self._say(describe(error))
            return
        self._problem = None
        if context is not None and self.on_change is not None:
            await self.on_change(context)
            self._log.event("TLS files changed", client_certificates=self.asks_certificates)

    def _changed(self) -> ssl.SSLContext | None:
        files = read_files(self._folder)
        if files == self._files:
            return None
        context = make_context(self._folder, files)
        self._take(files)
        return context

    def _take(self, files: Files) -> None:
        """Publish the certificate before it is used; and the one before, which is in use until then."""
        leaves = [leaf_of(files.certificate)]
        if self._files is not None and leaf_of(self._files.certificate) not in leaves:
            leaves.append(leaf_of(self._files.certificate))
        for place in self._places:
            write_beside(place / PINNED, b"".join(leaves), mode=0o444)
        self._files = files

    def _say(self, problem: str) -> None:
        if problem != self._problem:
            self._problem = problem
            self._log.event("TLS files not taken", error=problem)


def describe(error: OSError) -> str:
    """What went wrong, without what the files hold."""
    if isinstance(error, ssl.SSLError):
        return f"{error.library or 'SSL'}: {error.reason or 'not a certificate and its key'}"
    return f"{error.strerror or error}"


def _read(file: Path) -> bytes:
    with file.open("rb") as opened:
        return opened.read(MAX_FILE_BYTES)
