"""A control plane without nodes: the embedded API server and a controller, each a process, on cores of their own.

What the benchmarks do to it themselves goes out on a bare aiohttp session, as the references do.
"""

import asyncio
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import orjson

from tests.bench.machine import IN_MEMORY, Cores, cpu_seconds, running_on
from tests.support.agent_process import free_port
from tests.support.api_client import TOKEN
from tests.support.repository import ROOT

NAMESPACE = "default"
PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
SECRETS = f"/api/v1/namespaces/{NAMESPACE}/secrets"
POOLS = f"/apis/podslots.dev/v1alpha1/namespaces/{NAMESPACE}/slotpools"
TASKS = f"/apis/podslots.dev/v1alpha1/namespaces/{NAMESPACE}/slottasks"
MERGE = "application/merge-patch+json"
AUDIT = "audit"
WAIT_SECONDS = 120.0
POLL_SECONDS = 0.05

Json = dict[str, Any]
Process = asyncio.subprocess.Process


class Api:
    """Requests to the API server, with nothing in between."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self.url = url
        self._session = session

    async def send(self, method: str, path: str, body: Json | bytes | None = None, *, kind: str = "") -> Json:
        """The answer's document. AssertionError for any status of an error."""
        data = orjson.dumps(body) if isinstance(body, dict) else body
        headers = {"Content-Type": kind or "application/json"} if data is not None else {}
        async with self._session.request(method, self.url + path, data=data, headers=headers) as response:
            document: Json = orjson.loads(await response.read())
            if response.status >= 300:
                raise AssertionError(f"{method} {path}: {response.status} {document.get('message')}")
            return document

    async def patch(self, path: str, body: Json) -> Json:
        return await self.send("PATCH", path, body, kind=MERGE)

    @asynccontextmanager
    async def watching(self, path: str, seen: Callable[[str, Json], None]) -> AsyncIterator[None]:
        """Tell `seen` of each event from now on: its type, and the object."""
        version = (await self.send("GET", f"{path}?limit=1"))["metadata"]["resourceVersion"]
        async with self._session.get(f"{self.url}{path}?watch=true&resourceVersion={version}") as response:

            async def read() -> None:
                rest = b""
                async for chunk in response.content.iter_any():
                    *lines, rest = (rest + chunk).split(b"\n")
                    for line in lines:
                        event = orjson.loads(line)
                        seen(event["type"], event["object"])

            reading = asyncio.create_task(read(), name=f"watch {path}")
            try:
                yield
            finally:
                reading.cancel()
                await asyncio.wait([reading])


@dataclass(frozen=True, slots=True)
class Plane:
    """The processes that run, and a way to the API."""

    api: Api
    server: Process
    controller: Process
    metrics_url: str
    folder: Path

    @property
    def audit(self) -> Path:
        """What the API server was asked for, where that is `audited`."""
        return self.folder / AUDIT

    def cpu(self) -> float:
        """CPU time of both processes."""
        return cpu_seconds(self.server.pid) + cpu_seconds(self.controller.pid)


@asynccontextmanager
async def api_server(cores: Cores, *, audited: bool = False) -> AsyncIterator[tuple[Api, Process, Path]]:
    """The API server, on a file system in memory: a disk's moods are not what is measured."""
    async with AsyncExitStack() as stack:
        parent = IN_MEMORY if IN_MEMORY.is_dir() else None
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="podslots-bench-", dir=parent)))
        paths = [str(folder / name) for name in ("api", AUDIT)[: 1 + audited]]
        server = await stack.enter_async_context(
            _process(cores.server, "tests.bench.api_server", *paths, stdout=asyncio.subprocess.PIPE)
        )
        assert server.stdout
        async with asyncio.timeout(WAIT_SECONDS):
            url = (await server.stdout.readline()).decode().strip()
        session = await stack.enter_async_context(
            aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0),
                headers={"Authorization": f"Bearer {TOKEN}"},
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=WAIT_SECONDS),
            )
        )
        yield Api(session, url), server, folder


@asynccontextmanager
async def control_plane(
    cores: Cores, prepare: Callable[[Api], Any] | None = None, *, lease_seconds: int = 4, audited: bool = False
) -> AsyncIterator[Plane]:
    """API server and controller. `prepare(api)` is awaited before the controller starts.

    The lease is shorter than by default: a first leader waits for as long as a former one might still act.
    """
    async with api_server(cores, audited=audited) as (api, server, folder):
        if prepare is not None:
            await prepare(api)
        port = free_port("127.0.0.1")
        environ = {
            "PODSLOTS_SERVER": api.url,
            "PODSLOTS_TOKEN": TOKEN,
            "PODSLOTS_NAMESPACE": NAMESPACE,
            "PODSLOTS_WATCH_NAMESPACE": NAMESPACE,
            "PODSLOTS_LEASE_SECONDS": str(lease_seconds),
            "PODSLOTS_HTTP_HOST": "127.0.0.1",
            "PODSLOTS_HTTP_PORT": str(port),
        }
        log = folder / "controller.log"
        with log.open("wb") as stderr:
            running = _process(cores.client, "controller", stderr=stderr.fileno(), environ=environ)
            async with running as controller:
                plane = Plane(api, server, controller, f"http://127.0.0.1:{port}", folder)
                try:
                    yield plane
                except BaseException as error:
                    error.add_note(log.read_text()[-3000:])
                    raise


@asynccontextmanager
async def _process(
    core: frozenset[int],
    module: str,
    *arguments: str,
    stdout: int = asyncio.subprocess.DEVNULL,
    stderr: int | None = None,
    environ: dict[str, str] | None = None,
) -> AsyncIterator[Process]:
    with running_on(core):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", module, *arguments),
            stdout=stdout,
            stderr=stderr,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **(environ or {})},
            cwd=ROOT,
        )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def until(condition: Callable[[], Any], what: str) -> Any:
    """What `condition()` gives once it is true; awaited if it is a coroutine."""
    deadline = asyncio.get_running_loop().time() + WAIT_SECONDS
    while True:
        result = condition()
        if asyncio.iscoroutine(result):
            result = await result
        if result:
            return result
        if asyncio.get_running_loop().time() > deadline:
            raise AssertionError(f"not within {WAIT_SECONDS} s: {what}")
        await asyncio.sleep(POLL_SECONDS)


async def pods(api: Api) -> list[Json]:
    """The Pods there are."""
    found: list[Json] = (await api.send("GET", PODS))["items"]
    return found


def pool(replicas: int, **spec: Any) -> Json:
    """A pool of a fixed size."""
    return {
        "apiVersion": "podslots.dev/v1alpha1",
        "kind": "SlotPool",
        "metadata": {"name": "bench", "namespace": NAMESPACE},
        "spec": {
            "replicas": replicas,
            "template": {"spec": {"containers": [{"name": "worker", "image": "podslots/tools:bench"}]}},
            **spec,
        },
    }


async def prepared_pool(plane: Plane, replicas: int) -> Json:
    """Create the pool, and wait until the controller leads and has made its Secret."""
    await plane.api.send("POST", POOLS, pool(replicas))

    async def ready() -> Json | None:
        found = await plane.api.send("GET", f"{POOLS}/bench")
        secrets = await plane.api.send("GET", SECRETS)
        observed = (found.get("status") or {}).get("observedGeneration")
        return found if observed and secrets["items"] else None

    document: Json = await until(ready, "the pool is prepared")
    return document
