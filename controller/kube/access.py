"""Where the API server is, and what opens it: a plain address, a kubeconfig, or the Pod's own service account.

Standard library and PyYAML only: the command line reads it at each start. `access_source` keeps it fresh in a process
that lives on.
"""

import base64
import ssl
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from controller.addresses import is_host, proxy_url, url_problem
from controller.errors import ApiUnavailable, NoConfiguration

if TYPE_CHECKING:
    from controller.kube import kubeconfig

SERVICE_ACCOUNT_DIR = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_HOST, _PORT = "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"
FILE_REFRESH_SECONDS = 60.0
"""Token files are read again this often. The kubelet renews a token at 80 % of its life, so there are minutes to spare;
client-go takes the same minute."""
EXPIRY_MARGIN_SECONDS = 60.0
"""An exec plugin's token is replaced this long before it ends."""
MIN_RELOAD_SECONDS = 5.0
"""At most one load in this time, so that a server that answers 401 to everything does not make a plugin run hot."""
LOOPBACK = ("127.", "localhost", "::1")
MAX_SHOWN = 100
"""Characters of a wrong word in its message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KubeSettings:
    """How to find the API server. `server` wins; then `kubeconfig`; then the service account; then ~/.kube/config."""

    server: str | None = None
    token: str | None = field(default=None, repr=False)
    kubeconfig: str | None = None
    context: str | None = None
    stands_in_for: str | None = None
    """The user to impersonate. The user of the credentials needs the right to do so."""
    in_cluster: bool = False
    service: tuple[str, str] | None = None
    """Host and port of the API server, for `in_cluster`."""
    service_account_dir: Path = SERVICE_ACCOUNT_DIR

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> "KubeSettings":
        """PODSLOTS_SERVER with PODSLOTS_TOKEN (as for the embedded cluster), KUBECONFIG, or the Pod's own."""
        return cls(
            server=environ.get("PODSLOTS_SERVER") or None,
            token=environ.get("PODSLOTS_TOKEN") or None,
            kubeconfig=environ.get("KUBECONFIG") or None,
            context=environ.get("PODSLOTS_CONTEXT") or None,
            in_cluster=bool(environ.get(_HOST)),
            service=(environ[_HOST], environ.get(_PORT, "443")) if environ.get(_HOST) else None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """What a request needs. `namespace` is the context's, or the Pod's own."""

    server: str
    authorization: str | None = field(default=None, repr=False)
    tls: ssl.SSLContext | None = None
    tls_server_name: str | None = None
    proxy: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    """The headers of a user of the kubeconfig who acts as another."""
    namespace: str | None = None
    refresh_after_seconds: float | None = None

    @property
    def is_local(self) -> bool:
        """Whether the server is on this machine: proxies of the environment are not for it."""
        return (urlsplit(self.server).hostname or "").startswith(LOOPBACK)


@dataclass(frozen=True, slots=True)
class Trust:
    """The parts of a TLS context, as PEM."""

    verify: bool
    ca: bytes | None
    certificate: bytes | None = None
    key: bytes | None = field(default=None, repr=False)


class TlsContexts:
    """The last TLS context. A new one is made only if its parts change, because it needs new connections."""

    def __init__(self) -> None:
        self._trust: Trust | None = None
        self._context: ssl.SSLContext | None = None

    def get(self, trust: Trust) -> ssl.SSLContext:
        """The context for this trust."""
        if self._context is None or trust != self._trust:
            self._context, self._trust = _tls_context(trust), trust
        return self._context


def load(settings: KubeSettings, now: datetime, contexts: TlsContexts | None = None) -> Access:
    """Read what `settings` name. Blocks: files are read, a credential plugin may run. Raises NoConfiguration."""
    contexts = contexts or TlsContexts()
    try:
        access = _read(settings, contexts, now)
        _check(access, settings.stands_in_for)
    except ApiUnavailable:
        raise
    except Exception as error:  # what a plugin, a YAML file or a certificate can raise is open-ended
        raise NoConfiguration(f"no usable Kubernetes configuration: {_problem(error)}") from error
    return access


def _read(settings: KubeSettings, contexts: TlsContexts, now: datetime) -> Access:
    if settings.server:
        return _plain(settings.server, settings.token)
    if settings.in_cluster and not settings.kubeconfig:
        return _in_cluster(settings, contexts)
    return _kubeconfig(settings, contexts, now)


def _check(access: Access, stands_in_for: str | None) -> None:
    """Whether an HTTP client can send to this address, and these words. Raises NoConfiguration.

    It is looked at here, once for all clients: each has errors of its own for this, and shows the token in some.
    """
    if (problem := url_problem(access.server)) is not None:
        raise NoConfiguration(f"the server {access.server[:MAX_SHOWN]!r} can't be connected to: {problem}")
    if access.proxy and (problem := url_problem(proxy_url(access.proxy))) is not None:
        raise NoConfiguration(f"the kubeconfig's proxy-url can't be used: {problem}")
    if access.tls_server_name is not None and not is_host(access.tls_server_name):
        raise NoConfiguration(f"the tls-server-name {access.tls_server_name[:MAX_SHOWN]!r} is no name of a host")
    if not _is_sendable(access.authorization or ""):
        raise NoConfiguration("the token has a line break, or what is no text, in it")
    for name in (stands_in_for or "", *access.headers.values()):
        if not _is_sendable(name):
            raise NoConfiguration(f"the user {name[:MAX_SHOWN]!r} to act as is no name")


def _is_sendable(text: str) -> bool:
    """Whether a header can have this value."""
    return not any(character < " " or character == "\x7f" or "\ud800" <= character <= "\udfff" for character in text)


def _problem(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return str(error) or type(error).__name__


def _plain(server: str, token: str | None) -> Access:
    tls = ssl.create_default_context() if server.startswith("https") else None
    return Access(server=server.rstrip("/"), authorization=f"Bearer {token}" if token else None, tls=tls)


def _in_cluster(settings: KubeSettings, contexts: TlsContexts) -> Access:
    folder = settings.service_account_dir
    if settings.service is None:
        raise NoConfiguration(f"no usable Kubernetes configuration: {_HOST} is not set")
    host, port = settings.service
    namespace = folder / "namespace"
    return Access(
        server=f"https://{f'[{host}]' if ':' in host else host}:{port}",
        authorization=f"Bearer {_token(folder / 'token')}",
        tls=contexts.get(Trust(verify=True, ca=(folder / "ca.crt").read_bytes())),
        namespace=namespace.read_text().strip() if namespace.is_file() else None,
        refresh_after_seconds=FILE_REFRESH_SECONDS,
    )


def _token(path: Path) -> str:
    token = path.read_text().strip()
    if not token:
        raise NoConfiguration(f"no usable Kubernetes configuration: {path} is empty")
    return token


def _kubeconfig(settings: KubeSettings, contexts: TlsContexts, now: datetime) -> Access:
    from controller.kube import kubeconfig  # noqa: PLC0415 - not needed for a plain address

    chosen = kubeconfig.choose(settings.kubeconfig, settings.context)
    cluster, user = chosen.cluster, chosen.user
    server = (cluster.text("server") or "").rstrip("/")
    if not server.startswith(("http://", "https://")):
        raise NoConfiguration(f"the kubeconfig's server is {server!r}; it has to begin with https:// or http://")
    credential = _provided(settings) if user.fields.get("auth-provider") else _credential(user, cluster)
    certificate, key = credential.certificate, credential.key
    trust = Trust(
        verify=not cluster.fields.get("insecure-skip-tls-verify"),
        ca=cluster.content("certificate-authority"),
        certificate=certificate,
        key=key,
    )
    refresh: float | None = None
    if credential.expires is not None:
        refresh = max(MIN_RELOAD_SECONDS, (credential.expires - now).total_seconds() - EXPIRY_MARGIN_SECONDS)
    elif not certificate and not user.fields.get("exec"):
        refresh = FILE_REFRESH_SECONDS
    return Access(
        server=server,
        authorization=credential.authorization,
        tls=contexts.get(trust) if server.startswith("https") else None,
        tls_server_name=cluster.text("tls-server-name"),
        proxy=cluster.text("proxy-url"),
        headers=_impersonation(user),
        namespace=chosen.namespace,
        refresh_after_seconds=refresh,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Credential:
    authorization: str | None = field(default=None, repr=False)
    certificate: bytes | None = None
    key: bytes | None = field(default=None, repr=False)
    expires: datetime | None = None


def _provided(settings: KubeSettings) -> _Credential:
    """Of a user with an auth-provider. Its token is read, and renewed, as often as a file."""
    from controller.kube import auth_provider  # noqa: PLC0415 - seldom

    return _Credential(authorization=auth_provider.authorization(settings.kubeconfig, settings.context))


def _credential(user: "kubeconfig.Entry", cluster: "kubeconfig.Entry") -> _Credential:
    """What opens the server for a user: as client-go, a token file before a token, and both before a plugin."""
    certificate, key = user.content("client-certificate"), user.content("client-key")
    file, token = user.path("tokenFile"), user.text("token")
    if file is not None:
        token = _token(file)
    if token:
        return _Credential(authorization=f"Bearer {token.strip()}", certificate=certificate, key=key)
    if name := user.text("username"):
        words = base64.b64encode(f"{name}:{user.text('password') or ''}".encode()).decode()
        return _Credential(authorization=f"Basic {words}", certificate=certificate, key=key)
    if spec := user.fields.get("exec"):
        from controller.kube import exec_plugin  # noqa: PLC0415 - subprocess is 10 ms

        given = exec_plugin.run(spec, user.folder, cluster.fields)
        return _Credential(
            authorization=f"Bearer {given.token}" if given.token else None,
            certificate=given.certificate.encode() if given.certificate else certificate,
            key=given.key.encode() if given.key else key,
            expires=given.expires,
        )
    return _Credential(certificate=certificate, key=key)


def _impersonation(user: "kubeconfig.Entry") -> dict[str, str]:
    if user.fields.get("as-groups") or user.fields.get("as-user-extra"):
        raise NoConfiguration(
            "the kubeconfig's user stands in for another with as-groups or as-user-extra; only as is known"
        )
    name = user.text("as")
    return {"Impersonate-User": name} if name else {}


def _tls_context(trust: Trust) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=trust.ca.decode("ascii", "replace") if trust.ca else None)
    # Newer Pythons refuse CAs without a key usage extension, which many clusters have; client-go takes them.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if trust.certificate:
        _load_certificate(context, trust.certificate, trust.key)
    if not trust.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _load_certificate(context: ssl.SSLContext, certificate: bytes, key: bytes | None) -> None:
    """OpenSSL takes them from a file only: one that nobody else can read, and that is gone at once."""
    with tempfile.NamedTemporaryFile(prefix="podslots-", suffix=".pem") as file:
        file.write(certificate + b"\n" + (key or b""))
        file.flush()
        context.load_cert_chain(file.name)
