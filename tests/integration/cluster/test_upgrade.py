"""podslots itself is upgraded while work is reserved: new controllers with old agents, and the other way round.

There is no earlier release to take a program from. What stands for other versions is this one under another number: of
agents, and of the agent's image.
"""

import sys
from pathlib import Path
from typing import Any

import pytest

from controller import names
from controller.decide.agent_version import MINIMUM, is_too_old
from controller.kube.api import PODS, SLOTPOOLS
from tests.support.cluster import NAMESPACE, Cluster, until

pytestmark = pytest.mark.long

ONE_SLOT = [{"accepts": ["plan", "apply", "plan_and_apply"]}]
OLD, NEW = "0.0.9", "99.0.0"


class Image:
    """An agent's image whose `slot-agent` has the version that stands in a file when it starts."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        self._version = folder / "version"
        program = folder / "slot-agent"
        program.write_text(
            f"#!{sys.executable}\n"
            "import sys\nfrom pathlib import Path\nimport agent\n"
            f"agent.__version__ = Path({str(self._version)!r}).read_text()\n"
            "from agent.__main__ import main\nsys.exit(main())\n"
        )
        program.chmod(0o755)

    def set(self, version: str) -> None:
        self._version.write_text(version)


async def degraded(cluster: Cluster) -> str:
    status = (await cluster.api.get(SLOTPOOLS, NAMESPACE, "pool")).get("status") or {}
    found = [entry for entry in status.get("conditions", ()) if entry["type"] == "Degraded"]
    return str(found[0]["reason"]) if found and found[0]["status"] == "True" else ""


async def serving(cluster: Cluster, count: int) -> set[str]:
    """Until so many Pods of the present template serve, and no other is there; their names."""

    there: set[str] = set()

    async def reached() -> bool:
        nonlocal there
        pods = await cluster.list_all(PODS)
        there = {pod["metadata"]["name"] for pod in pods if "deletionTimestamp" not in pod["metadata"]}
        status = (await cluster.api.get(SLOTPOOLS, NAMESPACE, "pool")).get("status") or {}
        said = [status.get(f"{word}eplicas") for word in ("r", "readyR", "updatedR")]
        return [len(pods), len(there), *said] == [count] * 5

    await until(reached, f"{count} Pods serve")
    return there


async def version_of(cluster: Cluster, name: str) -> Any:
    return (await cluster.slots(await cluster.api.get(PODS, NAMESPACE, name)))["version"]


async def test_an_agent_that_is_too_old_keeps_what_it_holds_and_then_makes_room(tmp_path: Path) -> None:
    image = Image(tmp_path / "image")
    image.set(MINIMUM)
    async with Cluster(tmp_path, options=("--path", str(image.folder))) as cluster:
        await cluster.create_pool(replicas=1, autoscaling=None, slots=ONE_SLOT)
        await cluster.create_task("kept", "plan_and_apply")
        kept = await cluster.until_phase("kept", "AwaitingApproval")
        assert is_too_old(OLD)
        image.set(OLD)
        await cluster.kill_container(kept["pod"], names.AGENT_CONTAINER)

        async def is_told() -> bool:
            return await degraded(cluster) == "AgentTooOld"

        await until(is_told, "the agent is known to be too old")
        image.set(MINIMUM)
        await cluster.approve("kept")
        applied = await cluster.until_phase("kept", "Succeeded")
        assert applied["podUID"] == kept["podUID"]
        await until(lambda: kept["pod"] in cluster.deleted_pods(), "its Pod is drained")
        (fresh,) = await serving(cluster, 1)
        assert await version_of(cluster, fresh) == MINIMUM
        await cluster.create_task("next")
        assert (await cluster.until_phase("next", "Succeeded"))["pod"] == fresh
        assert await degraded(cluster) == ""
        await cluster.settle()
        cluster.check()


async def test_an_agent_that_is_newer_than_its_controller_needs_nothing(tmp_path: Path) -> None:
    image = Image(tmp_path / "image")
    image.set(NEW)
    async with Cluster(tmp_path, options=("--path", str(image.folder))) as cluster:
        await cluster.create_pool(replicas=1, autoscaling=None, slots=ONE_SLOT)
        (name,) = await serving(cluster, 1)
        assert await version_of(cluster, name) == NEW
        await cluster.create_task("kept", "plan_and_apply")
        await cluster.until_phase("kept", "AwaitingApproval")
        await cluster.approve("kept")
        await cluster.until_phase("kept", "Succeeded")
        await cluster.settle()
        cluster.check()


async def test_a_new_controller_brings_its_agents_as_pods_fall_idle(tmp_path: Path) -> None:
    """The agent's image is part of the template: what is reserved stays on the old one until it is applied."""
    async with Cluster(tmp_path) as cluster:
        await cluster.create_pool(replicas=2, autoscaling=None, slots=ONE_SLOT)
        before = await serving(cluster, 2)
        await cluster.create_task("kept", "plan_and_apply")
        kept = await cluster.until_phase("kept", "AwaitingApproval")
        await cluster.controller.terminate()
        upgraded = cluster.new_controller("upgraded")
        upgraded.set_environment("PODSLOTS_AGENT_IMAGE", "podslots/agent:next")
        await upgraded.start()
        cluster.controller = upgraded
        (other,) = before - {kept["pod"]}
        await until(lambda: other in cluster.deleted_pods(), "the idle Pod is replaced")
        assert await cluster.phase("kept") == "AwaitingApproval"
        await cluster.approve("kept")
        assert (await cluster.until_phase("kept", "Succeeded"))["podUID"] == kept["podUID"]
        after = await serving(cluster, 2)
        assert not before & after
        for pod in await cluster.list_all(PODS):
            assert pod["spec"]["initContainers"][0]["image"] == "podslots/agent:next"
        await cluster.settle()
        cluster.check()
