"""The controller's settings, from the environment."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from urllib.request import proxy_bypass

from controller import names
from controller.addresses import is_host, proxy_url, url_problem
from controller.errors import PodslotsError

MOST_SECONDS = 86400.0
"""A day. No period of the controller is as long: past it a number is a mistake, and a Lease could not hold it."""
MOST_CALLS = 1e6
"""A second, or at once. No API server takes as many."""
MOST_SHOWN = 100
"""Characters of a wrong setting in its message."""
_NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


class Guarded(StrEnum):
    """What of the HTTP server takes a token. Health never does."""

    NOTHING = "nothing"
    PAGE = "page"
    """The page and its API, which name the tasks of all namespaces."""
    ALL = "all"
    """Metrics too."""


class ConfigError(PodslotsError):
    """A setting that can't be used. The message names it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Settings of `slot-controller`.

    `lease_seconds` is how long a leader that vanished keeps others waiting; it renews every sixth of that, and stops
    acting after two thirds without success. `kube_qps` and `kube_burst` hold back calls of the Kubernetes API, in
    calls a second and calls at once. `resync_seconds`: how often every pool is looked at without a cause.
    `image_pod`: the controller's own Pod, in `namespace`. It tells the agent's image. None if `agent_image` was given.
    `http_host`: the address to serve at; None: every one, of IPv4 and of IPv6.
    `guarded`: the pages that need a token. `trust_loopback`: requests from this Pod itself, as by `kubectl
    port-forward`, need no token.
    `eviction_responder`: where the API server has Evictions, Pods name the controller as who is asked before.
    `ipv6`: whether Pods have IPv6 addresses. It is judged by the API server's own address, which every Pod is given.
    """

    agent_image: str
    identity: str
    image_pod: str | None = None
    kubeconfig: str | None = None
    context: str | None = None
    namespace: str = names.CONTROLLER_NAMESPACE
    watch_namespace: str | None = None
    http_host: str | None = None
    http_port: int = 8080
    guarded: Guarded = Guarded.PAGE
    trust_loopback: bool = True
    lease_seconds: float = 15.0
    resync_seconds: float = 30.0
    kube_qps: float = 200.0
    kube_burst: int = 400
    eviction_responder: bool = True
    ipv6: bool = False

    @staticmethod
    def from_environ(environ: Mapping[str, str]) -> "Config":
        """Read PODSLOTS_* variables. Raises ConfigError."""
        _check_texts(environ)
        _check_proxies(environ)
        identity = environ.get("PODSLOTS_IDENTITY") or environ.get("HOSTNAME") or "slot-controller"
        image, pod = environ.get("PODSLOTS_AGENT_IMAGE"), environ.get("POD_NAME")
        return Config(
            agent_image=image or "podslots/agent:latest",
            identity=identity,
            image_pod=pod if pod and not image else None,
            kubeconfig=environ.get("PODSLOTS_KUBECONFIG") or None,
            context=environ.get("PODSLOTS_CONTEXT") or None,
            namespace=_namespace(environ, "PODSLOTS_NAMESPACE") or names.CONTROLLER_NAMESPACE,
            watch_namespace=_namespace(environ, "PODSLOTS_WATCH_NAMESPACE"),
            http_host=_host(environ, "PODSLOTS_HTTP_HOST"),
            http_port=_whole(environ, "PODSLOTS_HTTP_PORT", 8080, least=0, most=65535),
            guarded=Guarded(_choice(environ, "PODSLOTS_HTTP_GUARDED", Guarded.PAGE, tuple(Guarded))),
            trust_loopback=_switch(environ, "PODSLOTS_HTTP_TRUST_LOOPBACK", default=True),
            lease_seconds=_number(environ, "PODSLOTS_LEASE_SECONDS", 15.0, least=1, most=MOST_SECONDS),
            resync_seconds=_number(environ, "PODSLOTS_RESYNC_SECONDS", 30.0, least=0.1, most=MOST_SECONDS),
            kube_qps=_number(environ, "PODSLOTS_KUBE_QPS", 200.0, least=1, most=MOST_CALLS),
            kube_burst=_whole(environ, "PODSLOTS_KUBE_BURST", 400, least=1, most=int(MOST_CALLS)),
            eviction_responder=_switch(environ, "PODSLOTS_EVICTION_RESPONDER", default=True),
            ipv6=":" in environ.get("KUBERNETES_SERVICE_HOST", ""),
        )


def _check_texts(environ: Mapping[str, str]) -> None:
    """Raises ConfigError for bytes that are no text: neither the API server nor the log could be told of them."""
    for name, text in environ.items():
        if name.startswith("PODSLOTS_") and not _is_unicode(text):
            raise ConfigError(f"{name} must be text in UTF-8, not {_shown(text)}")


def _check_proxies(environ: Mapping[str, str]) -> None:
    """Raises ConfigError for a proxy that can't be one: each request would fail by it, and not say so."""
    without = environ.get("no_proxy") or environ.get("NO_PROXY") or ""
    if proxy_bypass(environ.get("KUBERNETES_SERVICE_HOST", ""), {"no": without}):
        return
    for name in ("HTTPS_PROXY", "https_proxy"):
        if not (text := environ.get(name)):
            continue
        url = proxy_url(text)
        if not url.lower().startswith(("http://", "https://")):
            raise ConfigError(f"{name} must be http://HOST:PORT")
        if (problem := url_problem(url)) is not None:
            raise ConfigError(f"{name} must be http://HOST:PORT: {problem}")


def _is_unicode(text: str) -> bool:
    """Python has bytes of the environment that are not UTF-8 as halves of surrogate pairs."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _shown(text: str) -> str:
    return ascii(text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}…")


def _number(environ: Mapping[str, str], name: str, default: float, *, least: float, most: float) -> float:
    text = environ.get(name)
    if text is None:
        return default
    try:
        value = float(text)
    except ValueError:
        raise ConfigError(f"{name} must be a number, not {_shown(text)}") from None
    if not least <= value <= most:
        raise ConfigError(f"{name} must be from {least:g} to {most:g}, not {_shown(text)}")
    return value


def _whole(environ: Mapping[str, str], name: str, default: int, *, least: int, most: int) -> int:
    text = environ.get(name)
    if text is None:
        return default
    if not re.fullmatch(r"[0-9]{1,9}", text) or not least <= int(text) <= most:
        raise ConfigError(f"{name} must be a whole number from {least} to {most}, not {_shown(text)}")
    return int(text)


def _host(environ: Mapping[str, str], name: str) -> str | None:
    text = environ.get(name)
    if text and not is_host(text):
        raise ConfigError(f"{name} must be an address or the name of a host, not {_shown(text)}")
    return text or None


def _namespace(environ: Mapping[str, str], name: str) -> str | None:
    text = environ.get(name)
    if text and not _NAMESPACE.fullmatch(text):
        raise ConfigError(f"{name} must be the name of a namespace, not {_shown(text)}")
    return text or None


def _choice(environ: Mapping[str, str], name: str, default: str, options: tuple[str, ...]) -> str:
    text = environ.get(name, default)
    if text not in options:
        raise ConfigError(f"{name} must be one of {', '.join(options)}, not {_shown(text)}")
    return text


def _switch(environ: Mapping[str, str], name: str, *, default: bool) -> bool:
    text = environ.get(name)
    if text is None:
        return default
    if text not in {"true", "false"}:
        raise ConfigError(f"{name} must be true or false, not {_shown(text)}")
    return text == "true"
