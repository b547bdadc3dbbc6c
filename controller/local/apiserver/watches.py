"""Watches: which events a watcher sees, and in what form."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

import orjson

from controller.local.apiserver import requests
from controller.local.apiserver.errors import expired, forbidden_field, invalid
from controller.local.apiserver.lists import encode_object, partial_metadata
from controller.local.apiserver.negotiation import Form, Shape
from controller.local.apiserver.store import selectors
from controller.local.apiserver.store.registry import Resource
from controller.local.apiserver.store.store import Store
from controller.local.apiserver.store.versions import Change, ChangeType, HistoryExpiredError, Record
from controller.local.apiserver.tables.table import included, table
from controller.local.apiserver.watch_hub import WatchHub

# Real servers choose between 30 and 60 minutes, so that their clients don't come back all at once.
_MIN_TIMEOUT_SECONDS = 1800.0
# How long an idle watch waits before it looks whether its client is still there.
_IDLE_CHECK_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class WatchRequest:
    """The query of a watch. `version` is None for "from now, with what exists first"."""

    selector: selectors.Selector
    version: int | None
    bookmarks: bool
    initial_events: bool
    timeout_seconds: float

    @classmethod
    def parse(cls, resource: Resource, query: Mapping[str, str], name: str, rng: random.Random) -> WatchRequest:
        """From query parameters; `name` is set by a watch of one object."""
        fields = query.get("fieldSelector", "")
        if name:
            fields = f"metadata.name={name}"
        selector = selectors.parse(resource, query.get("labelSelector", ""), fields)
        text = query.get("resourceVersion", "")
        version = requests.resource_version(text, code=500) if text else 0
        timeout = requests.integer(query, "timeoutSeconds")
        bookmarks = requests.is_true(query.get("allowWatchBookmarks", ""))
        send_initial = query.get("sendInitialEvents")
        match = query.get("resourceVersionMatch", "")
        if send_initial is None and match:
            text = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"
            raise invalid(resource.target(), [forbidden_field("resourceVersionMatch", text)])
        if send_initial is not None and match != "NotOlderThan":
            text = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"
            raise invalid(resource.target(), [forbidden_field("resourceVersionMatch", text)])
        initial = requests.is_true(send_initial) if send_initial is not None else False
        return cls(
            selector=selector,
            # Version 0 or none begins with what exists; a streaming list does so from any version.
            version=None if initial or (version == 0 and send_initial is None) else version,
            bookmarks=bookmarks,
            initial_events=initial,
            timeout_seconds=float(timeout) if timeout else _MIN_TIMEOUT_SECONDS * (1 + rng.random()),
        )


# How the object of an event is written.
Encoder = Callable[[Record], bytes]


def encoder(resource: Resource, form: Form, query: Mapping[str, str], now: Callable[[], datetime]) -> Encoder:
    """Writes the objects of events in the form that the client takes. Raises BadRequest."""
    match form.shape:
        case Shape.METADATA:
            return lambda record: orjson.dumps(partial_metadata(record, form.api_version))
        case Shape.TABLE:
            return _TableEncoder(resource, form, included(query), now)
        case _:
            return lambda record: encode_object(resource, record)


class _TableEncoder:
    """A table of one row for each event; the first one brings the columns."""

    def __init__(self, resource: Resource, form: Form, include: str, now: Callable[[], datetime]) -> None:
        self._resource = resource
        self._form = form
        self._include = include
        self._now = now
        self._columns = True

    def __call__(self, record: Record) -> bytes:
        document = table(
            self._resource,
            [record],
            {"resourceVersion": record.body["metadata"]["resourceVersion"]},
            api_version=self._form.api_version,
            include=self._include,
            now=self._now(),
            columns=self._columns,
        )
        self._columns = False
        return orjson.dumps(document)


class Watcher:
    """One watch: a place in the history, moved along."""

    def __init__(
        self,
        store: Store,
        hub: WatchHub,
        resource: Resource,
        namespace: str,
        request: WatchRequest,
        *,
        bookmark_interval_seconds: float,
        encode: Encoder | None = None,
    ) -> None:
        self._store = store
        self._hub = hub
        self._resource = resource
        self._namespace = namespace
        self._request = request
        self._bookmark_interval_seconds = bookmark_interval_seconds
        self._encode: Encoder = encode or (lambda record: encode_object(resource, record))
        self._version = 0

    async def events(self) -> AsyncIterator[bytes]:
        """Encoded events, one or more lines at a time; empty bytes when nothing came for a while.

        Ends at the watch's time limit, after an ERROR event, and when the hub cuts all watches.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._request.timeout_seconds
        next_bookmark = loop.time() + self._bookmark_interval_seconds
        epoch = self._hub.epoch
        yield self.begin()
        while True:
            try:
                lines = self.advance()
            except HistoryExpiredError as error:
                yield self._expired_event(error.floor)
                return
            if lines:
                yield b"".join(lines)
            now = loop.time()
            if now >= deadline:
                return
            if self._request.bookmarks and now >= next_bookmark:
                next_bookmark = now + self._bookmark_interval_seconds
                yield self._bookmark()
            wait_until = min(deadline, next_bookmark, now + _IDLE_CHECK_SECONDS)
            if self._version >= self._hub.published:
                await self._hub.changed(self._resource.key, max(0.0, wait_until - now))
            if self._hub.epoch != epoch:
                return
            yield b""

    def begin(self) -> bytes:
        """Sets the place to begin at; the initial events if there are any."""
        if self._request.version is not None:
            self._version = self._request.version
            return b""
        self._version = self._hub.published
        collection = self._store.versions.collection(self._resource.key)
        lines = [
            self._line(ChangeType.ADDED, record)
            for record in collection.at(self._version, self._namespace)
            if self._request.selector.matches(record.body)
        ]
        if self._request.initial_events:
            lines.append(self._bookmark({"k8s.io/initial-events-end": "true"}))
        return b"".join(lines)

    def advance(self) -> list[bytes]:
        """The events since the last call that may be seen. Raises HistoryExpiredError."""
        published = self._hub.published
        if self._version >= published:
            return []
        changes = self._store.versions.collection(self._resource.key).changes_after(self._version, published)
        self._version = published
        return [line for line in map(self._event, changes) if line]

    def _event(self, change: Change) -> bytes:
        record, previous = change.record, change.previous
        if self._namespace and record.namespace != self._namespace:
            return b""
        selector = self._request.selector
        if not selector:
            return self._line(change.type, record)
        was = previous is not None and selector.matches(previous.body)
        if change.type is ChangeType.DELETED:
            return self._line(ChangeType.DELETED, record) if was else b""
        now = selector.matches(record.body)
        if now:
            return self._line(ChangeType.MODIFIED if was else ChangeType.ADDED, record)
        if was and previous is not None:
            # Left the selection: told as a deletion of the state last seen, at the version of the change.
            metadata = {**previous.body["metadata"], "resourceVersion": str(change.version)}
            last = Record(record.resource, change.version, {**previous.body, "metadata": metadata})
            return self._line(ChangeType.DELETED, last)
        return b""

    def _line(self, kind: ChangeType, record: Record) -> bytes:
        return b'{"type":"%s","object":%s}\n' % (kind.encode(), self._encode(record))

    def _bookmark(self, annotations: Mapping[str, str] | None = None) -> bytes:
        metadata: dict[str, object] = {"resourceVersion": str(self._version)}
        if annotations:
            metadata["annotations"] = annotations
        document = {
            "kind": self._resource.kind,
            "apiVersion": self._resource.api_version,
            "metadata": metadata,
            **self._store.strategy(self._resource).bookmark(),
        }
        return orjson.dumps({"type": "BOOKMARK", "object": document}) + b"\n"

    def _expired_event(self, floor: int) -> bytes:
        error = expired(f"too old resource version: {self._version} ({floor})")
        return orjson.dumps({"type": "ERROR", "object": error.status()}) + b"\n"
