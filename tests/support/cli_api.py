"""A Kubernetes API for commands: objects that a test changes, logs that it writes, and an API server that goes away."""

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, cast

from agent.wire import Step
from agent.worker.step.marks import BEGINS, ENDED, Marked, mark
from controller.cli.cluster.session import Connection
from controller.errors import AlreadyExists, ApiUnavailable, NotFound
from controller.kube.api import SLOTTASKOUTPUTS, SLOTTASKS, Object, Resource
from controller.kube.blocking import BlockingClient
from controller.objects.output import Output, Source, document, packed

NAMESPACE, TASK, UID = "team", "net", "uid-1"
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


class CliApi:
    """What the commands call. `on_get` is asked at each read of a task, and may change things."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], Object] = {}
        self.logs: dict[tuple[str, str], list[bytes | Exception | None]] = {}
        self.away = False
        self.on_get: Callable[[], None] = lambda: None

    def connection(self) -> Connection:
        """For a command."""
        return Connection(api=cast("BlockingClient", self), namespace=NAMESPACE, now=lambda: NOW)

    def put(self, resource: Resource, name: str, obj: Object) -> None:
        """Have an object there."""
        self.objects[resource.plural, name] = obj

    def get(self, resource: Resource, _namespace: str | None, name: str) -> Object:
        """Read one."""
        if resource is SLOTTASKS:
            self.on_get()
        if self.away:
            raise ApiUnavailable("GET: connection refused")
        try:
            return self.objects[resource.plural, name]
        except KeyError:
            raise NotFound(404, "NotFound", f"{name} not found") from None

    def list_page(
        self,
        resource: Resource,
        namespace: str | None,
        *,
        label_selector: str = "",
        field_selector: str = "",
        continue_token: str = "",
        limit: int = 500,
    ) -> Object:
        """All of a kind. Selectors: a name; a label that must be there, with its value or without."""
        assert not continue_token
        if self.away:
            raise ApiUnavailable("GET: connection refused")
        label, _, value = label_selector.partition("=")
        name = field_selector.removeprefix("metadata.name=")
        found = []
        for (plural, _), obj in self.objects.items():
            metadata = obj["metadata"]
            has = (metadata.get("labels") or {}).get(label)
            right_label = not label or (has == value if value else has is not None)
            if plural == resource.plural and namespace in {None, metadata["namespace"]} and right_label:
                found += [obj] if name in {"", metadata["name"]} else []
        return {"items": found[:limit], "metadata": {"resourceVersion": "1"}}

    def create(self, resource: Resource, _namespace: str | None, body: Object) -> Object:
        """Create one."""
        key = resource.plural, body["metadata"]["name"]
        if key in self.objects:
            raise AlreadyExists(409, "AlreadyExists", "it is there")
        self.objects[key] = body
        return body

    def pod_log(self, _namespace: str, name: str, container: str, *, follow: bool = False) -> "FakeLog":
        """The log's entries: lines; an error; None for the end of a followed stream. Followed, it waits for more."""
        if (name, container) not in self.logs:
            raise NotFound(404, "NotFound", "no such Pod")
        return FakeLog(self, (name, container), follow=follow)


class FakeLog:
    """One reading of a log, perhaps in another thread."""

    def __init__(self, api: CliApi, key: tuple[str, str], *, follow: bool) -> None:
        self._api, self._key, self._follow = api, key, follow
        self._closed = threading.Event()

    def close(self) -> None:
        """End it, whoever waits for it."""
        self._closed.set()

    def __iter__(self) -> Iterator[bytes]:
        place = 0
        while True:
            entries = self._api.logs[self._key]
            while place < len(entries):
                entry = entries[place]
                place += 1
                if isinstance(entry, bytes):
                    yield entry
                elif self._follow:
                    entries.pop(place - 1)  # it happens once
                    if entry is None:
                        return
                    raise entry
            if not self._follow or self._closed.wait(0.01):
                return


def task(phase: str, *, attempt: int = 1, step: str | None = "plan", **status: Any) -> Object:
    """A SlotTask in some state."""
    place = {"pod": f"pod-{attempt}", "slot": 0, "step": step} if step else {}
    return {
        "metadata": {"name": TASK, "namespace": NAMESPACE, "uid": UID},
        "spec": {"pool": "p", "type": "t", "steps": {"plan": {"command": ["x"]}, "apply": {"command": ["y"]}}},
        "status": {"phase": phase, "attempt": attempt, **place, **status},
    }


def ended(output: bytes, **result: Any) -> dict[str, Any]:
    """The result of a step."""
    text = output[-4096:].decode("utf-8", "replace")
    return {"endTime": "2026-03-01T11:00:00Z", "logBytes": len(output), "logTail": text, **result}


def echoed(output: bytes, *, attempt: int = 1, step: str = "plan", over: bool = True) -> list[bytes]:
    """A run as its worker prints it."""
    run = mark(f"{NAMESPACE}/{TASK}", step, f"{UID}.{attempt}")
    marked = Marked(run)
    marked.add(output)
    text = run + BEGINS + b"".join(iter(marked.next, None))
    if over:
        text += marked.end() + run + ENDED
    return text.split(b"\n")[:-1]


def keep(api: CliApi, output: bytes, *, attempt: int = 1, step: str = "plan", limit: int = 1 << 20) -> None:
    """Have the output of a run there as an object."""
    source = Source(namespace=NAMESPACE, task=TASK, task_uid=UID, attempt=attempt, step=Step(step))
    made = document(source, *packed(Output(kept=output, size_bytes=len(output)), limit))
    api.put(SLOTTASKOUTPUTS, made["metadata"]["name"], made)
