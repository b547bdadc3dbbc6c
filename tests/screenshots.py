"""`make screenshots`: pictures of the status page for docs/images, of a cluster on this machine with work in it."""

import asyncio
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import uvloop

from tests.support.browser import CHROMIUM, chromium, looking
from tests.support.cluster import Cluster, until
from tests.support.repository import ROOT

FOLDER = ROOT / "docs" / "images"
WIDE = {"width": 1000, "height": 1160}
NARROW = {"width": 390, "height": 844}
PICTURES: dict[str, dict[str, Any]] = {
    "status-page-light": {"color_scheme": "light", "viewport": WIDE},
    "status-page-dark": {"color_scheme": "dark", "viewport": WIDE},
    "status-page-phone": {"color_scheme": "light", "viewport": NARROW},
}
CHANGED = "echo planned > tfplan; exit 2"


async def main() -> None:
    """Take them all."""
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        async with Cluster(Path(folder), resync_seconds=5.0) as cluster:
            await work(cluster)
            url = f"http://127.0.0.1:{await port(cluster)}/"
            async with chromium() as browser:
                for name, context in PICTURES.items():
                    async with looking(browser, url, **context) as looker:
                        await looker.shows("plans", "default/network", "default/database")
                        await looker.shows("queue", "held by network", "maxReplicas")
                        await looker.shows("pools", "running", "cluster (plan) for")
                        await looker.page.screenshot(path=FOLDER / f"{name}.png")
            await cluster.settle()


async def work(cluster: Cluster) -> None:
    """Two plans that wait, two that run, and a queue in which each waits for something else."""
    await cluster.create_pool("terraform", autoscaling={"minReplicas": 0, "maxReplicas": 3})
    for name, lock in (("network", "vpc-prod"), ("database", "db-prod")):
        await create(cluster, name, CHANGED, lock=lock)
    for name in ("network", "database"):
        await cluster.until_phase(name, "AwaitingApproval")
    await create(cluster, "cluster", "sleep 600", lock="cluster-prod")
    await create(cluster, "drift-check", "sleep 600", kind="plan")
    for name in ("cluster", "drift-check"):
        await cluster.until_phase(name, "Running")
    await create(cluster, "network-peering", CHANGED, lock="vpc-prod")
    await create(cluster, "dns", CHANGED, lock="dns-prod")

    async def said() -> bool:
        return all([(await cluster.status(name)).get("queuedReason") for name in ("network-peering", "dns")])

    await until(said, "the queue says what it waits for")


async def create(
    cluster: Cluster, name: str, plan: str, *, kind: str = "plan_and_apply", lock: str | None = None
) -> None:
    codes = {"changed": [2], "unchanged": [0]}
    steps: dict[str, Any] = {"plan": {"command": ["sh", "-c", plan], "cancelGraceSeconds": 2, "exitCodes": codes}}
    if kind != "plan":
        steps["apply"] = {"command": ["cat", "tfplan"], "cancelGraceSeconds": 2}
    spec = {"lockKey": lock} if lock else {}
    await cluster.create_task(name, kind, pool="terraform", steps=steps, **spec)


async def port(cluster: Cluster) -> int:
    """Where the controller serves."""
    lines = cluster.controller.log.read_text().splitlines()
    return next(int(json.loads(line)["port"]) for line in lines if '"message":"serving"' in line)


if __name__ == "__main__":
    if CHROMIUM is None:
        sys.exit("the pictures are taken with Debian's chromium, which is not installed")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
