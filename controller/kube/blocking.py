"""The Kubernetes API for a command that does one thing after the other: `http.client`, no event loop.

A command should start as fast as kubectl's; aiohttp alone takes longer to import than such a command has. What goes
over the wire, and which errors come of it, is as in `client`: see `answers`. After `ApiUnavailable` a write may have
happened; only a GET is ever sent twice, when a kept connection turns out to be closed.
"""

import http.client
import select
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from http.client import HTTPConnection, HTTPResponse

from controller.errors import ApiUnavailable, NoConfiguration
from controller.kube.access import MIN_RELOAD_SECONDS, Access, KubeSettings, TlsContexts, load
from controller.kube.answers import (
    JSON,
    MERGE_PATCH,
    METHODS,
    OK,
    STRICT,
    UNAUTHORIZED,
    USER_AGENT,
    delete_options,
    dump,
    error_of,
    parse,
    parse_event,
    parse_status,
    path_of,
    with_query,
)
from controller.kube.api import PODS, Object, Resource
from controller.kube.connections import Request, exchanged, opened
from controller.unreached import why_unreached

GZIP = 31
"""zlib's number for its format."""
CHUNK_BYTES = 1 << 16
WATCH_SECONDS = 290
"""The server ends a watch by itself after this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long to wait, in seconds: for a connection; for anything of an answer; for anything of a watch."""

    connect: float = 5.0
    answer: float = 15.0
    watch: float = 75.0


class BlockingClient:
    """The calls of `controller.kube.api.Api` that commands make. Reads its configuration at once.

    Writes with fields that the server does not know are refused, not pruned: people typed them. `hint` is asked what
    to add when nobody answers at the server's address.
    """

    def __init__(
        self,
        settings: KubeSettings,
        now: Callable[[], datetime],
        patience: Patience | None = None,
        *,
        hint: Callable[[], str] = lambda: "",
    ) -> None:
        self._settings = settings
        self._now = now
        self._patience = patience or Patience()
        self._hint = hint
        self._contexts = TlsContexts()
        self._access = load(settings, now(), self._contexts)
        self._loaded_at = time.monotonic()
        self._kept: HTTPConnection | None = None

    def close(self) -> None:
        """Close what is open."""
        if self._kept is not None:
            self._kept.close()
            self._kept = None

    @property
    def server(self) -> str:
        """The API server's URL."""
        return self._access.server

    @property
    def default_namespace(self) -> str | None:
        """The namespace of the kubeconfig's context, or of the Pod this runs in."""
        return self._access.namespace

    def get(self, resource: Resource, namespace: str | None, name: str) -> Object:
        """The object, read live."""
        return self._call("get", path_of(resource, namespace, name))

    def list_page(
        self,
        resource: Resource,
        namespace: str | None,
        *,
        label_selector: str = "",
        field_selector: str = "",
        limit: int = 500,
        continue_token: str = "",
    ) -> Object:
        """One page."""
        query = {
            "limit": str(limit),
            "continue": continue_token,
            "labelSelector": label_selector,
            "fieldSelector": field_selector,
        }
        return self._call("list", path_of(resource, namespace), query)

    def watch(
        self,
        resource: Resource,
        namespace: str | None,
        *,
        resource_version: str,
        label_selector: str = "",
        field_selector: str = "",
    ) -> Iterator[Object]:
        """Watch events from `resource_version`, bookmarks too, until the server ends the stream."""
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": resource_version,
            "timeoutSeconds": str(WATCH_SECONDS),
            "labelSelector": label_selector,
            "fieldSelector": field_selector,
        }
        with closing(self._stream(path_of(resource, namespace), query, self._patience.watch)) as lines:
            for line in lines:
                if line:
                    yield parse_event(line)

    def create(self, resource: Resource, namespace: str | None, body: Object) -> Object:
        """POST."""
        return self._call("create", path_of(resource, namespace), STRICT, body)

    def replace(self, resource: Resource, namespace: str | None, name: str, body: Object) -> Object:
        """PUT; a `metadata.resourceVersion` in the body is a precondition."""
        return self._call("update", path_of(resource, namespace, name), STRICT, body)

    def patch(self, resource: Resource, namespace: str | None, name: str, body: Object) -> Object:
        """PATCH with a JSON merge patch."""
        return self._call("patch", path_of(resource, namespace, name), STRICT, body)

    def delete(
        self,
        resource: Resource,
        namespace: str | None,
        name: str,
        *,
        uid: str | None = None,
        resource_version: str | None = None,
    ) -> Object:
        """DELETE with preconditions."""
        return self._call(
            "delete", path_of(resource, namespace, name), body=delete_options(uid, resource_version, None)
        )

    def version(self) -> str:
        """The API server's version, as `v1.36.2`."""
        return str(self._call("get", "/version").get("gitVersion", ""))

    def dry_run(
        self,
        verb: str,
        resource: Resource,
        namespace: str | None,
        name: str = "",
        *,
        body: Object | None = None,
        subresource: str = "",
    ) -> Object:
        """A write, by its verb in RBAC, that goes through admission and is not stored. A patch is a merge patch."""
        return self._call(verb, path_of(resource, namespace, name, subresource), {"dryRun": "All"}, body)

    def pod_log(self, namespace: str, name: str, container: str, *, follow: bool = False) -> "Lines":
        """A container's log by lines, without their ends. Following it has no idle timeout: a program may be silent."""
        query = {"container": container, "follow": "true" if follow else ""}
        return self._stream(path_of(PODS, namespace, name, "log"), query, None if follow else self._patience.answer)

    def _call(self, verb: str, path: str, query: dict[str, str] | None = None, body: Object | None = None) -> Object:
        method = METHODS[verb]
        headers = {"Accept-Encoding": "gzip"}
        if body is not None:
            headers["Content-Type"] = MERGE_PATCH if verb == "patch" else JSON
        data = None if body is None else dump(body)
        request = Request(method, with_query(path, query), {**self._headers(), **headers}, data)
        access = self._current()
        with _translated(f"{method} {path}"):
            response, content = self._exchange(access, request)
            # A 401 was refused before anything was done, so any method may be sent again with newer credentials.
            if response.status == UNAUTHORIZED and (newer := self._renewed(access)) is not access:
                response, content = self._exchange(newer, request)
        if not OK <= response.status < 300:  # noqa: PLR2004 - the successes
            raise error_of(response.status, parse_status(content), response.headers.get("Retry-After"))
        return parse(content)

    def _headers(self) -> dict[str, str]:
        person = self._settings.stands_in_for
        standing_in = {"Impersonate-User": person} if person else self._access.headers
        return {"User-Agent": USER_AGENT, "Accept": JSON, **standing_in}

    def _exchange(self, access: Access, request: Request) -> tuple[HTTPResponse, bytes]:
        """One request and its whole answer, on the kept connection if there is one."""
        if self._kept is not None and _is_closed(self._kept):
            self.close()
        reused = self._kept is not None
        try:
            connection = self._kept = self._kept or self._open(access)
            response = exchanged(connection, access, request)
            content = response.read()
        except ConnectionError:
            self.close()
            if not reused or request.method != "GET":
                raise
            return self._exchange(access, request)
        except BaseException:
            self.close()  # an answer that was not read would be taken for that of the next request
            raise
        if response.will_close:
            self.close()
        if response.headers.get("Content-Encoding") == "gzip":
            import zlib  # noqa: PLC0415 - for long lists only

            try:
                content = zlib.decompress(content, GZIP)
            except zlib.error as error:
                raise ApiUnavailable(f"{request.method}: the answer is not compressed as it says") from error
        return response, content

    def _stream(self, path: str, query: dict[str, str], idle_seconds: float | None) -> "Lines":
        """A GET on a separate connection. Its answer is read line by line."""
        access = self._current()
        with _translated(f"GET {path}"):
            connection = self._open(access)
            here = connection.sock  # http.client lets go of it if the server says that it will close
            try:
                response = exchanged(connection, access, Request("GET", with_query(path, query), self._headers()))
                content = b"" if response.status == OK else response.read()
                here.settimeout(idle_seconds)
            except BaseException:
                connection.close()
                raise
        if response.status != OK:
            here.close()
            if response.status == UNAUTHORIZED:
                self._renewed(access)
            raise error_of(response.status, parse_status(content), response.headers.get("Retry-After"))
        return Lines(response, here, f"GET {path}")

    def _open(self, access: Access) -> HTTPConnection:
        try:
            return opened(access, self._patience.connect, self._patience.answer)
        except NoConfiguration:
            raise
        except ApiUnavailable as error:
            raise ApiUnavailable(f"{error}{self._hint()}") from error

    def _current(self) -> Access:
        limit = self._access.refresh_after_seconds
        if limit is not None and time.monotonic() - self._loaded_at >= limit:
            self._reload()
        return self._access

    def _renewed(self, refused: Access) -> Access:
        """Another access than the one that was refused, if there may be one by now."""
        if time.monotonic() - self._loaded_at >= MIN_RELOAD_SECONDS:
            self._reload()
        return refused if self._access == refused else self._access

    def _reload(self) -> None:
        """Load the access again. If that fails, the one that is there may still be good."""
        self._loaded_at = time.monotonic()
        try:
            access = load(self._settings, self._now(), self._contexts)
        except ApiUnavailable:
            return
        if access.tls is not self._access.tls:
            self.close()
        self._access = access


class Lines:
    """The lines of a stream, without their ends. `close` may be called from another thread and ends it."""

    def __init__(self, response: HTTPResponse, here: socket.socket, what: str) -> None:
        self._response = response
        self._socket = here
        self._what = what

    def __iter__(self) -> Iterator[bytes]:
        rest: list[bytes] = []
        with _translated(self._what):
            try:
                while chunk := self._response.read1(CHUNK_BYTES):
                    first, *others = chunk.split(b"\n")
                    rest.append(first)
                    for following in others:
                        yield b"".join(rest)
                        rest = [following]
                if line := b"".join(rest):
                    yield line
            finally:
                self._response.close()
                self._socket.close()

    def close(self) -> None:
        """End it. A reader in another thread is woken; TLS is left alone, for that thread may be in it."""
        try:
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)
        except OSError:
            return


def _is_closed(connection: HTTPConnection) -> bool:
    """Whether the server has closed a connection that nothing is expected on."""
    return connection.sock is None or bool(select.select([connection.sock], [], [], 0)[0])


@contextmanager
def _translated(what: str) -> Iterator[None]:
    """Errors of the connection become ApiUnavailable."""
    try:
        yield
    except http.client.HTTPException as error:
        raise ApiUnavailable(f"{what}: {_http_words(error)}") from error
    except OSError as error:
        raise ApiUnavailable(f"{what}: {why_unreached(error)}") from error


def _http_words(error: http.client.HTTPException) -> str:
    if isinstance(error, http.client.RemoteDisconnected):
        return "the connection was closed before there was an answer"
    if isinstance(error, http.client.BadStatusLine):
        return "the answer is not HTTP"
    if isinstance(error, http.client.IncompleteRead):
        return "the connection was closed within the answer"
    return str(error) or type(error).__name__
