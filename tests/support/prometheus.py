"""A real Prometheus that scrapes real agents and the controller.

Debian's is built without discovery by the Kubernetes API: a file that is kept up to date stands in for that.
"""

import asyncio
import json
import shutil
import signal
from pathlib import Path
from typing import Any, Self

import aiohttp
import yaml

from tests.support.agent_process import free_port
from tests.support.cluster import Child, Cluster, until

PROGRAM = shutil.which("prometheus")
WITHOUT = "no Prometheus: apt-get install -y --no-install-recommends prometheus"
SCRAPE_SECONDS = 1


class Prometheus:
    """One server, at one address for good. Each start is one with nothing of what it knew before."""

    def __init__(self, cluster: Cluster, folder: Path, *, rules: tuple[Path, ...] = ()) -> None:
        folder.mkdir()
        self._rules = [str(path) for path in rules]
        self._cluster = cluster
        self._folder = folder
        self._port = free_port("127.0.0.1")
        self._run = 0
        self.url = f"http://127.0.0.1:{self._port}"
        self._config = folder / "prometheus.yml"
        self._targets = folder / "targets.json"
        self._process = self._child()
        self._discovery: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._discovery = asyncio.create_task(self._discover())
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()
        if self._discovery is not None:
            self._discovery.cancel()
            await asyncio.gather(self._discovery, return_exceptions=True)

    def _child(self) -> Child:
        return Child(
            "prometheus",
            [
                str(PROGRAM),
                f"--config.file={self._config}",
                f"--storage.tsdb.path={self._folder / f'data-{self._run}'}",
                f"--web.listen-address=127.0.0.1:{self._port}",
            ],
            {"PATH": "/usr/bin:/bin"},
            self._folder / "prometheus.log",
        )

    async def start(self, *, blind: bool = False) -> None:
        """Start it, or start it again with nothing of what it knew. `blind`: it has nothing to scrape."""
        port = await until(lambda: _port_of(self._cluster.controller), "the controller serves")
        jobs = [] if blind else [self._agents(), _controller(port)]
        often = f"{SCRAPE_SECONDS}s"
        config = {
            "global": {"scrape_interval": often, "evaluation_interval": often},
            "rule_files": self._rules,
            "scrape_configs": jobs,
        }
        self._config.write_text(yaml.safe_dump(config))
        self._run += 1
        self._process = self._child()
        await self._process.start()

    async def stop(self) -> None:
        await self._process.terminate()

    def pause(self) -> None:
        """It takes connections, and answers none."""
        self._process.send(signal.SIGSTOP)

    def go_on(self) -> None:
        self._process.send(signal.SIGCONT)

    async def ask(self, query: str) -> list[dict[str, Any]]:
        """The samples that a query finds; none while it does not serve yet."""
        try:
            found: list[dict[str, Any]] = (await self.get("query", query=query))["result"]
        except aiohttp.ClientError:
            return []
        return found

    async def get(self, call: str, **parameters: str) -> Any:
        """What a call of its API answers."""
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session,
            session.get(f"{self.url}/api/v1/{call}", params=parameters) as response,
        ):
            answer = await response.json()
            assert answer.get("status") == "success", answer
            return answer["data"]

    def _agents(self) -> dict[str, Any]:
        return {"job_name": "agents", "file_sd_configs": [{"files": [str(self._targets)]}]}

    async def _discover(self) -> None:
        """Name each Pod's agent, with the labels `namespace`, `pod` and `pool`, as our PodMonitor does."""
        written = ""
        while True:
            pods = [pod for pod in await self._cluster.pods() if pod.get("status", {}).get("podIP")]
            groups = [
                {
                    "targets": [f"{pod['status']['podIP']}:8721"],
                    "labels": {
                        "namespace": pod["metadata"]["namespace"],
                        "pod": pod["metadata"]["name"],
                        "pool": pod["metadata"]["labels"].get("podslots.dev/pool", ""),
                    },
                }
                for pod in pods
            ]
            if (text := json.dumps(groups)) != written:
                new = self._targets.with_suffix(".new")
                new.write_text(text)
                new.replace(self._targets)
                written = text
            await asyncio.sleep(SCRAPE_SECONDS / 2)


def _controller(port: int) -> dict[str, Any]:
    return {
        "job_name": "controller",
        "honor_labels": True,
        "static_configs": [{"targets": [f"127.0.0.1:{port}"]}],
    }


def _port_of(controller: Child) -> int | None:
    """The port that a controller says it serves on."""
    entries = [json.loads(line) for line in controller.log.read_text().splitlines() if line.startswith("{")]
    return next((int(entry["port"]) for entry in entries if "port" in entry), None)
