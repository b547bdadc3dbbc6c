"""The status page in a real browser, on a replica that knows what the test tells it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import pytest_asyncio
from aiohttp.test_utils import TestServer
from playwright.async_api import Browser

from controller.status_page.access import Reviewer
from controller.status_page.server import create_app
from tests.support.browser import PHONE, Looking, chromium, looking, needs_chromium
from tests.support.status_site import ReviewingApi, Site

pytestmark = [pytest.mark.long, needs_chromium, pytest.mark.asyncio(loop_scope="module")]

HOSTILE = "<img src=x onerror=alert(1)><script>alert(2)</script>'\"&amp;\u202e"
LONG = "n" * 253


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as running:
        yield running


@asynccontextmanager
async def served(site: Site) -> AsyncIterator[str]:
    """The site's address."""
    api = ReviewingApi({}, lambda _user, _path: False)
    server = TestServer(create_app(site.controller, site.registry, site.config, Reviewer(api)))
    await server.start_server()
    try:
        yield str(server.make_url("/"))
    finally:
        await server.close()


def busy_site() -> Site:
    """Something in each part of the page."""
    conditions = [
        {"type": "Degraded", "status": "True", "reason": "ErrImagePull", "message": "No such image."},
        {"type": "ScalingActive", "status": "True", "reason": "QueuedTasks", "message": "2 queued tasks."},
    ]
    site = Site()
    site.add_pool(autoscaling={"maxReplicas": 3})
    site.change(
        site.controller.caches.pools, {**pool_now(site), "status": {"desiredReplicas": 2, "conditions": conditions}}
    )
    site.add_pod("pool-abc")
    site.add_task("waits", queuedReason="for a slot: the pool is at its maxReplicas")
    site.add_plan("network", expiresAt="2026-02-01T11:00:00Z")
    reference = {"kind": "SlotPool", "name": "pool", "namespace": "default", "uid": "u"}
    site.controller.events.event(reference, "QueuedTasks", "0 → 2 Pods: 2 queued tasks")
    return site


def pool_now(site: Site) -> dict[str, Any]:
    return dict(site.controller.caches.pools.get("default", "pool") or {})


async def test_every_part_is_there_and_follows_what_happens(browser: Browser) -> None:
    site = busy_site()
    async with served(site) as url, looking(browser, url) as looker:
        await looker.shows("plans", "default/network", "podslots -n default approve network")
        await looker.shows("pools", "default/pool", "1 Pod, 0 ready", "Why: 2 queued tasks.")
        await looker.shows("pools", "Degraded: ErrImagePull. No such image.")
        assert ".." not in await looker.section("pools").inner_text()
        await looker.shows("pools", "pool-abc")
        await looker.shows("queue", "for a slot: the pool is at its maxReplicas")
        await looker.shows("decisions", "0 → 2 Pods: 2 queued tasks")
        assert await looker.page.title() == "(1) podslots"
        site.add_plan("database")
        await looker.shows("plans", "default/database")
        assert await looker.page.title() == "(2) podslots"
        site.add_task("waits", phase="Cancelled")
        await looker.shows_not("queue", "default/waits")
        site.add_pod("pool-def")
        await looker.shows("pools", "pool-def")


async def test_what_others_wrote_is_text(browser: Browser) -> None:
    """In each place that a name or a message gets to, on the widest and the narrowest screen."""
    site = Site()
    site.add_pool(HOSTILE)
    condition = {"type": HOSTILE, "status": "False", "reason": HOSTILE, "message": HOSTILE}
    known = site.controller.caches.pools.get("default", HOSTILE) or {}
    site.change(site.controller.caches.pools, {**known, "status": {"conditions": [condition]}})
    site.add_pod(HOSTILE, of=HOSTILE)
    site.add_task(HOSTILE, queuedReason=HOSTILE)
    site.add_task(f"{LONG}-waits", queuedReason=LONG)
    site.add_plan(f"{HOSTILE}-plan", pod=HOSTILE)
    site.add_plan(LONG, pod=LONG)
    site.controller.events.event(
        {"kind": HOSTILE, "name": HOSTILE, "namespace": HOSTILE, "uid": "u"}, HOSTILE, HOSTILE, warning=True
    )
    async with served(site) as url:
        for screen in ({"width": 1280, "height": 900}, PHONE):
            async with looking(browser, url, viewport=screen) as looker:
                for section in ("plans", "pools", "queue", "decisions"):
                    await looker.shows(section, "<img src=x onerror=alert(1)>")
                assert await looker.page.locator("img, script:not([src])").count() == 0
                assert await looker.page.evaluate("document.documentElement.scrollWidth") <= screen["width"]


async def test_on_a_phone_sections_are_named_in_one_line_and_nothing_is_named_that_is_empty(browser: Browser) -> None:
    site = busy_site()
    for number in range(20):
        site.add_plan(f"network-{number}")
    async with served(site) as url, looking(browser, url, viewport=PHONE) as looker:
        await looker.shows("plans", "default/network-19")
        links = await looker.page.locator("nav a").all()
        assert len({round(box["y"]) for link in links if (box := await link.bounding_box())}) == 1
        await looker.page.get_by_text("Conditions", exact=True).click()
        await looker.shows("pools", "QueuedTasks")
        shown = looker.section("pools").locator(".conditions td:visible")
        assert {await cell.get_attribute("data-label") for cell in await shown.all()} == {
            "Condition",
            "Status",
            "Reason",
            "Message",
        }


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("screen", [{"width": 1280, "height": 900}, PHONE], ids=["wide", "phone"])
async def test_axe_finds_nothing_in_anybodys_way(browser: Browser, scheme: str, screen: dict[str, int]) -> None:
    async with (
        served(busy_site()) as url,
        looking(browser, url, color_scheme=scheme, viewport=screen) as looker,
    ):
        await looker.shows("pools", "pool-abc")
        await looker.page.get_by_text("Conditions", exact=True).click()
        assert await looker.barriers() == []
        ground = await looker.page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (ground == "rgb(255, 255, 255)") is (scheme == "light")
        assert await looker.page.evaluate("document.documentElement.scrollWidth") <= screen["width"]


async def test_all_of_it_is_reached_by_keyboard_in_order(browser: Browser) -> None:
    async with served(busy_site()) as url, looking(browser, url) as looker:
        await looker.shows("pools", "pool-abc")
        reached = []
        for _ in range(30):
            await looker.page.keyboard.press("Tab")
            reached.append(await looker.page.evaluate("document.activeElement.textContent.trim().slice(0, 40)"))
            if "OpenAPI" in reached[-1]:
                break
        wanted = ["Skip to the content", "Plans 1", "Pools 1", "Queue 1", "Decisions", "Copy", "Conditions", "Pods (1)"]
        assert reached[: len(wanted)] == wanted
        assert reached[-2:] == ["api/v1/status", "OpenAPI"]


async def test_what_one_looks_at_stays_while_the_page_changes(browser: Browser) -> None:
    """Focus stays on its button and what was folded stays folded, though a row comes before it."""
    site = busy_site()
    async with served(site) as url, looking(browser, url) as looker:
        await looker.shows("pools", "pool-abc")
        await looker.page.get_by_text("Pods (1)").click()
        button = looker.page.get_by_role("button", name="Copy the command for default/network")
        await button.focus()
        site.add_plan("first", expiresAt="2026-01-31T12:30:00Z")
        await looker.shows("plans", "default/first")
        assert await looker.page.locator("#plans tbody tr").first.get_by_text("default/first").is_visible()
        assert await button.evaluate("node => node === document.activeElement")
        assert await looker.page.get_by_text("pool-abc").is_hidden()


async def test_the_command_is_copied(browser: Browser) -> None:
    permissions = ["clipboard-read", "clipboard-write"]
    async with served(busy_site()) as url, looking(browser, url, permissions=permissions) as looker:
        await looker.page.get_by_role("button", name="Copy the command for default/network").click()
        await looker.shows("plans", "Copied")
        assert await looker.page.evaluate("navigator.clipboard.readText()") == "podslots -n default approve network"


async def test_a_screen_reader_is_told_of_plans_and_of_little_else(browser: Browser) -> None:
    site = busy_site()
    async with served(site) as url, looking(browser, url) as looker:
        await looker.shows("plans", "default/network")
        said = looker.page.locator("[aria-live]")
        assert await said.text_content() == ""
        site.add_task("another")
        await looker.shows("queue", "default/another")
        assert await said.text_content() == ""
        site.add_plan("database")
        await said.get_by_text("2 plans await approval").wait_for()


async def test_a_tab_that_nobody_looks_at_leaves_its_connection_to_others(browser: Browser) -> None:
    site = busy_site()
    async with served(site) as url, looking(browser, url) as looker:
        await _set_hidden(looker, hidden=True)
        site.add_plan("meanwhile")
        await _set_hidden(looker, hidden=False)
        await looker.shows("plans", "default/meanwhile")


async def _set_hidden(looker: Looking, *, hidden: bool) -> None:
    """What a browser says when another tab is chosen: without a window there is none to choose."""
    await looker.page.evaluate(
        """hidden => {
            Object.defineProperty(document, "hidden", {configurable: true, get: () => hidden});
            document.dispatchEvent(new Event("visibilitychange"));
        }""",
        hidden,
    )
