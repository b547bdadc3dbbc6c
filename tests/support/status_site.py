"""A controller that knows what a test tells it, behind its HTTP server. Nothing of it runs."""

import random
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from prometheus_client import CollectorRegistry

from controller import names
from controller.app import Controller
from controller.config import Config
from controller.errors import ApiError, ApiUnavailable
from controller.kube.api import ACCESS_REVIEWS, TOKEN_REVIEWS, Object, Resource
from controller.kube.cache import Cache
from tests.support.agents import FakeNetwork
from tests.support.cluster import pool, task
from tests.support.memory_api import MemoryApi

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


class Site:
    """A replica that stands by. `change` puts objects into its caches, as a watch would."""

    def __init__(self, **environ: str) -> None:
        self.config = Config.from_environ(environ)
        self.registry = CollectorRegistry()
        self._version = 0
        self.controller = Controller(
            self.config,
            MemoryApi(),
            FakeNetwork(),
            now=lambda: NOW,
            rng=random.Random(1),
            random_bytes=lambda count: b"0" * count,
            registry=self.registry,
        )

    def change(self, cache: Cache, obj: Object) -> None:
        self._version += 1
        metadata = {"uid": f"uid-{obj['metadata']['name']}", "creationTimestamp": "2026-01-31T11:00:00Z"}
        obj["metadata"] = {**metadata, **obj["metadata"], "resourceVersion": str(self._version)}
        cache.note(obj)

    def add_pool(self, name: str = "pool", **spec: Any) -> None:
        self.change(self.controller.caches.pools, pool(name, **spec))

    def add_task(self, name: str, **status: Any) -> None:
        self.change(self.controller.caches.tasks, {**task(name), "status": status})

    def add_pod(self, name: str, of: str = "pool") -> None:
        labels = {names.POOL_LABEL: of, names.STATE_LABEL: "active"}
        self.change(
            self.controller.caches.pods,
            {"metadata": {"name": name, "namespace": "default", "labels": labels}, "spec": {}},
        )

    def add_plan(self, name: str, **status: Any) -> None:
        plan = {"endTime": "2026-01-31T11:30:00Z"}
        waiting = {
            "phase": "AwaitingApproval",
            "attempt": 1,
            "pod": "p",
            "podUID": "u",
            "slot": 0,
            "steps": {"plan": plan},
        }
        self.add_task(name, **{**waiting, "planDigest": "sha256:" + "a" * 64, **status})


class ReviewingApi(MemoryApi):
    """Knows tokens, and who may read which paths. `away`: it does not answer."""

    def __init__(self, users: dict[str, str], may: Callable[[str, str], bool]) -> None:
        super().__init__()
        self.users = users
        self.may = may
        self.away = False
        self.asked: list[tuple[str, Object]] = []

    async def create(self, resource: Resource, namespace: str | None, body: Object) -> Object:
        del namespace
        if self.away:
            raise ApiUnavailable("no answer")
        spec = body["spec"]
        self.asked.append((resource.kind, spec))
        if resource is TOKEN_REVIEWS:
            user = self.users.get(spec["token"])
            if user is None:
                return {"status": {"user": {}, "error": "invalid bearer token"}}
            about = {"username": user, "uid": "u1", "groups": ["team"], "extra": {"scopes": ["a"]}}
            return {"status": {"authenticated": True, "user": about}}
        if resource is ACCESS_REVIEWS:
            return {"status": {"allowed": self.may(spec["user"], spec["nonResourceAttributes"]["path"])}}
        raise ApiError(404, "NotFound", resource.kind)
