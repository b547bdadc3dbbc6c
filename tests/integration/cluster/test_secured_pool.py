"""A pool whose agents speak TLS and lock their reads, from the SlotPool to the apply, over real processes."""

import base64
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from controller.agents.tls import make_context
from controller.kube.api import PODS, SECRETS, SLOTPOOLS, Object
from controller.names import agent_server_name, token_secret
from tests.support.cluster import NAMESPACE, Cluster, until
from tests.support.mounted import Authority, Signed

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.long]

AGENTS = Authority("the agents' CA")
CLIENTS = Authority("the clients' CA")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Cluster]:
    async with Cluster(tmp_path_factory.mktemp("secured")) as running:
        yield running
        await running.settle()
        running.check()


def tls_secret(name: str, signed: Signed, ca: bytes | None) -> Object:
    """As cert-manager writes them."""
    files = {"tls.crt": signed.certificate, "tls.key": signed.key, **({"ca.crt": ca} if ca else {})}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "type": "kubernetes.io/tls",
        "data": encoded(files),
    }


def encoded(files: dict[str, bytes]) -> dict[str, str]:
    return {key: base64.b64encode(value).decode() for key, value in files.items()}


async def of_pool(cluster: Cluster, name: str) -> list[Object]:
    return [pod for pod in await cluster.pods() if pod["metadata"]["labels"]["podslots.dev/pool"] == name]


async def token(cluster: Cluster, pool: str) -> str:
    secret = await cluster.api.get(SECRETS, NAMESPACE, token_secret(pool))
    return base64.b64decode(secret["data"][secret["metadata"]["annotations"]["podslots.dev/current-token"]]).decode()


class Agent:
    """One Pod's agent, as somebody outside the Pod reaches it."""

    def __init__(self, pod: Object, ca: Authority, client: Signed | None = None) -> None:
        self.address: str = pod["status"]["podIP"]
        self.name = agent_server_name(NAMESPACE, pod["metadata"]["labels"]["podslots.dev/pool"])
        shown = client.certificate + client.key if client else None
        self.context = make_context(ca.certificate, shown)

    async def get(self, path: str, token: str | None = None) -> tuple[int, str]:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as session,
            session.get(
                f"https://{self.address}:8721{path}", headers=headers, ssl=self.context, server_hostname=self.name
            ) as response,
        ):
            return response.status, await response.text()


async def run_to_the_end(cluster: Cluster, pool: str) -> Object:
    """A plan_and_apply from its Pod's creation to the apply. Returns its Pod while the plan waits."""
    name = f"{pool}-task"
    await cluster.create_task(name, "plan_and_apply", pool=pool)
    planned = await cluster.until_phase(name, "AwaitingApproval", "Failed")
    assert planned["phase"] == "AwaitingApproval"
    (pod,) = await of_pool(cluster, pool)
    return pod


async def finish(cluster: Cluster, pool: str) -> None:
    await cluster.approve(f"{pool}-task")
    applied = await cluster.until_phase(f"{pool}-task", "Succeeded")
    assert f"planned default/{pool}-task" in applied["steps"]["apply"]["logTail"]

    async def empty() -> bool:
        return not await of_pool(cluster, pool)

    await until(empty, "its Pod is drained and deleted, as any other")


async def test_locked_reads_alone(cluster: Cluster) -> None:
    await cluster.create_pool("locked", auth={"lockReads": True})
    pod = await run_to_the_end(cluster, "locked")
    url = f"http://{pod['status']['podIP']}:8721"
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as session:
        for path, status in (("/slots", 401), ("/metrics", 401), ("/healthz", 200)):
            async with session.get(url + path) as response:
                assert response.status == status, path
        shown = {"Authorization": f"Bearer {await token(cluster, 'locked')}"}
        async with session.get(f"{url}/slots", headers=shown) as response:
            assert [slot["state"] for slot in (await response.json())["slots"]] == ["reserved", "idle", "idle"]
    await finish(cluster, "locked")


async def test_tls_locked_reads_and_client_certificates(cluster: Cluster) -> None:
    """Through a change of every certificate and of the CA that signed them, while a plan waits for its approval."""
    name = agent_server_name(NAMESPACE, "secured")
    await cluster.api.create(SECRETS, NAMESPACE, tls_secret("agents-tls", AGENTS.sign(name), AGENTS.certificate))
    await cluster.api.create(
        SECRETS, NAMESPACE, tls_secret("controller-tls", CLIENTS.sign("podslots-controller"), CLIENTS.certificate)
    )
    auth = {"lockReads": True, "tls": {"secretName": "agents-tls", "clientAuth": {"secretName": "controller-tls"}}}
    await cluster.create_pool("secured", auth=auth)
    pod = await run_to_the_end(cluster, "secured")
    await probed(cluster, pod)
    pool_token = await token(cluster, "secured")

    stranger = Agent(pod, AGENTS)
    assert (await stranger.get("/healthz"))[0] == 200, "as a kubelet asks"
    assert (await stranger.get("/slots"))[0] == 401
    assert (await stranger.get("/slots", pool_token))[0] == 403
    prometheus = Agent(pod, AGENTS, CLIENTS.sign("prometheus"))
    assert (await prometheus.get("/metrics"))[0] == 401
    scraping = {"read-prometheus": b"chosen-by-a-person-for-scrapes"}
    await cluster.api.patch(SECRETS, NAMESPACE, token_secret("secured"), {"data": encoded(scraping)})
    shown = scraping["read-prometheus"].decode()

    async def scraped() -> bool:
        return (await prometheus.get("/metrics", shown))[0] == 200

    await until(scraped, "a token for reading is good, once the mount has it")
    assert (await stranger.get("/metrics", shown))[0] == 403
    _, text = await prometheus.get("/metrics", shown)
    assert 'podslots_slots{state="reserved"} 1.0' in text
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as session:
        with pytest.raises(aiohttp.ClientError):
            await session.get(f"http://{pod['status']['podIP']}:8721/healthz")

    successor = Authority("the agents' next CA")
    renewed = successor.sign(name)
    files = {"tls.crt": renewed.certificate, "tls.key": renewed.key, "ca.crt": successor.certificate}
    await cluster.api.patch(SECRETS, NAMESPACE, "agents-tls", {"data": encoded(files)})

    async def served() -> bool:
        return (await Agent(pod, successor).get("/healthz"))[0] == 200

    await until(served, "the agent serves the new certificate")
    await cluster.kill_container(pod["metadata"]["name"], "slot-agent")
    await finish(cluster, "secured")


async def probed(cluster: Cluster, pod: Object) -> None:
    """The kubelet's probes and the agent's own commands, in its own environment."""
    name = pod["metadata"]["name"]

    async def ready() -> bool:
        seen = await cluster.api.get(PODS, NAMESPACE, name)
        statuses = seen["status"]["initContainerStatuses"]
        return any(entry["name"] == "slot-agent" and entry["ready"] for entry in statuses)

    await until(ready, "the agent's readiness probe passes")
    environ = agents_environment(pod)
    for command in ("health", "slots"):
        done = subprocess.run(  # noqa: ASYNC221 - a moment
            [sys.executable, "-m", "agent", command],
            env=environ,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, ""), command
    assert "reserved" in done.stdout


def agents_environment(pod: Object) -> dict[str, str]:
    """What the agent's process was given."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
            text = (process / "environ").read_bytes().decode(errors="replace")
        except OSError:
            continue
        environ = dict(entry.split("=", 1) for entry in text.split("\0") if "=" in entry)
        if environ.get("PODSLOTS_POD_UID") == pod["metadata"]["uid"] and b"serve" in words:
            return environ
    raise AssertionError(f"no agent's process in {pod['metadata']['name']}")


async def test_a_certificate_of_another_name_is_not_the_agents(cluster: Cluster) -> None:
    """Another pool's, signed by the same CA: no token is shown to it, and the Pod never gets work."""
    signed = AGENTS.sign(agent_server_name(NAMESPACE, "somebody-else"))
    await cluster.api.create(SECRETS, NAMESPACE, tls_secret("others-tls", signed, AGENTS.certificate))
    await cluster.create_pool("mistaken", auth={"tls": {"secretName": "others-tls"}}, replicas=1, autoscaling=None)

    def said() -> bool:
        return "not valid for 'mistaken.default.svc'" in cluster.controller.log.read_text()

    await until(said, "the controller says why it does not reach the agent")

    async def degraded() -> bool:
        status = (await cluster.api.get(SLOTPOOLS, NAMESPACE, "mistaken")).get("status") or {}
        return any(entry.get("reason") == "AgentsUnreachable" for entry in status.get("conditions", ()))

    await until(degraded, "and so does the pool")
    (pod,) = await of_pool(cluster, "mistaken")
    assert pod["metadata"]["labels"]["podslots.dev/state"] == "starting"


async def test_a_certificate_that_signs_for_itself_needs_no_ca(cluster: Cluster) -> None:
    """And `serverName` names what is in it."""
    signed = AGENTS.sign("agents.example.com")
    await cluster.api.create(SECRETS, NAMESPACE, tls_secret("own-tls", signed, None))
    tls = {"secretName": "own-tls", "serverName": "agents.example.com"}
    await cluster.create_pool("own", auth={"tls": tls})
    pod = await run_to_the_end(cluster, "own")
    context = ssl.create_default_context(cadata=AGENTS.certificate.decode())
    context.check_hostname = False
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as session,
        session.get(f"https://{pod['status']['podIP']}:8721/slots", ssl=context) as response,
    ):
        answer: dict[str, Any] = await response.json()
    assert answer["slots"][0]["state"] == "reserved", "reads are open where nothing locks them"
    await finish(cluster, "own")


async def test_a_pool_that_changes_its_mind_loses_nothing(cluster: Cluster) -> None:
    """T16: a Pod is spoken to as it was made, there and back; what waits in it is applied in it."""
    signed = AGENTS.sign(agent_server_name(NAMESPACE, "changing"))
    await cluster.api.create(SECRETS, NAMESPACE, tls_secret("changing-tls", signed, AGENTS.certificate))
    await cluster.create_pool("changing", slots=[{"accepts": ["plan_and_apply"]}])
    plain = await run_to_the_end(cluster, "changing")
    auth: dict[str, Any] = {"lockReads": True, "tls": {"secretName": "changing-tls"}}
    await cluster.api.patch(SLOTPOOLS, NAMESPACE, "changing", {"spec": {"auth": auth}})
    await cluster.create_task("changing-2", "plan_and_apply", pool="changing")
    planned = await cluster.until_phase("changing-2", "AwaitingApproval")
    secured = next(pod for pod in await of_pool(cluster, "changing") if pod["metadata"]["uid"] == planned["podUID"])
    assert planned["podUID"] != plain["metadata"]["uid"], "the only slot of the first is reserved"
    assert (await cluster.slots(plain))["slots"][0]["state"] == "reserved"
    assert (await Agent(secured, AGENTS).get("/slots"))[0] == 401
    await cluster.api.patch(SLOTPOOLS, NAMESPACE, "changing", {"spec": {"auth": None}})
    await cluster.controller.kill()
    await cluster.controller.start()
    for name, pod in (("changing-task", plain), ("changing-2", secured)):
        await cluster.approve(name)
        applied = await cluster.until_phase(name, "Succeeded", "Failed", "Lost")
        assert (applied["phase"], applied["podUID"]) == ("Succeeded", pod["metadata"]["uid"])

    async def empty() -> bool:
        return not await of_pool(cluster, "changing")

    await until(empty, "both are drained, each in its own way")
