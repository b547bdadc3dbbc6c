"""An embedded cluster and a controller as real processes, with the hands that tests need on them.

Everything runs on loopback with ports taken free. Whoever starts a `Cluster` stops it: use it as a context manager.
"""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp

from controller import crds, names
from controller.errors import Conflict, NotFound
from controller.kube.access import KubeSettings
from controller.kube.api import PODS, SLOTPOOLS, SLOTTASKS, Object, Resource
from controller.kube.client import KubeClient, connect
from tests.checker.verdict import check
from tests.support.at_once import AT_ONCE

NAMESPACE = "default"
FINAL = frozenset({"Succeeded", "Failed", "Cancelled", "Expired", "Lost"})


class Child:
    """A process under test, with its output in a file."""

    def __init__(self, name: str, command: list[str], environ: dict[str, str], log: Path) -> None:
        self.name = name
        self.log = log
        self._command = command
        self._environ = environ
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        with self.log.open("ab") as output:
            self._process = await asyncio.create_subprocess_exec(
                *self._command, stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=output, env=self._environ
            )

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    def set_environment(self, name: str, value: str) -> None:
        """For its next start."""
        self._environ = {**self._environ, name: value}

    async def kill(self) -> None:
        """SIGKILL."""
        await self._end(signal.SIGKILL)

    async def terminate(self) -> int | None:
        """SIGTERM; the exit status."""
        await self._end(signal.SIGTERM)
        return self._process.returncode if self._process else None

    def send(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(number)

    async def _end(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        if self._process.returncode is None:
            self._process.send_signal(number)
        await self._process.wait()


WITHOUT_RESYNC_SECONDS = 86_400.0
"""Longer than any test: a look at every pool without a cause would hide that something did not wake its pool."""


class Cluster:
    """An embedded cluster (`python -m controller.local`) and a controller (`python -m controller`) on it."""

    def __init__(
        self,
        folder: Path,
        *,
        lease_seconds: float = 2.0,
        resync_seconds: float = WITHOUT_RESYNC_SECONDS,
        options: tuple[str, ...] = (),
        controller_namespace: str = NAMESPACE,
        stands_in_for: str = "",
        environ: dict[str, str] | None = None,
    ) -> None:
        """The controller has `environ` besides; it may do what RBAC grants the user that it stands in for."""
        self.folder = folder
        self.controller_namespace = controller_namespace
        self._stands_in_for = stands_in_for
        self._more = environ or {}
        self.state = folder / "cluster"
        self._ready = folder / "ready.json"
        self._stack = AsyncExitStack()
        self._api: KubeClient | None = None
        self.cluster = self._child(
            "cluster",
            [
                *("-m", "controller.local", "--state-dir", str(self.state), "--crds", str(crds.folder())),
                *("--policies", str(crds.policies_folder()), "--roles", str(crds.roles_file())),
                *("--keep-logs", str(folder / "logs")),
                *(
                    "--ready-file",
                    str(self._ready),
                    "--backoff-seconds",
                    "0.2",
                    "--backoff-limit-seconds",
                    "10",
                    "--stop-grace-seconds",
                    "2",
                    *options,
                ),
            ],
            {},
        )
        self.lease_seconds = lease_seconds
        self.resync_seconds = resync_seconds
        self.controller = self.new_controller("controller")

    def _child(self, name: str, arguments: list[str], environ: dict[str, str]) -> Child:
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("PODSLOTS_")}
        command = [sys.executable, *arguments]
        return Child(name, command, inherited | environ, self.folder / f"{name}.log")

    def new_controller(self, identity: str) -> Child:
        """Another replica, not yet started."""
        environ = {
            "PODSLOTS_KUBECONFIG": str(self.state / "kubeconfig-podslots-controller"),
            "PODSLOTS_NAMESPACE": self.controller_namespace,
            "PODSLOTS_AGENT_IMAGE": "podslots/agent:test",
            "PODSLOTS_HTTP_HOST": "127.0.0.1",
            "PODSLOTS_HTTP_PORT": "0",
            "PODSLOTS_LEASE_SECONDS": str(self.lease_seconds),
            "PODSLOTS_RESYNC_SECONDS": str(self.resync_seconds),
            "PODSLOTS_IDENTITY": identity,
            **self._more,
        }
        if self._stands_in_for:
            environ |= {"STANDS_IN_FOR": self._stands_in_for, "PODSLOTS_KUBECONFIG": str(self.state / "kubeconfig")}
            return self._child(identity, ["-m", "tests.support.standing_in"], environ)
        return self._child(identity, ["-m", "controller"], environ)

    async def __aenter__(self) -> Self:
        try:
            await self.start_cluster()
            await self.controller.start()
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()
        await self.controller.terminate()
        if not self.cluster.running and self._ready.exists():
            await self.cluster.start()  # a cluster that was killed left containers running: let it end them
            await self._until_ready()
        await self.cluster.terminate()

    async def start_cluster(self) -> None:
        """Start the embedded cluster, or start it again after it was killed."""
        self._ready.unlink(missing_ok=True)
        await self.cluster.start()
        await self._until_ready()
        if self._api is None:
            settings = KubeSettings(kubeconfig=str(self.state / "kubeconfig"))
            self._api = await self._stack.enter_async_context(connect(settings, lambda: datetime.now(UTC)))

    async def _until_ready(self) -> None:
        def ready() -> bool:
            if not self.cluster.running:
                raise AssertionError(f"the cluster ended: {self.cluster.log.read_text()[-2000:]}")
            return self._ready.exists()

        await until(ready, "the embedded cluster is ready")

    @property
    def api(self) -> KubeClient:
        assert self._api is not None
        return self._api

    @property
    def ready(self) -> dict[str, Any]:
        """What the embedded cluster said of itself."""
        said: dict[str, Any] = json.loads(self._ready.read_text())
        return said

    # --- objects ------------------------------------------------------------------------------------------------------

    async def create_pool(self, name: str = "pool", **spec: Any) -> Object:
        return await self.api.create(SLOTPOOLS, NAMESPACE, pool(name, **spec))

    async def create_task(self, name: str, kind: str = "plan", **spec: Any) -> Object:
        return await self.api.create(SLOTTASKS, NAMESPACE, task(name, kind, **spec))

    async def pods(self) -> list[Object]:
        page = await self.api.list_page(PODS, NAMESPACE)
        items: list[Object] = page["items"]
        return items

    async def task(self, name: str) -> Object:
        return await self.api.get(SLOTTASKS, NAMESPACE, name)

    async def status(self, name: str) -> dict[str, Any]:
        status: dict[str, Any] = (await self.task(name)).get("status") or {}
        return status

    async def phase(self, name: str) -> str:
        return str((await self.status(name)).get("phase", "Queued"))

    async def until_phase(self, name: str, *phases: str, seconds: float = 90.0) -> dict[str, Any]:
        """Wait for a phase; the status then."""
        seen: dict[str, Any] = {}

        async def reached() -> bool:
            nonlocal seen
            seen = await self.status(name)
            return seen.get("phase", "Queued") in phases

        await until(reached, lambda: f"task {name} is {' or '.join(phases)}; it is {seen}", seconds=seconds)
        return seen

    async def until_size(self, count: int, *, seconds: float = 90.0) -> list[Object]:
        """Wait until there are exactly so many Pods, none on its way out."""

        found: list[Object] = []

        async def reached() -> bool:
            found[:] = await self.pods()
            return len(found) == count

        await until(reached, lambda: f"there are {count} Pods; there are {len(found)}", seconds=seconds)
        return found

    async def approve(self, name: str, **changes: Any) -> None:
        """Approve what awaits approval, as its status says; `changes` alter the approval."""
        status = await self.until_phase(name, "AwaitingApproval")
        approval = {"attempt": status["attempt"], "planDigest": status["planDigest"], "by": "admin", **changes}
        await self.patch_task(name, {"approval": approval})

    async def patch_task(self, name: str, spec: dict[str, Any]) -> Object:
        return await self.api.patch(SLOTTASKS, NAMESPACE, name, {"spec": spec})

    # --- agents -------------------------------------------------------------------------------------------------------

    async def slots(self, pod: Object) -> dict[str, Any]:
        """`GET /slots` of a Pod's agent."""
        address = pod["status"]["podIP"]
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as session,
            session.get(f"http://{address}:8721/slots") as response,
        ):
            answer: dict[str, Any] = await response.json()
            return answer

    async def kill_container(self, pod: str, container: str) -> None:
        """SIGKILL a container's main process."""
        await self.kubelet({"kill": {"namespace": NAMESPACE, "pod": pod, "container": container}})

    async def kubelet(self, switches: dict[str, Any]) -> None:
        """Throw the kubelet's switches."""
        await self._admin("POST", self.ready["kubelet_admin"], switches)

    async def administer(self, method: str, call: str, body: dict[str, Any] | None = None) -> None:
        """Have the API server make faults, or stop making them."""
        await self._admin(method, f"{self.ready['url']}/_podslots/{call}", body)

    async def delete_by(self, path: str, options: dict[str, Any]) -> None:
        """DELETE with options that the client of the product has no use for."""
        await self._admin("DELETE", self.ready["url"] + path, options)

    async def ask(self, method: str, path: str, body: dict[str, Any]) -> int:
        """The status that a request of an administrator is answered with. A PATCH is a merge patch."""
        content_type = "application/merge-patch+json" if method == "PATCH" else "application/json"
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as session,
            session.request(
                method,
                self.ready["url"] + path,
                data=json.dumps(body),
                headers={**self._authorization(), "Content-Type": content_type},
                ssl=False,
            ) as response,
        ):
            await response.read()
            return response.status

    def _authorization(self) -> dict[str, str]:
        identity = json.loads((self.state / "cluster.json").read_text())
        return {"Authorization": f"Bearer {identity['tokens']['admin']}"}

    async def faults(self) -> list[dict[str, Any]]:
        """The rules of faults in force, with how often each has acted."""
        answer = await self._admin("GET", f"{self.ready['url']}/_podslots/faults", None)
        rules: list[dict[str, Any]] = answer["rules"]
        return rules

    async def _admin(self, method: str, url: str, body: dict[str, Any] | None) -> dict[str, Any]:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as session,
            session.request(method, url, json=body, headers=self._authorization(), ssl=False) as response,
        ):
            assert response.status == 200, await response.text()
            answer: dict[str, Any] = await response.json()
            return answer

    async def settle(self, *, seconds: float = 60.0) -> None:
        """End all there is: cancel the tasks that have not ended, delete the pools, wait until nothing is left."""
        for task in await self.list_all(SLOTTASKS):
            if (task.get("status") or {}).get("phase") not in FINAL:
                await self.patch_task(task["metadata"]["name"], {"cancel": True})
        await until(self._all_ended, "every task comes to its end", seconds=seconds)
        for found in await self.list_all(SLOTPOOLS):
            await self.api.delete(SLOTPOOLS, NAMESPACE, found["metadata"]["name"])

        async def none_left() -> bool:
            return not await self.pods() and not await self.list_all(SLOTPOOLS)

        await until(none_left, "no Pod and no pool is left", seconds=seconds)

    async def _all_ended(self) -> bool:
        return all((task.get("status") or {}).get("phase") in FINAL for task in await self.list_all(SLOTTASKS))

    async def list_all(self, resource: Resource) -> list[Object]:
        """All objects of a kind."""
        page = await self.api.list_page(resource, NAMESPACE)
        items: list[Object] = page["items"]
        return items

    def check(self, *, deleted_by: str = "") -> None:
        """Have the run judged by its logs alone; `deleted_by` has deleted busy Pods, as the test meant."""
        verdict = check(self.folder)
        meant = f" was deleted by {deleted_by} at " if deleted_by else None
        found = [text for texts in verdict.findings.values() for text in texts if meant is None or meant not in text]
        assert not found, verdict.report()

    # --- evidence -----------------------------------------------------------------------------------------------------

    def audit(self) -> list[dict[str, Any]]:
        """The API server's audit log: the requests that were answered."""
        lines = (self.state / "audit.jsonl").read_text().splitlines()
        entries = [json.loads(line) for line in lines if line.endswith("}")]
        return [entry for entry in entries if entry["stage"] == "ResponseComplete"]

    def deleted_pods(self) -> list[str]:
        """Names of the Pods that the controller deleted, in order, as the audit log has it."""
        return [
            entry["objectRef"]["name"]
            for entry in self.audit()
            if entry["verb"] == "delete"
            and entry["objectRef"].get("resource") == "pods"
            and entry["user"]["username"] == names.CONTROLLER_USER
            and entry["responseStatus"]["code"] < 300
        ]


def pool(name: str, **spec: Any) -> Object:
    """A SlotPool from zero to four Pods, quick to let idle ones go."""
    defaults: dict[str, Any] = {
        "autoscaling": {
            "minReplicas": 0,
            "maxReplicas": 4,
            "minIdleSeconds": 1,
            "scaleUpUtilizationPercent": 100,
            "behavior": AT_ONCE,
        },
        "template": {
            "spec": {
                "terminationGracePeriodSeconds": 60,
                "containers": [{"name": "worker", "image": "podslots/tools:test"}],
            }
        },
    }
    return {
        "apiVersion": SLOTPOOLS.api_version,
        "kind": SLOTPOOLS.kind,
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {**defaults, **spec},
    }


PLAN = "echo planned $PODSLOTS_TASK > tfplan; echo $PWD > where"
APPLY = 'test "$(cat where)" = "$PWD" && cat tfplan'


def task(
    name: str, kind: str = "plan", *, pool: str = "pool", plan: str = PLAN, apply: str = APPLY, **spec: Any
) -> Object:
    """A SlotTask whose steps are shell commands."""
    steps: dict[str, Any] = {}
    if kind != "apply":
        steps["plan"] = {"command": ["sh", "-c", plan], "cancelGraceSeconds": 2}
    if kind != "plan":
        steps["apply"] = {"command": ["sh", "-c", apply], "cancelGraceSeconds": 2}
    return {
        "apiVersion": SLOTTASKS.api_version,
        "kind": SLOTTASKS.kind,
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"pool": pool, "type": kind, "steps": steps, **spec},
    }


async def until(
    condition: Callable[[], Any],
    what: str | Callable[[], str],
    *,
    seconds: float = 90.0,
) -> Any:
    """Wait until `condition()`, a coroutine or not, is true; what it gave. AssertionError after `seconds`."""
    deadline = asyncio.get_running_loop().time() + seconds
    while True:
        try:
            found = condition()
            result = await found if isinstance(found, Awaitable) else found
        except (NotFound, Conflict, OSError, aiohttp.ClientError):
            result = None
        if result:
            return result
        if asyncio.get_running_loop().time() > deadline:
            raise AssertionError(f"not within {seconds} s: {what() if callable(what) else what}")
        await asyncio.sleep(0.05)
