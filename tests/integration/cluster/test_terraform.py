"""An apply of real Terraform that is stopped in the middle: what it made is in its state, and its lock is gone.

With a provider of our own (`make provider`), and, where a filesystem mirror has it (see `tests.support.terraform`),
with the AWS provider against a fake AWS (`make moto`). Where there is no `terraform`, programs of ours stand for all of
these in `tests/integration/agent/worker/test_stopping.py`, which runs everywhere.
"""

import asyncio
import os
import re
import shutil
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest
import pytest_asyncio

from controller.kube.api import PODS, SLOTTASKS
from controller.names import BREAK_GLASS
from controller.objects.task_spec import STOP_RESERVE_SECONDS
from tests.support.clouds import BUCKET, Cloud, FakeAws, Folder
from tests.support.cluster import NAMESPACE, Child, Cluster, until
from tests.support.terraform import fake_aws, find_mirror, make_mirror, mirror_only

POD_GRACE_SECONDS = 120
MAKING_SECONDS = 12
LONG_MAKING_SECONDS = 25
"""So long that a Pod's end stops it: `STOP_MARGIN_SECONDS` after the Pod is deleted at the earliest."""

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.long,
    pytest.mark.skipif(shutil.which("terraform") is None, reason="terraform is not on the PATH"),
]

INIT = ["terraform", "init", "-input=false", "-no-color"]
APPLY = ["terraform", "apply", "-auto-approve", "-input=false", "-no-color"]
STEPS: dict[str, dict[str, Any]] = {
    "direct": {"before": [{"command": INIT}], "command": APPLY},
    "shell": {"command": ["sh", "-c", f"{' '.join(INIT)} && {' '.join(APPLY)} && echo applied"]},
    "bash": {"command": ["bash", "-c", f"{' '.join(INIT)}; {' '.join(APPLY)}; echo applied"]},
    "before": {"before": [{"command": INIT}, {"command": APPLY}], "command": ["true"]},
}


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=[Folder.name, FakeAws.name])
async def cloud(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Cloud]:
    place = tmp_path_factory.mktemp(request.param)
    if request.param == Folder.name:
        yield Folder(place, make_mirror(place / "mirror"))
        return
    mirror, program = find_mirror(os.environ), fake_aws()
    if mirror is None:
        pytest.skip("there is no filesystem mirror with the AWS provider")
    assert program is not None, "there is terraform and the AWS provider, but no moto_server: `make moto`"
    process = Child("aws", [program, "-H", "127.0.0.1", "-p", "0"], dict(os.environ), place / "log")
    await process.start()
    try:
        log = process.log
        found = await until(lambda: re.search(r"Running on (http://127\.0\.0\.1:\d+)", log.read_text()), "it serves")
        fake = FakeAws(found[1], mirror)
        await asyncio.to_thread(fake.get, BUCKET, "PUT")
        yield fake
    finally:
        await process.terminate()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Cluster]:
    async with Cluster(tmp_path_factory.mktemp("terraform")) as running:
        await running.create_pool("real", template=template(), slots=[{"accepts": ["apply"]}])
        yield running
        await running.settle()
        running.check(deleted_by="admin")


def template() -> dict[str, Any]:
    worker = {"name": "worker", "image": "podslots/tools:test"}
    return {"spec": {"terminationGracePeriodSeconds": POD_GRACE_SECONDS, "containers": [worker]}}


async def apply(cluster: Cluster, cloud: Cloud, name: str, step: dict[str, Any], seconds: int = MAKING_SECONDS) -> None:
    variables = {**cloud.environment, "CHECKPOINT_DISABLE": "1", "TF_CLI_CONFIG_FILE": "mirror.tfrc"}
    files = {"main.tf": cloud.configuration(name, seconds), "mirror.tfrc": mirror_only(cloud.mirror)}
    spec = {
        "pool": "real",
        "type": "apply",
        "files": files,
        "env": [{"name": key, "value": value} for key, value in variables.items()],
        "steps": {"apply": step},
    }
    body = {
        "apiVersion": SLOTTASKS.api_version,
        "kind": SLOTTASKS.kind,
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": spec,
    }
    await cluster.api.create(SLOTTASKS, NAMESPACE, body)


async def until_making(cluster: Cluster, cloud: Cloud, name: str) -> None:
    """Wait until something is there, and the provider waits for it to be ready."""
    await cluster.until_phase(name, "Running")
    await until(lambda: asyncio.to_thread(cloud.made, name), "something is being made", seconds=180)


async def nothing_is_lost(cloud: Cloud, name: str, tail: str) -> None:
    made = await asyncio.to_thread(cloud.made, name)
    assert await asyncio.to_thread(cloud.in_state, name) == made, tail
    assert not await asyncio.to_thread(cloud.locked, name), tail


async def every_form(judge: Callable[[str], Coroutine[Any, Any, None]]) -> None:
    """Judge all of `STEPS` at once, each in a Pod of its own: most of the time something is waited for."""
    async with asyncio.TaskGroup() as group:
        for form in STEPS:
            group.create_task(judge(form))


async def test_a_cancelled_apply_keeps_what_it_made_and_gives_its_lock_back(cluster: Cluster, cloud: Cloud) -> None:
    async def judge(form: str) -> None:
        name = f"{cloud.name}-cancel-{form}"
        await apply(cluster, cloud, name, STEPS[form])
        await until_making(cluster, cloud, name)
        await cluster.patch_task(name, {"cancel": True})
        status = await cluster.until_phase(name, "Cancelled", "Failed", "Succeeded", seconds=120)
        tail = str(status["steps"]["apply"]["logTail"])
        assert status["phase"] == "Cancelled", tail
        assert "Gracefully shutting down" in tail
        await nothing_is_lost(cloud, name, tail)

    await every_form(judge)


async def test_the_pods_end_does_neither(cluster: Cluster, cloud: Cloud) -> None:
    """Somebody deletes the Pod while something is being made: the apply has what is left of the Pod's grace."""

    async def judge(form: str) -> None:
        name = f"{cloud.name}-end-{form}"
        # Of the Pod's grace so much is kept for the step that it is stopped soon.
        step = {**STEPS[form], "cancelGraceSeconds": POD_GRACE_SECONDS - STOP_RESERVE_SECONDS}
        await apply(cluster, cloud, name, step, LONG_MAKING_SECONDS)
        await until_making(cluster, cloud, name)
        pod = (await cluster.status(name))["pod"]
        await cluster.api.patch(PODS, NAMESPACE, pod, {"metadata": {"annotations": {BREAK_GLASS: "a test of its end"}}})
        await cluster.api.delete(PODS, NAMESPACE, pod)
        status = await cluster.until_phase(name, "Cancelled", "Failed", "Succeeded", "Lost", seconds=180)
        assert status["phase"] == "Failed", status
        tail = str(status["steps"]["apply"].get("logTail"))
        assert "Gracefully shutting down" in tail
        await nothing_is_lost(cloud, name, tail)

    await every_form(judge)


async def test_a_time_limit_does_neither(cluster: Cluster, cloud: Cloud) -> None:
    """Wherever it hits: what there is then is known, and nobody holds the lock."""

    async def judge(form: str) -> None:
        name = f"{cloud.name}-limit-{form}"
        await apply(cluster, cloud, name, {**STEPS[form], "timeoutSeconds": cloud.limit_seconds})
        status = await cluster.until_phase(name, "Failed", "Succeeded", seconds=180)
        assert f"time limit of {cloud.limit_seconds} s" in status["message"]
        await nothing_is_lost(cloud, name, str(status["steps"]["apply"]["logTail"]))

    await every_form(judge)
