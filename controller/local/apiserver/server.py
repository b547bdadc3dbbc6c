"""The embedded API server: HTTP before the store, a journal behind it.

Compose it so::

    server = ApiServer(state_dir, users={token: "admin"}, now=now, rng=random.Random(), audit_path=path, crds=folder)
    await server.start(host="127.0.0.1", port=0)
    server.url  # "http://127.0.0.1:43217"
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

from controller.local.apiserver import discovery, requests, streams
from controller.local.apiserver.access.authentication import ANONYMOUS, authenticate, impersonate
from controller.local.apiserver.access.authorization import Authorizer
from controller.local.apiserver.access.rbac import Rbac
from controller.local.apiserver.access.reviews import Reviews, is_review
from controller.local.apiserver.administration import PREFIX as ADMINISTRATION
from controller.local.apiserver.administration import Administration
from controller.local.apiserver.admission.policies import Policies
from controller.local.apiserver.audit import AuditEntry, AuditSink, FileAudit
from controller.local.apiserver.controller_loop import ControllerLoop
from controller.local.apiserver.errors import ApiError, bad_request, no_such_resource
from controller.local.apiserver.faults import FaultRule, Faults
from controller.local.apiserver.negotiation import negotiate
from controller.local.apiserver.openapi import v2 as openapi_v2
from controller.local.apiserver.openapi.answers import answer as openapi_answer
from controller.local.apiserver.openapi.documents import PREFIX as OPENAPI
from controller.local.apiserver.openapi.documents import Documents
from controller.local.apiserver.own_writes import audit_entry
from controller.local.apiserver.persistence import JournalError, Persistence, SqliteJournal, Volatile
from controller.local.apiserver.requests import RequestInfo
from controller.local.apiserver.resource_api import Reply, ResourceApi
from controller.local.apiserver.store.controllers.pod_collection import PodCollector
from controller.local.apiserver.store.controllers.workloads import Workloads
from controller.local.apiserver.store.store import Store
from controller.local.apiserver.store.users import User
from controller.local.apiserver.store.versions import Change
from controller.local.apiserver.watch_hub import WatchHub
from controller.local.apiserver.watches import Watcher, WatchRequest, encoder
from controller.local.log_source import LogSource

Json = dict[str, Any]

# etcd refuses requests above 1.5 MiB; the API server bodies above 3 MiB.
_MAX_BODY_BYTES = 3 * 1024 * 1024
_SHUTDOWN_SECONDS = 2.0
_FIRST_ERROR_STATUS = 400
_HERE = Path(__file__).parent
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
        policies: Path | None = None,
        roles: Path | None = None,
        evictions: bool = False,
        log_source: LogSource | None = None,
        audit: AuditSink | None = None,
        admin_users: frozenset[str] = ADMIN_USERS,
        enforce_rbac: bool = False,
        collect_pods: bool = False,
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
        lifecycle = _HERE / "lifecycle" if evictions else None
        kubernetes_roles = _HERE / "access" / "cluster_roles.yaml" if roles else None  # those that given ones join
        given = (crds, policies, kubernetes_roles, roles, lifecycle)
        self._manifests = [path for path in given if path is not None]
        self._log_source = log_source
        self._bookmark_interval_seconds = bookmark_interval_seconds
        self._file_audit = FileAudit(audit_path) if audit is None and audit_path is not None else None
        self._audit: AuditSink | None = audit or self._file_audit
        self._journal: Persistence = (
            SqliteJournal(state_dir, self.hub.publish) if state_dir is not None else Volatile(self.hub.publish)
        )
        self._api = ResourceApi(self.store, now, rng)
        self._authorizer = Authorizer(Rbac(self.store), frozenset(users.values()), enforce=enforce_rbac)
        pods = PodCollector(self.store) if collect_pods else None
        workloads = Workloads(self.store, rng)
        self._controllers = ControllerLoop(self.store, self._journal, now, pods, workloads, audited=self._audit_own)
        self._reviews = Reviews(self._authorizer, lambda header: authenticate(users, admin_users, header))
        self.store.admit = Policies(self.store, self._authorizer).admit
        self._openapi = Documents(self.store.registry)
        self._administration = Administration(self.store, self.hub, self.faults)
        self._runner: web.AppRunner | None = None
        self._collector: asyncio.Task[None] | None = None
        self._address = ("", 0)
        self._scheme = "http"

    # --- life ---------------------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """Where the server listens."""
        return f"{self._scheme}://{self._address[0]}:{self._address[1]}"

    async def start(self, host: str = "127.0.0.1", port: int = 0, *, tls: ssl.SSLContext | None = None) -> None:
        """Loads what was stored, then serves."""
        version, bodies = self._journal.load()
        self.store.restore(version, bodies)
        self.hub.published = version
        await self.commit(self.store.bootstrap(self._now(), self._rng))
        for path in self._manifests:
            await self.load(path)
        self._collector = asyncio.create_task(self._controllers.run(), name="controllers")
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

    async def load(self, path: Path) -> None:
        """Creates or updates what a YAML file or a folder of them has: definitions, admission policies, roles."""
        for document in await asyncio.to_thread(_documents, path):
            await self.commit(self.store.apply(document, now=self._now(), rng=self._rng))

    async def commit(self, changes: tuple[Change, ...]) -> None:
        """Makes changes durable and visible; for code in this process that writes to the store itself."""
        if self.store.garbage or self.store.garbage.workloads:
            self._controllers.wake()
        if changes:
            await self._journal.commit(changes)
        else:
            await self._journal.settled()

    # --- requests -----------------------------------------------------------------------------------------

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        info = requests.parse(request.method, request.path, request.query)
        entry = AuditEntry(
            audit_id=str(uuid.UUID(int=self._rng.getrandbits(128), version=4)),
            info=info,
            uri=request.raw_path,
            user=ANONYMOUS.name,
            user_agent=request.headers.get("User-Agent", ""),
            source=request.remote or "",
            received=self._now(),
        )
        try:
            himself = authenticate(self._users, self._admin_users, request.headers.get("Authorization"))
            entry.user = himself.name
            user = impersonate(himself, request.headers)
            if user is not himself:
                entry.impersonated = user.name
                self._authorizer.check(himself, RequestInfo("impersonate", "", plural="users", name=user.name))
            self._authorizer.check(user, info)
            if info.path.startswith(ADMINISTRATION):
                return await self._administer(request, entry)
            if not info.is_resource:
                return await self._discover(request, info, entry)
            return await self._serve_with_faults(request, info, entry, user)
        except ApiError as error:
            return self._refuse(error, entry)
        except JournalError as error:
            # The store holds what the disk refused: whatever is asked from now on has no true answer.
            return self._refuse(ApiError(500, "InternalError", f"Internal error occurred: {error}"), entry)

    async def _serve_with_faults(
        self, request: web.Request, info: RequestInfo, entry: AuditEntry, user: User
    ) -> web.StreamResponse:
        rule = self.faults.strike(info, entry.user)
        if rule is None:
            return await self._serve(request, info, entry, user)
        entry.annotations["podslots.dev/fault"] = orjson.dumps(rule.document()).decode()
        if rule.delay_seconds > 0:
            await asyncio.sleep(rule.delay_seconds)
        if rule.drop == "before":
            self._log_audit(entry)
        elif rule.status is not None:
            raise rule.error(info)
        else:
            response = await self._carry_out(rule, request, info, entry, user=user)
            if rule.drop is None:
                return response
        streams.abort(request)
        return web.Response(status=503)  # nobody reads it

    async def _carry_out(
        self, rule: FaultRule, request: web.Request, info: RequestInfo, entry: AuditEntry, *, user: User
    ) -> web.StreamResponse:
        try:
            return await self._serve(request, info, entry, user)
        except ApiError as error:
            if rule.drop is None:
                raise
            return self._refuse(error, entry)

    async def _serve(
        self, request: web.Request, info: RequestInfo, entry: AuditEntry, user: User
    ) -> web.StreamResponse:
        if is_review(info):
            return await self._review(request, info, entry, user)
        known = self.store.registry.find(info.group, info.version, info.plural) is not None
        if not known and not self.store.registry.resources(info.group, info.version):
            return self._page_not_found(entry)
        if info.verb == "watch":
            return await self._watch(request, info, entry)
        if info.subresource == "log" and info.verb == "get":
            return await self._log(request, info, entry)
        raw = await _read_body(request)
        accept = request.headers.get("Accept", "")
        content_type = _content_type(request)
        try:
            reply, entry.body = self._api.handle(
                info, request.query, content_type=content_type, accept=accept, raw=raw, user=user
            )
        except ApiError as error:
            await self.commit(error.changes)  # what is refused may rest on a change not yet durable
            raise
        entry.code = reply.code
        entry.name = reply.name
        if reply.record is not None:
            entry.uid = reply.record.uid
            entry.version = reply.record.body["metadata"].get("resourceVersion", "")
        # Events come by the thousand, and nothing rests on them.
        if reply.changes and self._audit is not None and info.plural != "events":
            self._audit.write(entry.line(self._now(), complete=False))
        await self.commit(reply.changes)
        return self._answer(reply, entry)

    def _answer(self, reply: Reply, entry: AuditEntry) -> web.Response:
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

    def _audit_own(self, change: Change, complete: bool) -> None:
        if self._audit is not None:
            resource = self.store.registry.by_key(change.record.resource)
            entry = audit_entry(change, resource, self._now())
            self._audit.write(entry.line(self._now(), complete=complete))

    def _log_audit(self, entry: AuditEntry) -> None:
        if self._audit is not None and (entry.info.is_resource or entry.code >= _FIRST_ERROR_STATUS):
            self._audit.write(entry.line(self._now()))

    async def _discover(self, request: web.Request, info: RequestInfo, entry: AuditEntry) -> web.Response:
        if info.verb not in ("get", "head"):
            raise ApiError(405, "MethodNotAllowed", "method not allowed", {})
        parts = info.path.strip("/").split("/")
        if parts[0] in ("healthz", "livez", "readyz"):
            await self._journal.settled()
            return web.Response(text="ok")
        if info.path == openapi_v2.PATH:
            return openapi_v2.answer(request.headers.get("Accept", ""))
        if info.path == OPENAPI or info.path.startswith(OPENAPI + "/"):
            negotiate(request.headers.get("Accept", ""))
            found = openapi_answer(self._openapi, info.path, request.query, request.headers, self._now())
            return self._page_not_found(entry) if found is None else found
        document = discovery.document(self.store.registry, parts, request.host)
        if document is None:
            return self._page_not_found(entry)
        return web.Response(body=orjson.dumps(document), content_type="application/json")

    def _page_not_found(self, entry: AuditEntry) -> web.Response:
        """Go's plain answer to a path below no served group."""
        entry.code = 404
        self._log_audit(entry)
        return web.Response(status=404, text="404 page not found\n")

    async def _review(self, request: web.Request, info: RequestInfo, entry: AuditEntry, user: User) -> web.Response:
        raw = await _read_body(request)
        review = self._reviews.answer(info, raw, _content_type(request), user, now=self._now())
        await self._journal.settled()
        entry.code = 201
        return self._answer(Reply(201, orjson.dumps(review)), entry)

    async def _administer(self, request: web.Request, entry: AuditEntry) -> web.Response:
        if entry.user not in self._admin_users:
            raise ApiError(403, "Forbidden", f'forbidden: User "{entry.user}" is no admin', {})
        raw = await _read_body(request)
        await self._journal.settled()
        answer = self._administration.handle(request.method, request.path, raw)
        return web.Response(body=orjson.dumps(answer), content_type="application/json")

    async def _watch(self, request: web.Request, info: RequestInfo, entry: AuditEntry) -> web.StreamResponse:
        resource = self._api.resource(info)
        form = negotiate(request.headers.get("Accept", ""))
        watcher = Watcher(
            self.store,
            self.hub,
            resource,
            info.namespace,
            WatchRequest.parse(resource, request.query, info.name, self._rng),
            bookmark_interval_seconds=self._bookmark_interval_seconds,
            encode=encoder(resource, form, request.query, self._now),
        )
        entry.code = 200
        try:
            return await streams.send_events(request, watcher.events(), self.hub, entry.audit_id)
        finally:
            self._log_audit(entry)

    async def _log(self, request: web.Request, info: RequestInfo, entry: AuditEntry) -> web.StreamResponse:
        resource = self._api.resource(info)
        if resource.key != "pods":
            raise no_such_resource()
        pod = self.store.get(resource, info.namespace, info.name)
        entry.uid = pod.uid
        first, pieces = await streams.open_log(request, pod, self._log_source, self._now())
        entry.code = 200
        self._log_audit(entry)
        return await streams.send_log(request, first, pieces, entry.audit_id)


def _content_type(request: web.Request) -> str:
    return request.content_type if request.headers.get("Content-Type") else ""


async def _read_body(request: web.Request) -> bytes:
    if not request.can_read_body:
        return b""
    try:
        return await request.read()
    except web.HTTPRequestEntityTooLarge as error:
        message = f"Request entity too large: limit is {_MAX_BODY_BYTES}"
        raise ApiError(413, "RequestEntityTooLarge", message, {}) from error
    except ConnectionError as error:  # nobody reads the answer; the audit log has it
        raise bad_request("unexpected EOF") from error


def _documents(path: Path) -> list[Json]:
    return [
        document
        for file in ([path] if path.is_file() else sorted(path.rglob("*.y*ml")))
        for document in yaml.safe_load_all(file.read_text())
        if isinstance(document, dict) and document.get("metadata")
    ]
