"""TLS by mounted files: `tls.crt`, `tls.key`, and `ca.crt` if callers from outside the Pod need a certificate too.

The files are a mounted Secret that is replaced while the agent runs. New ones are taken as soon as they fit together;
those in use stay in use until then, and connections that are open stay open. A `ca.crt` that can't be used neither
opens the agent to everybody nor stops it. The previous CA stays in use, also after a restart. Without a previous CA all
calls from outside the Pod are refused until the file is repaired.

The Pod's own programs reach the agent at an address that no certificate names. So they check no name: the agent puts
its certificate beside each credential, and they accept only that certificate.
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
"""The file beside each credential with the agent's certificate: its callers trust that one alone."""

MAX_FILE_BYTES = 1 << 20
END = b"-----END CERTIFICATE-----"


NONE_USABLE = b""
"""The value of `client_ca` if the file can't be used and no CA was in use before: no client certificate is accepted."""


@dataclass(frozen=True, slots=True)
class Files:
    """The files in use. `client_ca`: None if no certificates are asked for, `NONE_USABLE` if none is accepted."""

    certificate: bytes
    key: bytes = field(repr=False)
    client_ca: bytes | None


def make_context(folder: Path, files: Files) -> ssl.SSLContext:
    """A server's context of `files`, whose certificate and key `folder` still has. Raises OSError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # A password that is wrong for every key: an encrypted one must not ask a terminal for its own.
    context.load_cert_chain(folder / CERTIFICATE, folder / KEY, password="")
    if files.client_ca:
        load_client_ca(context, files.client_ca)
    if (_read(folder / CERTIFICATE), _read(folder / KEY)) != (files.certificate, files.key):
        raise OSError("the files changed while they were read")
    return context


def load_client_ca(context: ssl.SSLContext, client_ca: bytes) -> None:
    """Have a server's context accept certificates of this CA. Raises OSError (or ssl.SSLError) if it is not a CA."""
    try:
        context.load_verify_locations(cadata=client_ca.decode("ascii"))
    except ValueError as error:
        raise OSError(f"{CLIENT_CA}: not a certificate") from error
    # Optional at the handshake: kubelets and the Pod's own programs show none. `http.access` says who must.
    context.verify_mode = ssl.CERT_OPTIONAL


def leaf_of(certificate: bytes) -> bytes:
    """The server's own certificate of a chain, which comes first."""
    start = certificate.find(b"-----BEGIN CERTIFICATE-----")
    end = certificate.find(END, start)
    return certificate[max(0, start) : end + len(END)] + b"\n"


class TlsFolder:
    """Keeps a server's context as the mounted folder has it.

    `places` are the folders in which the Pod's own programs look for the certificate. `kept_ca` is where the client CA
    in use is kept: should the mounted one become useless, it is still known after a restart.
    """

    def __init__(self, folder: Path, places: Iterable[Path], log: Log, *, kept_ca: Path) -> None:
        self._folder = folder
        self._places = tuple(places)
        self._log = log
        self._kept_ca = kept_ca
        self._files: Files | None = None
        self._published = False
        self._problem: str | None = None
        self.on_change: Callable[[ssl.SSLContext], Awaitable[None]] | None = None

    @property
    def asks_certificates(self) -> bool:
        """Whether callers from outside the Pod need a certificate."""
        return self._files is not None and self._files.client_ca is not None

    def first(self) -> ssl.SSLContext:
        """The context to begin with. Raises ConfigError without a certificate and its key: nothing must be served."""
        try:
            files, problem = self._mounted()
            context = make_context(self._folder, files)
        except OSError as error:
            raise ConfigError([f"PODSLOTS_TLS_DIR can't be used: {describe(error)}"]) from error
        try:
            self._take(files)
        except OSError as error:
            # It serves all the same: what holds a slot goes on, and `refresh` tries again.
            problem = describe(error)
            self._files = files
        self._say(problem)
        return context

    async def refresh(self) -> None:
        """Look whether the files are others now."""
        try:
            context, problem = await asyncio.to_thread(self._changed)
        except OSError as error:
            self._say(describe(error))
            return
        self._say(problem)
        if context is not None and self.on_change is not None:
            await self.on_change(context)
            self._log.event("TLS files changed", client_certificates=self.asks_certificates)

    def _changed(self) -> tuple[ssl.SSLContext | None, str | None]:
        files, problem = self._mounted()
        if files == self._files:
            if not self._published:
                self._take(files)
            return None, problem
        context = make_context(self._folder, files)
        self._take(files)
        return context, problem

    def _mounted(self) -> tuple[Files, str | None]:
        """The present files. A client CA that can't be used is replaced by the one in use; and what is wrong."""
        certificate, key = _read(self._folder / CERTIFICATE), _read(self._folder / KEY)
        try:
            client_ca = _read(self._folder / CLIENT_CA)
            load_client_ca(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), client_ca)
        except FileNotFoundError:
            return Files(certificate, key, None), None
        except OSError as error:
            return Files(certificate, key, self._client_ca_in_use()), f"{CLIENT_CA} not taken: {describe(error)}"
        return Files(certificate, key, client_ca), None

    def _client_ca_in_use(self) -> bytes | None:
        if self._files is not None:
            return self._files.client_ca
        try:
            kept = _read(self._kept_ca)
            load_client_ca(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), kept)
        except OSError:
            return NONE_USABLE
        return kept

    def _take(self, files: Files) -> None:
        """Publish the certificate before it is used; and the one before, which is in use until then. Raises OSError."""
        leaves = [leaf_of(files.certificate)]
        if self._files is not None and leaf_of(self._files.certificate) not in leaves:
            leaves.append(leaf_of(self._files.certificate))
        try:
            for place in self._places:
                _put(place / PINNED, b"".join(leaves))
            if files.client_ca:
                _put(self._kept_ca, files.client_ca)
            elif files.client_ca is None:
                self._kept_ca.unlink(missing_ok=True)
        except OSError as error:
            raise OSError(f"the certificate can't be handed on: {describe(error)}") from error
        self._files, self._published = files, True

    def _say(self, problem: str | None) -> None:
        if problem != self._problem:
            self._problem = problem
            if problem is not None:
                self._log.event("TLS files not taken", error=problem)


def _put(file: Path, data: bytes) -> None:
    """Make `file` have this content. One that has it is left alone: a full volume can't take it a second time."""
    try:
        if _read(file) == data:
            return
    except OSError:
        # Missing, or not to be read: it is written anew.
        pass
    write_beside(file, data, mode=0o444)


def describe(error: OSError) -> str:
    """What went wrong, without what the files hold."""
    if isinstance(error, ssl.SSLError):
        return f"{error.library or 'SSL'}: {error.reason or 'not a certificate and its key'}"
    return f"{error.strerror or error}"


def _read(file: Path) -> bytes:
    with file.open("rb") as opened:
        return opened.read(MAX_FILE_BYTES)
