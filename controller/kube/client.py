"""The Kubernetes API over HTTP: raw JSON in and out, every call with a timeout, every error translated.

What a failed write leaves behind: after `ApiUnavailable` it may have happened. aiohttp sends GET, PUT and DELETE a
second time by itself when a kept connection turns out to be closed, so a write that took effect may be answered as
its own repetition: a PUT with a resourceVersion by Conflict, a DELETE with a UID by NotFound or Conflict. Callers read
again after either. A PUT or DELETE without a precondition may hit an object that is no longer the one that was meant:
always give one. POST and PATCH are never repeated.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import aiohttp
from aiolimiter import AsyncLimiter
from yarl import URL

from controller.errors import ApiUnavailable
from controller.kube.access import Access, KubeSettings
from controller.kube.access_source import AccessSource, access_source
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
from controller.kube.api import LEASES, PODS, Object, Resource
from controller.unreached import why_unreached

_VERSION = Resource("", "", "version", "", namespaced=False)
"""No resource, but counted like one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientSettings:
    """Limits of the client.

    `request_timeout_seconds`: a whole call, the wait for a connection included. `watch_timeout_seconds`: the server
    ends a watch by itself after this. `watch_idle_seconds`: bookmarks come about every minute, so a longer silence is
    taken for a broken connection. On a server where nothing ever changes there are no bookmarks: then the watch is
    merely opened again from where it was. `max_connections` bounds concurrent calls; watches have their own.

    `requests_per_second` and `burst` hold back calls as client-go's QPS and Burst do, except calls for Leases: a leader
    that can't renew in time loses its Lease. None: no limit.
    """

    request_timeout_seconds: float = 15.0
    connect_timeout_seconds: float = 5.0
    watch_timeout_seconds: int = 290
    watch_idle_seconds: float = 75.0
    max_connections: int = 64
    requests_per_second: float | None = None
    burst: int = 1


Observe = Callable[[str, str, str], None]
"""Told of each call: its verb, as RBAC has them, the resource's plural, and the answer's code; `none`: no answer."""
NO_ANSWER = "none"


def _unobserved(_verb: str, _resource: str, _code: str) -> None:
    return


@asynccontextmanager
async def connect(
    settings: KubeSettings,
    now: Callable[[], datetime],
    limits: ClientSettings | None = None,
    *,
    strict: bool = False,
    observe: Observe = _unobserved,
) -> AsyncIterator["KubeClient"]:
    """A client for the API server that `settings` name. Raises ApiUnavailable if its configuration can't be read.

    `strict`: writes with fields that the server does not know are refused, not pruned. For what people type. Not for
    the controller: it may be newer than the CRDs for a while, and then all its status writes would fail.
    """
    limits = limits or ClientSettings()
    source = access_source(settings, now)
    access = await source.current()
    async with (
        _session(access, limits.max_connections, settings.stands_in_for) as calls,
        _session(access, 0, settings.stands_in_for) as streams,
    ):
        yield KubeClient(source, calls, streams, limits, strict=strict, observe=observe)


def _session(access: Access, limit: int, stands_in_for: str | None) -> aiohttp.ClientSession:
    impersonation = {"Impersonate-User": stands_in_for} if stands_in_for else access.headers
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=limit),
        headers={"User-Agent": USER_AGENT, "Accept": JSON, **impersonation},
        trust_env=not access.is_local,  # HTTPS_PROXY and NO_PROXY, as every Kubernetes client
        auto_decompress=True,
        cookie_jar=aiohttp.DummyCookieJar(),
    )


class KubeClient:
    """`controller.kube.api.Api` over HTTP. Made by `connect`."""

    def __init__(
        self,
        source: AccessSource,
        calls: aiohttp.ClientSession,
        streams: aiohttp.ClientSession,
        limits: ClientSettings,
        *,
        strict: bool = False,
        observe: Observe = _unobserved,
    ) -> None:
        self._source = source
        self._observe = observe
        rate = limits.requests_per_second
        self._rate = AsyncLimiter(limits.burst, limits.burst / rate) if rate else None
        self._calls = calls
        self._streams = streams
        self._limits = limits
        self._write_query = STRICT if strict else {}
        self._timeout = aiohttp.ClientTimeout(
            total=limits.request_timeout_seconds, sock_connect=limits.connect_timeout_seconds
        )

    async def default_namespace(self) -> str | None:
        """The namespace of the kubeconfig's context, or of the Pod this runs in."""
        return (await self._source.current()).namespace

    async def get(self, resource: Resource, namespace: str | None, name: str) -> Object:
        """The object, read live: without a resourceVersion a GET is a quorum read."""
        return await self._call("get", resource, path_of(resource, namespace, name))

    async def list_page(
        self,
        resource: Resource,
        namespace: str | None,
        *,
        label_selector: str = "",
        limit: int = 500,
        continue_token: str = "",
    ) -> Object:
        """One page. Without a resourceVersion, so that it is never older than what was seen before."""
        query = {"limit": str(limit), "continue": continue_token, "labelSelector": label_selector}
        return await self._call("list", resource, path_of(resource, namespace), query)

    async def watch(
        self, resource: Resource, namespace: str | None, *, resource_version: str, label_selector: str = ""
    ) -> AsyncIterator[Object]:
        """Watch events from `resource_version` until the server ends the stream."""
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": resource_version,
            "timeoutSeconds": str(self._limits.watch_timeout_seconds),
            "labelSelector": label_selector,
        }
        lines = self._stream("watch", resource, path_of(resource, namespace), query, self._limits.watch_idle_seconds)
        async for line in lines:
            yield parse_event(line)

    async def create(self, resource: Resource, namespace: str | None, body: Object) -> Object:
        """POST."""
        return await self._call("create", resource, path_of(resource, namespace), self._write_query, body=body)

    async def replace(
        self, resource: Resource, namespace: str | None, name: str, body: Object, *, subresource: str = ""
    ) -> Object:
        """PUT."""
        path = path_of(resource, namespace, name, subresource)
        return await self._call("update", resource, path, self._write_query, body=body)

    async def patch(
        self, resource: Resource, namespace: str | None, name: str, body: Object, *, subresource: str = ""
    ) -> Object:
        """PATCH with a JSON merge patch."""
        path = path_of(resource, namespace, name, subresource)
        return await self._call("patch", resource, path, self._write_query, body=body, content_type=MERGE_PATCH)

    async def delete(
        self,
        resource: Resource,
        namespace: str | None,
        name: str,
        *,
        uid: str | None = None,
        resource_version: str | None = None,
        grace_period_seconds: int | None = None,
    ) -> Object:
        """DELETE with preconditions."""
        body = delete_options(uid, resource_version, grace_period_seconds)
        return await self._call("delete", resource, path_of(resource, namespace, name), body=body)

    async def version(self) -> str:
        """The API server's version, as `v1.36.2`."""
        return str((await self._call("get", _VERSION, "/version")).get("gitVersion", ""))

    async def dry_run(
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
        path = path_of(resource, namespace, name, subresource)
        content_type = MERGE_PATCH if verb == "patch" else JSON
        return await self._call(verb, resource, path, {"dryRun": "All"}, body=body, content_type=content_type)

    async def pod_log(
        self, namespace: str, name: str, container: str, *, follow: bool = False, tail_lines: int | None = None
    ) -> AsyncIterator[bytes]:
        """A container's log by lines, without their ends. Following it has no idle timeout: a program may be silent."""
        query = {
            "container": container,
            "follow": "true" if follow else "",
            "tailLines": "" if tail_lines is None else str(tail_lines),
        }
        idle = None if follow else self._limits.request_timeout_seconds
        path = path_of(PODS, namespace, name, "log")
        async for line in self._stream("get", PODS, path, query, idle, last_partial=True):
            yield line

    async def _call(
        self,
        verb: str,
        resource: Resource,
        path: str,
        query: dict[str, str] | None = None,
        *,
        body: Object | None = None,
        content_type: str = JSON,
    ) -> Object:
        method = METHODS[verb]
        if self._rate is not None and resource != LEASES:
            await self._rate.acquire()
        data = None if body is None else dump(body)
        headers = {} if body is None else {"Content-Type": content_type}
        access = await self._source.current()
        for attempt in (1, 2):
            try:
                async with self._calls.request(
                    method,
                    _url(access, path, query),
                    data=data,
                    timeout=self._timeout,
                    **_options(access, headers),
                ) as response:
                    status, retry_after = response.status, response.headers.get("Retry-After")
                    content = await response.read()
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                self._observe(verb, resource.plural, NO_ANSWER)
                raise ApiUnavailable(f"{method} {path}: {why_unreached(error)}") from error
            self._observe(verb, resource.plural, str(status))
            # A 401 was refused before anything was done, so any method may be sent again with newer credentials.
            if status == UNAUTHORIZED and attempt == 1 and (newer := await self._source.renew(access)) is not access:
                access = newer
                continue
            break
        if not OK <= status < 300:  # noqa: PLR2004 - the successes
            raise error_of(status, parse_status(content), retry_after)
        return parse(content)

    async def _stream(
        self,
        verb: str,
        resource: Resource,
        path: str,
        query: dict[str, str],
        idle_seconds: float | None,
        *,
        last_partial: bool = False,
    ) -> AsyncIterator[bytes]:
        access = await self._source.current()
        timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=self._limits.connect_timeout_seconds, sock_read=idle_seconds
        )
        try:
            async with self._streams.get(
                _url(access, path, query), timeout=timeout, **_options(access, {})
            ) as response:
                self._observe(verb, resource.plural, str(response.status))
                if response.status != OK:
                    retry_after = response.headers.get("Retry-After")
                    error = error_of(response.status, parse_status(await response.read()), retry_after)
                    if response.status == UNAUTHORIZED:
                        await self._source.renew(access)
                    raise error
                rest = b""
                async for chunk in response.content.iter_any():
                    *lines, rest = (rest + chunk).split(b"\n")
                    for line in lines:
                        if line or last_partial:
                            yield line
                if rest and last_partial:
                    yield rest
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ApiUnavailable(f"GET {path}: {why_unreached(error)}") from error


def _url(access: Access, path: str, query: dict[str, str] | None) -> URL:
    return URL(access.server + with_query(path, query), encoded=True)


def _options(access: Access, headers: dict[str, str]) -> dict[str, Any]:
    if access.authorization:
        headers = {**headers, "Authorization": access.authorization}
    return {
        "headers": headers,
        "ssl": access.tls if access.tls is not None else True,
        "server_hostname": access.tls_server_name,
        "proxy": access.proxy,
        "allow_redirects": False,
    }
