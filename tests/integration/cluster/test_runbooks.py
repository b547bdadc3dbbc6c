"""Every command of docs/runbooks.md does something on a cluster, as it is written there."""

import asyncio
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from controller.kube.api import SLOTPOOLS
from tests.support.cluster import NAMESPACE, Cluster, until
from tests.support.repository import ROOT

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.long]

ASKS = ("approve", "forget", "unlock", "break-glass")
"""What asks before it does it. A person answers; here it is told to go on."""
OF_A_CLUSTER = "podslots-system"
"""Where the controller is a Deployment: here it is a process."""


def sections() -> dict[str, list[str]]:
    text = (ROOT / "docs" / "runbooks.md").read_text()
    found = {}
    for title, section in re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE):
        blocks = re.findall(r"```sh\n(.*?)```", section, re.DOTALL)
        found[title] = [line for block in blocks for line in block.splitlines()]
    return found


COMMANDS = sorted({line for lines in sections().values() for line in lines})


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Cluster]:
    async with Cluster(tmp_path_factory.mktemp("runbooks"), resync_seconds=5.0) as running:
        yield running


async def shell(cluster: Cluster, line: str, variables: dict[str, str]) -> tuple[int, str]:
    """A command as a person types it; whoever is asked, says yes."""
    if any(f" {word} " in f"{line} " for word in ASKS):
        line = f"{line} --yes"
    environ = {
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        "HOME": str(cluster.folder),
        "KUBECONFIG": str(cluster.state / "kubeconfig"),
        "NS": NAMESPACE,
        **variables,
    }
    process = await asyncio.create_subprocess_shell(
        line,
        env=environ,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(60):
        said, _ = await process.communicate()
    return process.returncode or 0, said.decode()


async def test_each_alert_has_commands() -> None:
    assert all(sections().values())


READS = re.compile(r"^(kubectl (get|describe|logs)|podslots (-n \S+ )?(get|plans|logs|doctor|rollout status))\b")
"""What changes nothing: tried on one pool, one after the other."""
HERE = [line for line in COMMANDS if OF_A_CLUSTER not in line and "resourcequota" not in line]
"""The embedded cluster has no quotas, either."""


async def waiting_plan(cluster: Cluster, name: str) -> dict[str, str]:
    """A pool whose task awaits its approval, as the runbooks' variables name it."""
    task = f"{name}-t"
    await cluster.create_pool(name, autoscaling={"maxReplicas": 1, "minReplicas": 1, "minIdleSeconds": 3600})
    await cluster.create_task(task, "plan_and_apply", pool=name, lockKey=f"{name}-lock")
    status = await cluster.until_phase(task, "AwaitingApproval")
    return {"POOL": name, "TASK": task, "POD": status["pod"]}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def looked_at(cluster: Cluster) -> dict[str, str]:
    return await waiting_plan(cluster, "looked-at")


@pytest.mark.parametrize("line", [line for line in HERE if READS.match(line)])
async def test_what_is_looked_at_is_there(line: str, cluster: Cluster, looked_at: dict[str, str]) -> None:
    status, said = await shell(cluster, line, looked_at)
    assert status == 0, said


@pytest.mark.parametrize("line", [line for line in HERE if not READS.match(line)])
async def test_what_is_done_can_be_done(line: str, cluster: Cluster) -> None:
    """On a pool of its own, in the state in which its runbook is read, as far as the command needs it."""
    variables = await waiting_plan(cluster, f"p{COMMANDS.index(line)}")
    if " retry " in line:
        await cluster.patch_task(variables["TASK"], {"cancel": True})
        await cluster.until_phase(variables["TASK"], "Cancelled")
    if " rollout " in line:
        await two_templates(cluster, variables["POOL"])
    try:
        status, said = await shell(cluster, line, variables)
    finally:
        await cluster.patch_task(variables["TASK"], {"cancel": True})
        await cluster.api.delete(
            SLOTPOOLS, NAMESPACE, variables["POOL"]
        )  # the next ones have the machine for themselves
    if " unlock " in line:
        # Its holder waits for an approval: that lock is not to be freed, and is found under the task's name.
        assert variables["TASK"] in said, said
        assert "Traceback" not in said
    else:
        assert status == 0, said


async def two_templates(cluster: Cluster, name: str) -> None:
    async def kept(count: int) -> bool:
        status, said = await shell(cluster, f"podslots rollout history {name}", {})
        return status == 0 and len(said.splitlines()) == count + 1

    await until(lambda: kept(1), "the first is kept")
    template = {"metadata": {"labels": {"second": "yes"}}}
    await cluster.api.patch(SLOTPOOLS, NAMESPACE, name, {"spec": {"template": template}})
    await until(lambda: kept(2), "the second is kept")
