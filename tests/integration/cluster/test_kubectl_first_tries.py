"""More of what kubectl's users try first, and the words of a real API server where that is refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.api_client import until
from tests.support.kubectl import KUBECTL, TASK, Kubectl, on_a_cluster

SCALED = """
apiVersion: podslots.dev/v1alpha1
kind: SlotPool
metadata: {name: terraform}
spec:
  autoscaling: {maxReplicas: 2}
  template: {spec: {containers: [{name: worker, image: example}]}}
"""


@pytest.fixture
async def kubectl(tmp_path: Path) -> AsyncIterator[Kubectl]:
    async with on_a_cluster(tmp_path) as caller:
        yield caller


async def test_objects_are_marked_patched_and_waited_for(kubectl: Kubectl) -> None:
    await kubectl("create", "-f", "-", "--save-config", stdin=TASK)
    assert (await kubectl("apply", "-f", "-", stdin=TASK)).endswith("net unchanged\n")
    assert (await kubectl("label", "slottask", "net", "team=a")).endswith(" labeled\n")
    assert (await kubectl("annotate", "slottask", "net", "note=x")).endswith(" annotated\n")
    assert "net" in await kubectl("get", "slt", "-l", "team=a", "-o", "name")
    patch = ("patch", "slottask", "net")
    await kubectl(*patch, "--type=merge", "-p", '{"spec": {"priority": 3}}')
    await kubectl(*patch, "--type=json", "-p", '[{"op": "test", "path": "/spec/priority", "value": 3}]')
    refused = await kubectl.run(*patch, "--type=strategic", "-p", '{"spec": {"priority": 4}}')
    assert "strategic-merge-patch+json is not supported by podslots.dev/v1alpha1, Kind=SlotTask" in refused.err
    wait = ("wait", "slottask/net", "--timeout=20s")
    assert "condition met" in await kubectl(*wait, "--for=jsonpath={.status.phase}=Queued")
    columns = await kubectl("get", "slottasks", "-o", "custom-columns=N:.metadata.name,P:.spec.priority")
    assert columns.split() == ["N", "P", "net", "3"]
    described = await kubectl("describe", "slottask", "net")
    assert "no word from the controller yet" in described
    missing = await kubectl.run("get", "slt", "--field-selector", "spec.pool=terraform")
    assert "field label not supported: spec.pool" in missing.err


async def test_the_cluster_is_found_and_has_no_services(kubectl: Kubectl) -> None:
    """`cluster-info` asks for those of the system; what stays away is not offered."""
    assert "Kubernetes control plane" in await kubectl("cluster-info")
    assert await kubectl("get", "services", "-A") == ""
    service = "apiVersion: v1\nkind: Service\nmetadata: {name: x}\nspec: {ports: [{port: 80}]}\n"
    for verb in ("create", "apply"):
        refused = await kubectl.run(verb, "-f", "-", stdin=service)
        assert (refused.status, "the local cluster has no Services: a Pod's address" in refused.err) == (1, True)
    assert (
        "the local cluster has no Services"
        in (await kubectl.run("create", "service", "clusterip", "x", "--tcp=80")).err
    )


async def test_what_is_refused_is_refused_in_the_same_words(kubectl: Kubectl) -> None:
    await kubectl("apply", "-f", "-", stdin=SCALED)
    refused = await kubectl.run("scale", "slotpool", "terraform", "--replicas=3")
    assert "replicas is not to be set while autoscaling decides the size; pause it first" in refused.err
    spoil = {"KUBE_EDITOR": "sed -i s/maxReplicas:.*/maxReplicas:\\ -5/"}
    refused = await kubectl.run("edit", "slotpool", "terraform", environ=spoil)
    assert 'slotpools.podslots.dev "terraform" is invalid' in refused.err
    assert "Edit cancelled, no valid changes were saved." in refused.err
    again = await kubectl.run("create", "-f", "-", stdin=SCALED)
    assert 'slotpools.podslots.dev "terraform" already exists' in again.err
    for call in (("get", "slotpool", "nosuch"), ("delete", "slotpool", "nosuch"), ("describe", "slotpool", "nosuch")):
        assert '(NotFound): slotpools.podslots.dev "nosuch" not found' in (await kubectl.run(*call)).err


async def test_a_watch_shows_rows_as_they_change_to_the_end(kubectl: Kubectl) -> None:
    await kubectl("apply", "-f", "-", stdin=TASK)
    watching = await asyncio.create_subprocess_exec(
        *(str(KUBECTL), "get", "slottasks", "--watch", "--output-watch-events"),
        stdout=asyncio.subprocess.PIPE,
        env=kubectl.environ,
    )
    assert watching.stdout is not None
    events: list[str] = []
    try:
        async with asyncio.timeout(40):
            for call in ((), ("label", "slottask", "net", "a=b"), ("delete", "slottask", "net")):
                if call:
                    await kubectl(*call)
                while (words := (await watching.stdout.readline()).decode().split())[0] == "EVENT":
                    pass
                events.append(words[0])
                assert words[1:5] == ["net", "terraform", "plan", "Queued"]
    finally:
        watching.terminate()
        await watching.wait()
    assert events == ["ADDED", "MODIFIED", "DELETED"]


async def test_a_kustomization_is_applied_and_deleted(kubectl: Kubectl, tmp_path: Path) -> None:
    (tmp_path / "task.yaml").write_text(TASK)
    (tmp_path / "kustomization.yaml").write_text("namePrefix: a-\nresources: [task.yaml]\n")
    assert "name: a-net" in await kubectl("kustomize", str(tmp_path))
    assert (await kubectl("apply", "-k", str(tmp_path))).endswith("a-net created\n")
    await kubectl("delete", "-k", str(tmp_path), "--cascade=orphan")

    async def is_gone() -> bool:
        return not await kubectl("get", "slottasks", "-o", "name")

    await until(is_gone)


async def test_what_a_server_says_of_itself(kubectl: Kubectl) -> None:
    assert "podslots.dev/v1alpha1" in (await kubectl("api-versions")).split()
    listed = await kubectl("api-resources", "--api-group=podslots.dev", "-o", "name")
    assert listed.split() == ["slotpools.podslots.dev", "slottaskoutputs.podslots.dev", "slottasks.podslots.dev"]
    assert "+podslots" in await kubectl("version")
    assert await kubectl("config", "current-context") == "admin\n"
    assert "resources found" in (await kubectl.run("get", "podslots")).err
    for path in ("/readyz", "/livez", "/healthz"):
        assert await kubectl("get", "--raw", path) == "ok"
