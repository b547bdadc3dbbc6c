"""The controller's own pages: health by what is true, and a page on which nothing a user wrote is markup."""

import random
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestClient
from prometheus_client import CollectorRegistry

from controller.app import Controller
from controller.config import Config
from controller.status_page import create_app
from tests.support.agents import FakeNetwork
from tests.support.cluster import pool, task
from tests.support.memory_api import MemoryApi

AiohttpClient = Callable[[web.Application], Coroutine[Any, Any, TestClient[web.Request, web.Application]]]
NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
EVIL = "<script>alert(1)</script>"


def new_controller(registry: CollectorRegistry) -> Controller:
    return Controller(
        Config.from_environ({}),
        MemoryApi(),
        FakeNetwork(),
        now=lambda: NOW,
        rng=random.Random(1),
        random_bytes=lambda count: b"0" * count,
        registry=registry,
    )


async def test_ready_means_that_everything_was_read(aiohttp_client: AiohttpClient) -> None:
    registry = CollectorRegistry()
    controller = new_controller(registry)
    client = await aiohttp_client(create_app(controller, registry))
    assert (await client.get("/readyz")).status == 503
    assert (await client.get("/healthz")).status == 200
    for cache in (controller.pools, controller.pods, controller.tasks, controller.nodes, controller.leases):
        cache.apply_list([], "1")
    assert (await client.get("/readyz")).status == 200


async def test_metrics_are_exposed(aiohttp_client: AiohttpClient) -> None:
    registry = CollectorRegistry()
    client = await aiohttp_client(create_app(new_controller(registry), registry))
    text = await (await client.get("/metrics")).text()
    assert "podslots_controller_leader 0.0" in text


async def test_what_users_wrote_is_shown_as_text(aiohttp_client: AiohttpClient) -> None:
    registry = CollectorRegistry()
    controller = new_controller(registry)
    stored = {"uid": "u", "resourceVersion": "7", "creationTimestamp": "2026-01-31T12:00:00Z"}
    for cache, obj in ((controller.pools, pool("pool")), (controller.tasks, task(EVIL))):
        obj["metadata"] |= stored
        cache.note(obj)
    client = await aiohttp_client(create_app(controller, registry))
    page = await (await client.get("/")).text()
    assert "default/pool" in page
    assert EVIL not in page
    assert "&lt;script&gt;" in page
