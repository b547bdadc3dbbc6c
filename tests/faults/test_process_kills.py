"""SIGKILL of each process in the middle of each phase: what was held stays held, nothing runs twice, all of it ends.

Each test drives one `plan_and_apply` task to a phase, kills, and lets it go on. What the commands themselves recorded
(a line each time they began) is the evidence.
"""

import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from controller import names
from controller.kube.api import LEASES, SLOTPOOLS
from controller.names import lock_lease
from tests.support.cluster import NAMESPACE, Cluster, until

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.long]

Kill = Callable[[Cluster, "Run"], Awaitable[None]]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Cluster]:
    async with Cluster(tmp_path_factory.mktemp("kills")) as running:
        await running.create_pool()
        yield running
        await running.settle()
        running.check()


class Run:
    """One task whose steps wait at gates and write down each time they begin."""

    name = "named by its test"

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.cluster = cluster
        self.folder = folder

    async def create(self, **spec: object) -> None:
        await self.cluster.create_task(
            self.name,
            "plan_and_apply",
            plan=f"{self._step('plan')}; echo $PWD > where; echo plan > tfplan",
            apply=f'{self._step("apply")}; test "$(cat where)" = "$PWD"',
            **spec,
        )

    def _step(self, name: str) -> str:
        return f"echo $$ >> {self.folder}/{name}; until [ -e {self.folder}/{name}.go ]; do sleep 0.05; done"

    def go(self, step: str) -> None:
        (self.folder / f"{step}.go").touch()

    def begun(self, step: str) -> int:
        """How often a step's command began."""
        try:
            return len((self.folder / step).read_text().splitlines())
        except FileNotFoundError:
            return 0

    async def until_begun(self, step: str) -> None:
        await until(lambda: self.begun(step), f"{step} begins")

    async def pod(self) -> str:
        return str((await self.cluster.status(self.name))["pod"])

    async def slot(self) -> int:
        return int((await self.cluster.status(self.name))["slot"])


@pytest.fixture
def run(cluster: Cluster, tmp_path: Path) -> Run:
    return Run(cluster, tmp_path)


async def kill_agent(cluster: Cluster, run: Run) -> None:
    await cluster.kill_container(await run.pod(), "slot-agent")


async def kill_controller(cluster: Cluster, run: Run) -> None:
    del run
    await cluster.controller.kill()
    await cluster.controller.start()


async def kill_cluster(cluster: Cluster, run: Run) -> None:
    del run
    await cluster.cluster.kill()
    await cluster.start_cluster()


SURVIVED = {"agent": kill_agent, "controller": kill_controller, "cluster": kill_cluster}


@pytest.mark.parametrize("victim", list(SURVIVED))
async def test_a_plan_that_runs_goes_on(cluster: Cluster, run: Run, victim: str) -> None:
    """T3, T7, T22, G1: it is neither lost nor repeated, and is reserved when it is done."""
    run.name = f"plan-{victim}"
    await run.create()
    await run.until_begun("plan")
    await SURVIVED[victim](cluster, run)
    run.go("plan")
    run.go("apply")
    status = await cluster.until_phase(run.name, "AwaitingApproval")
    await cluster.approve(run.name)
    final = await cluster.until_phase(run.name, "Succeeded")
    assert (run.begun("plan"), run.begun("apply"), final["attempt"]) == (1, 1, 1)
    assert final["podUID"] == status["podUID"]


@pytest.mark.parametrize("victim", list(SURVIVED))
async def test_a_reservation_survives(cluster: Cluster, run: Run, victim: str) -> None:
    """T2, T3, T10, T11: the slot stays reserved, nothing starts unapproved, and an approval is carried out."""
    run.name = f"reserved-{victim}"
    await run.create()
    run.go("plan")
    run.go("apply")
    before = await cluster.until_phase(run.name, "AwaitingApproval")
    await SURVIVED[victim](cluster, run)
    pod = await until(lambda: pod_named(cluster, before["pod"]), "the Pod is there")
    await until(lambda: reserved(cluster, pod, before["slot"]), "the slot is reserved")
    assert run.begun("apply") == 0
    await cluster.approve(run.name)
    final = await cluster.until_phase(run.name, "Succeeded")
    assert (run.begun("plan"), run.begun("apply")) == (1, 1)
    assert (final["podUID"], final["slot"]) == (before["podUID"], before["slot"])


@pytest.mark.parametrize("victim", list(SURVIVED))
async def test_an_apply_that_runs_goes_on(cluster: Cluster, run: Run, victim: str) -> None:
    """T22, T25: once, to its end, whoever is restarted."""
    run.name = f"apply-{victim}"
    await run.create()
    run.go("plan")
    await cluster.approve(run.name)
    await run.until_begun("apply")
    await SURVIVED[victim](cluster, run)
    run.go("apply")
    await cluster.until_phase(run.name, "Succeeded")
    assert (run.begun("plan"), run.begun("apply")) == (1, 1)


async def test_the_end_of_a_step_is_told_though_nobody_was_there(cluster: Cluster, run: Run) -> None:
    """T21: agent and controller are killed, the step ends meanwhile, and its result arrives."""
    run.name = "end-untold"
    await run.create()
    await run.until_begun("plan")
    await cluster.controller.kill()
    await kill_agent(cluster, run)
    run.go("plan")
    await cluster.controller.start()
    await cluster.until_phase(run.name, "AwaitingApproval")
    await cluster.patch_task(run.name, {"cancel": True})
    await cluster.until_phase(run.name, "Cancelled")
    assert (run.begun("plan"), run.begun("apply")) == (1, 0)


async def test_a_plan_whose_worker_was_killed_is_tried_again(cluster: Cluster, run: Run) -> None:
    """R5: lost within seconds, its processes gone, and queued as the second attempt."""
    run.name = "worker-plan"
    await run.create()
    await run.until_begun("plan")
    first = (run.folder / "plan").read_text().split()[0]
    await cluster.kill_container(await run.pod(), f"worker-{await run.slot()}")
    await until(lambda: run.begun("plan") == 2, "the plan begins again")
    assert not (Path("/proc") / first).exists()
    run.go("plan")
    run.go("apply")
    await cluster.approve(run.name)
    final = await cluster.until_phase(run.name, "Succeeded")
    assert (final["attempt"], run.begun("apply")) == (2, 1)


async def test_a_reservation_survives_its_worker(cluster: Cluster, run: Run) -> None:
    """The directory outlives the worker's container: the apply runs there in the next one."""
    run.name = "worker-reserved"
    await run.create()
    run.go("plan")
    run.go("apply")
    before = await cluster.until_phase(run.name, "AwaitingApproval")
    await cluster.kill_container(before["pod"], f"worker-{before['slot']}")
    await cluster.approve(run.name)
    final = await cluster.until_phase(run.name, "Succeeded")
    assert (final["podUID"], run.begun("plan"), run.begun("apply")) == (before["podUID"], 1, 1)


async def test_an_apply_whose_worker_was_killed_is_lost_and_keeps_its_lock(cluster: Cluster, run: Run) -> None:
    """An apply is never tried again, and its lockKey is held until its Pod has gone."""
    run.name = "worker-apply"
    await run.create(lockKey="network")
    run.go("plan")
    await cluster.approve(run.name)
    await run.until_begun("apply")
    pod = await run.pod()
    await cluster.create_task("blocker", "plan")  # keeps the Pod from going at once
    await cluster.kill_container(pod, f"worker-{await run.slot()}")
    await cluster.until_phase(run.name, "Lost")
    assert run.begun("apply") == 1
    if await pod_named(cluster, pod):
        assert (await cluster.api.get(LEASES, NAMESPACE, lock_lease("network")))["spec"]["holderIdentity"]
    await until(lambda: gone(cluster, pod), "the Pod has gone")
    await until(lambda: lock_free(cluster, "network"), "the lock is released")
    assert run.begun("apply") == 1


@pytest.mark.long
async def test_an_agent_that_was_silent_for_long_is_left_alone_and_heals(cluster: Cluster, run: Run) -> None:
    """T25, D1: silence is neither death nor idleness. Once it answers again, all goes on without a restart."""
    run.name = "silent"
    await run.create()
    await run.until_begun("plan")
    pod = await run.pod()
    agent = agent_process(pod)
    os.kill(agent, signal.SIGSTOP)
    try:
        run.go("plan")
        await until(lambda: unreachable(cluster), "the pool says that an agent is silent")
        assert await cluster.phase(run.name) == "Running"
    finally:
        os.kill(agent, signal.SIGCONT)
    status = await cluster.until_phase(run.name, "AwaitingApproval")
    assert (status["pod"], run.begun("plan")) == (pod, 1)
    await cluster.patch_task(run.name, {"cancel": True})
    await cluster.until_phase(run.name, "Cancelled")


async def test_no_pod_was_deleted_while_it_held_anything(cluster: Cluster) -> None:
    """T1, over all of the above: every Pod that the controller deleted had been labelled `draining` just before."""
    draining: set[str] = set()
    for entry in cluster.audit():
        ref = entry["objectRef"]
        if ref.get("resource") != "pods" or entry["responseStatus"]["code"] >= 300:
            continue
        labels = ((entry.get("requestObject") or {}).get("metadata") or {}).get("labels") or {}
        if entry["verb"] == "patch" and (state := labels.get("podslots.dev/state")):
            (draining.add if state == "draining" else draining.discard)(ref["name"])
        if entry["verb"] == "delete" and entry["user"]["username"] == names.CONTROLLER_USER:
            assert ref["name"] in draining
    assert draining


def agent_process(pod: str) -> int:
    """The pid of a Pod's agent: the process that serves with this Pod's name in its environment."""
    for folder in Path("/proc").iterdir():
        try:
            command = (folder / "cmdline").read_bytes().split(b"\0")
            environ = (folder / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"serve" in command and f"PODSLOTS_POD={pod}".encode() in environ:
            return int(folder.name)
    raise AssertionError(f"no agent of {pod}")


async def unreachable(cluster: Cluster) -> bool:
    pool = await cluster.api.get(SLOTPOOLS, NAMESPACE, "pool")
    return any(entry["reason"] == "AgentsUnreachable" for entry in pool["status"]["conditions"])


async def pod_named(cluster: Cluster, name: str) -> dict[str, object] | None:
    return next((pod for pod in await cluster.pods() if pod["metadata"]["name"] == name), None)


async def gone(cluster: Cluster, name: str) -> bool:
    return await pod_named(cluster, name) is None


async def reserved(cluster: Cluster, pod: dict[str, object], slot: int) -> bool:
    return bool((await cluster.slots(pod))["slots"][slot]["state"] == "reserved")


async def lock_free(cluster: Cluster, key: str) -> bool:
    page = await cluster.api.list_page(LEASES, NAMESPACE)
    return lock_lease(key) not in {lease["metadata"]["name"] for lease in page["items"]}
