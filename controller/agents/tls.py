"""TLS to agents: the Secrets that a Pod was made with, and the TLS context for them.

Agents are known by name, not by address: no certificate names a Pod's IP. Whether a Pod's agent speaks TLS is read from
the Pod itself, which can't change any more. The pool's spec is about new Pods only, and a plain request to a TLS port
would give the token away.

Secrets are renewed while agents run. An agent follows within a minute or two, when its mount is updated. So the
previous CA stays valid beside the new one for a while.
"""

import asyncio
import base64
import binascii
import os
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from controller import names
from controller.agents.transport import Transport
from controller.errors import AgentUnreachable, ApiError, ApiUnavailable
from controller.kube.api import SECRETS, Api, Object

REREAD_SECONDS = 10.0
"""How old a Secret may be that a new request goes by. Streams stay open for hours: reads are few."""

OVERLAP_SECONDS = 600.0
"""For how long the CA before is taken. Kubelets bring a changed Secret into its mounts within two minutes."""

ContextSource = Callable[[], Awaitable[ssl.SSLContext]]
OverTls = Callable[[ContextSource, str], Transport]
"""Makes a transport that asks for its context before each request, and expects a certificate with this name."""


@dataclass(frozen=True, slots=True)
class PodTls:
    """The TLS of one Pod's agent. `client_secret`: the Secret with the client certificate."""

    secret: str
    server_name: str
    client_secret: str | None = None


def pod_tls(pod: Object) -> PodTls | None:
    """What `template` put into a Pod; None if its agent speaks plain HTTP."""
    spec = pod.get("spec") or {}
    volume = next((entry for entry in spec.get("volumes") or () if entry["name"] == names.TLS_VOLUME), None)
    if volume is None:
        return None
    secrets = [source["secret"]["name"] for source in volume["projected"]["sources"]]
    agents = [item for item in spec.get("initContainers") or () if item["name"] == names.AGENT_CONTAINER]
    variables = {entry["name"]: entry.get("value") for agent in agents for entry in agent.get("env") or ()}
    return PodTls(secrets[0], variables.get(names.TLS_SERVER_NAME) or "", secrets[1] if len(secrets) > 1 else None)


@dataclass(frozen=True, slots=True)
class _Files:
    ca: bytes
    client: bytes | None = field(repr=False)
    """Certificate and key, one after the other."""


class AgentTls:
    """Transports for Pods with TLS. Pods with the same Secrets share a context."""

    def __init__(self, api: Api, over_tls: OverTls) -> None:
        self._api = api
        self._over_tls = over_tls
        self._contexts: dict[tuple[str, str, str | None], _Context] = {}

    def transport(self, namespace: str, tls: PodTls) -> Transport:
        """A transport to agents that were made with these Secrets."""
        key = (namespace, tls.secret, tls.client_secret)
        context = self._contexts.setdefault(key, _Context(self._api, *key))
        return self._over_tls(context.current, tls.server_name)


class _Context:
    """A client's context, as its Secrets have it. While they can't be read, the last one."""

    def __init__(self, api: Api, namespace: str, secret: str, client_secret: str | None) -> None:
        self._api = api
        self._namespace = namespace
        self._secret = secret
        self._client_secret = client_secret
        self._turn = asyncio.Lock()
        self._read_at = float("-inf")
        self._files: _Files | None = None
        self._before: bytes | None = None
        self._changed_at = float("-inf")
        self._made: ssl.SSLContext | None = None

    async def current(self) -> ssl.SSLContext:
        """The context to use now. Raises AgentUnreachable."""
        async with self._turn:
            now = asyncio.get_running_loop().time()
            if self._made is None or now - self._read_at >= REREAD_SECONDS:
                try:
                    self._take(await self._read(), now)
                except (ApiError, ApiUnavailable, OSError) as error:
                    if self._made is None:
                        raise AgentUnreachable(f"no TLS to agents of Secret {self._secret}: {_words(error)}") from error
                self._read_at = now
            assert self._made is not None  # noqa: S101 - for the type checker
            return self._made

    async def _read(self) -> _Files:
        served = await self._data(self._secret)
        ca = served.get("ca.crt") or served.get("tls.crt")
        if not ca:
            raise OSError("it has neither ca.crt nor tls.crt")
        if self._client_secret is None:
            return _Files(ca, None)
        shown = await self._data(self._client_secret)
        if not shown.get("tls.crt") or not shown.get("tls.key"):
            raise OSError(f"Secret {self._client_secret} lacks tls.crt or tls.key")
        return _Files(ca, shown["tls.crt"].rstrip() + b"\n" + shown["tls.key"])

    async def _data(self, name: str) -> dict[str, bytes]:
        secret = await self._api.get(SECRETS, self._namespace, name)
        try:
            return {key: base64.b64decode(value) for key, value in (secret.get("data") or {}).items()}
        except binascii.Error as error:
            raise OSError(f"Secret {name} is not base64") from error

    def _take(self, files: _Files, now: float) -> None:
        known = self._files
        before, changed_at = self._before, self._changed_at
        if known is not None and known.ca != files.ca:
            before, changed_at = known.ca, now
        if now - changed_at >= OVERLAP_SECONDS:
            before = None
        if known != files or before != self._before:
            made = make_context(files.ca, files.client)
            if before:
                made.load_verify_locations(cadata=before.decode("ascii", "replace"))
            self._made = made
        self._files, self._before, self._changed_at = files, before, changed_at


def make_context(ca: bytes, client: bytes | None) -> ssl.SSLContext:
    """A context that takes what `ca` signed, or a certificate that is in it. Raises OSError (ssl.SSLError is one)."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # Without ca.crt the certificate itself is trusted.
    context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
    context.load_verify_locations(cadata=ca.decode("ascii", "replace"))
    if client is not None:
        # The key is read from a file only; this one is in memory and has no name.
        fd = os.memfd_create("client", os.MFD_CLOEXEC)
        try:
            os.write(fd, client)
            context.load_cert_chain(f"/proc/self/fd/{fd}", password="")
        finally:
            os.close(fd)
    return context


def _words(error: Exception) -> str:
    """What went wrong, without what the files hold."""
    if isinstance(error, ssl.SSLError):
        return f"{error.library or 'SSL'}: {error.reason or 'not a certificate and its key'}"
    return str(error)
