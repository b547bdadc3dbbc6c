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


@pytest.mark.parametrize("line", [line for line in COMMANDS if OF_A_CLUSTER not in line])
async def test_a_command_works(line: str, cluster: Cluster) -> None:
    """On a pool of its own, in the state in which its runbook is read, as far as the command needs it."""
    name = f"p{COMMANDS.index(line)}"
    variables = {"POOL": name, "TASK": f"{name}-t", "NODE": "", "LOCKKEY": f"{name}-lock", "POD": ""}
    await cluster.create_pool(name, autoscaling={"maxReplicas": 1, "minReplicas": 1, "minIdleSeconds": 3600})
    await cluster.create_task(variables["TASK"], "plan_and_apply", pool=name, lockKey=variables["LOCKKEY"])
    await cluster.until_phase(variables["TASK"], "AwaitingApproval")
    variables["POD"] = (await cluster.status(variables["TASK"]))["pod"]
    if " retry " in line:
        await cluster.patch_task(variables["TASK"], {"cancel": True})
        await cluster.until_phase(variables["TASK"], "Cancelled")
    if "rollout undo" in line or "rollout history" in line:
        await two_templates(cluster, name)
    try:
        status, said = await shell(cluster, line, variables)
    finally:
        await cluster.patch_task(variables["TASK"], {"cancel": True})
        await cluster.api.delete(SLOTPOOLS, NAMESPACE, name)  # the next ones have the machine for themselves
    if "unlock" in line:  # it refuses while its holder is not lost: that it was looked at is all to see here
        assert "Traceback" not in said
        assert variables["TASK"] in said
        return
    if "resourcequota" in line:  # the embedded cluster has no quotas
        assert "Traceback" not in said
        return
    assert status == 0, said


async def two_templates(cluster: Cluster, name: str) -> None:
    async def kept(count: int) -> bool:
        status, said = await shell(cluster, f"podslots rollout history {name}", {})
        return status == 0 and len(said.splitlines()) == count + 1

    await until(lambda: kept(1), "the first is kept")
    template = {"metadata": {"labels": {"second": "yes"}}}
    await cluster.api.patch(SLOTPOOLS, NAMESPACE, name, {"spec": {"template": template}})
    await until(lambda: kept(2), "the second is kept")
