"""Who may make which call, by the credential shown and, where the agent has a CA for clients, by certificate.

| call | needs |
| --- | --- |
| /healthz, /readyz | nothing: kubelets show nothing |
| reads | nothing; with locked reads a token of the pool's, or a credential of the Pod's other than a worker's |
| writes | a credential that is good for them |

If client certificates are asked for, every call from outside the Pod needs one: with the pool's token, and for a read
without a token too. The Pod's own credentials work without a certificate, but only from the Pod's own addresses.
"""

from collections.abc import Awaitable, Callable, Collection
from enum import Enum
from ipaddress import ip_address

from aiohttp import hdrs, web

from agent.auth import Identity, Keyring, Kind
from agent.errors import Refusal
from agent.wire import ErrorCode

NOBODY = Identity(Kind.LOCAL, -2)
"""The caller of what needs no credential."""


class Who(Enum):
    """Which credentials allow a call."""

    ANYBODY = ()
    """Nobody is asked for one."""
    READERS = (Kind.POOL, Kind.READER, Kind.LOCAL, Kind.CLOSE)
    """Asked for one only where reads are locked, or certificates are asked for."""
    POOL = (Kind.POOL,)
    HOLDERS = (Kind.POOL, Kind.LOCAL)
    WORKER = (Kind.SLOT,)
    CLOSER = (Kind.CLOSE,)


FROM_OUTSIDE = frozenset({Kind.POOL, Kind.READER})
OF_THE_POD = frozenset({Kind.SLOT, Kind.LOCAL, Kind.CLOSE})
"""Credentials that the agent made. A task's code can read its slot's: carried away, it must be good for nothing."""


class Access:
    """Lets callers in. `refresh_tokens` re-reads the mounted tokens, if that was not done just now.

    `addresses` are the Pod's own, beside loopback.
    """

    def __init__(
        self,
        keyring: Keyring,
        refresh_tokens: Callable[[], Awaitable[None]],
        *,
        addresses: Collection[str] = (),
        lock_reads: bool = False,
        asks_certificates: Callable[[], bool] = lambda: False,
    ) -> None:
        self._keyring = keyring
        self._refresh_tokens = refresh_tokens
        self._addresses = frozenset(addresses)
        self._lock_reads = lock_reads
        self._asks_certificates = asks_certificates

    async def admit(self, request: web.BaseRequest, who: Who) -> Identity:
        """The caller of a request, if it is one of those. Raises Refusal unauthorized, forbidden."""
        certified = not self._asks_certificates() or _has_certificate(request)
        if who is Who.ANYBODY or (who is Who.READERS and not self._lock_reads and certified):
            return NOBODY
        shown = request.headers.get(hdrs.AUTHORIZATION)
        identity = self._keyring.identify(shown)
        if identity is None and shown is not None:
            # Perhaps a token that is newer than what was read last.
            await self._refresh_tokens()
            identity = self._keyring.identify(shown)
        if identity is None:
            raise Refusal(ErrorCode.UNAUTHORIZED, "needs Authorization: Bearer and a token that is valid here")
        if identity.kind not in who.value:
            raise Refusal(ErrorCode.FORBIDDEN, f"a {identity.kind} credential is not good for this call")
        if identity.kind in OF_THE_POD and not self._is_from_the_pod(request):
            raise Refusal(ErrorCode.FORBIDDEN, f"a {identity.kind} credential is good in its own Pod only")
        if not certified and identity.kind in FROM_OUTSIDE:
            raise Refusal(ErrorCode.FORBIDDEN, f"a {identity.kind} credential is not good without a client certificate")
        return identity

    def _is_from_the_pod(self, request: web.BaseRequest) -> bool:
        peer = request.transport.get_extra_info("peername") if request.transport is not None else None
        if not peer:
            return False
        address: str = peer[0]
        return address in self._addresses or ip_address(address).is_loopback


def _has_certificate(request: web.BaseRequest) -> bool:
    """Whether the connection's other end showed a certificate; one that did not check ended the handshake."""
    transport = request.transport
    return transport is not None and bool(transport.get_extra_info("peercert"))
