"""A pool's template changes while its Pods work: they are replaced as they fall idle, and nothing that they hold is."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import yaml
from click.testing import CliRunner

from controller import names
from controller.cli.main import main
from controller.kube.api import CONTROLLERREVISIONS, PODS, SECRETS, SLOTPOOLS, Object
from controller.objects.fields import Fields
from tests.support.cluster import NAMESPACE, Cluster, until

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.long]

ONE_SLOT = [{"accepts": ["plan", "apply", "plan_and_apply"]}]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Cluster]:
    async with Cluster(tmp_path_factory.mktemp("rollout")) as running:
        yield running
        await running.settle()
        running.check()


async def podslots(cluster: Cluster, *arguments: str, text: str = "", code: int = 0) -> str:
    """What a command says, on stderr if it is to fail."""
    chosen = ("--kubeconfig", str(cluster.state / "kubeconfig"), *arguments)
    runner = CliRunner(env={"KUBECONFIG": None})
    done = await asyncio.to_thread(runner.invoke, main, chosen, input=text)
    assert done.exit_code == code, done.output
    return done.stdout if code == 0 else done.stderr


async def submit(cluster: Cluster, pool: str, colour: str, **changes: Any) -> None:
    """The pool with another variable in its worker, by `podslots submit`."""
    worker = {"name": "worker", "image": "podslots/tools:test", "env": [{"name": "COLOUR", "value": colour}]}
    spec: dict[str, Any] = {"template": {"spec": {"containers": [{**worker, **changes}]}}}
    document = {"apiVersion": "podslots.dev/v1alpha1", "kind": "SlotPool", "metadata": {"name": pool}, "spec": spec}
    await podslots(cluster, "submit", "-f", "-", text=yaml.safe_dump(document))


async def pods(cluster: Cluster, pool: str) -> list[Object]:
    found = await cluster.list_all(PODS)
    return [pod for pod in found if pod["metadata"]["labels"].get(names.POOL_LABEL) == pool]


async def status(cluster: Cluster, pool: str) -> dict[str, Any]:
    found: dict[str, Any] = (await cluster.api.get(SLOTPOOLS, NAMESPACE, pool)).get("status") or {}
    return found


async def until_progress(cluster: Cluster, pool: str, reason: str, *words: str) -> None:
    said = ""

    async def reached() -> bool:
        nonlocal said
        found = Fields(await status(cluster, pool), "")
        entry = next((each for each in found.children("conditions") if each.text("type") == "Progressing"), None)
        said = "" if entry is None else f"{entry.text('reason')}: {entry.text('message', '', empty=True)}"
        return said.startswith(f"{reason}:") and all(word in said for word in words)

    await until(reached, lambda: f"{pool} says {reason} {words}, not {said}")


async def until_ready(cluster: Cluster, pool: str, count: int) -> set[str]:
    """Until so many Pods serve, and no other is there; their names."""

    async def reached() -> bool:
        found = await status(cluster, pool)
        return (found.get("readyReplicas"), found.get("replicas"), found.get("updatedReplicas")) == (count,) * 3

    await until(reached, f"{count} Pods of {pool} serve")
    return {pod["metadata"]["name"] for pod in await pods(cluster, pool)}


async def colour_of(cluster: Cluster, pool: str, name: str) -> str:
    """What a new task of the pool sees."""
    await cluster.create_task(name, pool=pool, plan="echo colour=$COLOUR. > tfplan; cat tfplan")
    log: str = (await cluster.until_phase(name, "Succeeded"))["steps"]["plan"]["logTail"]
    return log.partition("colour=")[2].partition(".")[0]


async def test_pods_are_replaced_as_they_fall_idle_and_an_undo_brings_the_earlier_ones_back(
    cluster: Cluster, tmp_path: Path
) -> None:
    """T16: a plan that awaits its approval, and one that runs, end where they began."""
    await cluster.create_pool("three", replicas=3, autoscaling=None, slots=ONE_SLOT)
    first = await until_ready(cluster, "three", 3)
    gate = tmp_path / "gate"
    await cluster.create_task("kept", "plan_and_apply", pool="three")
    kept = await cluster.until_phase("kept", "AwaitingApproval")
    await cluster.create_task("busy", pool="three", plan=f"until [ -e {gate} ]; do sleep 0.05; done; touch tfplan")
    busy = await cluster.until_phase("busy", "Running")
    (idle,) = first - {kept["pod"], busy["pod"]}

    await submit(cluster, "three", "blue")
    await until(lambda: idle in cluster.deleted_pods(), "the idle Pod is replaced")
    await until_progress(cluster, "three", "RollingOut", "of 4 Pods have the present template")
    assert await colour_of(cluster, "three", "seen") == "blue"
    assert await cluster.phase("kept") == "AwaitingApproval"
    assert await cluster.phase("busy") == "Running"

    gate.touch()
    ended = await cluster.until_phase("busy", "Succeeded")
    assert ended["podUID"] == busy["podUID"]

    async def all_but_one() -> bool:
        found = await status(cluster, "three")
        return (found.get("replicas"), found.get("updatedReplicas"), found.get("readyReplicas")) == (4, 3, 4)

    await until(all_but_one, "three new Pods serve beside the one that is reserved")
    assert kept["pod"] in {pod["metadata"]["name"] for pod in await pods(cluster, "three")}
    await cluster.approve("kept")
    applied = await cluster.until_phase("kept", "Succeeded")
    assert applied["podUID"] == kept["podUID"]
    second = await until_ready(cluster, "three", 3)
    assert not first & second
    assert "rolled out: 3 Pods" in await podslots(cluster, "rollout", "status", "three", "--watch", "--timeout", "60")

    assert "revision 1" in await podslots(cluster, "rollout", "undo", "three")
    await until_progress(cluster, "three", "RollingOut")
    third = await until_ready(cluster, "three", 3)
    assert not second & third
    assert await colour_of(cluster, "three", "again") == ""
    revisions = await cluster.list_all(CONTROLLERREVISIONS)
    assert sorted(entry["revision"] for entry in revisions) == [2, 3]
    history = (await podslots(cluster, "rollout", "history", "three")).splitlines()
    assert [line.split()[:2] for line in history[1:]] == [["2", "-"], ["3", "yes"]]
    assert "COLOUR" in await podslots(cluster, "rollout", "history", "three", "--revision", "2")
    assert "no revision 9" in await podslots(cluster, "rollout", "undo", "three", "--to-revision", "9", code=1)


async def test_a_template_that_does_not_start_leaves_the_old_pods_serving(cluster: Cluster) -> None:
    await cluster.create_pool("pair", replicas=2, autoscaling=None, slots=ONE_SLOT)
    first = await until_ready(cluster, "pair", 2)
    await submit(cluster, "pair", "red", envFrom=[{"secretRef": {"name": "missing"}}])
    await until_progress(cluster, "pair", "RolloutStuck", "CreateContainerConfigError", "of 3 Pods")
    assert "RolloutStuck" in await podslots(cluster, "rollout", "status", "pair", code=1)
    assert await colour_of(cluster, "pair", "meanwhile") == ""
    assert first <= {pod["metadata"]["name"] for pod in await pods(cluster, "pair")}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "missing"}, "stringData": {"A": "b"}}
    await cluster.api.create(SECRETS, NAMESPACE, secret)
    assert not first & await until_ready(cluster, "pair", 2)
    assert await colour_of(cluster, "pair", "afterwards") == "red"


async def test_a_rollout_can_be_held_and_gone_on_with(cluster: Cluster) -> None:
    await cluster.create_pool("held", replicas=1, autoscaling=None, slots=ONE_SLOT)
    first = await until_ready(cluster, "held", 1)
    assert await podslots(cluster, "rollout", "pause", "held") == "slotpool/held paused\n"
    await submit(cluster, "held", "green")
    await until_progress(cluster, "held", "RolloutPaused", "0 of 1 Pods")
    assert "paused" in await podslots(cluster, "rollout", "undo", "held", code=1)
    assert {pod["metadata"]["name"] for pod in await pods(cluster, "held")} == first
    assert await podslots(cluster, "rollout", "resume", "held") == "slotpool/held resumed\n"
    assert not first & await until_ready(cluster, "held", 1)
    await cluster.api.delete(SLOTPOOLS, NAMESPACE, "held")

    async def forgotten() -> bool:
        return not [
            entry for entry in await cluster.list_all(CONTROLLERREVISIONS) if "held-" in entry["metadata"]["name"]
        ]

    await until(forgotten, "the revisions go with their pool")


async def test_a_new_layout_is_a_new_template(cluster: Cluster) -> None:
    await cluster.create_pool("wider", replicas=1, autoscaling=None, slots=ONE_SLOT)
    first = await until_ready(cluster, "wider", 1)
    await cluster.api.patch(SLOTPOOLS, NAMESPACE, "wider", {"spec": {"slots": ONE_SLOT * 2}})
    await until_progress(cluster, "wider", "RollingOut")
    assert not first & await until_ready(cluster, "wider", 1)
    (pod,) = await pods(cluster, "wider")
    assert len((await cluster.slots(pod))["slots"]) == 2
