"""The simulator beside a real controller, agents and workers: the same pool and work come to the same sizes."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from controller.cli.verbs.simulate.engine import Engine, Terms
from controller.cli.verbs.simulate.podslots import Podslots
from controller.cli.verbs.simulate.trace import Arrival, Trace
from controller.objects.pool import PoolSpec
from tests.support.cluster import Cluster, pool

pytestmark = [pytest.mark.long, pytest.mark.asyncio(loop_scope="module")]

PLANS, CHANGES = 8, 3


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Cluster]:
    async with Cluster(tmp_path_factory.mktemp("simulated"), resync_seconds=5.0) as running:
        yield running
        await running.settle()
        running.check()


def simulated_sizes() -> list[int]:
    """While all plans run, when they are done, when one of three approvals has come, and after all of it."""
    plans = [Arrival(at=0, type="plan", plan_seconds=100)] * PLANS
    changes = [
        Arrival(at=0, type="plan_and_apply", plan_seconds=100, approval_seconds=wait, apply_seconds=1)
        for wait in (300, 600, 600)
    ]
    trace = Trace((*changes, *plans))
    terms = Terms(pod_start_seconds=2, grid_seconds=1)
    figures = Engine(trace, Podslots(PoolSpec.parse(pool("pool")), pass_seconds=0.1), terms).run(1000)
    assert (figures.unfinished, figures.lost) == (0, 0)
    return [figures.series.pods[second] for second in (90, 250, 550, 999)]


async def test_a_pool_comes_to_the_sizes_that_were_simulated(cluster: Cluster, tmp_path: Path) -> None:
    await cluster.create_pool()
    gate = tmp_path / "gate"
    command = f"until [ -e {gate} ]; do sleep 0.05; done; echo planned > tfplan; echo $PWD > where"
    changes = [f"change-{number}" for number in range(CHANGES)]
    plans = [f"plan-{number}" for number in range(PLANS)]
    for name in changes:
        await cluster.create_task(name, "plan_and_apply", plan=command)
    for name in plans:
        await cluster.create_task(name, plan=command)
    for name in (*changes, *plans):
        await cluster.until_phase(name, "Running")
    sizes = [len(await cluster.pods())]
    gate.touch()
    for name in plans:
        await cluster.until_phase(name, "Succeeded")
    for name in changes:
        await cluster.until_phase(name, "AwaitingApproval")
    expected = simulated_sizes()
    sizes.append(len(await cluster.until_size(expected[1])))
    await cluster.approve(changes[0])
    sizes.append(len(await cluster.until_size(expected[2])))
    for name in changes[1:]:
        await cluster.approve(name)
    sizes.append(len(await cluster.until_size(expected[3])))
    assert sizes == expected == [4, 3, 2, 0]
