"""A real Prometheus and a real Alertmanager with the files that are shipped, on an embedded cluster.

A plan that awaits its approval reaches a webhook: whatever Alertmanager can send to, needs no code of ours.
"""

import json
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from aiohttp import web

from controller.kube.api import Object
from tests.support.cluster import Child, Cluster, until
from tests.support.promtool import MONITORING, found_by_files, program, promtool

pytestmark = pytest.mark.long

SCRAPE_SECONDS = 1


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


class Hook:
    """A webhook: what a chat would get."""

    def __init__(self) -> None:
        self.alerts: list[dict[str, Any]] = []
        self.port = 0

    @asynccontextmanager
    async def served(self) -> AsyncIterator["Hook"]:
        app = web.Application()
        app.router.add_post("/", self._take)
        runner = web.AppRunner(app)
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            self.port = runner.addresses[0][1]
            yield self
        finally:
            await runner.cleanup()

    async def _take(self, request: web.Request) -> web.Response:
        self.alerts += (await request.json())["alerts"]
        return web.Response()

    def got(self, name: str, status: str) -> list[dict[str, Any]]:
        return [alert for alert in self.alerts if (alert["labels"]["alertname"], alert["status"]) == (name, status)]


class Watching:
    """Prometheus and Alertmanager, with the files that are shipped."""

    def __init__(self, folder: Path, hook: Hook) -> None:
        self.folder = folder
        self.port, alerts_port = free_port(), free_port()
        token = folder / "token"
        token.write_text("nobody-asks")
        config = {
            "global": {"scrape_interval": f"{SCRAPE_SECONDS}s", "evaluation_interval": f"{SCRAPE_SECONDS}s"},
            "rule_files": [str(MONITORING / "rules" / "podslots.rules.yaml")],
            "scrape_configs": found_by_files(folder, token),
            "alerting": {"alertmanagers": [{"static_configs": [{"targets": [f"127.0.0.1:{alerts_port}"]}]}]},
        }
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        route = {
            "receiver": "people",
            "group_by": ["alertname", "namespace", "pool"],
            "group_wait": "1s",
            "group_interval": "1s",
        }
        receiver = {"name": "people", "webhook_configs": [{"url": f"http://127.0.0.1:{hook.port}/"}]}
        (folder / "alertmanager.yml").write_text(yaml.safe_dump({"route": route, "receivers": [receiver]}))
        environ = {"PATH": "/usr/bin:/bin", "HOME": str(folder)}
        self._prometheus = Child(
            "prometheus",
            [
                program("prometheus"),
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'tsdb'}",
                f"--web.listen-address=127.0.0.1:{self.port}",
            ],
            environ,
            folder / "prometheus.log",
        )
        self._alertmanager = Child(
            "alertmanager",
            [
                program("prometheus-alertmanager"),
                f"--config.file={folder / 'alertmanager.yml'}",
                f"--storage.path={folder / 'alertmanager'}",
                f"--web.listen-address=127.0.0.1:{alerts_port}",
                "--cluster.listen-address=",
            ],
            environ,
            folder / "alertmanager.log",
        )

    async def start(self) -> None:
        await self._alertmanager.start()
        await self._prometheus.start()

    async def stop(self) -> None:
        await self._prometheus.terminate()
        await self._alertmanager.terminate()

    def targets(self, job: str, pods: list[Object]) -> None:
        """Let it scrape these Pods: a target for each port of a container, as the discovery of Pods has them."""
        groups = [group for pod in pods for group in _targets(pod)]
        new = self.folder / f"{job}.new"
        new.write_text(json.dumps(groups))
        new.rename(self.folder / f"{job}.json")

    async def ask(self, query: str) -> list[dict[str, Any]]:
        """What a query gives now; nothing while it starts."""
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as session:
            try:
                async with session.get(
                    f"http://127.0.0.1:{self.port}/api/v1/query", params={"query": query}
                ) as response:
                    answer = await response.json()
            except aiohttp.ClientError:
                return []
        assert answer.get("status") == "success", answer
        found: list[dict[str, Any]] = answer["data"]["result"]
        return found


def _targets(pod: Object) -> list[dict[str, Any]]:
    """The groups of https://prometheus.io/docs/prometheus/latest/configuration/configuration/#pod."""
    metadata, spec = pod["metadata"], pod["spec"]
    about = {
        "__meta_kubernetes_namespace": metadata["namespace"],
        "__meta_kubernetes_pod_name": metadata["name"],
        "__meta_kubernetes_pod_phase": pod["status"]["phase"],
        **{
            "__meta_kubernetes_pod_label_" + "".join(c if c.isalnum() else "_" for c in name): value
            for name, value in (metadata.get("labels") or {}).items()
        },
    }
    groups = []
    for container in (*spec["containers"], *spec.get("initContainers", ())):
        ports = container.get("ports") or [{}]
        for port in ports:
            address = pod["status"]["podIP"]
            labels = {**about, "__meta_kubernetes_pod_container_name": container["name"]}
            if "containerPort" in port:
                address = f"{address}:{port['containerPort']}"
                labels["__meta_kubernetes_pod_container_port_name"] = port.get("name", "")
            groups.append({"targets": [address], "labels": labels})
    return groups


def _controllers_pod(port: int) -> Object:
    """The controller is a process here; on a cluster it is this Pod."""
    return {
        "metadata": {
            "namespace": "podslots-system",
            "name": "podslots-controller-0",
            "labels": {"app.kubernetes.io/name": "podslots-controller"},
        },
        "spec": {"containers": [{"name": "controller", "ports": [{"name": "http", "containerPort": port}]}]},
        "status": {"phase": "Running", "podIP": "127.0.0.1"},
    }


def port_of(cluster: Cluster) -> int:
    for line in cluster.controller.log.read_text().splitlines():
        if '"serving"' in line:
            port: int = json.loads(line)["port"]
            return port
    raise AssertionError("the controller serves nothing yet")


async def read(url: str) -> bytes:
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        assert response.status == 200
        return await response.read()


@asynccontextmanager
async def watched(folder: Path) -> AsyncIterator[tuple[Cluster, Watching, Hook]]:
    async with AsyncExitStack() as stack:
        (folder / "run").mkdir()
        (folder / "watching").mkdir()
        cluster = await stack.enter_async_context(Cluster(folder / "run", resync_seconds=5.0))
        hook = await stack.enter_async_context(Hook().served())
        watching = Watching(folder / "watching", hook)
        await until(lambda: '"serving"' in cluster.controller.log.read_text(), "the controller serves")
        watching.targets("podslots-controller", [_controllers_pod(port_of(cluster))])
        watching.targets("podslots-agents", [])
        stack.push_async_callback(watching.stop)
        await watching.start()
        yield cluster, watching, hook


@pytest.mark.timeout(400)
async def test_a_plan_that_awaits_its_approval_reaches_a_webhook(tmp_path: Path) -> None:
    async with watched(tmp_path) as (cluster, watching, hook):
        await cluster.create_pool("tf", autoscaling={"maxReplicas": 1, "minIdleSeconds": 3600})
        await cluster.create_task("network", "plan_and_apply", pool="tf")
        await cluster.until_phase("network", "AwaitingApproval")
        watching.targets("podslots-agents", await cluster.pods())

        await until(lambda: hook.got("PlanAwaitsApproval", "firing"), "the webhook hears of it", seconds=150)
        (first, *_) = hook.got("PlanAwaitsApproval", "firing")
        about = {"namespace": "default", "pool": "tf", "severity": "info"}
        assert about.items() <= first["labels"].items()
        assert first["annotations"]["description"].startswith("1 plans of pool default/tf await an approval")
        assert first["annotations"]["runbook_url"].endswith("runbooks.md#planawaitsapproval")

        # The agent's own figures have come too, as the shipped scrape labels them.
        (pod,) = await cluster.pods()
        (reserved,) = await watching.ask('podslots_slots{state="reserved"}')
        assert reserved["value"][1] == "1"
        expected = {"namespace": "default", "pool": "tf", "pod": pod["metadata"]["name"], "job": "podslots-agents"}
        assert expected.items() <= reserved["metric"].items()
        down = await watching.ask("up == 0")
        assert not down

        await cluster.approve("network")
        await cluster.until_phase("network", "Succeeded")
        await until(lambda: hook.got("PlanAwaitsApproval", "resolved"), "and that it is over", seconds=60)
        assert {alert["labels"]["alertname"] for alert in hook.alerts} == {"PlanAwaitsApproval"}

        # What both processes show pleases promtool.
        for url in (f"http://127.0.0.1:{port_of(cluster)}/metrics", f"http://{pod['status']['podIP']}:8721/metrics"):
            assert promtool("check", "metrics", given=await read(url)) == (0, ""), url
