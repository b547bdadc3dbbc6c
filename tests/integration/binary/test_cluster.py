"""The whole of it with the binary in place of the sources: agents, installers and workers of a pool."""

from pathlib import Path

import pytest

from tests.support.binary import installed
from tests.support.cluster import Cluster, until


def _programs(part: str) -> dict[str, str]:
    """What runs now with `part` in its command line: that, by its process's id."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if part in line:
            found[path.parent.name] = line
    return found


@pytest.mark.long
async def test_a_pool_of_binaries_plans_keeps_the_plan_over_kills_and_applies_it(tmp_path: Path) -> None:
    """R5, T8: the agent's image has the binary on its PATH; the workers get it from the agent's `install`."""
    image = installed(tmp_path / "image").parent
    async with Cluster(tmp_path, options=("--path", str(image))) as cluster:
        await cluster.create_pool()
        for name in ("a", "b"):
            await cluster.create_task(name)
        await cluster.create_task("c", "plan_and_apply")
        planned = await cluster.until_phase("c", "AwaitingApproval")
        for name in ("a", "b"):
            await cluster.until_phase(name, "Succeeded")
        (pod,) = await cluster.pods()
        agents = _programs(f"{image}/slot-agent")
        workers = {pid: line for pid, line in _programs(str(tmp_path)).items() if line.endswith("/program work ")}
        assert [line for line in agents.values() if line.endswith("/program serve ")], agents
        assert len(workers) == 3, "each installed, none from the image's folder"
        assert not [line for line in workers.values() if str(image) in line]
        name = pod["metadata"]["name"]
        for container in ("slot-agent", f"worker-{planned['slot']}"):
            await cluster.kill_container(name, container)
        await until(lambda: _reserved_and_connected(cluster, name, planned["slot"]), "both are back, and hold the plan")
        await cluster.approve("c")
        applied = await cluster.until_phase("c", "Succeeded")
        assert (applied["podUID"], applied["slot"]) == (planned["podUID"], planned["slot"])
        assert "planned default/c" in applied["steps"]["apply"]["logTail"]
        await cluster.until_size(0)
        assert cluster.deleted_pods() == [name]
    assert not _programs(str(image)), "nothing is left running"


async def _reserved_and_connected(cluster: Cluster, name: str, slot: int) -> bool:
    (pod,) = [found for found in await cluster.pods() if found["metadata"]["name"] == name]
    state = (await cluster.slots(pod))["slots"][slot]
    return state["state"] == "reserved" and bool(state["worker"] and state["worker"]["connected"])
