"""`podslots simulate --prometheus` against a real Prometheus that scrapes a counter of arrivals."""

import asyncio
import json
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from tests.support.agent_process import free_port
from tests.support.cluster import until

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(
        shutil.which("prometheus") is None,
        reason="no Prometheus: apt-get install -y --no-install-recommends prometheus",
    ),
]
POOL = """
apiVersion: podslots.dev/v1alpha1
kind: SlotPool
metadata: {name: terraform}
spec:
  autoscaling: {maxReplicas: 5}
  template: {spec: {containers: [{name: worker, image: terraform}]}}
"""
TASKS = 40
OK = 200


@asynccontextmanager
async def exporter(registry: CollectorRegistry) -> AsyncIterator[str]:
    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(registry))

    app = web.Application()
    app.router.add_get("/metrics", metrics)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def prometheus(folder: Path, target: str) -> AsyncIterator[str]:
    address = f"127.0.0.1:{free_port('127.0.0.1')}"
    jobs = [{"job_name": "controller", "static_configs": [{"targets": [target]}]}]
    config = folder / "prometheus.yml"
    config.write_text(json.dumps({"global": {"scrape_interval": "1s"}, "scrape_configs": jobs}))
    with (folder / "prometheus.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            "prometheus",
            f"--config.file={config}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address={address}",
            stdout=log,
            stderr=log,
        )
        try:
            yield f"http://{address}"
        finally:
            process.terminate()
            await process.wait()


async def until_seen(url: str, count: float) -> None:
    """Wait until this Prometheus has counted so many tasks of the pool."""
    query = {"query": f'podslots_pool_slot_wait_seconds_count{{pool="terraform"}} >= {count}'}

    async def has_seen() -> bool:
        async with aiohttp.ClientSession() as session, session.get(f"{url}/api/v1/query", params=query) as response:
            result: list[Any] = (await response.json())["data"]["result"] if response.status == OK else []
            return bool(result)

    await until(has_seen, f"Prometheus has seen {count} tasks")


async def test_what_a_real_prometheus_counted_is_simulated(tmp_path: Path) -> None:
    registry = CollectorRegistry()
    waits = Histogram(
        "podslots_pool_slot_wait_seconds", "As the controller's", ["namespace", "pool"], registry=registry
    )
    (tmp_path / "pool.yaml").write_text(POOL)
    async with exporter(registry) as target, prometheus(tmp_path, target) as url:
        ours, others = waits.labels("default", "terraform"), waits.labels("default", "another")
        begin = datetime.now(UTC)
        await until_seen(url, 0)
        for number in range(1, TASKS + 1):
            ours.observe(1)
            if number % 10 == 0:
                await until_seen(url, number)
        others.observe(1)
        await until_seen(url, TASKS)
        end = datetime.now(UTC) + timedelta(seconds=10)
        trace = tmp_path / "trace.csv"
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", "from controller.cli.main import main; main()", "simulate"),
            *("--pool", str(tmp_path / "pool.yaml"), "--prometheus", url, "--step", "10", "-o", "json"),
            *("--from", begin.isoformat(), "--to", end.isoformat(), "--save-trace", str(trace), "--type", "plan"),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        told, problem = await process.communicate()
    assert process.returncode == 0, problem.decode()
    document = json.loads(told)
    # increase() reaches to the ends of its ranges, so that the count is near, not the same.
    assert 0.5 * TASKS <= document["trace"]["tasks"] <= 1.5 * TASKS
    assert document["strategies"][0]["tasks"]["succeeded"] == document["trace"]["tasks"]
    assert trace.read_text().count(",plan,") == document["trace"]["tasks"]
