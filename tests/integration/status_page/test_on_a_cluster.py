"""The status page over real processes: a task goes through it, the controller restarts under it, strangers stay out."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio
from playwright.async_api import Browser

from controller.status_page.server import PAGE_HEADERS
from tests.support.browser import Looking, chromium, looking, needs_chromium
from tests.support.cluster import PLAN, Child, Cluster, until

pytestmark = [pytest.mark.long, needs_chromium, pytest.mark.asyncio(loop_scope="module")]

ELSEWHERE = "127.0.0.77"
"""An address of this machine that no forwarded port comes from."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    async with Cluster(tmp_path, resync_seconds=5.0) as running:
        yield running
        await running.settle()


async def port_of(controller: Child) -> int:
    """Where a controller serves, as its log says."""

    def said() -> int | None:
        lines = controller.log.read_text().splitlines() if controller.log.exists() else []
        ports = [json.loads(line)["port"] for line in lines if '"message":"serving"' in line]
        return ports[-1] if ports else None

    found: int = await until(said, "the controller serves")
    return found


async def url_of(cluster: Cluster) -> str:
    return f"http://127.0.0.1:{await port_of(cluster.controller)}/"


class Gates:
    """Files that steps wait for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def command(self, name: str) -> str:
        return f"until [ -e {self.folder}/{name} ]; do sleep 0.05; done; {PLAN}"

    def open(self, name: str) -> None:
        (self.folder / name).touch()


async def test_a_task_is_seen_from_its_queue_to_its_end(cluster: Cluster, browser: Browser, tmp_path: Path) -> None:
    gates = Gates(tmp_path)
    async with looking(browser, await url_of(cluster)) as looker:
        await looker.shows("pools", "There are no pools.")
        await cluster.create_task("network", "plan_and_apply", plan=gates.command("plan"), lockKey="<b>vpc</b>")
        await looker.shows("queue", "default/network", "PoolNotFound: there is no SlotPool")
        await cluster.create_pool(autoscaling={"minReplicas": 0, "maxReplicas": 1})
        await looker.shows("pools", "default/pool", "1 running", "network (plan) for")
        await looker.shows_not("queue", "default/network")
        await cluster.create_task("after", "plan_and_apply", lockKey="<b>vpc</b>")
        await looker.shows("queue", "for lockKey <b>vpc</b>, held by network")
        gates.open("plan")
        await looker.shows("plans", "default/network", "podslots -n default approve network")
        await looker.shows("pools", "1 reserved", "expires in")
        await cluster.approve("network")
        await looker.shows_not("plans", "default/network")
        await cluster.until_phase("network", "Succeeded")
        await looker.shows("decisions", "Scaled from 0 to 1 Pods", "Approved")
        await looker.shows("plans", "default/after")


async def test_the_restart_of_the_controller_is_survived(cluster: Cluster, browser: Browser) -> None:
    await cluster.create_pool()
    await cluster.create_task("network", "plan_and_apply")
    port = await port_of(cluster.controller)
    cluster.controller.set_environment("PODSLOTS_HTTP_PORT", str(port))
    async with looking(browser, await url_of(cluster)) as looker:
        await looker.shows("plans", "default/network")
        await cluster.controller.kill()
        await looker.page.get_by_role("status").get_by_text("Not connected since").wait_for()
        await looker.shows("plans", "default/network")
        await cluster.controller.start()
        await looker.page.get_by_role("status").get_by_text("Live").wait_for()
        await cluster.create_task("database", "plan_and_apply")
        await looker.shows("plans", "default/network", "default/database")
        _only_lost_connections(looker)
        looker.complaints.clear()


def _only_lost_connections(looker: Looking) -> None:
    """While nobody listens a browser says so for each try."""
    assert all("net::ERR_" in complaint for complaint in looker.complaints), looker.complaints


async def test_a_replica_that_stands_by_says_who_leads_and_what_it_knows(cluster: Cluster, browser: Browser) -> None:
    await cluster.create_pool()
    await cluster.create_task("network", "plan_and_apply")
    await cluster.until_phase("network", "AwaitingApproval")
    standby = cluster.new_controller("standby")
    await standby.start()
    try:
        async with looking(browser, f"http://127.0.0.1:{await port_of(standby)}/") as looker:
            leader = looker.page.locator("#leader")
            await leader.get_by_text("stands by. controller_").wait_for()
            await looker.shows("plans", "default/network")
            await looker.shows("pools", "1 reserved", "network (plan) for")
            await looker.shows("decisions", "Decisions are with the leader that made them.")
            await cluster.controller.terminate()
            await leader.get_by_text("This replica leads: standby_").wait_for()
            await looker.shows("plans", "default/network")
    finally:
        await standby.terminate()
    await cluster.controller.start()


async def test_a_stop_waits_for_no_reader(cluster: Cluster, browser: Browser) -> None:
    async with looking(browser, await url_of(cluster)) as looker:
        assert await cluster.controller.terminate() == 0
        await looker.page.get_by_role("status").get_by_text("Not connected since").wait_for()
        _only_lost_connections(looker)
        looker.complaints.clear()
    await cluster.controller.start()


async def test_other_pods_show_a_token_that_the_api_server_knows(cluster: Cluster) -> None:
    """From another address, as a Pod has one: not from loopback's own, as a forwarded port comes from."""
    url = await url_of(cluster)
    tokens = json.loads((cluster.state / "cluster.json").read_text())["tokens"]
    await cluster.create_pool()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(local_addr=(ELSEWHERE, 0))) as session:
        for path in ("", "api/v1/status", "api/v1/stream"):
            for token, status in (("", 401), ("made-up", 401), (tokens["demo"], 200)):
                headers = {"Authorization": f"Bearer {token}"} if token else {}
                async with session.get(url + path, headers=headers) as answer:
                    assert (path, answer.status) == (path, status)
                    assert answer.headers["Content-Security-Policy"] == PAGE_HEADERS["Content-Security-Policy"]
        for path in ("metrics", "healthz", "readyz"):
            async with session.get(url + path) as answer:
                assert answer.status == 200
