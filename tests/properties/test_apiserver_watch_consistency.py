"""List, watch, list again: whatever is cut, dropped or forgotten, a client ends up with the state of the store."""

from __future__ import annotations

import json
import random
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.local.apiserver import lists
from controller.local.apiserver.errors import ApiError
from controller.local.apiserver.store import selectors
from controller.local.apiserver.store.deletion import DeleteOptions
from controller.local.apiserver.store.store import Store
from controller.local.apiserver.store.versions import HistoryExpiredError
from controller.local.apiserver.watch_hub import WatchHub
from controller.local.apiserver.watches import Watcher, WatchRequest

Json = dict[str, Any]

NOW = datetime(2026, 3, 1, tzinfo=UTC)
NAMES = st.sampled_from("abcde")
LABELS = st.sampled_from(["x", "y"])

ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), NAMES, LABELS),
        st.tuples(st.just("delete"), NAMES),
        st.tuples(st.just("other")),
        st.tuples(st.just("publish")),
        st.tuples(st.just("read")),
        st.tuples(st.just("cut")),
        st.tuples(st.just("compact")),
    ),
    max_size=60,
)


class Writer:
    """Changes objects; what it does becomes visible when published, as after a commit."""

    def __init__(self, history_limit: int) -> None:
        self.rng = random.Random(0)
        self.store = Store(history_limit=history_limit)
        self.hub = WatchHub()
        self.hub.publish(self.store.bootstrap(NOW, self.rng))
        self.maps = self.store.registry.by_key("configmaps")
        self.pending: list[Any] = []

    def put(self, name: str, label: str) -> None:
        document = {"metadata": {"name": name, "labels": {"app": label}}}
        try:
            done = self.store.create(self.maps, "default", document, now=NOW, rng=self.rng)
        except ApiError:
            done = self.store.update(self.maps, "default", name, document, now=NOW, rng=self.rng)
        self.pending += done.changes

    def delete(self, name: str) -> None:
        if self.store.versions.get("configmaps", ("default", name)) is not None:
            self.pending += self.store.delete(self.maps, "default", name, DeleteOptions(), now=NOW).changes

    def other(self) -> None:
        """A change of another kind moves the version on."""
        document = {"metadata": {"generateName": "s-"}}
        secrets = self.store.registry.by_key("secrets")
        self.pending += self.store.create(secrets, "default", document, now=NOW, rng=self.rng).changes

    def publish(self) -> None:
        self.hub.publish(self.pending)
        self.pending.clear()

    def state(self, selector: selectors.Selector) -> dict[str, Json]:
        return {r.name: r.body["metadata"] for r in self.store.matching(self.maps, "default", selector)}


class Reader:
    """A client as careful ones are: lists, watches from there, goes on from the last version it saw."""

    def __init__(self, writer: Writer, query: dict[str, str]) -> None:
        self.writer = writer
        self.query = query
        self.seen: dict[str, Json] = {}
        self.version = ""
        self.relists = 0
        self.watcher: Watcher | None = None

    def list(self) -> None:
        self.relists += 1
        self.writer.publish()  # an answer waits until what it shows is durable
        request = lists.ListRequest.parse(self.writer.maps, self.query)
        page = lists.read(self.writer.store, self.writer.maps, "default", request)
        self.seen = {record.name: record.body["metadata"] for record in page.records}
        self.version = str(page.version)

    def watch(self) -> None:
        query = {**self.query, "resourceVersion": self.version, "allowWatchBookmarks": "true"}
        request = WatchRequest.parse(self.writer.maps, query, "", random.Random(0))
        self.watcher = Watcher(
            self.writer.store, self.writer.hub, self.writer.maps, "default", request, bookmark_interval_seconds=1
        )
        self.watcher.begin()

    def read(self) -> None:
        if not self.version:
            self.list()
        if self.watcher is None:
            self.watch()
        assert self.watcher is not None
        try:
            lines = self.watcher.advance()
        except HistoryExpiredError:  # told as an ERROR event with 410
            self.version, self.watcher = "", None
            return
        for line in lines:
            event = json.loads(line)
            metadata = event["object"]["metadata"]
            assert int(metadata["resourceVersion"]) > int(self.version), "an event was repeated"
            self.version = metadata["resourceVersion"]
            if event["type"] == "DELETED":
                assert self.seen.pop(metadata["name"], None) is not None, "deleted what was never there"
            else:
                assert (metadata["name"] in self.seen) == (event["type"] == "MODIFIED")
                self.seen[metadata["name"]] = metadata


@pytest.mark.parametrize("query", [{}, {"labelSelector": "app=x"}, {"fieldSelector": "metadata.name=a"}])
@settings(max_examples=150, deadline=None)
@given(actions=ACTIONS, history_limit=st.sampled_from([1, 4, 1000]))
def test_a_client_that_lists_and_watches_ends_up_with_the_stores_state(
    query: dict[str, str], actions: list[tuple[str, ...]], history_limit: int
) -> None:
    """Nothing is missed, repeated or invented, through cut watches and expired versions (T21)."""
    writer = Writer(history_limit)
    reader = Reader(writer, query)
    for action, *arguments in actions:
        if action == "read":
            reader.read()
        elif action == "cut":
            reader.watcher = None
        elif action == "compact":
            writer.publish()
            writer.store.versions.compact()
        else:
            getattr(writer, action)(*arguments)
    writer.publish()
    for _ in range(3):  # at most: expired, listed again, up to date
        reader.read()
    assert reader.seen == writer.state(
        selectors.parse(writer.maps, query.get("labelSelector", ""), query.get("fieldSelector", ""))
    )


@settings(max_examples=150, deadline=None)
@given(
    names=st.lists(st.text("abcdef", min_size=1, max_size=3), unique=True, max_size=12),
    limit=st.integers(1, 5),
    changes=st.lists(st.tuples(st.sampled_from(["put", "delete"]), st.text("abcdef", min_size=1, max_size=3))),
    label=st.sampled_from(["", "app=x"]),
)
def test_pages_are_of_one_version_while_writes_go_on(
    names: list[str], limit: int, changes: list[tuple[str, str]], label: str
) -> None:
    """All pages together are the state at the first page, in order, each object once."""
    writer = Writer(history_limit=1000)
    for index, name in enumerate(names):
        writer.put(name, "xy"[index % 2])
    before = writer.state(selectors.parse(writer.maps, label, ""))
    query = {"limit": str(limit), "labelSelector": label}
    pages = []
    pending = iter(changes)
    while True:
        page = lists.read(writer.store, writer.maps, "default", lists.ListRequest.parse(writer.maps, query))
        pages.append(page)
        if not page.continue_token:
            break
        query["continue"] = page.continue_token
        for action, name in (step for step, _ in zip(pending, range(3), strict=False)):
            if action == "put":
                writer.put(name, "x")
            else:
                writer.delete(name)
    found = [(record.name, record.body["metadata"]) for page in pages for record in page.records]
    assert found == sorted(before.items())
    assert len({page.version for page in pages}) == 1
    assert all(len(page.records) <= limit for page in pages)
    if not label and pages[0].continue_token:
        assert pages[0].remaining == len(names) - limit
