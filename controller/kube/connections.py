"""Connections to an API server for `blocking`: TLS as the kubeconfig says, and proxies."""

import http.client
import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPResponse
from urllib.parse import unquote, urlsplit

from controller.addresses import proxy_url, url_problem
from controller.errors import ApiUnavailable, NoConfiguration
from controller.kube.access import Access
from controller.unreached import why_unreached


@dataclass(frozen=True, slots=True)
class Request:
    """One request. `target`: its path, below the server's own, with the query."""

    method: str
    target: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    data: bytes | None = field(default=None, repr=False)


def opened(access: Access, connect_seconds: float, answer_seconds: float) -> HTTPConnection:
    """A connection. Raises ApiUnavailable if it can't be made."""
    connection = _connection(access, connect_seconds)
    try:
        connection.connect()
    except OSError as error:
        connection.close()
        where = f"{connection.host}:{connection.port}"
        raise ApiUnavailable(f"can't connect to {where}: {why_unreached(error)}") from error
    connection.sock.settimeout(answer_seconds)
    return connection


def exchanged(connection: HTTPConnection, access: Access, request: Request) -> HTTPResponse:
    """Send a request, and read the head of its answer."""
    base = urlsplit(access.server)
    target = base.path + request.target
    headers = {"Host": base.netloc, **request.headers}
    if access.authorization:
        headers["Authorization"] = access.authorization
    if isinstance(connection, _Forwarded):
        target = f"{base.scheme}://{base.netloc}{target}"
        headers |= connection.credentials
    # As Go's clients send them: a user's name may have any character.
    encoded = {name: value.encode() for name, value in headers.items()}
    connection.request(request.method, target, request.data, encoded)
    return connection.getresponse()


class _Tls(http.client.HTTPSConnection):
    """TLS to a server with a certificate for another name than its address."""

    def __init__(self, host: str, port: int, timeout: float, context: ssl.SSLContext, server_name: str) -> None:
        super().__init__(host, port, timeout=timeout, context=context)
        self._tls, self._server_name = context, server_name

    def connect(self) -> None:
        """Connect, through the proxy's tunnel if there is one, and shake hands."""
        HTTPConnection.connect(self)
        self.sock = self._tls.wrap_socket(self.sock, server_hostname=self._server_name)


class _Forwarded(HTTPConnection):
    """To a proxy that passes requests on, for a server without TLS."""

    credentials: dict[str, str]


def _connection(access: Access, timeout_seconds: float) -> HTTPConnection:
    """A connection to the server, by the proxy of the kubeconfig or the environment. Not connected yet."""
    server = urlsplit(access.server)
    host, port = server.hostname or "", server.port or (443 if server.scheme == "https" else 80)
    proxy = access.proxy or _environment_proxy(access, server.scheme, host)
    if not proxy:
        if access.tls is None:
            return HTTPConnection(host, port, timeout=timeout_seconds)
        return _Tls(host, port, timeout_seconds, access.tls, access.tls_server_name or host)
    # That of the environment was not looked at yet.
    if (problem := url_problem(proxy_url(proxy))) is not None:
        raise NoConfiguration(f"the environment's proxy can't be used: {problem}")
    by = urlsplit(proxy_url(proxy))
    if by.scheme != "http" or not by.hostname:
        raise NoConfiguration(f"the proxy {by.scheme}://{by.hostname or ''} can't be used: only http:// ones can")
    credentials = _proxy_credentials(by.username, by.password)
    if access.tls is None:
        forwarded = _Forwarded(by.hostname, by.port or 80, timeout=timeout_seconds)
        forwarded.credentials = credentials
        return forwarded
    tunnelled = _Tls(by.hostname, by.port or 80, timeout_seconds, access.tls, access.tls_server_name or host)
    tunnelled.set_tunnel(host, port, credentials)
    return tunnelled


def _environment_proxy(access: Access, scheme: str, host: str) -> str | None:
    """What HTTPS_PROXY and its like name, unless NO_PROXY or the server's being local says otherwise."""
    if access.is_local or not any(name.lower().endswith("_proxy") for name in os.environ):
        return None
    from urllib.request import getproxies, proxy_bypass  # noqa: PLC0415 - 6 ms

    return None if proxy_bypass(host) else getproxies().get(scheme)


def _proxy_credentials(user: str | None, password: str | None) -> dict[str, str]:
    if user is None:
        return {}
    from base64 import b64encode  # noqa: PLC0415 - seldom

    words = b64encode(f"{unquote(user)}:{unquote(password or '')}".encode()).decode()
    return {"Proxy-Authorization": f"Basic {words}"}
