"""The embedded API server: HTTP before the store, a journal behind it.

Compose it so::

    server = ApiServer(state_dir, users={token: "admin"}, now=now, rng=random.Random(), audit_path=path, crds=folder)
    await server.start(host="127.0.0.1", port=0)
    server.url                      # "http://127.0.0.1:43217"
    server.set_log_source(kubelet)  # pods/log, once there is a kubelet
    await server.stop()

Every write is decided by the store at once, journaled, published to watchers, noted in the audit log, and answered, in
this order. Answers to reads wait until all they rest on is durable, so nobody ever sees what a crash could undo.
"""

from __future__ import annotations

import asyncio
import random
import ssl
import uuid
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson
import yaml
from aiohttp import web

from controller.local import access, discovery, requests
from controller.local import logs as pod_logs
from controller.local.audit import AuditEntry, AuditSink, FileAudit
from controller.local.errors import ApiError, Target, bad_request
from controller.local.faults import Faults
from controller.local.persistence import JournalError, Persistence, SqliteJournal, Volatile
from controller.local.requests import RequestInfo
from controller.local.resource_api import Reply, ResourceApi
from controller.local.store import Store
from controller.local.versions import Change
from controller.local.watch_hub import WatchHub
from controller.local.watches import Watcher, WatchRequest

Json = dict[str, Any]

# etcd refuses requests above 1.5 MiB; the API server bodies above 3 MiB.
_MAX_BODY_BYTES = 3 * 1024 * 1024
_EVENT_EXPIRY_INTERVAL_SECONDS = 60.0
_SHUTDOWN_SECONDS = 2.0
ADMIN_USERS = frozenset({"admin", "system:admin"})


class ApiServer:
    """A running API server."""

    def __init__(
        self,
        state_dir: Path | None,
        *,
        users: Mapping[str, str],
        now: Callable[[], datetime],
        rng: random.Random,
        audit_path: Path | None = None,
        crds: Path | None = None,
        log_source: pod_logs.LogSource | None = None,
        audit: AuditSink | None = None,
        admin_users: frozenset[str] = ADMIN_USERS,
        bookmark_interval_seconds: float = 15.0,
        history_limit: int = 8192,
    ) -> None:
        self.store = Store(history_limit=history_limit)
        self.hub = WatchHub()
        self.faults = Faults(rng)
        self._users = users
        self._now = now
        self._rng = rng
        self._admin_users = admin_users
        self._crds = crds
        self._log_source = log_source
        self._bookmark_interval_seconds = bookmark_interval_seconds
        self._file_audit = FileAudit(audit_path) if audit is None and audit_path is not None else None
        self._audit: AuditSink | None = audit or self._file_audit
        self._journal: Persistence = (
            SqliteJournal(state_dir, self.hub.publish) if state_dir is not None else Volatile(self.hub.publish)
        )
        self._api = ResourceApi(self.store, now, rng)
        self._runner: web.AppRunner | None = None
        self._collector: asyncio.Task[None] | None = None
        self._collect = asyncio.Event()
        self._address = ("", 0)
        self._scheme = "http"

    # --- life ---------------------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """Where the server listens."""
        return f"{self._scheme}://{self._address[0]}:{self._address[1]}"

    def set_log_source(self, log_source: pod_logs.LogSource) -> None:
        """Who answers `pods/log` from now on."""
        self._log_source = log_source

    async def start(self, host: str = "127.0.0.1", port: int = 0, *, tls: ssl.SSLContext | None = None) -> None:
        """Loads what was stored, then serves."""
        version, bodies = self._journal.load()
        self.store.restore(version, bodies)
        self.hub.published = version
        await self.commit(self.store.bootstrap(self._now(), self._rng))
        if self._crds is not None:
            await self.load_crds(self._crds)
        self._collector = asyncio.create_task(self._collect_garbage(), name="garbage-collector")
        app = web.Application(client_max_size=_MAX_BODY_BYTES)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=_SHUTDOWN_SECONDS)
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port, ssl_context=tls, backlog=1024).start()
        self._scheme = "https" if tls else "http"
        self._address = self._runner.addresses[0][:2]

    async def stop(self) -> None:
        """Cuts the watches, finishes what is under way, closes the journal."""
        self.hub.drop_watches()
        if self._runner is not None:
            await self._runner.cleanup()
        if self._collector is not None:
            self._collector.cancel()
            await asyncio.wait([self._collector])
        await self._journal.close()
        if self._file_audit is not None:
            self._file_audit.close()

    async def load_crds(self, folder: Path) -> None:
        """Creates or updates the CustomResourceDefinitions in a folder's YAML files."""
        for path in sorted(folder.rglob("*.y*ml")):
            for document in yaml.safe_load_all(path.read_text()):
                if isinstance(document, dict) and document.get("kind") == "CustomResourceDefinition":
                    await self.commit(self.store.apply_crd(document, now=self._now(), rng=self._rng))

    async def commit(self, changes: tuple[Change, ...]) -> None:
        """Makes changes durable and visible; for code in this process that writes to the store itself."""
        if changes:
            if self.store.garbage:
                self._collect.set()
            await self._journal.commit(changes)

    async def _collect_garbage(self) -> None:
        loop = asyncio.get_running_loop()
        expire_at = loop.time()
        self._collect.set()
        while True:
            try:
                async with asyncio.timeout(_EVENT_EXPIRY_INTERVAL_SECONDS):
                    await self._collect.wait()
            except TimeoutError:
                pass
            self._collect.clear()
            while changes := self.store.collect(self._now()):
                await self._journal.commit(changes)
            if loop.time() >= expire_at:
                expire_at = loop.time() + _EVENT_EXPIRY_INTERVAL_SECONDS
                await self.commit(self.store.expire_events(self._now()))

    # --- requests -----------------------------------------------------------------------------------------

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        info = requests.parse(request.method, request.path, request.query)
        entry = AuditEntry(
            audit_id=str(uuid.UUID(int=self._rng.getrandbits(128), version=4)),
            info=info,
            uri=request.raw_path,
            user=access.ANONYMOUS,
            user_agent=request.headers.get("User-Agent", ""),
            source=request.remote or "",
            received=self._now(),
        )
        try:
            return await self._serve(request, info, entry)
        except ApiError as error:
            return self._refuse(error, entry)
        except JournalError as error:
            # The store holds what the disk refused: whatever is asked from now on has no true answer.
            return self._refuse(ApiError(500, "InternalError", f"Internal error occurred: {error}"), entry)

    async def _serve(self, request: web.Request, info: RequestInfo, entry: AuditEntry) -> web.StreamResponse:
        user = entry.user = access.authenticate(self._users, request.headers.get("Authorization"))
        access.authorize(user, info, self._target(info))
        if info.path.startswith("/_podslots/"):
            return await self._administer(request, user)
        if not info.is_resource:
            return self._discover(request, info, entry)
        rule = self.faults.strike(info, user)
        if rule is not None:
            entry.annotations["podslots.dev/fault"] = orjson.dumps(rule.document()).decode()
            if rule.delay_seconds > 0:
                await asyncio.sleep(rule.delay_seconds)
            if rule.drop == "before":
                return self._drop(request, entry)
            if rule.status is not None:
                raise rule.error(info)
        if self.store.registry.find(info.group, info.version, info.plural) is None and info.plural != "bindings":
            return self._unknown(info, entry)
        if info.verb == "watch":
            return await self._watch(request, info, entry)
        if info.subresource == "log":
            return await self._log(request, info, entry)
        raw = await _read_body(request)
        accept = request.headers.get("Accept", "")
        content_type = request.content_type if request.headers.get("Content-Type") else ""
        try:
            reply, entry.body = self._api.handle(info, request.query, content_type, accept, raw)
        except ApiError:
            await self._journal.settled()  # what is refused may rest on a change not yet durable
            raise
        if reply.changes:
            await self.commit(reply.changes)
        else:
            await self._journal.settled()
        if rule is not None and rule.drop == "after":
            self._note(entry, reply)
            return self._drop(request, entry)
        return self._answer(reply, entry)

    def _target(self, info: RequestInfo) -> Target:
        return Target(info.group, info.plural, "", info.name)

    def _note(self, entry: AuditEntry, reply: Reply) -> None:
        entry.code = reply.code
        entry.name = reply.name
        if reply.record is not None:
            entry.uid = reply.record.uid
            entry.version = reply.record.body["metadata"].get("resourceVersion", "")

    def _answer(self, reply: Reply, entry: AuditEntry) -> web.Response:
        self._note(entry, reply)
        response = web.Response(status=reply.code, body=reply.body, content_type="application/json")
        for warning in reply.warnings:
            quoted = warning.replace("\\", "\\\\").replace('"', '\\"')
            response.headers.add("Warning", f'299 - "{quoted}"')
        self._log_audit(entry)
        response.headers["Audit-Id"] = entry.audit_id
        return response

    def _refuse(self, error: ApiError, entry: AuditEntry) -> web.Response:
        entry.code = error.code
        self._log_audit(entry)
        headers = {"Audit-Id": entry.audit_id, **error.headers}
        return web.Response(
            status=error.code, body=orjson.dumps(error.status()), content_type="application/json", headers=headers
        )

    def _log_audit(self, entry: AuditEntry) -> None:
        if self._audit is not None and (entry.info.is_resource or entry.code >= 400):  # noqa: PLR2004 - an error
            self._audit.write(entry.line(self._now()))

    def _drop(self, request: web.Request, entry: AuditEntry) -> web.Response:
        """Closes the connection without an answer, as a cut network does."""
        if not entry.code:
            entry.code = 0
        self._log_audit(entry)
        if request.transport is not None:
            request.transport.abort()
        return web.Response(status=503)

    # --- what is no resource ------------------------------------------------------------------------------

    def _discover(self, request: web.Request, info: RequestInfo, entry: AuditEntry) -> web.Response:
        if info.verb not in ("get", "head"):
            raise ApiError(405, "MethodNotAllowed", "method not allowed", {})
        parts = info.path.strip("/").split("/")
        if parts[0] in ("healthz", "livez", "readyz"):
            return web.Response(text="ok")
        document = self._document(parts, request.host)
        if document is None:
            return self._page_not_found(entry)
        return web.Response(body=orjson.dumps(document), content_type="application/json")

    def _document(self, parts: list[str], host: str) -> Json | None:
        registry = self.store.registry
        if parts == ["version"]:
            return discovery.VERSION
        if parts == ["api"]:
            return discovery.api_versions(host)
        if parts == ["apis"]:
            return discovery.group_list(registry)
        if parts[0] == "api" and len(parts) == 2:  # noqa: PLR2004 - /api/VERSION
            return discovery.resource_list(registry, "", parts[1])
        if parts[0] == "apis" and len(parts) == 2:  # noqa: PLR2004 - /apis/GROUP
            return discovery.group(registry, parts[1])
        if parts[0] == "apis" and len(parts) == 3:  # noqa: PLR2004 - /apis/GROUP/VERSION
            return discovery.resource_list(registry, parts[1], parts[2])
        return None

    def _unknown(self, info: RequestInfo, entry: AuditEntry) -> web.Response:
        """A path below a served group version is answered by its API; below none by the plain 404 of Go."""
        if self.store.registry.resources(info.group, info.version):
            raise ApiError(404, "NotFound", "the server could not find the requested resource", {})
        return self._page_not_found(entry)

    def _page_not_found(self, entry: AuditEntry) -> web.Response:
        entry.code = 404
        self._log_audit(entry)
        return web.Response(status=404, text="404 page not found\n")

    async def _administer(self, request: web.Request, user: str) -> web.Response:
        if user not in self._admin_users:
            raise ApiError(403, "Forbidden", f'forbidden: User "{user}" is no admin', {})
        action = (request.method, request.path.removeprefix("/_podslots/"))
        answer: Json
        if action == ("POST", "faults/drop-watches"):
            answer = {"dropped": self.hub.drop_watches()}
        elif action[1] == "faults" and action[0] in ("GET", "PUT", "DELETE"):
            if action[0] == "PUT":
                try:
                    document = orjson.loads(await request.read())
                except orjson.JSONDecodeError as error:
                    raise bad_request(str(error)) from error
                rules = document.get("rules") if isinstance(document, dict) else document
                if not isinstance(rules, list):
                    raise bad_request('a list of rules, or {"rules": […]}')
                self.faults.replace(rules)
            elif action[0] == "DELETE":
                self.faults.clear()
            answer = {"rules": [rule.document() for rule in self.faults.rules]}
        elif action == ("POST", "compact"):
            await self._journal.settled()
            self.store.versions.compact()
            answer = {"version": self.store.versions.current}
        else:
            raise ApiError(404, "NotFound", "no such administration call", {})
        return web.Response(body=orjson.dumps(answer), content_type="application/json")

    # --- streams ------------------------------------------------------------------------------------------

    async def _watch(self, request: web.Request, info: RequestInfo, entry: AuditEntry) -> web.StreamResponse:
        resource = self._api.resource(info)
        query = WatchRequest.parse(resource, request.query, info.name, self._rng)
        watcher = Watcher(
            self.store,
            self.hub,
            resource,
            info.namespace,
            query,
            bookmark_interval_seconds=self._bookmark_interval_seconds,
        )
        entry.code = 200
        response = web.StreamResponse(headers={"Content-Type": "application/json", "Audit-Id": entry.audit_id})
        epoch = self.hub.epoch
        try:
            await response.prepare(request)
            async for lines in watcher.events():
                if lines:
                    await response.write(lines)
                elif request.transport is None or request.transport.is_closing():
                    break
            if self.hub.epoch != epoch and request.transport is not None:
                # Cut in the middle, as by a dying load balancer, not ended politely.
                request.transport.abort()
            else:
                await response.write_eof()
        except ConnectionError:
            pass  # the client has gone, which is how most watches end
        finally:
            self._log_audit(entry)
        return response

    async def _log(self, request: web.Request, info: RequestInfo, entry: AuditEntry) -> web.StreamResponse:
        resource = self._api.resource(info)
        if info.verb != "get":
            raise ApiError(405, "MethodNotAllowed", "method not allowed", {})
        pod = self.store.get(resource, info.namespace, info.name)
        options = pod_logs.parse(pod, request.query)
        entry.uid = pod.uid
        if not pod.body["spec"].get("nodeName"):
            raise bad_request(f"pod {pod.name} does not have a host assigned")
        if self._log_source is None:
            raise ApiError(503, "ServiceUnavailable", "no kubelet is registered", {})
        pieces = self._log_source.stream(info.namespace, info.name, pod.uid, options)
        try:
            first = await anext(pieces, b"")
        except pod_logs.LogUnavailableError as error:
            raise bad_request(str(error)) from error
        entry.code = 200
        self._log_audit(entry)
        response = web.StreamResponse(headers={"Content-Type": "text/plain", "Audit-Id": entry.audit_id})
        try:
            await response.prepare(request)
            await response.write(first)
            async for piece in pieces:
                if request.transport is None or request.transport.is_closing():
                    break
                await response.write(piece)
            await response.write_eof()
        except ConnectionError:
            pass  # the reader has gone
        return response


async def _read_body(request: web.Request) -> bytes:
    if not request.can_read_body:
        return b""
    try:
        return await request.read()
    except web.HTTPRequestEntityTooLarge as error:
        message = f"Request entity too large: limit is {_MAX_BODY_BYTES}"
        raise ApiError(413, "RequestEntityTooLarge", message, {}) from error
