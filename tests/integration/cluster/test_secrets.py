"""What must stay between those it is meant for, on a whole cluster: looked for in all that the controller says.

Planted are the values of a task's environment, the content of its files, the pool's token and the keys of certificates;
looked through are the controller's log, Events, every status, Pods as they were made, metrics and the status page.
"""

import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from controller.kube.api import EVENTS, LEASES, PODS, SECRETS, SLOTPOOLS, SLOTTASKS, Object
from controller.names import agent_server_name
from tests.integration.cluster.test_secured_pool import AGENTS, CLIENTS, tls_secret, token
from tests.support.cluster import NAMESPACE, Cluster, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

ENV = "planted-environment-77e1"
FILE = "planted-file-content-c4d8"
SPEC: dict[str, Any] = {
    "env": [{"name": "PASSWORD", "value": ENV}],
    "files": {"secrets.tfvars": f"password = {FILE}\n"},
}

API_CALLS = ("status", "pools", "plans", "queue", "pods", "decisions", "openapi.json")
"""What the status page and its readers ask for."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Cluster]:
    async with Cluster(tmp_path_factory.mktemp("secrets")) as running:
        yield running
        await running.settle()


@pytest.mark.long
async def test_nothing_planted_is_said_by_the_controller(cluster: Cluster) -> None:
    """Through success, failure, a refusal, a lost worker, a leader's end and a CA that is junk for a while."""
    agents, shown = AGENTS.sign(agent_server_name(NAMESPACE, "planted")), CLIENTS.sign("controller")
    served = tls_secret("agents-tls", agents, AGENTS.certificate)
    await cluster.api.create(SECRETS, NAMESPACE, served)
    await cluster.api.create(SECRETS, NAMESPACE, tls_secret("controller-tls", shown, CLIENTS.certificate))
    auth = {"lockReads": True, "tls": {"secretName": "agents-tls", "clientAuth": {"secretName": "controller-tls"}}}
    await cluster.create_pool("planted", auth=auth)
    use = f"[ ${{#PASSWORD}} = {len(ENV)} ] && grep -q password secrets.tfvars || exit 9; "
    plan, apply = f"{use}cp secrets.tfvars tfplan; echo planned", f"{use}echo applied"
    await cluster.create_task("works", "plan_and_apply", pool="planted", plan=plan, apply=apply, **SPEC)
    await cluster.create_task("fails", pool="planted", plan=f"{use}exit 3", **SPEC)
    await cluster.create_task("lost", pool="planted", plan=f"{use}kill -9 $PPID; sleep 60", **SPEC)
    wrong = {**SPEC, "env": [*SPEC["env"], {"name": "A", "valueFrom": {"secretKeyRef": {"name": "none", "key": "k"}}}]}
    await cluster.create_task("wrong", pool="planted", **wrong)
    await cluster.create_task("unknown", "plan_and_apply", pool="nowhere", **SPEC)
    planned = await cluster.until_phase("works", "AwaitingApproval")
    tokens = {await token(cluster, "planted")}
    seen = [json.dumps(await everything(cluster))]

    await cluster.controller.kill()
    data = {"tls.key": served["data"]["tls.key"], "ca.crt": "anVuaw=="}
    await cluster.api.patch(SECRETS, NAMESPACE, "agents-tls", {"data": data})
    await cluster.controller.start()
    await until(lambda: "no TLS to agents" in cluster.controller.log.read_text(), "what is wrong with the CA is said")
    await cluster.api.patch(SECRETS, NAMESPACE, "agents-tls", {"data": served["data"]})
    await cluster.approve("works", planDigest=planned["planDigest"])
    await cluster.until_phase("works", "Succeeded")
    for name in ("fails", "lost", "wrong"):
        ended = await cluster.until_phase(name, "Succeeded", "Failed", "Lost")
        assert ended["phase"] != "Succeeded", name
        assert name != "fails" or ended["steps"]["plan"]["exitCode"] == 3, "by its own word, so that it had all"
    seen.append(json.dumps(await everything(cluster)))

    log = cluster.controller.log.read_text()
    keys = [line for key in (agents.key, shown.key) for line in key.decode().splitlines() if "-----" not in line]
    for secret in (ENV, FILE, *tokens, *keys):
        assert secret not in log, "the log"
        for number, text in enumerate(seen):
            assert secret not in text, f"what was read, {number}: {where(text, secret)}"


def where(text: str, secret: str) -> str:
    place = text.index(secret)
    return text[max(0, place - 300) : place + 100]


async def everything(cluster: Cluster) -> dict[str, Any]:
    """All that can be read of what the controller wrote. A task's spec and the Secrets are the user's own to see."""
    found: dict[str, Any] = {}
    for resource in (EVENTS, PODS, LEASES, SLOTPOOLS):
        found[resource.plural] = await cluster.list_all(resource)
        assert found[resource.plural], resource.plural
    found["tasks"] = [without_spec(task) for task in await cluster.list_all(SLOTTASKS)]
    serving = [json.loads(line) for line in cluster.controller.log.read_text().splitlines() if '"serving"' in line]
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as session:
        for path in ("/", "/metrics", *(f"/api/v1/{call}" for call in API_CALLS)):
            async with session.get(f"http://127.0.0.1:{serving[-1]['port']}{path}") as response:
                assert response.status == 200, path
                found[path] = await response.text()
    assert "planted" in found["/api/v1/status"]
    return found


def without_spec(task: Object) -> Object:
    return {key: value for key, value in task.items() if key != "spec"}
