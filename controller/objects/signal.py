"""Where a pool's utilisation is read: `autoscaling.signal`."""

import re
from dataclasses import dataclass
from enum import StrEnum

from controller.objects.fields import Fields

MAX_QUERY_LENGTH = 4096
MAX_URL_LENGTH = 2048
MAX_NAME_LENGTH = 253
WINDOW_SECONDS = (15, 3600)
DEFAULT_WINDOW_SECONDS = 120
"""Scrapes come once in 15 to 60 seconds: at least two of them are to be in it."""

# No user and password, which everybody could read there; no query, which would be part of each call.
URL = re.compile(r"https?://[A-Za-z0-9._-]+(:[0-9]{1,5})?(/[A-Za-z0-9._~%/-]*)?")
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")


class SignalSource(StrEnum):
    """Where the utilisation of a pool is read from."""

    AGENTS = "Agents"
    PROMETHEUS = "Prometheus"


class Fallback(StrEnum):
    """What counts while Prometheus gives no usable answer."""

    HOLD = "Hold"
    AGENTS = "Agents"


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalTls:
    """How an https URL is verified: by `ca.crt` of a Secret of the pool's namespace.

    If it has `tls.crt` and `tls.key` too, those are shown. `server_name` None: the name in the URL.
    """

    secret: str
    server_name: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """A Prometheus, and what it is asked. A query that is None is the one of `metrics.queries`.

    `token_secret` names a Secret of the pool's namespace whose `token` is sent as a bearer token.
    """

    url: str
    utilization_query: str | None = None
    queue_query: str | None = None
    window_seconds: int = DEFAULT_WINDOW_SECONDS
    tls: SignalTls | None = None
    token_secret: str | None = None
    fallback: Fallback = Fallback.HOLD


def parse_signal(autoscaling: Fields) -> Signal | None:
    """The signal of an `autoscaling`; None if agents are the source. Raises InvalidObject."""
    given = autoscaling.optional_child("signal")
    if given is None:
        return None
    source = SignalSource(given.choice("source", SignalSource.AGENTS, tuple(SignalSource)))
    least, most = WINDOW_SECONDS
    tls = given.optional_child("tls")
    url = given.text("url", most=MAX_URL_LENGTH, pattern=URL) if given.has("url") else None
    parsed = Signal(
        url=url or "",
        utilization_query=_query(given, "utilizationQuery"),
        queue_query=_query(given, "queueQuery"),
        window_seconds=given.integer("windowSeconds", DEFAULT_WINDOW_SECONDS, least=least, most=most),
        tls=_tls(tls) if tls else None,
        token_secret=_name(given, "tokenSecret") if given.has("tokenSecret") else None,
        fallback=Fallback(given.choice("fallback", Fallback.HOLD, tuple(Fallback))),
    )
    if source is SignalSource.AGENTS:
        return None
    if url is None:
        raise given.fail("url", "is required if the source is Prometheus")
    if parsed.tls is not None and not url.startswith("https:"):
        raise given.fail("tls", "is for an https URL")
    return parsed


def _query(given: Fields, name: str) -> str | None:
    return given.optional_text(name, empty=False, most=MAX_QUERY_LENGTH)


def _tls(given: Fields) -> SignalTls:
    return SignalTls(
        secret=_name(given, "secretName"),
        server_name=_name(given, "serverName") if given.has("serverName") else None,
    )


def _name(given: Fields, name: str) -> str:
    return given.text(name, most=MAX_NAME_LENGTH, pattern=_NAME)
