"""At 2 000 Pods the page stays usable: what is sent and shown is bounded, all else is there by asking."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp.test_utils import TestServer
from prometheus_client import CollectorRegistry

from controller.config import Config
from controller.kube.api import PODS, SLOTTASKS
from controller.status_page.access import Reviewer
from controller.status_page.server import create_app
from tests.bench.stage import Stage, StageAgents, active_pods, pool_object, prepared, queued_tasks, staged
from tests.support.browser import chromium, looking, needs_chromium
from tests.support.cluster import until
from tests.support.status_site import ReviewingApi

pytestmark = [pytest.mark.long, needs_chromium]

PODS_COUNT = 2000
SLOTS = 3
HELD = 500
QUEUED = 3000


@asynccontextmanager
async def large() -> AsyncIterator[tuple[Stage, str]]:
    """A controller with 2 000 Pods, 500 slots held and a queue that no slot is left for, and where it serves."""
    api, (pool,) = await prepared(
        pool_object("bench", autoscaling={"minReplicas": PODS_COUNT, "maxReplicas": PODS_COUNT})
    )
    # Applies: each Pod's first slot would take one, and is held first.
    api.many = {PODS: [active_pods(PODS_COUNT, pool)], SLOTTASKS: [queued_tasks(QUEUED, "none")]}
    agents = StageAgents()
    for number in range(HELD):
        agents.hold(number, f"own-{number}")
    async with staged(api, agents) as stage:
        await stage.until(lambda: stage.passes)
        await stage.rest()
        app = create_app(
            stage.controller,
            CollectorRegistry(),
            Config.from_environ({}),
            Reviewer(ReviewingApi({}, lambda _user, _path: False)),
        )
        server = TestServer(app)
        await server.start_server()
        try:
            yield stage, str(server.make_url("/"))
        finally:
            await server.close()


async def test_two_thousand_pods_are_looked_through_and_no_answer_is_large() -> None:
    async with large() as (stage, url), chromium() as browser, looking(browser, url) as looker:
        page, pods = looker.page, looker.page.locator(".pods").first
        await looker.shows("pools", f"Pods ({PODS_COUNT})", f"{HELD} running", f"{SLOTS * PODS_COUNT - HELD} idle")
        await pods.get_by_text(f"1 to 50 of {PODS_COUNT}").wait_for()
        await looker.shows("queue", f"and {QUEUED - 100} more")
        assert await pods.locator("tbody tr").count() == 50
        assert await page.locator("*").count() < 5000

        # Its pages are turned, forwards and back.
        await pods.get_by_role("button", name="Next").click()
        await pods.get_by_text(f"51 to 100 of {PODS_COUNT}").wait_for()
        await pods.get_by_text("pod-000000000050", exact=True).wait_for()
        await pods.get_by_role("button", name="Previous").click()
        await pods.get_by_text("pod-000000000000", exact=True).wait_for()

        # Some are sought, by what their slots do and by name.
        await pods.get_by_label("Show").select_option("running")
        await pods.get_by_text(f"1 to 50 of {HELD}").wait_for()
        await pods.get_by_label("named").fill("own-77")
        await pods.get_by_text("pod-000000000077", exact=True).wait_for()
        assert await pods.locator("tbody tr").count() == 1

        # What happens there is followed, though nobody asks for it.
        stage.agents.give_back(77, "own-77")
        await pods.get_by_text("No such Pod.").wait_for()
        await looker.shows("pools", f"{HELD - 1} running")

        # It scrolls to its end.
        end = page.get_by_text("Read-only.")
        await end.scroll_into_view_if_needed()
        await until(
            lambda: page.evaluate("scrollY + innerHeight >= document.body.scrollHeight - 50"), "it has scrolled"
        )

        # Answers are bounded, whatever there is.
        answer = await page.request.get(f"{url}api/v1/status")
        body = await answer.body()
        assert len(body) < 100_000
        said = await answer.json()
        assert (said["queue"]["total"], len(said["queue"]["items"])) == (QUEUED, 100)
        assert said["pools"]["total"] == 2
        pods = await (await page.request.get(f"{url}api/v1/pods?namespace=default&pool=bench&limit=500")).json()
        assert (pods["total"], len(pods["items"])) == (PODS_COUNT, 500)
