"""The real kubectl against the embedded cluster: what people try first."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.api_client import until
from tests.support.kubectl import TASK, Kubectl, on_a_cluster

Json = dict[str, Any]

POOL = """
apiVersion: podslots.dev/v1alpha1
kind: SlotPool
metadata: {name: terraform}
spec:
  replicas: 0
  template: {spec: {containers: [{name: worker, image: example}]}}
"""
CONFIG = """
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {kept: "1", dropped: "2"}
"""
POD = """
apiVersion: v1
kind: Pod
metadata: {name: busy, labels: {app: busy}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - {name: main, image: example, command: [sh, -c, "echo first; sleep 1000"]}
"""

DEPLOYMENT = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - {name: main, image: "example:1", command: [sleep, "1000"]}
"""


@pytest.fixture
async def kubectl(tmp_path: Path) -> AsyncIterator[Kubectl]:
    async with on_a_cluster(tmp_path) as caller:
        yield caller


def _rows(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


async def test_objects_are_applied_compared_edited_and_explained(kubectl: Kubectl) -> None:
    both = f"{CONFIG}---{POOL}"
    assert (await kubectl("apply", "-f", "-", stdin=both)).count(" created") == 2
    assert (await kubectl("apply", "-f", "-", stdin=both)).count(" unchanged") == 2
    changed = both.replace('dropped: "2"', 'added: "3"').replace("replicas: 0", "replicas: 1")
    ran = await kubectl.run("diff", "-f", "-", stdin=changed)
    assert ran.status == 1, ran.err
    assert '-  dropped: "2"' in ran.out
    assert "+  replicas: 1" in ran.out
    assert (await kubectl("apply", "--dry-run=server", "-f", "-", stdin=changed)).count("(server dry run)") == 2
    assert (await kubectl("apply", "-f", "-", stdin=changed)).count(" configured") == 2
    data = await kubectl("get", "configmap", "settings", "-o", "jsonpath={.data}")
    assert json.loads(data) == {"kept": "1", "added": "3"}
    # `edit` writes the object into a file, here for sed.
    await kubectl("edit", "configmap", "settings", environ={"KUBE_EDITOR": 'sed -i s/"kept:.*"/"kept:\\ edited"/'})
    assert "edited" in await kubectl("get", "configmap", "settings", "-o", "yaml")
    await kubectl("scale", "slotpool", "terraform", "--replicas=2")
    assert await kubectl("get", "slotpool", "terraform", "-o", "jsonpath={.spec.replicas}") == "2"
    refused = await kubectl.run("apply", "-f", "-", stdin=POOL.replace("replicas", "replicaz"))
    assert 'unknown field "spec.replicaz"' in refused.err
    assert "Add Pods while more than" in await kubectl("explain", "slotpool.spec.autoscaling")
    assert "<[]Container>" in await kubectl("explain", "pod.spec")


async def test_what_typed_clients_create_and_delete(kubectl: Kubectl) -> None:
    """They send protobuf, and never fall back to JSON."""
    await kubectl("create", "namespace", "team")
    await kubectl("create", "configmap", "c", "--from-literal=a=b", "-n", "team")
    await kubectl("create", "secret", "generic", "s", "--from-literal=p=q", "-n", "team")
    await kubectl("create", "serviceaccount", "bot", "-n", "team")
    await kubectl("create", "role", "reader", "--verb=get,list", "--resource=pods", "-n", "team")
    await kubectl("create", "rolebinding", "reader", "--role=reader", "--user=ben", "-n", "team")
    await kubectl("create", "pdb", "keep", "--selector=app=busy", "--min-available=50%", "-n", "team")
    secret = json.loads(await kubectl("get", "secret", "s", "-n", "team", "-o", "json"))
    assert (secret["type"], secret["data"]) == ("Opaque", {"p": "cQ=="})
    role = json.loads(await kubectl("get", "role", "reader", "-n", "team", "-o", "json"))
    assert role["rules"] == [{"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods"]}]
    budget = json.loads(await kubectl("get", "pdb", "keep", "-n", "team", "-o", "json"))
    assert budget["spec"] == {"minAvailable": "50%", "selector": {"matchLabels": {"app": "busy"}}}
    await kubectl("delete", "namespace", "team")
    assert "team" not in await kubectl("get", "namespaces")


async def test_columns_are_those_of_the_kinds(kubectl: Kubectl) -> None:
    await kubectl("apply", "-f", "-", stdin=POOL)
    pools = _rows(await kubectl("get", "slotpools"))
    assert pools[0] == ["NAME", "PODS", "READY", "DESIRED", "SLOTS", "IDLE", "RUNNING", "RESERVED", "STATUS", "AGE"]
    assert pools[1][0] == "terraform"
    await kubectl("apply", "-f", "-", stdin=TASK)
    head, task = (await kubectl("get", "slottasks", "-o", "wide")).splitlines()
    assert head.split() == [
        *("NAME", "POOL", "TYPE", "PHASE", "STEP", "POD", "SLOT", "CHANGED", "ATTEMPT", "LOCK"),
        *("WAITS", "REASON", "AGE"),
    ]
    assert task.split()[:4] == ["net", "terraform", "plan", "Queued"]
    assert task[head.index("WAITS") : head.index("REASON")].strip() == "no word from the controller yet"
    assert _rows(await kubectl("get", "nodes"))[0] == ["NAME", "STATUS", "ROLES", "AGE", "VERSION"]
    await kubectl("create", "configmap", "c", "--from-literal=a=b")
    header, row = _rows(await kubectl("get", "configmaps"))
    assert (header, row[:2]) == (["NAME", "DATA", "AGE"], ["c", "1"])


async def test_people_ask_what_they_may_do(kubectl: Kubectl) -> None:
    whoami = await kubectl("auth", "whoami")
    assert "admin" in whoami
    assert "system:masters" in whoami
    assert (await kubectl("auth", "can-i", "create", "pods")).strip() == "yes"
    await kubectl("create", "role", "reader", "--verb=get,list", "--resource=pods")
    await kubectl("create", "rolebinding", "reader", "--role=reader", "--user=ben")
    asked = await kubectl.run("auth", "can-i", "delete", "pods", "--as=ben")
    assert (asked.status, asked.out.strip()) == (1, "no")
    await kubectl("get", "pods", "--as=ben")
    refused = await kubectl.run("delete", "pod", "any", "--as=ben")
    assert 'User "ben" cannot delete resource "pods"' in refused.err
    assert "[get list]" in await kubectl("auth", "can-i", "--list", "--as=ben")


@pytest.mark.long
async def test_logs_events_and_a_drain_that_a_budget_holds_up(kubectl: Kubectl) -> None:
    await kubectl("apply", "-f", "-", stdin=POD)
    await kubectl("wait", "--for=condition=Ready", "pod/busy", "--timeout=20s")
    (header, row) = _rows(await kubectl("get", "pods"))
    assert (header, row[:3]) == (["NAME", "READY", "STATUS", "RESTARTS", "AGE"], ["busy", "1/1", "Running"])

    async def has_written() -> bool:
        return bool(await kubectl("logs", "busy"))

    await until(has_written)
    stamp, word = (await kubectl("logs", "busy", "--timestamps")).split()
    assert (word, stamp[-1]) == ("first", "Z")
    assert (await kubectl("logs", "busy", "--since=1h")).startswith("first")
    assert await kubectl("logs", "busy", "--since-time=2999-01-01T00:00:00Z") == ""
    assert "Successfully assigned default/busy" in await kubectl("get", "events")
    assert "Successfully assigned default/busy" in await kubectl("describe", "pod", "busy")
    await kubectl("create", "pdb", "keep", "--selector=app=busy", "--min-available=1")
    # The first try is at once; kubectl then waits for five seconds, which is more than it has.
    held = await kubectl.run("drain", "local", "--force", "--timeout=2s")
    assert held.status == 1
    assert "would violate the pod's disruption budget" in held.err
    assert _rows(await kubectl("get", "nodes"))[1][1] == "Ready,SchedulingDisabled"
    await kubectl("delete", "pdb", "keep")
    await kubectl("drain", "local", "--force", "--timeout=30s")
    assert "busy" not in await kubectl("get", "pods")
    await kubectl("uncordon", "local")
    assert _rows(await kubectl("get", "nodes"))[1][1] == "Ready"


async def test_what_there_is_none_of_is_said_in_plain_words(kubectl: Kubectl) -> None:
    await kubectl("apply", "-f", "-", stdin=POD)
    await kubectl("wait", "--for=condition=Ready", "pod/busy", "--timeout=20s")
    for call, words in (
        (("exec", "busy", "--", "ls"), "no `kubectl exec`"),
        (("port-forward", "busy", "8000:80"), "no `kubectl port-forward`"),
        (("apply", "--server-side", "-f", "-"), "no server-side apply"),
        (("top", "pods"), "Metrics API not available"),
    ):
        ran = await kubectl.run(*call, stdin=CONFIG)
        assert ran.status != 0, call
        assert words in ran.err, ran.err


async def test_a_deployment_is_rolled_out_scaled_and_shown(kubectl: Kubectl) -> None:
    """Pods by a ReplicaSet, a rolling update that kubectl waits for, its way back, and a size."""
    await kubectl("apply", "-f", "-", stdin=DEPLOYMENT)
    status = ("rollout", "status", "deployment/web", "--timeout=30s")
    assert "successfully rolled out" in await kubectl(*status)
    await kubectl("set", "image", "deployment/web", "main=example:2")
    assert "successfully rolled out" in await kubectl(*status)
    rows = _rows(await kubectl("get", "deployments,replicasets"))
    assert rows[0][:5] == ["NAME", "READY", "UP-TO-DATE", "AVAILABLE", "AGE"]
    assert rows[1][:4] == ["deployment.apps/web", "2/2", "2", "2"]
    assert sorted(row[1:4] for row in rows if row and row[0].startswith("replicaset.apps/")) == [
        ["0", "0", "0"],
        ["2", "2", "2"],
    ]
    described = await kubectl("describe", "deployment", "web")
    assert "2 desired | 2 updated | 2 total | 2 available | 0 unavailable" in described
    await kubectl("rollout", "undo", "deployment/web")
    assert "successfully rolled out" in await kubectl(*status)
    assert "example:1" in await kubectl("get", "deployment", "web", "-o", "wide")
    await kubectl("scale", "deployment/web", "--replicas=0")
    await kubectl("wait", "--for=delete", "pod", "-l", "app=web", "--timeout=30s")
    await kubectl("delete", "deployment", "web", "--cascade=foreground", "--timeout=30s")
    assert json.loads(await kubectl("get", "replicasets", "-o", "json"))["items"] == []
