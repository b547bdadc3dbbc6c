"""Where the API server is, and what opens it: a plain address, a kubeconfig, or the Pod's own service account.

kubernetes_asyncio reads the configuration, runs exec plugins and names the certificate files; requests are sent
elsewhere. It is imported only when it is needed, for it costs about 40 MiB and half a second.

Credentials change while a process runs: service account tokens live about an hour and are rewritten in place, exec
plugins hand out tokens that expire, certificates are renewed. So an `Access` is loaded again after
`refresh_after_seconds`, and whenever the server answers 401.
"""

import asyncio
import os
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from controller.errors import ApiUnavailable, NoConfiguration

SERVICE_ACCOUNT_DIR = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_HOST, _PORT = "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"
FILE_REFRESH_SECONDS = 60.0
"""Token files are read again this often. The kubelet renews a token at 80 % of its life, so there are minutes to spare;
client-go takes the same minute."""
EXPIRY_MARGIN_SECONDS = 60.0
"""An exec plugin's token is replaced this long before it ends. kubernetes_asyncio itself takes five minutes, and would
run a plugin whose tokens live shorter than that for every request."""
MIN_RELOAD_SECONDS = 5.0
"""At most one load in this time, so that a server that answers 401 to everything does not make a plugin run hot."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KubeSettings:
    """How to find the API server. `server` wins; then `kubeconfig`; then the service account; then ~/.kube/config."""

    server: str | None = None
    token: str | None = field(default=None, repr=False)
    kubeconfig: str | None = None
    context: str | None = None
    stands_in_for: str | None = None
    """The user on whose behalf requests are made, if the one who has the credentials may do so."""
    in_cluster: bool = False
    service: tuple[str, str] | None = None
    """Host and port of the API server, for `in_cluster`; None: as the environment says."""
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
    namespace: str | None = None
    refresh_after_seconds: float | None = None


class AccessSource:
    """The current `Access`, loaded again as it ages."""

    def __init__(self, load: Callable[[], Awaitable[Access]]) -> None:
        self._load = load
        self._lock = asyncio.Lock()
        self._access: Access | None = None
        self._loaded_at = 0.0

    async def current(self) -> Access:
        """The access to use now. A reload that fails leaves the old one in use: it may still be good."""
        loop = asyncio.get_running_loop()
        if (access := self._access) is not None and not self._is_due(access, loop.time()):
            return access
        async with self._lock:
            access = self._access
            if access is None:
                access = self._access = await self._load()
                self._loaded_at = loop.time()
            elif self._is_due(access, loop.time()):
                access = await self._reload(access)
            return access

    async def renew(self, refused: Access) -> Access:
        """Another access than `refused`, if there is one by now."""
        async with self._lock:
            access = self._access
            recent = asyncio.get_running_loop().time() - self._loaded_at < MIN_RELOAD_SECONDS
            if access is None or access is not refused or recent:
                return access or refused
            return await self._reload(access)

    async def _reload(self, old: Access) -> Access:
        self._loaded_at = asyncio.get_running_loop().time()
        try:
            self._access = await self._load()
        except ApiUnavailable:
            return old
        return self._access

    def _is_due(self, access: Access, now: float) -> bool:
        return access.refresh_after_seconds is not None and now - self._loaded_at >= access.refresh_after_seconds


def access_source(settings: KubeSettings, now: Callable[[], datetime]) -> AccessSource:
    """Where `settings` say that access comes from. Nothing is read before the first use."""
    contexts = _TlsContexts()

    async def load() -> Access:
        try:
            if settings.server:
                return _plain(settings.server, settings.token)
            if settings.in_cluster and not settings.kubeconfig:
                return _in_cluster(settings.service, settings.service_account_dir, contexts)
            return await _kubeconfig(settings, contexts, now)
        except ApiUnavailable:
            raise
        except Exception as error:  # what a plugin, a YAML file or a certificate can raise is open-ended
            raise NoConfiguration(f"no usable Kubernetes configuration: {_problem(error)}") from error

    return AccessSource(load)


def _problem(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return str(error) or type(error).__name__


def _plain(server: str, token: str | None) -> Access:
    return Access(server=server.rstrip("/"), authorization=f"Bearer {token}" if token else None)


def _in_cluster(service: tuple[str, str] | None, folder: Path, contexts: "_TlsContexts") -> Access:
    from kubernetes_asyncio import config  # noqa: PLC0415 - heavy, and not needed for a plain address
    from kubernetes_asyncio.client import Configuration  # noqa: PLC0415

    found = Configuration()
    load: Any = config.load_incluster_config
    load(
        client_configuration=found,
        try_refresh_token=False,
        token_filename=str(folder / "token"),
        cert_filename=str(folder / "ca.crt"),
        **({"environ": {_HOST: service[0], _PORT: service[1]}} if service else {}),
    )
    namespace = folder / "namespace"
    return _access(
        found,
        contexts,
        namespace=namespace.read_text().strip() if namespace.is_file() else None,
        refresh_after_seconds=FILE_REFRESH_SECONDS,
    )


async def _kubeconfig(settings: KubeSettings, contexts: "_TlsContexts", now: Callable[[], datetime]) -> Access:
    from kubernetes_asyncio import config  # noqa: PLC0415
    from kubernetes_asyncio.client import Configuration  # noqa: PLC0415

    found = Configuration()
    paths = (settings.kubeconfig or str(Path.home() / ".kube" / "config")).split(os.pathsep)
    if not (there := os.pathsep.join(_existing(paths))):
        raise NoConfiguration(f"there is no kubeconfig {' or '.join(path for path in paths if path)}")
    loader = await config.load_kube_config(config_file=there, context=settings.context, client_configuration=found)
    current: dict[str, Any] = loader.current_context or {}
    refresh: float | None = None
    if expiry := getattr(loader, "exec_plugin_expiry", None):
        refresh = max(MIN_RELOAD_SECONDS, (expiry - now()).total_seconds() - EXPIRY_MARGIN_SECONDS)
    elif not found.cert_file and not _runs_plugin(loader):
        refresh = FILE_REFRESH_SECONDS
    return _access(
        found, contexts, namespace=current.get("context", {}).get("namespace"), refresh_after_seconds=refresh
    )


def _existing(paths: list[str]) -> list[str]:
    """Those of several kubeconfigs that exist. Others are passed over, as kubectl does; the loader would log each."""
    return [path for path in paths if path and Path(path).expanduser().exists()]


def _runs_plugin(loader: Any) -> bool:
    user = loader._user  # noqa: SLF001 - the loader has no other way to tell
    return user is not None and "exec" in user


def _access(
    found: Any, contexts: "_TlsContexts", *, namespace: str | None, refresh_after_seconds: float | None
) -> Access:
    token = found.api_key.get("BearerToken")
    return Access(
        server=found.host.rstrip("/"),
        authorization=token.strip() if token else None,
        tls=contexts.get(found) if found.host.startswith("https") else None,
        tls_server_name=found.tls_server_name,
        proxy=found.proxy,
        namespace=namespace,
        refresh_after_seconds=refresh_after_seconds,
    )


class _TlsContexts:
    """The last TLS context, made anew only as the files' contents change: each one means new connections."""

    def __init__(self) -> None:
        self._key: tuple[Any, ...] | None = None
        self._context: ssl.SSLContext | None = None

    def get(self, found: Any) -> ssl.SSLContext:
        files = (found.ssl_ca_cert, found.cert_file, found.key_file)
        key = (found.verify_ssl, *(Path(file).read_bytes() if file else None for file in files))
        if self._context is None or key != self._key:
            self._context, self._key = _tls_context(found), key
        return self._context


def _tls_context(found: Any) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=found.ssl_ca_cert)
    # Newer Pythons refuse CAs without a key usage extension, which many clusters have; client-go takes them.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if found.cert_file:
        context.load_cert_chain(found.cert_file, keyfile=found.key_file)
    if not found.verify_ssl:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
