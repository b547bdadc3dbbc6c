"""Every query of every dashboard, asked of a real Prometheus that has scraped a controller and an agent at work."""

import math
import re
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from controller.kube.api import SLOTPOOLS
from tests.support.cluster import NAMESPACE, Cluster, until
from tests.support.dashboards import FILES, Asked, queries, read
from tests.support.prometheus import Prometheus
from tests.support.promtool import MONITORING, program

pytestmark = [pytest.mark.long, pytest.mark.timeout(400)]

RULES = MONITORING / "rules" / "podslots.rules.yaml"
NOTHING_THERE = {
    ("podslots-fleet", "Which alerts fire?"): "nothing is wrong",
    ("podslots-fleet", "Do passes or operations fail?"): "no operation has failed, or some by a conflict",
}
"""Panels of which a query may find nothing in a run in which all is well."""


@pytest_asyncio.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    async with Cluster(tmp_path, resync_seconds=5.0) as running:
        yield running
        await running.settle()
        running.check()


@pytest_asyncio.fixture
async def prometheus(cluster: Cluster, tmp_path: Path) -> AsyncIterator[Prometheus]:
    program("prometheus")
    async with Prometheus(cluster, tmp_path / "prometheus", rules=(RULES,)) as server:
        await server.start()
        yield server


async def work(cluster: Cluster, prometheus: Prometheus) -> str:
    """Let a pool of one Pod do some of everything while Prometheus looks on; the Pod's name."""
    await cluster.create_pool("tf", autoscaling={"minReplicas": 0, "maxReplicas": 1, "minIdleSeconds": 3600})

    async def known() -> bool:
        return bool(await prometheus.ask('podslots_pool_desired_pods{pool="tf"} == 0'))

    async def opened() -> bool:
        return bool(await prometheus.ask('podslots_agent_open{pool="tf"} == 1'))

    await until(known, "Prometheus knows the pool: a counter's first value is no increase")
    await cluster.api.patch(SLOTPOOLS, NAMESPACE, "tf", {"spec": {"autoscaling": {"minReplicas": 1}}})
    await until(opened, "Prometheus knows the agent, and that it is open")
    (pod,) = await cluster.pods()
    await cluster.create_task("applied", "plan_and_apply", pool="tf")
    await cluster.approve("applied")
    await cluster.until_phase("applied", "Succeeded")
    await cluster.create_task("fails", pool="tf", plan="echo no; exit 1")
    await cluster.until_phase("fails", "Failed")
    await cluster.create_task("waits", "plan_and_apply", pool="tf")
    await cluster.until_phase("waits", "AwaitingApproval")
    async with aiohttp.ClientSession() as session:
        await session.post(f"http://{pod['status']['podIP']}:8721/drain", json={"drain_id": "a-stranger's"})

    async def seen() -> bool:
        reserved = await prometheus.ask('pool_state:podslots_slots:sum{pool="tf", state="reserved"} == 1')
        refused = await prometheus.ask('pool_error:podslots_agent_refusals:rate5m{pool="tf", error="unauthorized"} > 0')
        waiting = await prometheus.ask('podslots_pool_tasks{pool="tf", phase="AwaitingApproval"} == 1')
        ended = await prometheus.ask('sum(podslots_pool_tasks_ended_total{pool="tf"}) == 2')
        return bool(reserved and refused and waiting and ended)

    await until(seen, "it has scraped what was done")
    return str(pod["metadata"]["name"])


async def found(prometheus: Prometheus, asked: Asked, variables: dict[str, str]) -> list[float]:
    """The values that a query finds, as Grafana asks for it; those that are no number don't count."""
    query = asked.filled_in(variables)
    if asked.instant:
        samples = [series["value"] for series in await prometheus.ask(query)]
    else:
        now = time.time()
        over = {"start": f"{now - 60}", "end": f"{now}", "step": "1"}
        lines = (await prometheus.get("query_range", query=query, **over))["result"]
        samples = [sample for line in lines for sample in line["values"]]
    return [value for value in (float(text) for _, text in samples) if not math.isnan(value)]


async def offered(prometheus: Prometheus, board: dict[str, Any], variables: dict[str, str]) -> dict[str, list[str]]:
    """What each variable of a dashboard lets people choose from."""
    choices = {}
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            asked = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]["query"])
            assert asked
            series = re.sub(r"\$(\w+)", lambda name: variables[name[1]], asked[1])
            choices[variable["name"]] = await prometheus.get(f"label/{asked[2]}/values", **{"match[]": series})
    return choices


async def test_every_query_finds_something(cluster: Cluster, prometheus: Prometheus) -> None:
    pod = await work(cluster, prometheus)
    # As Grafana has them: `All` of a label that no series has, and the only pool there is.
    chosen = {"cluster": ".*", "namespace": "default", "pool": "tf", "pod": pod}
    variables = {**chosen, "__rate_interval": "1m", "__range": "10m"}

    for path in FILES:
        choices = await offered(prometheus, read(path), variables)
        expected = {name: [value] for name, value in chosen.items() if name in choices}
        assert choices == {**expected, "cluster": []}, path.stem

    asked = list(queries())
    assert NOTHING_THERE.keys() <= {(each.board, each.panel) for each in asked}
    empty = [each for each in asked if not await found(prometheus, each, variables)]
    assert [each for each in empty if (each.board, each.panel) not in NOTHING_THERE] == []
    assert ("podslots-fleet", "Which alerts fire?") in {(each.board, each.panel) for each in empty}


async def test_the_timeline_shows_the_state_of_each_slot(cluster: Cluster, prometheus: Prometheus) -> None:
    """By number, as its words go: slot 0 has run and is reserved, slot 1 or 2 has run a plan, and all are idle else."""
    pod = await work(cluster, prometheus)
    (timeline,) = [each for each in queries() if each.panel == "What did each slot do?"]
    query = timeline.filled_in({"cluster": ".*", "namespace": "default", "pool": "tf", "pod": pod})

    async def now() -> dict[str, str]:
        return {series["metric"]["slot"]: series["value"][1] for series in await prometheus.ask(query)}

    assert await now() == {"0": "2", "1": "0", "2": "0"}
    await cluster.approve("waits")

    async def idle() -> bool:
        return await now() == dict.fromkeys("012", "0")

    await until(idle, "all are idle")
