"""Helpers for tests that run Pods on the embedded cluster."""

import asyncio
import contextlib
import random
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import aiohttp

from controller.local.cluster import ClusterConfig, LocalCluster
from controller.local.node.backoff import BackoffPolicy
from controller.local.node.client import ApiClient, ApiRefusedError
from controller.local.node.config import KubeletConfig
from controller.local.node.pods.processes import ProcessName, carriers

Json = dict[str, Any]
Answer = TypeVar("Answer")
PATIENCE_SECONDS = 60.0
NAMESPACE = "/api/v1/namespaces/default"
BRAND = "TEST_CLUSTER"  # a variable all containers of a test's cluster carry: finds what it left behind
QUICK = BackoffPolicy(first_seconds=0.4, limit_seconds=2.0)


async def until(ask: Callable[[], Awaitable[Answer]], *, what: str, within: float = PATIENCE_SECONDS) -> Answer:
    """The first truthy answer."""
    deadline = asyncio.get_running_loop().time() + within
    while True:
        answer = await ask()
        if answer:
            return answer
        if asyncio.get_running_loop().time() > deadline:
            raise AssertionError(f"not within {within} s: {what}; last answer {answer!r}")
        await asyncio.sleep(0.03)


@dataclass(frozen=True)
class Brand:
    """Marks the processes of one test's cluster."""

    value: str

    def processes(self) -> list[ProcessName]:
        """Those that live."""
        return [name for name, value in carriers(BRAND) if value == self.value]

    async def gone(self) -> None:
        """Wait until none lives."""

        async def none() -> bool:
            return not self.processes()

        await until(none, what="no process of the cluster lives")


def shell(name: str, script: str, **fields: Any) -> Json:
    """A container that runs a shell script."""
    return {"name": name, "image": "none", "command": ["sh", "-c", script], **fields}


# Ends within a moment of SIGTERM, and tells of it. `wait` is what a signal interrupts.
POLITE = "trap 'echo got TERM; exit 0' TERM; echo up; while :; do sleep 0.1 & wait; done"
STUBBORN = "trap 'echo ignored' TERM; echo up; while :; do sleep 0.1 & wait; done"


def pod(name: str, containers: Sequence[Json], **spec: Any) -> Json:
    """A Pod with a short grace."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}, "annotations": spec.pop("annotations", {})},
        "spec": {"terminationGracePeriodSeconds": 5, "containers": list(containers), **spec},
    }


class Pods:
    """What a test does with Pods, as the admin."""

    def __init__(self, http: aiohttp.ClientSession, url: str, token: str) -> None:
        self.api = ApiClient(http, url, token)

    async def create(self, body: Json, kind: str = "pods") -> Json:
        return await self.api.request("POST", f"{NAMESPACE}/{kind}", body)

    async def get(self, name: str, kind: str = "pods") -> Json | None:
        try:
            return await self.api.request("GET", f"{NAMESPACE}/{kind}/{name}")
        except ApiRefusedError as error:
            if error.status == 404:
                return None
            raise

    async def delete(self, name: str, grace_seconds: int | None = None, kind: str = "pods") -> None:
        body = {} if grace_seconds is None else {"gracePeriodSeconds": grace_seconds}
        await self.api.request("DELETE", f"{NAMESPACE}/{kind}/{name}", body)

    async def wait(self, name: str, holds: Callable[[Json], Any], what: str) -> Json:
        """The Pod once something holds of it."""

        async def ask() -> Json | None:
            found = await self.get(name)
            return found if found is not None and holds(found) else None

        found = await until(ask, what=f"Pod {name} {what}")
        assert found is not None
        return found

    async def ready(self, name: str) -> Json:
        return await self.wait(name, lambda p: condition(p, "Ready") == "True", "is Ready")

    async def gone(self, name: str) -> None:
        async def ask() -> bool:
            return await self.get(name) is None

        await until(ask, what=f"Pod {name} is gone")

    async def events(self, name: str) -> list[tuple[str, str]]:
        """Reason and message of a Pod's events."""
        found = await self.api.request("GET", f"{NAMESPACE}/events")
        return [(e["reason"], e["message"]) for e in found["items"] if e["involvedObject"]["name"] == name]

    async def event(self, name: str, reason: str) -> str:
        """The message of the first event of a reason."""

        async def ask() -> str:
            return next((message for r, message in await self.events(name) if r == reason), "")

        return await until(ask, what=f"event {reason} of {name}")


def condition(shown: Json, kind: str) -> str:
    conditions = shown.get("status", {}).get("conditions", [])
    return str(next((c["status"] for c in conditions if c["type"] == kind), ""))


def container_status(shown: Json, name: str) -> Json:
    status = shown.get("status", {})
    every = [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]
    return next((c for c in every if c["name"] == name), {})


@dataclass
class Local:
    """A cluster in this process, and its Pods."""

    cluster: LocalCluster
    pods: Pods
    brand: Brand
    http: aiohttp.ClientSession

    async def log(self, name: str, container: str, **query: str) -> str:
        url = f"{self.cluster.url}{NAMESPACE}/pods/{name}/log"
        headers = {"Authorization": f"Bearer {self.cluster.token('admin')}"}
        async with self.http.get(url, params={"container": container, **query}, headers=headers) as response:
            return await response.text()

    async def log_has(self, name: str, container: str, text: str) -> str:
        """The log once it has a text."""

        async def ask() -> str:
            log = await self.log(name, container)
            return log if text in log else ""

        return await until(ask, what=f"log of {name}/{container} has {text!r}")


@contextlib.asynccontextmanager
async def local_cluster(
    folder: Path, *, keep_pods: bool = False, brand: Brand | None = None, **settings: Any
) -> AsyncIterator[Local]:
    """A cluster on a folder, over plain HTTP. On the way out nothing of it may be left running, if not kept."""
    brand = brand or Brand(uuid.uuid4().hex)
    kubelet = KubeletConfig(
        **{
            "path": "/usr/local/bin:/usr/bin:/bin",
            "backoff": QUICK,
            "environment": {BRAND: brand.value},
            "stop_grace_seconds": 1.0,
            **settings,
        }
    )
    config = ClusterConfig(folder, tls=False, kubelet=kubelet)
    cluster = LocalCluster(config, now=lambda: datetime.now(UTC), rng=random.Random())
    await cluster.start()
    async with aiohttp.ClientSession() as http:
        try:
            yield Local(cluster, Pods(http, cluster.url, cluster.token("admin")), brand, http)
        finally:
            await cluster.stop(keep_pods=keep_pods)
    if not keep_pods:
        assert brand.processes() == []
